"""splitimage server show"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from splitimage_driver.cli import base
from splitimage_driver.cli.views import servers


class ShowServer(base.ShowOne):
    """Show a server."""

    examples = ("server show web",)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("server", metavar="SERVER", help="its name or id")

    def fields(self, parsed_args: argparse.Namespace) -> Mapping[str, Any]:
        return servers.server(self.application.servers.show(parsed_args.server),
                              self.application.store)
