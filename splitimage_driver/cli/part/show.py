"""splitimage part show"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from splitimage_driver.cli import base, lookup
from splitimage_driver.cli.columns import Column, Listing, Size
from splitimage_driver.cli.views import parts
from splitimage_driver.model.entry import text
from splitimage_driver.model.part import PartManifest

_FILES = (
    Column("path", lambda f: text(f["path"])),
    Column("what", lambda f: f["what"]),
    Column("mode", lambda f: f["mode"]),
    Column("size", lambda f: Size(f["size"])),
    Column("when", lambda f: f["when"]),
)
_KINDS = {"f": "file", "d": "directory", "l": "link", "c": "device", "b": "device", "p": "fifo"}


class ShowPart(base.ShowOne):
    """Show a stored part; with --files all that it brings, changes and deletes."""

    examples = ("part show page", "part show apache --files")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("part", metavar="PART", help="its name or id")
        parser.add_argument("--files", action="store_true", help="list its files")

    def fields(self, parsed_args: argparse.Namespace) -> Mapping[str, Any]:
        part = lookup.part(self.application, parsed_args.part)
        found = parts.part(part)
        if parsed_args.files:
            manifest = self.application.store.part_manifest(part.id)
            found["contents"] = Listing("files", _FILES, _files(manifest))
        return found


def _files(manifest: PartManifest) -> list[dict[str, Any]]:
    """``when``: the parts with which a change is made; "" always."""
    found = []
    for layer in manifest.layers:
        when = ", ".join(layer.when)
        found += [{"path": e.path, "what": _KINDS[e.type], "mode": f"{e.mode:04o}",
                   "size": e.size, "when": when} for e in layer.entries]
        found += [{"path": path, "what": "deleted", "mode": "", "size": 0, "when": when}
                  for path in layer.deleted]
        rows: dict[bytes, int] = {}
        for row in layer.rows:
            rows[row.path] = rows.get(row.path, 0) + 1
        found += [{"path": path, "what": f"{count} rows", "mode": "", "size": 0, "when": when}
                  for path, count in rows.items()]
    return sorted(found, key=lambda f: (f["path"], f["when"]))
