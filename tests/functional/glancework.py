"""What clients of the image service do, with contents that are made up: in a
process of their own, to be killed there or to be one of several hosts.

This file is the process, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Base, Composite, Mount, PartRef, System
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import FILESET, RESTORE, SOFTWARE, Layer, Part, PartManifest
from splitimage_driver.store.base import Store
from tests.functional.command import ROOT

MOUNTS = (Mount("/dev/sda1", "/", "ext4"),)
PARTS = ("web", "db")


# -- the process -------------------------------------------------------------------

def _file(name: str) -> FileEntry:
    return FileEntry(name.encode(), "f", 0o644, sha256=hashlib.sha256(name.encode()).digest())


def tree(name: str) -> Manifest:
    return Manifest([FileEntry(b"", "d", 0o755), _file(name)])


def recipe(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def content(name: str, size: int) -> bytes:
    """The same for the same name; of no format that the service knows."""
    return b"contents\n" + random.Random(name).randbytes(size - 9)


def part(store: Store, name: str, size: int, *, kind: str = SOFTWARE, pending: bool = False,
         sparse: bool = False) -> Part:
    """Store one. :param sparse: its blob has hardly any contents"""
    return store.add_part(*adopted(store, name, size, kind=kind, sparse=sparse), pending=pending)


def adopted(store: Store, name: str, size: int, *, kind: str = SOFTWARE,
            sparse: bool = False) -> tuple[Part, PartManifest]:
    """What it consists of; its blob of so many bytes is on this host."""
    manifest = PartManifest((Layer(entries=(_file(name),)),))
    with store.scratch() as scratch:
        (scratch / "blob").write_bytes(content(name, 4096 if sparse else size))
        os.truncate(scratch / "blob", size)
        blob = store.adopt(scratch / "blob")
    return Part(id=manifest.digest, name=name, kind=kind, blob=blob, blob_size=size, size=size,
                files=1, owner=store.project, created=time.time()), manifest


def disk(store: Store, name: str, size: int) -> tuple[str, int]:
    """A qcow2 of about so many bytes; its digest, and how many it has."""
    with store.scratch() as scratch:
        (scratch / "raw").write_bytes(content(name, size))
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", scratch / "raw",
                        scratch / "disk"], check=True)
        length = (scratch / "disk").stat().st_size
        return store.adopt(scratch / "disk"), length


def composite(store: Store, name: str, size: int, base: int) -> Composite:
    """:param size: bytes of each part
    :param base: bytes of the base disk
    """
    parts = {each: part(store, f"{name}-{each}", size, pending=True) for each in PARTS}
    restore = part(store, f"{name}-restore", 1024, kind=RESTORE, pending=True)
    return store.save_composite(described(store, name, parts, restore, *disk(store, name, base)))


def described(store: Store, name: str, parts: Mapping[str, Part], restore: Part, disk: str,
              length: int) -> Composite:
    """:param disk: digest of the base disk
    :param length: its bytes
    """
    system = tree(name)
    store.put_manifest(system)
    return Composite(
        name=name, id="", owner=store.project, created=time.time(),
        system=System("debian", "12", "Debian 12", "x86_64", "dpkg"),
        base=Base(disk, length, 2**30, system.digest, MOUNTS),
        parts={each: PartRef(id=made.id, kind=SOFTWARE) for each, made in parts.items()},
        restore=restore.id)


def image(store: Store, name: str, size: int, of: str) -> Image:
    """Publish a completed image.

    :param name: also of its recipe
    :param of: a composite
    """
    return store.add_image(_with_disk(store, _draft(store, name, of), size))


def _draft(store: Store, name: str, of: str) -> Image:
    base = store.composite(of)
    made = tree(f"completed {name}")
    store.put_manifest(made)
    return Image(
        id=str(uuid.uuid4()), name=name, composite=base.id, parts=PARTS, recipe=recipe(name),
        disk="", disk_size=0, virtual_size=2**30, manifest=made.digest, mounts=MOUNTS,
        owner=store.project, created=time.time(), last_used=time.time())


def _with_disk(store: Store, draft: Image, size: int) -> Image:
    stored, length = disk(store, draft.name, size)
    return msgspec.structs.replace(draft, disk=stored, disk_size=length)


def make(store: Store, name: str, size: int, of: str, place: Path) -> Image | None:
    """Make a completed image as a launch does, as far as others notice.

    :param place: has a file for each that assembles; with the file ``go`` that
        comes to its end
    """
    draft = _draft(store, name, of)
    with store.lock(f"recipe {draft.recipe}"), store.announced(draft) as announced:
        if announced.there:
            return store.find_recipe(draft.recipe, owner=store.project,
                                     composite=store.composite(of))
        with store.turn(name):
            announced.check()
            (place / str(os.getpid())).touch()
            while not (place / "go").exists():
                time.sleep(0.05)
            return store.add_image(_with_disk(store, draft, size))


def peak() -> int:
    """The most bytes of memory that this process has had at a time."""
    told = Path("/proc/self/status").read_text()
    return int(told.partition("VmHWM:")[2].split()[0]) * 1024


def _run(store: Store, work: str, words: list[str]) -> Any:
    match work, words:
        case "part", [name, size]:
            return part(store, name, int(size)).id
        case "send-part", [name, size]:
            part(store, name, int(size), kind=FILESET, sparse=True)
            return peak()
        case "fetch-part", [name]:
            return [str(store.path(store.part(name).blob)), peak()]
        case "composite", [name, size, base]:
            return composite(store, name, int(size), int(base)).id
        case "image", [name, size, of]:
            return image(store, name, int(size), of).id
        case "make", [name, size, of, place]:
            made = make(store, name, int(size), of, Path(place))
            return made and made.id
        case "fetch", [name]:
            return str(store.path(store.composite(name).base.disk))
        case "delete-composite", [name]:
            return store.delete_composite(name)
        case "delete-image", [name]:
            return store.delete_image(name)
    raise AssertionError((work, words))


def main(path: str, config: str, cloud: str, work: str, *words: str) -> int:
    from splitimage_driver.application import Application
    from splitimage_driver.cli import session

    session.end_in_order()
    try:
        application = Application(Path(path), files=[config], cloud=cloud)
        with contextlib.closing(application):
            found = _run(application.store, work, list(words))
        print(json.dumps(found))
    except exceptions.SplitImageError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


# -- who starts it -----------------------------------------------------------------

class Work:
    """A client at work.

    :param path: of what it keeps on its host
    :param options: of the group ``[glance]``
    """

    def __init__(self, path: Path, clouds: Path, cloud: str, *words: str | int,
                 options: Mapping[str, Any]) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="splitimage-work-")
        place = Path(self._place.name)
        self.out, self.err = place / "out", place / "err"
        (place / "conf").write_text("\n".join(
            ["[glance]", *(f"{name} = {value}" for name, value in options.items())]))
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.functional.glancework", path, place / "conf", cloud,
                 *map(str, words)], stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=ROOT,
                env=os.environ | {"OS_CLIENT_CONFIG_FILE": str(clouds)})

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._place.cleanup()

    def kill(self, number: int = 9) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(120)

    def success(self) -> Any:
        """What it found."""
        status = self.process.wait(300)
        assert status == 0, (status, self.errors())
        return json.loads(self.out.read_text())

    def failure(self) -> tuple[int, str]:
        """Its status, and its last line."""
        status = self.process.wait(300)
        assert status != 0, self.out.read_text()
        return status, self.errors().strip().rpartition("\n")[2]

    def errors(self) -> str:
        return self.err.read_text()[-3000:]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
