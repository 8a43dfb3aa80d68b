"""splitimage server remove-part"""

from __future__ import annotations

import argparse

from splitimage_driver.cli import arguments, base, lookup
from splitimage_driver.model.part import FILESET
from splitimage_driver.model.plan import Request


class RemoveServerPart(base.Command):
    """Let a running server remove parts.

    What nothing else requires goes with them; their services are stopped
    first. Where something of it was changed in the server nothing is removed,
    unless --force is given. Ends when all is gone.
    """

    examples = ("server remove-part web --part php",
                "server remove-part web --fileset page --force")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("server", metavar="SERVER", help="its name or id")
        parser.add_argument("--part", action="append", default=[], dest="parts", metavar="PART",
                            help="a part that it was asked for (repeat for more)")
        parser.add_argument("--fileset", action="append", default=[], dest="filesets",
                            metavar="F", help="name or id of a file set (repeat for more)")
        parser.add_argument("--force", action="store_true",
                            help="remove what was changed in the server, too")
        arguments.add_layout_timeout(parser, no_wait=True)
        self.parser = parser

    def perform(self, parsed_args: argparse.Namespace) -> None:
        if not parsed_args.parts and not parsed_args.filesets:
            self.parser.error("give --part or --fileset")
        servers = self.application.servers
        found = servers.show(parsed_args.server)
        request = Request(
            composite=found.composite, parts=arguments.unique(parsed_args.parts),
            filesets=arguments.unique(lookup.part(self.application, given, kind=FILESET).id
                                      for given in parsed_args.filesets))
        server = servers.remove_parts(found.id, request, force=parsed_args.force)
        if not parsed_args.no_wait:
            servers.wait(server.id, timeout=parsed_args.timeout)
