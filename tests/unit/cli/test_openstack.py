"""The plugin of ``openstack``: the same commands, and what they find there.

The shell is cliff's, as that of ``openstack`` is.
"""

from __future__ import annotations

import argparse
import configparser
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from cliff.app import App
from cliff.commandmanager import CommandManager

import splitimage_driver.application
from splitimage_driver import exceptions
from splitimage_driver.cli import logs, openstack

from . import records
from .conftest import Done

ROOT = Path(__file__).resolve().parents[3]
GROUP = "openstack.splitimage.v1"


def entry_points(group: str) -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return {name.strip(): target.strip() for name, _, target in (
        line.partition("=") for line in parser["entry_points"][group].strip().splitlines())}


COMMANDS = entry_points(GROUP)


class Commands(CommandManager):
    """As setup.cfg says, installed or not."""

    def load_commands(self, namespace: str) -> None:
        for name, target in entry_points(namespace).items():
            module, _, attribute = target.partition(":")
            self.add_command(name.replace("_", " "), getattr(
                importlib.import_module(module), attribute))


class Shell(App):
    """What ``openstack`` does before it runs a command."""

    NAME = "openstack"

    def __init__(self, **options: Any) -> None:
        super().__init__("", "1", Commands(GROUP), deferred_help=True)
        self.given = options

    def build_option_parser(self, *_: Any, **__: Any) -> argparse.ArgumentParser:
        return openstack.build_option_parser(super().build_option_parser("", "1"))

    def initialize_app(self, argv: list[str]) -> None:
        manager = SimpleNamespace(sdk_connection=mock.sentinel.connection,
                                  get_configuration=lambda: vars(self.options))
        manager.splitimage = openstack.make_client(manager)
        self.client_manager = manager

    def configure_logging(self) -> None:
        """None: pytest has its own."""


@pytest.fixture
def typed(application: Any, monkeypatch: pytest.MonkeyPatch,
          capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """``openstack`` and the words."""
    def opened(path: Path | None, **given: Any) -> Any:
        application.opened.append((path, given))
        return application

    monkeypatch.setattr(splitimage_driver.application, "Application", opened)
    monkeypatch.setattr(openstack.session, "_SIGNALS", ())
    monkeypatch.setattr(logs, "join", lambda: None)

    def run(*words: str) -> Done:
        try:
            status = Shell().run(list(words))
        except SystemExit as end:  # argparse
            status = int(end.code or 0)
        said = capsys.readouterr()
        return Done(status, said.out, said.err)

    return run


def test_both_shells_have_the_same_commands() -> None:
    own = entry_points("splitimage.cli")
    assert {f"splitimage_{name}": target for name, target in own.items()} == COMMANDS


def test_openstack_finds_the_plugin() -> None:
    [(name, target)] = entry_points("openstack.cli.extension").items()
    plugin = importlib.import_module(target)
    assert name == plugin.API_NAME
    assert f"openstack.{plugin.API_NAME}.v{plugin.DEFAULT_API_VERSION}" == GROUP
    assert plugin.DEFAULT_API_VERSION in plugin.API_VERSIONS
    option = "--" + plugin.API_VERSION_OPTION.replace("_", "-")
    options = plugin.build_option_parser(argparse.ArgumentParser()).parse_args([option, "1"])
    assert getattr(options, plugin.API_VERSION_OPTION) == "1"


def test_a_global_option_is_taken_for_none_of_another_plugin() -> None:
    """All of them stand in one line."""
    parser = openstack.build_option_parser(argparse.ArgumentParser(add_help=False))
    names = [name for action in parser._actions for name in action.option_strings]
    assert names
    assert all("splitimage" in name for name in names)


def test_the_commands_are_where_openstack_is_logged_in(typed: Callable[..., Done],
                                                       application: Any) -> None:
    application.store.composites.return_value = [records.composite()]
    application.project = records.composite().owner
    done = typed("splitimage", "composite", "list", "-f", "json")
    assert done.status == 0
    assert [c["name"] for c in json.loads(done.out)] == ["lamp"]
    [(path, given)] = application.opened
    assert path is None
    assert given == {"files": None, "connection": mock.sentinel.connection}
    application.close.assert_called_once_with()


def test_options_of_this_project_have_its_name(typed: Callable[..., Done],
                                               application: Any) -> None:
    typed("--splitimage-store", "/srv", "--splitimage-config-file", "one", "splitimage", "part",
          "list", "--splitimage-config-file", "two")
    [(path, given)] = application.opened
    assert path == Path("/srv")
    assert given["files"] == ["one", "two"]


def test_an_error_names_commands_as_they_are_typed(typed: Callable[..., Done],
                                                   application: Any) -> None:
    application.store.parts.side_effect = exceptions.NotFound(
        kind="part", name="splitimage x", where="cloud")
    done = typed("splitimage", "part", "list")
    assert done.status == 10
    assert done.err == ("splitimage: no part named splitimage x in cloud\n"
                        "  hint: list what there is with: openstack splitimage part list\n")
    assert "Traceback" in typed("--debug", "splitimage", "part", "list").err


def test_progress_is_shown_on_request(typed: Callable[..., Done], application: Any) -> None:
    from splitimage_driver.progress import Operation

    def listing(**_: Any) -> list[Any]:
        with Operation("download", 1, subject="x") as operation:
            operation.advance(1)
        return []

    application.store.parts.side_effect = listing
    assert typed("splitimage", "part", "list").err == ""
    told = typed("--splitimage-progress", "json", "splitimage", "part", "list").err.splitlines()
    assert {json.loads(line)["operation"] for line in told} == {"download"}


def test_help_has_examples_as_they_are_typed(typed: Callable[..., Done]) -> None:
    done = typed("splitimage", "plan", "--help")
    assert done.status == 0
    assert done.out.startswith("usage: openstack splitimage plan")
    assert "\n    openstack splitimage plan lamp" in done.out


def test_the_plugin_imports_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run of ``openstack`` does it."""
    heavy = {"splitimage_driver", "osc_lib", "openstack", "oslo_config", "oslo_log", "msgspec"}
    before = {name: module for name, module in sys.modules.items()
              if name.partition(".")[0] in heavy}
    for name in before:
        monkeypatch.delitem(sys.modules, name)
    try:
        importlib.import_module("splitimage_driver.cli.openstack")
        assert not (heavy - {"splitimage_driver", "msgspec"}) & set(sys.modules)
    finally:
        for name in [n for n in sys.modules if n.partition(".")[0] in heavy]:
            del sys.modules[name]
        sys.modules.update(before)
