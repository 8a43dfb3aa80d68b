"""splitimage server add-part"""

from __future__ import annotations

import argparse

from splitimage_driver.cli import arguments, base
from splitimage_driver.model.plan import Request


class AddServerPart(base.Command):
    """Let a running server lay more parts.

    What they require comes along. Files that were changed in the server stay
    as they are, and are told. Ends when all is laid.
    """

    examples = ("server add-part web --part php", "server add-part web --fileset ./page")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("server", metavar="SERVER", help="its name or id")
        arguments.add_parts(parser, of="the server's composite image")
        arguments.add_answers(parser)
        arguments.add_layout_timeout(parser, no_wait=True)
        self.parser = parser

    def perform(self, parsed_args: argparse.Namespace) -> None:
        if not parsed_args.parts and not parsed_args.filesets:
            self.parser.error("give --part or --fileset")
        arguments.one_each(parsed_args.answers, self.parser)
        servers = self.application.servers
        found = servers.show(parsed_args.server)
        request: Request = arguments.build(
            self.application, found.composite, parsed_args.parts, parsed_args.filesets,
            parsed_args.answers)
        server = servers.add_parts(found.id, request)
        if not parsed_args.no_wait:
            servers.wait(server.id, timeout=parsed_args.timeout)
