"""splitimage server start"""

from __future__ import annotations

import argparse

from splitimage_driver.cli import base


class StartServer(base.Command):
    """Start stopped or stale servers again; they keep their disks and ports."""

    examples = ("server start web",)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("servers", nargs="+", metavar="SERVER", help="name or id")

    def perform(self, parsed_args: argparse.Namespace) -> None:
        for name in parsed_args.servers:
            self.application.servers.start(name)
