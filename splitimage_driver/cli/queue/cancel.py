"""splitimage queue cancel"""

from __future__ import annotations

import argparse

from splitimage_driver.cli import base


class CancelQueued(base.Command):
    """Take waiting assemblies out of the queue; their commands end with 18.

    One that runs already is stopped by interrupting its command.
    """

    examples = ("queue cancel 5f0c1a2b",)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("items", nargs="+", metavar="ID", help="as queue list shows it")

    def perform(self, parsed_args: argparse.Namespace) -> None:
        for item in parsed_args.items:
            self.application.store.cancel(item)
