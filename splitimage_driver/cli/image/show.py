"""splitimage image show"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from splitimage_driver.cli import base, lookup
from splitimage_driver.cli.views import images


class ShowImage(base.ShowOne):
    """Show a completed image."""

    examples = ("image show lamp+apache+php",)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("image", metavar="IMAGE", help="its name or id")

    def fields(self, parsed_args: argparse.Namespace) -> Mapping[str, Any]:
        return images.image(lookup.image(self.application, parsed_args.image),
                           self.application.store)
