"""splitimage store check"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from splitimage_driver import exceptions
from splitimage_driver.cli import base
from splitimage_driver.cli.columns import Column


class CheckStore(base.Lister):
    """Verify every digest and reference of the store, and find leftovers.

    Ends with 25 if something is damaged or missing. Leftovers of commands
    that were killed are harmless; --repair removes those older than [store]
    grace. Nothing that is recorded is ever removed. In a cloud what is on
    this host is checked, and all that the project has in the image service:
    --repair there puts right who sees parts, and removes parts that no
    composite refers to, after [glance] grace.
    """

    examples = ("store check", "store check --repair")
    columns = (Column("kind", lambda f: f.kind), Column("subject", lambda f: f.subject),
               Column("detail", lambda f: f.detail),
               Column("repaired", lambda f: f.repaired))

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--repair", action="store_true", help="remove leftovers")

    def records(self, parsed_args: argparse.Namespace) -> Iterable[Any]:
        found = list(self.application.store.check(repair=parsed_args.repair))
        if not all(finding.harmless for finding in found):
            self.status = exceptions.DigestMismatch.exit_code
        return found
