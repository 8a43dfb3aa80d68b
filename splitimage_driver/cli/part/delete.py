"""splitimage part delete"""

from __future__ import annotations

import argparse

from splitimage_driver.cli import base, lookup


class DeletePart(base.Command):
    """Delete stored parts.

    Refused while a composite, an image or a server uses one.
    """

    examples = ("part delete page",)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("parts", nargs="+", metavar="PART", help="name or id")

    def perform(self, parsed_args: argparse.Namespace) -> None:
        for given in parsed_args.parts:
            part = lookup.part(self.application, given)
            self.application.store.delete_part(part.id, owner=self.application.project)
