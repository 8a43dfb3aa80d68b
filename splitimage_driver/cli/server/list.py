"""splitimage server list"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from splitimage_driver.cli import base
from splitimage_driver.cli.views import composites, servers


class ListServers(base.Lister):
    """List the project's servers.

    A server that ended without being told to is stale; start it again, or
    delete it. Ports are those of the server and where 127.0.0.1 has them.
    """

    examples = ("server list", "server list --long")
    columns = servers.SERVERS

    def records(self, parsed_args: argparse.Namespace) -> Iterable[Any]:
        return composites.with_composites(self.application.servers.list(), self.application.store)
