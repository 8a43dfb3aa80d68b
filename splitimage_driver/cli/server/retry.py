"""splitimage server retry"""

from __future__ import annotations

import argparse

from splitimage_driver.cli import arguments, base


class RetryServer(base.Command):
    """Let a running server lay what it failed to lay.

    The parts that it is given are verified first; what it has laid already
    stays. Ends when all is laid, or has failed again.
    """

    examples = ("server retry web",)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("server", metavar="SERVER", help="its name or id")
        arguments.add_layout_timeout(parser, no_wait=True)

    def perform(self, parsed_args: argparse.Namespace) -> None:
        servers = self.application.servers
        server = servers.retry(parsed_args.server)
        if not parsed_args.no_wait:
            servers.wait(server.id, timeout=parsed_args.timeout)
