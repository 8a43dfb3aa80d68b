"""Parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from splitimage_driver.cli.columns import Column, Counted, Digest, Lines, Moment, Size

if TYPE_CHECKING:
    from splitimage_driver.model.part import Part

PARTS = (
    Column("name", lambda p: p.name),
    Column("kind", lambda p: p.kind),
    Column("id", lambda p: Digest(p.id)),
    Column("size", lambda p: Size(p.size)),
    Column("stored size", lambda p: Size(p.blob_size)),
    Column("files", lambda p: p.files),
    Column("packages", lambda p: Counted(p.packages), long=True),
    Column("blob", lambda p: Digest(p.blob), long=True),
    Column("public", lambda p: p.public, long=True),
    Column("owner", lambda p: p.owner, long=True),
    Column("created", lambda p: Moment(p.created), long=True),
)


def part(found: Part) -> dict[str, Any]:
    return {**{c.name: c.value(found) for c in PARTS}, "id": found.id, "blob": found.blob,
            "packages": Lines(found.packages)}
