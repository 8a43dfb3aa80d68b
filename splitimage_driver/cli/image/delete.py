"""splitimage image delete"""

from __future__ import annotations

import argparse

from splitimage_driver.cli import base, lookup


class DeleteImage(base.Command):
    """Delete completed images; they can be made again at any time.

    Refused while a server runs on one.
    """

    examples = ("image delete lamp+apache+php",)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("images", nargs="+", metavar="IMAGE", help="name or id")

    def perform(self, parsed_args: argparse.Namespace) -> None:
        for given in parsed_args.images:
            self.application.store.delete_image(lookup.image(self.application, given).id)
