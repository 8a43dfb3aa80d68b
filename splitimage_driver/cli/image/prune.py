"""splitimage image prune"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from splitimage_driver.cli import arguments, base
from splitimage_driver.cli.views import composites, images


class PruneImages(base.Lister):
    """Delete the project's least recently used images beyond its limits.

    The limits are those of [retention] unless given here; 0 is no limit.
    Images that a server runs on stay. Lists what was deleted.
    """

    examples = ("image prune", "image prune --max-count 10")
    columns = images.IMAGES

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--max-age", type=arguments.seconds, metavar="SECONDS",
                            help="since the last use")
        parser.add_argument("--max-count", type=arguments.count, metavar="N",
                            help="how many may stay")
        parser.add_argument("--max-bytes", type=arguments.count, metavar="N",
                            help="how many bytes their disks may take")

    def records(self, parsed_args: argparse.Namespace) -> Iterable[Any]:
        store = self.application.store
        return composites.with_composites(store.prune_images(
            owner=self.application.project, max_age=parsed_args.max_age,
            max_count=parsed_args.max_count, max_bytes=parsed_args.max_bytes), store)
