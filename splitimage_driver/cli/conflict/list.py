"""splitimage conflict list"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from splitimage_driver.cli import base, lookup
from splitimage_driver.cli.columns import Column
from splitimage_driver.cli.views import composites


class ListConflicts(base.Lister):
    """List what parts of composites disagree about.

    Open questions come first, then those that are answered.
    """

    examples = ("conflict list", "conflict list lamp")
    columns = (Column("composite", lambda c: c["composite"]), *composites.CONFLICTS)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("composite", metavar="COMPOSITE", nargs="?",
                            help="its name or id (default: all of the project)")

    def records(self, parsed_args: argparse.Namespace) -> Iterable[Any]:
        application = self.application
        found = ([lookup.composite(application, parsed_args.composite)]
                 if parsed_args.composite else
                 [c for c in application.store.composites() if c.owner == application.project])
        return [{"composite": c.name, **conflict} for c in found
                for conflict in composites.conflicts(c)]
