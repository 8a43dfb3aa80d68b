"""The command ``splitimage``: global options, and what holds for each command."""

from __future__ import annotations

import argparse
import difflib
import functools
import importlib.metadata
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import autopage.argparse
from cliff.app import App
from cliff.command import Command
from cliff.commandmanager import CommandManager
from cliff.help import HelpExit
from pbr.version import VersionInfo

from splitimage_driver import exceptions
from splitimage_driver.cli import errors, progress, session
from splitimage_driver.cli.session import Session

if TYPE_CHECKING:
    from splitimage_driver.application import Application

DESCRIPTION = """\
One composite image of a gold machine, any combination of its parts as a server."""
#: argparse's exit code.
USAGE = 2


class Commands(CommandManager):
    """The entry points of a namespace; a command is imported when it is
    used, and one that cannot be is an error that names it."""

    def load_commands(self, namespace: str) -> None:
        self.group_list.append(namespace)
        for point in importlib.metadata.entry_points(group=namespace):
            self.commands[point.name.replace("_", " ")] = point

    def find_command(self, argv: list[str]) -> tuple[type[Command], str, list[str]]:
        """:raises ValueError: there is none
        :raises PluginLoadFailed:"""
        try:
            return super().find_command(argv)
        except ValueError:
            raise
        except Exception as error:
            raise exceptions.PluginLoadFailed(name=" ".join(argv[:2]), namespace=self.namespace,
                                              reason=str(error)) from error


class SplitImage(App):
    """Global options may stand before or after the command."""

    NAME = session.NAME

    def __init__(self) -> None:
        super().__init__(DESCRIPTION, _version(), Commands("splitimage.cli"),
                         deferred_help=True)

    def build_option_parser(self, description: str | None, version: str | None,
                            argparse_kwargs: dict[str, Any] | None = None,
                            ) -> argparse.ArgumentParser:
        # No abbreviations: a command's own option could be taken for one.
        parser = argparse.ArgumentParser(
            prog=self.NAME, description=description, add_help=False, allow_abbrev=False,
            usage="%(prog)s [GLOBAL OPTIONS] COMMAND [OPTIONS]", **(argparse_kwargs or {}))
        place = parser.add_argument_group("where")
        place.add_argument("--store", type=Path, metavar="DIR",
                           help="the store's directory (default: $SPLITIMAGE_STORE, then "
                                "[store] path, then ~/.local/share/splitimage); with a cloud: "
                                "where this host keeps what it has fetched (default: "
                                "clouds/NAME below that directory)")
        place.add_argument("--os-cloud", metavar="NAME", dest="cloud",
                           help="the store is the image service of this cloud, as clouds.yaml "
                                "names it (default with [store] driver = glance: [glance] "
                                "cloud, then $OS_CLOUD)")
        place.add_argument("--project", metavar="NAME",
                           help="the project that acts (default: [store] project; in a cloud "
                                "always that of the login)")
        place.add_argument("--config-file", action="append", metavar="FILE",
                           help="read options from FILE, not from the default places (repeat "
                                "for more)")
        told = parser.add_argument_group("what is told, on standard error")
        told.add_argument("--progress", choices=progress.WAYS, default=progress.AUTO,
                          help="a bar, JSON lines, or nothing; auto is a bar on a terminal "
                               "(default: auto)")
        how_much = told.add_mutually_exclusive_group()
        how_much.add_argument("-v", "--verbose", action="count", dest="verbose_level",
                              default=self.DEFAULT_VERBOSE_LEVEL, help="what is done, too")
        how_much.add_argument("-q", "--quiet", action="store_const", dest="verbose_level",
                              const=0, help="errors only, no warnings")
        told.add_argument("--debug", action="store_true",
                          help="everything, and tracebacks of errors")
        told.add_argument("--log-file", metavar="FILE", help="write a log there as well")
        other = parser.add_argument_group("other")
        other.add_argument("-h", "--help", action="store_true", dest="deferred_help",
                           help="this help, or that of the command")
        other.add_argument("--version", action="version", version=f"{self.NAME} {version}",
                           help="the version")
        return parser

    def print_help_if_requested(self) -> None:
        if not self.options.deferred_help:
            return
        with autopage.argparse.help_pager(self.stdout) as out:
            self.parser.print_help(out)
            out.write("\ncommands:\n")
            names = sorted(self.command_manager.commands)
            width = max(map(len, names))
            for name in names:
                command = self.command_manager.commands[name].load()(self, None)
                summary = command.get_description().partition("\n")[0].rstrip(".")
                out.write(f"  {name:<{width}}  {summary}\n")
        raise HelpExit

    def configure_logging(self) -> None:
        from splitimage_driver.cli import logs
        logs.configure(self.options.config_file, verbosity=self.options.verbose_level,
                       debug=self.options.debug, log_file=self.options.log_file)

    def interact(self) -> None:
        """Without a command: say what there is."""
        self.options.deferred_help = True
        try:
            self.print_help_if_requested()
        except HelpExit:
            raise SystemExit(USAGE) from None

    def run_subcommand(self, argv: list[str]) -> int:
        try:
            self.command_manager.find_command(argv)
        except ValueError:
            words = " ".join(itertools.takewhile(lambda w: not w.startswith("-"), argv))
            names = sorted(self.command_manager.commands)
            near = ([n for n in names if n.startswith(words + " ")]
                    or difflib.get_close_matches(words, names) or ["--help"])
            errors.say(f"there is no command {words!r}",
                       "see " + ", ".join(f"splitimage {name}" for name in near))
            return USAGE
        except exceptions.PluginLoadFailed as error:
            return errors.tell(error, debug=self.options.debug)
        return super().run_subcommand(argv)

    @functools.cached_property
    def client_manager(self) -> SimpleNamespace:
        """See :mod:`splitimage_driver.cli.session`."""
        options = self.options

        def build() -> Application:
            from splitimage_driver.application import Application
            return Application(options.store, files=options.config_file,
                               project=options.project, cloud=options.cloud)

        return SimpleNamespace(splitimage=Session(
            build, progress=options.progress, debug=options.debug))


def _version() -> str:
    return str(VersionInfo("splitimage-driver").release_string())


def main(argv: Sequence[str] | None = None) -> int:
    """:returns: the exit status"""
    session.end_in_order()
    try:
        status = SplitImage().run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except SystemExit as end:  # argparse, help, a signal: all is said
        status = end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:
        status = 128 + signal.SIGPIPE
    except OSError as error:  # no room for what it says
        status = errors.tell(error)
    try:
        sys.stdout.flush()
    except OSError:
        # What is still buffered goes nowhere, quietly: its error would take
        # the place of the status at the very end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status
