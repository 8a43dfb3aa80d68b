"""What a capture stores in an image service, made-up and small."""

from __future__ import annotations

import time
import uuid
from typing import Any

from splitimage_driver.model.composite import Base, Composite, PartRef, System
from splitimage_driver.model.part import RESTORE, SOFTWARE, Layer, Part, PartManifest
from splitimage_driver.store.glance.store import GlanceStore
from tests.imagerecords import MOUNTS
from tests.unit.making import file, tree


class Gold:
    """What a capture stores: its parts as they come, then the composite."""

    def __init__(self, store: GlanceStore) -> None:
        self.store = store
        self.blobs: dict[str, bytes] = {}

    def object(self, content: bytes) -> str:
        with self.store.scratch() as scratch:
            (scratch / "x").write_bytes(content)
            return self.store.adopt(scratch / "x")

    def part(self, name: str, *, kind: str = SOFTWARE, pending: bool = True,
             content: bytes | None = None, owner: str = "") -> Part:
        """:param content: None: another one each time"""
        text = uuid.uuid4().bytes if content is None else content
        manifest = PartManifest((Layer(entries=(file(f"usr/{name}", text),)),))
        self.blobs[name] = b"squashfs of " + text
        return self.store.add_part(Part(
            id=manifest.digest, name=name, kind=kind, blob=self.object(self.blobs[name]),
            blob_size=len(self.blobs[name]), size=manifest.size, files=manifest.files,
            owner=owner or self.store.project, created=time.time()), manifest, pending=pending)

    def composite(self, name: str = "lamp", *parts: Part, **fields: Any) -> Composite:
        """Not saved."""
        base = tree(file("etc/motd", uuid.uuid4().bytes))
        disk = self.object(b"base of " + uuid.uuid4().bytes)
        known: dict[str, Any] = {
            "name": name, "id": str(uuid.uuid4()), "owner": self.store.project, "created": 1.0,
            "system": System("debian", "12", "Debian 12", "x86_64", "dpkg"),
            "base": Base(disk, 24, 2**30, self.store.put_manifest(base), MOUNTS),
            "parts": {part.name: PartRef(id=part.id, kind=part.kind) for part in parts},
            "restore": self.part(f"{name}.restore", kind=RESTORE).id, "shared": {b"etc/x": b"\xff"}}
        return Composite(**(known | fields))

    def saved(self, name: str = "lamp", *parts: Part, **fields: Any) -> Composite:
        return self.store.save_composite(self.composite(name, *parts, **fields))
