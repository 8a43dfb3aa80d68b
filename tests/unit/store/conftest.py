"""A local store in a temporary directory, and records to put into it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sqlite3
import tempfile
import types
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Base, Composite, Mount, PartRef, System
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import SOFTWARE, Layer, Part, PartManifest
from splitimage_driver.model.server import Server
from splitimage_driver.store.local import LocalStore

MOUNTS = (Mount("/dev/sda1", "/", "ext4"),)


class Maker:
    """Stores made-up objects and records; each call another one unless told."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store
        self.root = Path(store.location)
        self._numbers = itertools.count(1)

    def object(self, content: bytes | None = None) -> str:
        with self.store.scratch() as folder:
            file = folder / "file"
            file.write_bytes(f"object {next(self._numbers)}".encode()
                             if content is None else content)
            return self.store.adopt(file)

    def tree(self) -> Manifest:
        return Manifest([FileEntry(b"", "d", 0o755),
                         FileEntry(f"file{next(self._numbers)}".encode(), "f", 0o644)])

    def part_manifest(self) -> PartManifest:
        return PartManifest((Layer(entries=self.tree().entries),))

    def part(self, name: str = "apache", *, kind: str = SOFTWARE, owner: str = "default",
             manifest: PartManifest | None = None, blob: str | None = None) -> Part:
        manifest = manifest or self.part_manifest()
        return self.store.add_part(Part(
            id=manifest.digest, name=name, kind=kind, blob=self.object() if blob is None else blob,
            blob_size=9, size=9, files=1, owner=owner, created=next(self._numbers)), manifest)

    def composite(self, name: str = "lamp", *parts: Part, owner: str = "default",
                  **fields: Any) -> Composite:
        """Not saved."""
        values: dict[str, Any] = {
            "name": name, "id": str(uuid.uuid4()), "owner": owner,
            "created": float(next(self._numbers)),
            "system": System("debian", "12", "Debian 12", "x86_64", "dpkg"),
            "base": Base(self.object(), 9, 2**30, self.store.put_manifest(self.tree()), MOUNTS),
            "parts": {part.name: PartRef(id=part.id, kind=part.kind) for part in parts},
            "restore": "", "shared": {b"etc/passwd": b"root:x:0:0\xff\n"},
            "hardware": {"cpus": 2}}
        return Composite(**(values | fields))

    def saved(self, name: str = "lamp", *parts: Part, owner: str = "default",
              **fields: Any) -> Composite:
        composite = self.composite(name, *parts, owner=owner, **fields)
        self.store.save_composite(composite)
        return composite

    def image(self, composite: Composite, **fields: Any) -> Image:
        """Not added."""
        number = next(self._numbers)
        values: dict[str, Any] = {
            "id": str(uuid.uuid4()), "name": f"{composite.name}+{number}",
            "composite": composite.id, "parts": (), "recipe": f"recipe {number}",
            "disk": self.object(), "disk_size": 10, "virtual_size": 2**30,
            "manifest": self.store.put_manifest(self.tree()), "mounts": MOUNTS,
            "owner": composite.owner, "created": float(number), "last_used": float(number)}
        return Image(**(values | fields))

    def added(self, composite: Composite, **fields: Any) -> Image:
        return self.store.add_image(self.image(composite, **fields))

    def server(self, on: Image, **fields: Any) -> Server:
        """Not saved."""
        number = next(self._numbers)
        values: dict[str, Any] = {
            "id": f"s{number}", "name": f"web-{number}", "composite": on.composite,
            "parts": (), "image": on.id, "disk": on.disk,
            "directory": str(self.root / "servers" / f"s{number}"), "owner": on.owner,
            "created": float(number), "ports": {80: 8080}}
        return Server(**(values | fields))

    def running(self, on: Image, **fields: Any) -> Server:
        server = self.server(on, **fields)
        self.store.save_server(server)
        return server

    # -- behind the store's back ----------------------------------------------

    def file(self, digest: str, where: str = "objects") -> Path:
        return self.root / where / digest[:2] / digest

    def sql(self, statement: str, *parameters: Any) -> list[Any]:
        path = self.root / "splitimage.db"
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            return connection.execute(statement, parameters).fetchall()

    def age(self, path: Path, seconds: float) -> None:
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


def options(**changed: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(**({"lock_timeout": 5.0, "grace": 3600, "minimum_free": 0}
                                    | changed))


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where that can be: the store syncs each step to the disk."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**26:
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            yield Path(folder)
    else:
        yield tmp_path


Open = Callable[..., LocalStore]


@pytest.fixture
def open_local(tmp_path: Path) -> Iterator[Open]:
    """Opens the test's store; again and again, if asked."""
    with contextlib.ExitStack() as stack:
        def opener(*, max_parallel: int = 1, max_scratch: int = 0,
                   limits: dict[str, int] | None = None, **changed: Any) -> LocalStore:
            retention = {"max_age": 0, "max_count": 0, "max_bytes": 0} | (limits or {})
            store = LocalStore(tmp_path / "store", options(**changed),
                               retention=types.SimpleNamespace(**retention),
                               max_parallel=max_parallel, max_scratch=max_scratch)
            stack.callback(store.close)
            return store
        yield opener


@pytest.fixture
def store(open_local: Open) -> LocalStore:
    return open_local()


@pytest.fixture
def make(store: LocalStore) -> Maker:
    return Maker(store)


@pytest.fixture
def maker() -> type[Maker]:
    """For a test that opens its stores itself."""
    return Maker
