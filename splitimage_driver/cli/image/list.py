"""splitimage image list"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from splitimage_driver.cli import base, lookup
from splitimage_driver.cli.views import composites, images


class ListImages(base.Lister):
    """List the project's completed images."""

    examples = ("image list", "image list --composite lamp --long",
                "image list -f value -c id")
    columns = images.IMAGES

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--composite", metavar="COMPOSITE",
                            help="only those that came from it")

    def records(self, parsed_args: argparse.Namespace) -> Iterable[Any]:
        application = self.application
        composite = (lookup.composite(application, parsed_args.composite).id
                     if parsed_args.composite else None)
        return composites.with_composites(
            application.store.images(composite=composite, owner=application.project),
            application.store)
