"""splitimage part create"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splitimage_driver.cli import arguments, base
from splitimage_driver.cli.views import parts


class CreatePart(base.ShowOne):
    """Make a file set of your own into a part.

    A directory's files become root's; an archive brings its own owners. The
    same content is stored once. Refused are names that leave the root or
    pass through a link of the set, device nodes, and set-uid, set-gid or
    capable files.
    """

    examples = ("part create page --from ./page", "part create page --from page.tar.gz")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="the part's name")
        parser.add_argument("--from", required=True, type=Path, dest="source",
                            metavar="DIR-or-TAR",
                            help="a directory, or a tar archive (plain, gz, xz, zst)")
        parser.add_argument("--allow-setuid", action="store_true",
                            help="an administrator's permission for set-uid and set-gid files "
                                 "and file capabilities")
        arguments.add_image_store(parser)

    def fields(self, parsed_args: argparse.Namespace) -> Mapping[str, Any]:
        arguments.choose_image_store(self.application, parsed_args)
        return parts.part(self.application.images.create_part(
            parsed_args.name, parsed_args.source, allow_setuid=parsed_args.allow_setuid))
