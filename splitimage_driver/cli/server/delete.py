"""splitimage server delete"""

from __future__ import annotations

import argparse

from splitimage_driver.cli import base


class DeleteServer(base.Command):
    """Delete servers with their disks; the power is cut where one runs."""

    examples = ("server delete web",)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("servers", nargs="+", metavar="SERVER", help="name or id")

    def perform(self, parsed_args: argparse.Namespace) -> None:
        for name in parsed_args.servers:
            self.application.servers.delete(name)
