"""splitimage composite show"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from splitimage_driver.cli import base, lookup
from splitimage_driver.cli.views import composites


class ShowComposite(base.ShowOne):
    """Show a composite image: system, base, parts and their relations.

    Dependency parts, which come along by themselves, are counted; --all
    lists them too.
    """

    examples = ("composite show lamp", "composite show lamp --all -f json")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("composite", metavar="COMPOSITE", help="its name or id")
        parser.add_argument("--all", action="store_true", help="list dependency parts too")

    def fields(self, parsed_args: argparse.Namespace) -> Mapping[str, Any]:
        return composites.composite(lookup.composite(self.application, parsed_args.composite),
                               self.application.store, hidden=parsed_args.all)
