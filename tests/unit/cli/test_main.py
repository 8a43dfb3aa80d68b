"""The command as a whole: help, global options, failures."""

from __future__ import annotations

import configparser
import importlib.metadata
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cliff.command import Command

from splitimage_driver import exceptions
from splitimage_driver.cli import base, main

from .conftest import Done

ROOT = Path(__file__).resolve().parents[3]
Run = Callable[..., Done]


def declared() -> dict[str, str]:
    """Command to class, as setup.cfg says."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lines = parser["entry_points"]["splitimage.cli"].strip().splitlines()
    return {name.strip().replace("_", " "): target.strip()
            for name, _, target in (line.partition("=") for line in lines)}


COMMANDS = declared()


def command(name: str) -> base._Common:
    module, _, attribute = COMMANDS[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)(main.SplitImage(), None)
    assert isinstance(found, base._Common)
    return found


def test_a_command_is_a_file() -> None:
    """``image list`` is in cli/image/list.py, and alone there."""
    for name, target in COMMANDS.items():
        path = name.replace(" ", ".").replace("-", "_")
        assert target.partition(":")[0] == f"splitimage_driver.cli.{path}"
    files = {str(p.relative_to(ROOT / "splitimage_driver/cli"))[:-3].replace("/", " ")
             for p in (ROOT / "splitimage_driver/cli").rglob("*.py")
             if "class " in p.read_text() and "base." in p.read_text()}
    assert {name.replace("-", "_") for name in COMMANDS} <= files


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_a_command_does_with_an_example(name: str) -> None:
    text = command(name).get_parser(f"splitimage {name}").format_help()
    assert "example" in text
    assert f"splitimage {name}" in text.rpartition("example")[2]
    for line in text.splitlines():
        assert len(line) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_are_command_lines(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each can be typed as it is."""
    found = command(name)
    assert found.examples
    for example in found.examples:
        words = shlex.split(example.replace("\\\n", " "))  # as a shell joins them
        assert " ".join(words[:len(name.split())]) == name
        found.get_parser(name).parse_args(words[len(name.split()):])


def test_without_a_command_there_is_help_and_a_status(run: Run) -> None:
    done = run()
    assert done.status == 2
    for name in COMMANDS:
        assert f"  {name} " in done.out


@pytest.mark.parametrize("words", [("--help",), ("-h",)])
def test_help_lists_the_commands(words: tuple[str, ...], run: Run) -> None:
    done = run(*words)
    assert done.status == 0
    assert "--store DIR" in done.out
    assert all(f"  {name} " in done.out for name in COMMANDS)


@pytest.mark.parametrize("words", [("image", "list", "--help"), ("help", "image", "list"),
                                   ("--debug", "image", "list", "-h")])
def test_help_of_a_command(words: tuple[str, ...], run: Run) -> None:
    done = run(*words)
    assert done.status == 0
    assert done.out.startswith("usage: splitimage image list")


def test_version(run: Run) -> None:
    assert run("--version").out.startswith("splitimage ")


@pytest.mark.parametrize(("words", "near"), [
    (("frobnicate",), "splitimage --help"), (("imagelist",), "splitimage image list"),
    (("image",), "splitimage image show"), (("image", "lits", "--long"), "splitimage image list"),
])
def test_an_unknown_command_is_told_with_what_is_near(words: tuple[str, ...], near: str,
                                                      run: Run) -> None:
    done = run(*words)
    assert done.status == 2
    assert done.out == ""
    assert near in done.err


def test_global_options_stand_before_or_after(run: Run, application: Any) -> None:
    run("--store", "/one", "--project", "p", "composite", "list", "--config-file", "a.conf")
    run("composite", "list", "--store", "/two")
    run("composite", "list", "--os-cloud", "mine")
    assert application.opened == [(Path("/one"), ["a.conf"], "p", None),
                                  (Path("/two"), None, None, None), (None, None, None, "mine")]


def test_the_application_is_closed_after_a_command(run: Run, application: Any) -> None:
    application.store.composites.side_effect = exceptions.LockTimeout(what="it", seconds=1)
    assert run("composite", "list").status == 35
    application.close.assert_called_once_with()


def test_a_command_that_needs_no_store_opens_none(run: Run, application: Any) -> None:
    assert run("complete").status == 0
    assert application.opened == []


@pytest.mark.parametrize(("raised", "status", "said"), [
    (exceptions.NotFound(kind="image", name="x", where="/store"), 10, "no image named x"),
    (RuntimeError("what"), 1, "unexpected failure: RuntimeError: what"),
    (KeyboardInterrupt(), 130, "interrupted"),
])
def test_a_failure_is_a_line_and_a_status(raised: BaseException, status: int, said: str,
                                          run: Run, application: Any) -> None:
    application.store.images.side_effect = raised
    done = run("image", "list")
    assert done.status == status
    assert done.err.startswith("splitimage: ")
    assert said in done.err.splitlines()[0]
    assert "Traceback" not in done.err
    assert "Traceback" in run("--debug", "image", "list").err


def test_an_error_code_is_never_taken_twice() -> None:
    def below(base_: type[Any]) -> list[type[Any]]:
        return [sub for one in base_.__subclasses__() for sub in (one, *below(one))]

    codes = [e.exit_code for e in below(exceptions.SplitImageError)
             if e.__module__ == exceptions.__name__ and "exit_code" in vars(e)]
    assert len(codes) == len(set(codes))
    assert not {0, 1, 2, 130, 141, 143} & set(codes)


class Broken:
    """An entry point whose module cannot be imported."""

    name, group, value = "broken", "splitimage.cli", "nowhere:Broken"

    def load(self) -> type[Command]:
        raise ModuleNotFoundError("No module named 'nowhere'")


def test_a_command_that_does_not_load_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Broken()])
    done = run("broken")
    assert done.status == 46
    assert "broken" in done.err
    assert "nowhere" in done.err
