"""splitimage server wait"""

from __future__ import annotations

import argparse

from splitimage_driver.cli import arguments, base


class WaitServer(base.Command):
    """Wait until servers have laid all their parts.

    A server that lays its parts while it runs goes on by itself, whether or
    not anybody waits for it.
    """

    examples = ("server wait web", "server wait web --timeout 600")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("servers", nargs="+", metavar="SERVER", help="name or id")
        arguments.add_layout_timeout(parser)

    def perform(self, parsed_args: argparse.Namespace) -> None:
        for name in parsed_args.servers:
            self.application.servers.wait(name, timeout=parsed_args.timeout)
