"""splitimage image export"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splitimage_driver.cli import base, lookup, output
from splitimage_driver.cli.columns import Amount, Size


class ExportImage(base.ShowOne):
    """Write a completed image's disk to a file of its own."""

    examples = ("image export lamp+apache+php -o web.qcow2",
                "image export lamp+apache+php -o web.raw --disk-format raw")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("image", metavar="IMAGE", help="its name or id")
        parser.add_argument("-o", "--output", type=Path, metavar="OUT", required=True,
                            help="the file to write")
        output.add_arguments(parser)

    def fields(self, parsed_args: argparse.Namespace) -> Mapping[str, Any]:
        output.check(parsed_args.output, force=parsed_args.force)
        store = self.application.store
        image = lookup.image(self.application, parsed_args.image)
        with store.hold([image.disk]):
            seconds = output.write(store.path(image.disk), image.disk, parsed_args)
        return {"image": image.name, "image id": image.id, "output": str(parsed_args.output),
                "format": parsed_args.disk_format,
                "size": Size(parsed_args.output.stat().st_size), "written in": Amount(seconds)}
