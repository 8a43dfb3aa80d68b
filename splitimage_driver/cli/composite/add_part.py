"""splitimage composite add-part"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from splitimage_driver.cli import base, lookup
from splitimage_driver.cli.views import composites


class AddPart(base.ShowOne):
    """Add a stored part to a composite image.

    Servers and completed images made before stay as they are.
    """

    examples = ("composite add-part lamp page", "composite add-part lamp page --name site "
                "--requires apache")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("composite", metavar="COMPOSITE", help="its name or id")
        parser.add_argument("part", metavar="PART", help="name or id of a stored part")
        parser.add_argument("--name", metavar="NAME",
                            help="in the composite (default: the part's own)")
        parser.add_argument("--requires", action="append", default=[], metavar="PART",
                            help="a part of the composite that comes with it (repeat for more)")

    def fields(self, parsed_args: argparse.Namespace) -> Mapping[str, Any]:
        part = lookup.part(self.application, parsed_args.part)
        changed = self.application.composites.add_part(
            parsed_args.composite, part.id, name=parsed_args.name or part.name,
            requires=parsed_args.requires)
        return composites.composite(changed, self.application.store)
