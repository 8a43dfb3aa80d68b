"""splitimage composite list"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from splitimage_driver.cli import base
from splitimage_driver.cli.views import composites


class ListComposites(base.Lister):
    """List the composite images: the project's own, and public ones."""

    examples = ("composite list", "composite list -f json")
    columns = composites.COMPOSITES

    def records(self, parsed_args: argparse.Namespace) -> Iterable[Any]:
        store, project = self.application.store, self.application.project
        return [c for c in store.composites() if store.usable(c, project)]
