"""splitimage inspect"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitimage_driver.cli import base
from splitimage_driver.cli.columns import Column, Lines, Listing, Size, Words

if TYPE_CHECKING:
    from splitimage_driver.capture.inspect import Proposal

SOFTWARE = (
    Column("name", lambda s: s.name),
    Column("packages", lambda s: Words(s.packages)),
    Column("services", lambda s: Words(x.name for x in s.services if x.enabled)),
    Column("own size", lambda s: Size(s.exclusive_bytes)),
    Column("shared size", lambda s: Size(s.shared_bytes)),
    Column("requires", lambda s: Words(s.requires)),
    Column("own packages", lambda s: Words(s.exclusive), long=True),
    Column("all services", lambda s: Words(x.name for x in s.services), long=True),
)


class Inspect(base.ShowOne):
    """Name a disk's operating system and propose how to split it.

    Nothing of the disk is run. The field capture is a command line that makes
    each significant piece of software a part of its own.
    """

    examples = ("inspect gold.qcow2", "inspect gold.qcow2 -f json")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("disk", type=Path, metavar="DISK", help="a raw or qcow2 disk image")

    def fields(self, parsed_args: argparse.Namespace) -> Mapping[str, Any]:
        return _fields(self.application.images.inspect(parsed_args.disk), parsed_args.disk)


def _fields(found: Proposal, disk: Path) -> dict[str, Any]:
    system = found.system
    return {
        "system": system.name, "id": system.id, "version": system.version,
        "architecture": system.architecture, "packaging": system.packaging,
        "base packages": found.base_packages, "base size": Size(found.base_bytes),
        "rest": Words(found.rest), "notes": Lines(found.notes),
        "arguments": Words(found.arguments, " "),
        "capture": shlex.join(["splitimage", "capture", "NAME", "--disk", str(disk),
                               *found.arguments]) if found.arguments else "",
        "software": Listing("software worth a part of its own", SOFTWARE, found.software),
    }
