"""Completed images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from splitimage_driver.cli.columns import Column, Digest, Digests, Id, Moment, Size, Words
from splitimage_driver.cli.views.composites import with_composites

if TYPE_CHECKING:
    from splitimage_driver.model.candidate import Image
    from splitimage_driver.store.base import Store

IMAGES = (
    Column("name", lambda i: i.record.name),
    Column("id", lambda i: Id(i.record.id)),
    Column("size", lambda i: Size(i.record.disk_size)),
    Column("last used", lambda i: Moment(i.record.last_used)),
    Column("booted", lambda i: i.record.booted, long=True),
    Column("parts", lambda i: Words(i.record.parts), long=True),
    Column("filesets", lambda i: Digests(i.record.filesets), long=True),
    Column("composite", lambda i: i.composite, long=True),
    Column("disk", lambda i: Digest(i.record.disk), long=True),
    Column("disk size", lambda i: Size(i.record.virtual_size), long=True),
    Column("recipe", lambda i: Digest(i.record.recipe), long=True),
    Column("public", lambda i: i.record.public, long=True),
    Column("owner", lambda i: i.record.owner, long=True),
    Column("created", lambda i: Moment(i.record.created), long=True),
)


def image(found: Image, store: Store) -> dict[str, Any]:
    [named] = with_composites([found], store)
    return {**{c.name: c.value(named) for c in IMAGES}, "id": found.id, "disk": found.disk,
            "recipe": found.recipe}
