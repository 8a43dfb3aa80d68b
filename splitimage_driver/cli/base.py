"""What commands have in common: errors, progress, examples, output.

A command says what it does in :meth:`perform`, :meth:`records` or
:meth:`fields`; it finds the services at :attr:`application`.
"""

from __future__ import annotations

import abc
import argparse
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from cliff import command, lister, show
from cliff._argparse import SmartHelpFormatter

from splitimage_driver import exceptions
from splitimage_driver.cli import columns, errors, progress, session
from splitimage_driver.cli.columns import Column, Listing
from splitimage_driver.cli.session import Session

if TYPE_CHECKING:
    from splitimage_driver.application import Application

#: Formats that keep structure, and escape control characters themselves.
_STRUCTURED = ("json", "yaml")
_TABLE = "table"


class _Help(SmartHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Lines of descriptions and examples stay lines."""


class _Common(command.Command):
    """:cvar examples: command lines without the word ``splitimage``, for the help"""

    examples: ClassVar[Sequence[str]] = ()

    @property
    def session(self) -> Session:
        found: Session = self.app.client_manager.splitimage  # type: ignore[attr-defined]
        return found

    @property
    def application(self) -> Application:
        return self.session.application

    @property
    def program(self) -> str:
        """What is typed before the words of a command."""
        shell = getattr(self.app, "NAME", session.NAME)  # without an app it is documentation
        return session.NAME if shell == session.NAME else session.BELOW_OPENSTACK

    def get_epilog(self) -> str:
        title = "example" if len(self.examples) == 1 else "examples"
        # Without an app it is the documentation that asks.
        lines = [f"{title.capitalize()}::", ""] if self.app is None else [f"{title}:"]
        return "\n".join([*lines, *(f"    {self.program} {example}" for example in self.examples)])

    def get_description(self) -> str:
        found = super().get_description()
        return found if self.app is None else found.replace("::\n", ":\n")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.formatter_class = _Help
        self.add_arguments(parser)
        return parser

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The command's own; the output format's are there already."""

    def run(self, parsed_args: argparse.Namespace) -> int:
        try:
            with contextlib.closing(self.session):
                return super().run(parsed_args)
        except BrokenPipeError:
            raise
        except (Exception, KeyboardInterrupt) as error:
            return self.tell(error)

    def tell(self, error: BaseException) -> int:
        """Print an error; returns the exit code."""
        return errors.tell(error, debug=self.session.debug, program=self.program)

    def _progress(self) -> Any:
        return progress.shown(self.session.progress, self.cmd_name or "")


class Command(_Common):
    """One that only does something."""

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        with self._progress():
            return self.perform(parsed_args) or 0

    @abc.abstractmethod
    def perform(self, parsed_args: argparse.Namespace) -> int | None:
        """Do it; returns the exit code, None for success."""


class Lister(_Common, lister.Lister):
    """One that lists records."""

    #: All there are.
    columns: Sequence[Column] = ()
    #: The exit code after the list; commands that judge raise it.
    status = 0

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        if any(column.long for column in self.columns):
            parser.add_argument("--long", action="store_true", help="show all columns")
        return parser

    @abc.abstractmethod
    def records(self, parsed_args: argparse.Namespace) -> Iterable[Any]:
        """What to list, in order."""

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[Any]]:
        # Before anything is done that could not be shown.
        _check_columns(parsed_args, [c.name for c in self.columns])
        with self._progress():
            found = list(self.records(parsed_args))
        wide = (getattr(parsed_args, "long", True) or parsed_args.columns
                or parsed_args.formatter in _STRUCTURED)
        chosen = [c for c in self.columns if wide or not c.long]
        show = _reader(parsed_args)
        return (_names(parsed_args, [c.name for c in chosen]),
                [tuple(show(c.value(record)) for c in chosen) for record in found])

    def produce_output(self, parsed_args: argparse.Namespace, column_names: Sequence[str],
                       data: Any) -> int:
        # An empty table would be an empty line.
        if data or parsed_args.formatter != _TABLE or parsed_args.print_empty:
            super().produce_output(parsed_args, column_names, data)
        return 0

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or self.status


class ShowOne(_Common, show.ShowOne):
    """One that shows a single object."""

    @abc.abstractmethod
    def fields(self, parsed_args: argparse.Namespace) -> Mapping[str, Any]:
        """Its fields, in order; a :class:`Listing` becomes a table of its own."""

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Sequence[Any]]:
        with self._progress():
            found = self.fields(parsed_args)
        _check_columns(parsed_args, found)
        self._listings: list[Listing] = []
        if parsed_args.formatter == _TABLE:
            wanted = {_plain(name) for name in parsed_args.columns}
            self._listings = [value for name, value in found.items()
                              if isinstance(value, Listing)
                              and (not wanted or _plain(name) in wanted)]
            found = {n: v for n, v in found.items() if not isinstance(v, Listing)}
            if wanted and wanted.isdisjoint(map(_plain, found)):
                found = {}
        show = _reader(parsed_args)
        return _names(parsed_args, found), [show(value) for value in found.values()]

    def produce_output(self, parsed_args: argparse.Namespace, column_names: Sequence[str],
                       data: Any) -> int:
        if data:
            super().produce_output(parsed_args, column_names, data)
        for number, listing in enumerate(one for one in self._listings if one.records):
            self.app.stdout.write(f"{chr(10) if data or number else ''}{listing.title}\n")
            shown = [column for column in listing.columns if not column.long]
            self.formatter.emit_list(  # type: ignore[attr-defined]
                [column.name for column in shown],
                [tuple(columns.human(column.value(record)) for column in shown)
                 for record in listing.records], self.app.stdout, parsed_args)
        return 0


def _plain(name: str) -> str:
    """A column's name as cliff compares it."""
    return columns.key(name.strip().lower())


def _check_columns(parsed_args: argparse.Namespace, names: Iterable[str]) -> None:
    """:raises InvalidInput: -c names a column that there is not"""
    known = sorted({_plain(name) for name in names})
    for given in parsed_args.columns:
        if _plain(given) not in known:
            raise exceptions.InvalidInput(
                what=f"column {given}", reason=f"there are {', '.join(known)}")


def _names(parsed_args: argparse.Namespace, names: Iterable[str]) -> list[str]:
    if parsed_args.formatter == _TABLE:
        return list(names)
    return [columns.key(name) for name in names]


def _reader(parsed_args: argparse.Namespace) -> Any:
    """How values are shown in the format asked for."""
    if parsed_args.formatter in _STRUCTURED:
        return columns.machine
    return columns.human if parsed_args.formatter == _TABLE else columns.plain
