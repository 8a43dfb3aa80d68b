"""What the images are that were used on this host.

Their contents are kept by id alone. Whoever tells what this host holds, without
being logged in as anybody, finds here of which composite a content is, and what a
completed image has in it. Nothing that decides what somebody may have reads this.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self, TypeVar

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import PartRef
from splitimage_driver.model.entry import UNDECODABLE
from splitimage_driver.model.part import Part
from splitimage_driver.store.contents import OBJECT
from splitimage_driver.store.database import Database
from splitimage_driver.store.glance.cache import CACHE
from splitimage_driver.store.glance.reader import Known
from splitimage_driver.store.objects import ObjectDirectory
from splitimage_driver.store.space import Space

LOG = logging.getLogger(__name__)
COMPOSITE, COMPLETED, FILESET = "composite", "completed", "fileset"
#: Images of one kind that are remembered, the last used.
_REMEMBERED = 256
#: Seconds by which the time of the last use may be wrong.
_ROUGHLY = 60.0
#: Seconds to wait for another process's transaction; nobody depends on the answer.
_PATIENCE = 5.0
_encode = msgspec.msgpack.Encoder().encode


class UsedPart(msgspec.Struct, frozen=True):
    """Of a composite.

    :ivar image: id of its image; "": it has no contents
    :ivar size: bytes of its blob
    """

    ref: PartRef
    image: str
    size: int


class UsedComposite(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar base: bytes of the base's disk
    :ivar defaults: parts that a server gets that names none
    """

    id: str
    owner: str
    base: int
    parts: dict[str, UsedPart]
    defaults: tuple[str, ...] = ()


class UsedFileset(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar id: digest of the part"""

    id: str
    name: str
    owner: str
    image: str
    size: int


_Found = TypeVar("_Found", UsedComposite, Image, UsedFileset)
_KINDS: dict[type, str] = {UsedComposite: COMPOSITE, Image: COMPLETED, UsedFileset: FILESET}


class Used:
    """Notes what is used; that it cannot is no reason not to use it."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def composite(self, known: Known) -> None:
        links, parts = known.links.parts, known.composite.parts
        blobs = {name: known.parts[link.digest] for name, link in links.items()}
        self._note(known.composite.id, UsedComposite(
            id=known.composite.id, owner=known.composite.owner,
            base=known.composite.base.disk_size,
            parts={name: UsedPart(ref, links[name].image if blobs[name].blob else "",
                                  blobs[name].blob_size) for name, ref in parts.items()},
            defaults=properties.default_parts(known.image)))

    def completed(self, image: Image) -> None:
        self._note(image.id, msgspec.structs.replace(image, mounts=()))

    def fileset(self, part: Part, image: str) -> None:
        self._note(image, UsedFileset(id=part.id, name=part.name, owner=part.owner,
                                      image=image if part.blob else "", size=part.blob_size))

    def forget(self, image: str) -> None:
        """It is gone."""
        with self._harmless(), self.database.writing() as connection:
            connection.execute("DELETE FROM used WHERE image = ?", (image,))

    def _note(self, image: str, what: UsedComposite | Image | UsedFileset) -> None:
        kind, document, now = _KINDS[type(what)], _encode(what), time.time()
        with self._harmless():
            if self.database.query(
                    "SELECT 1 FROM used WHERE image = ? AND document = ? AND time BETWEEN ? AND ?",
                    image, document, now - _ROUGHLY, now):
                return
            with self.database.writing() as connection:
                connection.execute("INSERT OR REPLACE INTO used VALUES (?, ?, ?, ?)",
                                   (image, kind, now, document))
                connection.execute(
                    "DELETE FROM used WHERE kind = ?1 AND time <= (SELECT time FROM used"
                    " WHERE kind = ?1 ORDER BY time DESC LIMIT 1 OFFSET ?2)", (kind, _REMEMBERED))

    @contextlib.contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except exceptions.SplitImageError as error:
            LOG.warning("cannot note what was used: %s", error)


class Kept:
    """What is on this host, whoever had it fetched; to look at only.

    :param path: the store's directory
    :raises StoreCorrupt: there is none
    """

    def __init__(self, path: Path) -> None:
        space = Space(path)
        self._objects = ObjectDirectory(path / "objects", space)
        self._database = Database(path / "splitimage.db", space, _PATIENCE)
        self._database.complete()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def images(self) -> set[str]:
        """Ids of those whose data are here."""
        rows = self._database.query(
            "SELECT holder, digest FROM uses WHERE kind = ? AND target = ?", CACHE, OBJECT)
        return {row["holder"] for row in rows if self._objects.has(row["digest"])}

    def used(self, model: type[_Found], limit: int = _REMEMBERED) -> list[_Found]:
        """What was used, the last first."""
        rows = self._database.query(
            "SELECT document FROM used WHERE kind = ? ORDER BY time DESC, image LIMIT ?",
            _KINDS[model], limit)
        try:
            return [msgspec.msgpack.decode(row["document"], type=model) for row in rows]
        except UNDECODABLE as error:
            raise self._database.corrupt(f"what was used cannot be read: {error}") from error
