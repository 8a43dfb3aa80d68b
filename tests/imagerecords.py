"""Composites, parts and completed images as this project stores them in Glance,
made-up and small, through the plain API; and whatever else a tenant may claim."""

from __future__ import annotations

import hashlib
import io
import itertools
import time
import uuid
from typing import Any

from splitimage_driver.model import properties
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Base, Composite, Mount, PartRef, System
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import RESTORE, SOFTWARE, Layer, Part, PartManifest
from splitimage_driver.model.properties import Link, Links
from splitimage_driver.store.glance import records
from splitimage_driver.store.glance.api import Description, Images

MOUNTS = (Mount("/dev/sda1", "/", "ext4"),)


class Records:
    """:param images: of the user who stores
    :param disk: bytes of a qcow2
    :ivar made: ids of all images that were made, the newest first
    """

    def __init__(self, images: Images, disk: bytes = bytes(512)) -> None:
        self.images, self.disk = images, disk
        self.digest = hashlib.sha256(disk).hexdigest()
        self.made: list[str] = []
        self._numbers = itertools.count(1)
        self._salt = str(uuid.uuid4())

    def image(self, name: str, said: dict[str, str], data: bytes | None, *,
              hidden: bool = True, **attributes: Any) -> Description:
        """:param data: None: a record only"""
        made = self.images.create(name, said, hidden=hidden, **attributes)
        self.made.insert(0, made["id"])
        if data is not None:
            self.images.put(made["id"], io.BytesIO(data))
        return self.images.get(made["id"])

    def manifest(self, holder: str, data: bytes = b"\n" * 512) -> Description:
        return self.image("manifest", {**properties.common(properties.MANIFEST),
                                       "splitimage_for": holder}, data, protected=True)

    def tree(self) -> Manifest:
        return Manifest([FileEntry(b"", "d", 0o755), self._file()])

    def _file(self) -> FileEntry:
        return FileEntry(f"{self._salt}-{next(self._numbers)}".encode(), "f", 0o644,
                         sha256=hashlib.sha256(b"").digest())

    def part(self, name: str = "apache", *, holder: str = "", kind: str = SOFTWARE,
             manifest: PartManifest | None = None, data: bytes | None = bytes(512),
             **said: str) -> Description:
        """:param holder: what it is stored for"""
        manifest = manifest or PartManifest((Layer(entries=(self._file(),)),))
        image = str(uuid.uuid4())
        record = Part(id=manifest.digest, name=name, kind=kind, blob="", blob_size=0, size=0,
                      files=1, owner=self.images.project, created=time.time())
        described = properties.of_part(record, "") | {"splitimage_kind": kind} | (
            {"splitimage_for": holder} if holder else {}) | said
        described.pop("splitimage_manifest")
        self.image(name, described, None, image=image, protected=True)
        held = self.manifest(image, records.pack(record, manifest.encode()))
        self.images.update(image, {"splitimage_manifest": held["id"]})
        if data is not None:
            self.images.put(image, io.BytesIO(data))
        return self.images.get(image)

    def composite(self, name: str = "lamp", /, **parts: Description) -> Description:
        return self.finished(self.begun(name), **parts)

    def begun(self, name: str = "lamp") -> Description:
        """A composite that is in the making."""
        return self.image(name, properties.common(properties.COMPOSITE), None,
                          hidden=False, disk_format="qcow2")

    def finished(self, image: Description, /, **parts: Description) -> Description:
        restore = self.part("restore", holder=image["id"], kind=RESTORE)
        tree = self.tree()
        composite = Composite(
            name=image["name"], id=image["id"], owner=image["owner"], created=time.time(),
            system=System("debian", "12", "Debian 12", "x86_64", "dpkg"),
            base=Base(self.digest, len(self.disk), 2**30, tree.digest, MOUNTS),
            parts={part: PartRef(id=each["splitimage_digest"], kind=SOFTWARE)
                   for part, each in parts.items()},
            restore=restore["splitimage_digest"])
        held = self.manifest(image["id"], records.pack(composite, tree.encode(), tuple(
            Part(id=each["splitimage_digest"], name=part, kind=each["splitimage_kind"], blob="",
                 blob_size=0, size=0, files=1, owner=each["owner"], created=0)
            for part, each in {**parts, "restore": restore}.items())))
        self.images.update(image["id"], properties.of_composite(composite, held["id"], Links(
            {part: Link(each["id"], each["splitimage_digest"]) for part, each in parts.items()},
            Link(restore["id"], restore["splitimage_digest"]))))
        self.images.put(image["id"], io.BytesIO(self.disk))
        return self.images.get(image["id"])

    def completed(self, composite: Description, *parts: str, whole: bool = True,
                  recipe: str = "", **said: str) -> Description:
        image, tree = str(uuid.uuid4()), self.tree()
        record = Image(
            id=image, name=f"{composite['name']}+{'+'.join(parts)}", composite=composite["id"],
            parts=parts, recipe=recipe or hashlib.sha256(image.encode()).hexdigest(),
            disk=self.digest, disk_size=len(self.disk), virtual_size=2**30,
            manifest=tree.digest, mounts=MOUNTS, owner=self.images.project, created=time.time(),
            last_used=time.time())
        self.image(record.name, properties.common(properties.COMPLETED), None, image=image,
                   disk_format="qcow2")
        held = self.manifest(image, records.pack(None, tree.encode()))
        self.images.update(image, properties.of_completed(
            record, held["id"], str(composite.get("splitimage_os", "0" * 64))) | said)
        if whole:
            self.images.put(image, io.BytesIO(self.disk))
        return self.images.get(image)

    def remove(self) -> None:
        """All that was made."""
        for image in self.made:
            self.images.discard(image)
