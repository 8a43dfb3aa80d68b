"""splitimage composite remove-part"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from splitimage_driver.cli import base
from splitimage_driver.cli.views import composites


class RemovePart(base.ShowOne):
    """Take a part out of a composite image.

    Dependency parts that nothing requires any more go with it. Servers and
    completed images made before stay as they are.
    """

    examples = ("composite remove-part lamp php",)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("composite", metavar="COMPOSITE", help="its name or id")
        parser.add_argument("name", metavar="NAME", help="the part of the composite")

    def fields(self, parsed_args: argparse.Namespace) -> Mapping[str, Any]:
        changed = self.application.composites.remove_part(
            parsed_args.composite, parsed_args.name)
        return composites.composite(changed, self.application.store)
