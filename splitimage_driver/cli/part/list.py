"""splitimage part list"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from splitimage_driver.cli import base
from splitimage_driver.cli.views import parts
from splitimage_driver.model.part import DEPENDENCY, RESTORE


class ListParts(base.Lister):
    """List the project's stored parts: software and file sets.

    Dependency parts and what restores a base are left out without --all.
    """

    examples = ("part list", "part list --all --long")
    columns = parts.PARTS

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--all", action="store_true", help="list all kinds")

    def records(self, parsed_args: argparse.Namespace) -> Iterable[Any]:
        return [p for p in self.application.store.parts(owner=self.application.project)
                if parsed_args.all or p.kind not in (DEPENDENCY, RESTORE)]
