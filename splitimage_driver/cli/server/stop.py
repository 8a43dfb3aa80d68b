"""splitimage server stop"""

from __future__ import annotations

import argparse

from splitimage_driver.cli import arguments, base


class StopServer(base.Command):
    """Shut servers down; their disks stay."""

    examples = ("server stop web", "server stop web --timeout 0")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("servers", nargs="+", metavar="SERVER", help="name or id")
        parser.add_argument("--timeout", type=arguments.seconds, metavar="SECONDS",
                            help="after which the power is cut; 0 cuts it at once "
                                 "(default: [launch] stop_timeout)")

    def perform(self, parsed_args: argparse.Namespace) -> None:
        for name in parsed_args.servers:
            self.application.servers.stop(name, timeout=parsed_args.timeout)
