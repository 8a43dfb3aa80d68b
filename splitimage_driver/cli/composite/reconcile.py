"""splitimage composite reconcile"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from splitimage_driver.cli import base, lookup
from splitimage_driver.cli.columns import Column


class ReconcileComposite(base.Lister):
    """Repair who sees the parts of a composite image in a cloud.

    Parts are images of their own there: whoever sees the composite has to see
    them, and nobody else. Commands of this project see to it; this is for
    composites that were shared, published, deactivated or deleted by others,
    where the image service does not do it itself. Lists what was done.
    """

    examples = ("composite reconcile lamp", "composite reconcile",
                "composite reconcile 2f6b6a1e-0d5c-4d0e-9a39-1c7a2f8f6e11")
    columns = (Column("image", lambda f: f.subject), Column("done", lambda f: f.detail))

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("composite", metavar="COMPOSITE", nargs="?",
                            help="its name or id, also the id of one that was deleted "
                                 "(default: all of the project)")

    def records(self, parsed_args: argparse.Namespace) -> Iterable[Any]:
        store, composite = self.application.store, parsed_args.composite
        if composite is not None and not lookup.COMPOSITE_ID.match(composite):
            composite = lookup.composite(self.application, composite).id
        return store.reconcile(composite)
