"""What is logged, and where."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitimage_driver.cli import logs

LOG = logging.getLogger("splitimage_driver.test")


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """Logging as it was before."""
    logger = logging.getLogger()
    before = logger.handlers[:], logger.level, sys.excepthook
    levels = {name: logging.getLogger(name).level for name in logging.root.manager.loggerDict}
    yield
    for handler in set(logger.handlers) - set(before[0]):
        handler.close()
    logger.handlers[:], sys.excepthook = before[0], before[2]
    logger.setLevel(before[1])
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def said(capsys: pytest.CaptureFixture[str], **how: object) -> list[str]:
    settings = {"verbosity": 1, "debug": False, "log_file": None, **how}
    logs.configure(None, **settings)  # type: ignore[arg-type]
    LOG.debug("a detail")
    LOG.info("a step")
    LOG.warning("a doubt\nin two lines \x1b[1m")
    LOG.error("a failure")
    return capsys.readouterr().err.splitlines()


WARNING = "splitimage: warning: a doubt in two lines \\x1b[1m"


@pytest.mark.parametrize(("verbosity", "lines"), [
    (0, ["splitimage: error: a failure"]),
    (1, [WARNING, "splitimage: error: a failure"]),
    (2, ["splitimage: info: a step", WARNING, "splitimage: error: a failure"]),
])
def test_more_is_said_on_request(verbosity: int, lines: list[str],
                                 capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, verbosity=verbosity) == lines


def test_debug_says_everything_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, debug=True)
    detail = next(line for line in lines if "a detail" in line)
    assert "splitimage_driver.test" in detail
    assert "req-" in detail
    assert not any("\x1b" in line for line in lines)


def test_a_log_file_has_more_than_the_terminal(tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, log_file=str(tmp_path / "log"))
    assert len(lines) == 2
    logged = (tmp_path / "log").read_text()
    assert "a step" in logged
    assert "a detail" not in logged


def test_a_bad_configuration_is_left_to_those_who_need_it(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure([str(tmp_path / "absent.conf")], verbosity=1, debug=False, log_file=None)
    LOG.warning("still here")
    assert capsys.readouterr().err == "splitimage: warning: still here\n"


def test_in_another_program_its_handlers_get_harmless_text(
        capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
    logs.join()
    LOG.info("a step")
    LOG.warning("a doubt about %s", "\x1b[1m")
    logging.getLogger("theirs").warning("it is \x1b[1mbold\x1b[0m")
    assert capsys.readouterr().err.splitlines() == [
        "a doubt about \\x1b[1m", "it is \x1b[1mbold\x1b[0m"]
