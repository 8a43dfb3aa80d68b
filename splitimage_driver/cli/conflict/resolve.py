"""splitimage conflict resolve"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from splitimage_driver import exceptions
from splitimage_driver.cli import base
from splitimage_driver.cli.views import composites
from splitimage_driver.model.composite import ACTIONS

_LIMIT = 4 << 20


class ResolveConflict(base.Lister):
    """Answer what parts of a composite disagree about.

    The answer is kept in the composite and used from then on, wherever two of
    these parts meet: keep takes the base's version, replace that of --part,
    concatenate joins all, three-way merges the changes of all into the base's
    version, file takes the content of --file. What other parts change in the
    file is merged with that. Answering again takes another answer in its place.
    Lists the composite's conflicts: an answer may leave another question.
    """

    examples = ("conflict resolve lamp /etc/motd replace --part apache",
                "conflict resolve lamp /etc/motd file --file ./motd")
    columns = composites.CONFLICTS

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("composite", metavar="COMPOSITE", help="its name or id")
        parser.add_argument("path", metavar="PATH", help="as conflict list shows it")
        parser.add_argument("action", choices=ACTIONS, help="the answer")
        parser.add_argument("--part", default="", metavar="PART",
                            help="with replace: whose version wins")
        parser.add_argument("--file", type=Path, metavar="FILE", help="with file: the content")
        self.parser = parser

    def records(self, parsed_args: argparse.Namespace) -> Iterable[Any]:
        if (parsed_args.action == "replace") != bool(parsed_args.part):
            self.parser.error("--part goes with replace, and replace with --part")
        if (parsed_args.action == "file") != bool(parsed_args.file):
            self.parser.error("--file goes with file, and file with --file")
        content = _content(parsed_args.file) if parsed_args.file else b""
        changed = self.application.composites.resolve(
            parsed_args.composite, parsed_args.path, parsed_args.action, part=parsed_args.part,
            content=content)
        return composites.conflicts(changed)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
    except OSError as error:
        raise exceptions.InvalidInput(what=str(path),
                                      reason=error.strerror or str(error)) from error
    if len(content) > _LIMIT:
        raise exceptions.InvalidInput(what=str(path), reason=f"it has more than {_LIMIT} bytes")
    return content
