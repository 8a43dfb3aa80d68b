"""What is said when something fails."""

from __future__ import annotations

import pytest
from oslo_config import cfg

from splitimage_driver import exceptions
from splitimage_driver.cli import errors


def test_an_error_is_a_line_a_hint_and_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    code = errors.tell(exceptions.ToolMissing(tool="qemu-img", package="qemu-utils"))
    assert code == 40
    assert capsys.readouterr().err == (
        "splitimage: qemu-img is not installed\n"
        "  hint: install it: apt-get install qemu-utils; splitimage doctor checks everything\n")


def test_an_error_is_one_line_whatever_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    errors.tell(exceptions.InvalidInput(what="a\nb", reason="\x1b]0;owned\x07\r\nsplitimage: ok"))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0] == "splitimage: a b: \\x1b]0;owned\\x07 splitimage: ok"


def test_an_unexpected_error_asks_for_debug(capsys: pytest.CaptureFixture[str]) -> None:
    assert errors.tell(KeyError("thing")) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "splitimage: unexpected failure: KeyError: 'thing'"
    assert "--debug" in lines[1]


def test_an_interruption_is_no_failure_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert errors.tell(KeyboardInterrupt()) == 130
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_bad_configuration_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert errors.tell(cfg.ConfigFilesNotFoundError(["/no/such.conf"])) == 15
    assert "/no/such.conf" in capsys.readouterr().err


def test_a_traceback_is_for_debug_only(capsys: pytest.CaptureFixture[str]) -> None:
    def failing() -> None:
        raise exceptions.BadDisk(path="x", reason="\x07")

    with pytest.raises(exceptions.BadDisk) as caught:
        failing()
    assert errors.tell(caught.value) == 20
    assert "Traceback" not in capsys.readouterr().err
    assert errors.tell(caught.value, debug=True) == 20
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "in failing" in said
    assert "\x07" not in said


def test_a_hint_names_commands_of_the_shell_they_are_typed_in(
        capsys: pytest.CaptureFixture[str]) -> None:
    errors.tell(exceptions.NotFound(kind="part", name="splitimage x", where="splitimage y"),
                program="openstack splitimage")
    assert capsys.readouterr().err == (
        "splitimage: no part named splitimage x in splitimage y\n"
        "  hint: list what there is with: openstack splitimage part list\n")
