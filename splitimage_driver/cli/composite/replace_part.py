"""splitimage composite replace-part"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from splitimage_driver.cli import base, lookup
from splitimage_driver.cli.views import composites


class ReplacePart(base.ShowOne):
    """Put another stored part in the place of one of a composite image.

    Its name and relations in the composite stay. Servers and completed
    images made before stay as they are.
    """

    examples = ("composite replace-part lamp site 4b825dc642cb",)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("composite", metavar="COMPOSITE", help="its name or id")
        parser.add_argument("name", metavar="NAME", help="the part of the composite to replace")
        parser.add_argument("part", metavar="PART", help="name or id of the stored part to take")

    def fields(self, parsed_args: argparse.Namespace) -> Mapping[str, Any]:
        part = lookup.part(self.application, parsed_args.part)
        changed = self.application.composites.replace_part(
            parsed_args.composite, parsed_args.name, part.id)
        return composites.composite(changed, self.application.store)
