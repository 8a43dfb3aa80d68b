"""splitimage composite delete"""

from __future__ import annotations

import argparse

from splitimage_driver.cli import base


class DeleteComposite(base.Command):
    """Delete composite images with their parts.

    Parts that something else uses stay, and file sets. Refused while
    completed images or servers came from it. In a cloud the parts go
    after [glance] grace, so that a launch that began before can end.
    """

    examples = ("composite delete lamp",)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("composites", nargs="+", metavar="COMPOSITE", help="name or id")
        parser.add_argument("--keep-parts", action="store_true",
                            help="delete only the composite itself (in a cloud parts that no "
                                 "composite refers to go all the same, after [glance] grace)")

    def perform(self, parsed_args: argparse.Namespace) -> None:
        for name in parsed_args.composites:
            found = self.application.composites.composite(name)
            self.application.store.delete_composite(found.id, parts=not parsed_args.keep_parts)
