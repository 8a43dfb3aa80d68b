"""Very many composites and completed images in few requests: true records and
properties, over a few bytes of data, of parts that may be records only."""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from splitimage_driver.model import properties
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Base, Composite, PartRef, System, recipe
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import DEPENDENCY, FILESET, RESTORE, SOFTWARE, Part, PartManifest
from splitimage_driver.model.properties import Link, Links
from splitimage_driver.store.glance import holdings, records
from splitimage_driver.store.glance.api import Description, Images

#: Threads that remove what was stored.
_CLIENTS = 8
_SYSTEM = System("debian", "12", "Debian", "x86_64", "dpkg")


class Piece(NamedTuple):
    """A part as it is wanted."""

    files: int
    size: int
    requires: tuple[str, ...] = ()
    hidden: bool = False


#: Apache and PHP share libraries; the database does not.
LAMP = {"apache": Piece(700, 20 << 20, ("common",)), "php": Piece(900, 40 << 20, ("common",)),
        "mysql": Piece(400, 200 << 20), "common": Piece(300, 10 << 20, hidden=True)}


def digest(word: str | bytes | None = None) -> str:
    """The sha256 of these words, or any."""
    if isinstance(word, str):
        word = word.encode()
    return hashlib.sha256(os.urandom(16) if word is None else word).hexdigest()


class Stock:
    """Stored as one user, by several threads if need be.

    :ivar images: the API
    :ivar made: ids of all that was stored
    """

    def __init__(self, images: Images) -> None:
        self.images = images
        self.made: list[str] = []

    @property
    def project(self) -> str:
        return self.images.project

    def record(self, image: str, name: str, said: Mapping[str, Any], **attributes: Any) -> None:
        self.made.append(image)
        self.images.create(name, dict(said), image=image, **attributes)

    def data(self, image: str, content: bytes | None = None) -> None:
        self.images.put(image, io.BytesIO(
            # Nothing that Glance could take for a boot record.
            os.urandom(500) + bytes(12) if content is None else content))

    def manifest(self, holder: str, content: bytes, *, image: str = "",
                 visibility: str = "private") -> str:
        image = image or str(uuid.uuid4())
        self.record(image, "manifest", {**properties.common(properties.MANIFEST),
                                        holdings.FOR: holder}, visibility=visibility)
        self.data(image, content)
        return image

    def part(self, part: Part, manifest: PartManifest, holder: str, *,
             visibility: str = "private") -> str:
        """Its image and its manifest's; returns the id of the first."""
        image = str(uuid.uuid4())
        held = self.manifest(image, records.pack(part, manifest.encode()), visibility=visibility)
        self.record(image, part.name, {
            **properties.of_part(part, held, "" if part.kind == FILESET else digest("system")),
            holdings.KIND: part.kind, **({holdings.FOR: holder} if holder else {})},
            visibility=visibility, protected=part.kind != FILESET)
        self.data(image)
        return image

    def fileset(self, name: str, files: int, size: int) -> str:
        """Returns its digest."""
        part = self._record(name, Piece(files, size), FILESET)
        self.part(part, PartManifest(()), "")
        return part.id

    def _record(self, name: str, piece: Piece, kind: str) -> Part:
        return Part(id=digest(), name=name, kind=kind, blob="", blob_size=0, size=piece.size,
                    files=piece.files, owner=self.project, created=1.0)

    def composite(self, name: str, parts: Mapping[str, Piece] | None = None, *,
                  visibility: str = "private", stored: bool = False,
                  changes: Mapping[str, Any] | None = None) -> Description:
        """:param stored: its parts too, as images
        :param changes: to the properties
        """
        parts = LAMP if parts is None else parts
        image, manifest = str(uuid.uuid4()), str(uuid.uuid4())
        tree = Manifest(())
        found = {name: self._record(name, piece, DEPENDENCY if piece.hidden else SOFTWARE)
                 for name, piece in parts.items()}
        restore = self._record("restore", Piece(0, 0), RESTORE)
        record = Composite(
            name=name, id=image, owner=self.project, created=1.0, system=_SYSTEM,
            base=Base(disk=digest(image), disk_size=512, virtual_size=512, manifest=tree.digest,
                      mounts=()),
            parts={name: PartRef(id=part.id, kind=part.kind, requires=parts[name].requires,
                                 hidden=parts[name].hidden) for name, part in found.items()},
            restore=restore.id)
        images = {each.id: self.part(each, PartManifest(()), image, visibility=visibility)
                  if stored else str(uuid.uuid4()) for each in (*found.values(), restore)}
        links = Links({name: Link(images[part.id], part.id) for name, part in found.items()},
                      Link(images[restore.id], restore.id))
        self.record(image, name, {**properties.of_composite(record, manifest, links),
                                  **(changes or {})}, hidden=False, visibility=visibility)
        self.manifest(image, records.pack(record, tree.encode(), (*found.values(), restore)),
                      image=manifest, visibility=visibility)
        self.data(image)
        return self.images.get(image)

    def completed(self, composite: Description, parts: Sequence[str], *,
                  filesets: Sequence[str] = (), visibility: str = "private",
                  changes: Mapping[str, Any] | None = None, wanted: str | None = None) -> str:
        """Of these parts, all of them; returns its id.

        :param wanted: its recipe; None: the right one
        """
        image = str(uuid.uuid4())
        links = properties.links(composite)
        wanted = wanted or recipe(digest(composite["id"]), [
            *(links.parts[name].digest for name in parts if name in links.parts), *filesets])
        record = Image(
            id=image, name=f"{composite['name']}+{','.join(parts)}", composite=composite["id"],
            parts=tuple(sorted(parts)), filesets=tuple(sorted(filesets)), recipe=wanted,
            disk=digest(), disk_size=512, virtual_size=512, manifest=digest(), mounts=(),
            owner=self.project, created=1.0, last_used=1.0)
        self.record(image, record.name, {
            **properties.of_completed(record, str(uuid.uuid4()), composite["splitimage_os"]),
            **(changes or {})}, visibility=visibility)
        self.data(image)
        return image

    def clear(self) -> None:
        """Remove all that was stored."""
        with concurrent.futures.ThreadPoolExecutor(_CLIENTS) as pool:
            # What refers to others was stored after these.
            list(pool.map(self.images.discard, reversed(self.made)))
        self.made.clear()
