"""Invented trees and parts, and a file system in memory to try work on."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from hypothesis import settings
from hypothesis import strategies as st

from splitimage_driver.archive.tree import TarTree
from splitimage_driver.assembly.base import Session, Space
from splitimage_driver.model.entry import (
    DIRECTORY,
    FILE,
    SYMLINK,
    FileEntry,
    parent,
    parents,
)
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import SOFTWARE, Layer, PartManifest, Row
from splitimage_driver.model.plan import Source
from splitimage_driver.planning.target import Laid

# The machine that runs this may be a busy one.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

BLOB = "blob"


def file(path: str | bytes, content: bytes = b"", *, mode: int = 0o644, link: str = "",
         mtime: int = 5, **fields: Any) -> FileEntry:
    return FileEntry(path=_bytes(path), type=FILE, mode=mode, size=len(content), mtime=mtime,
                     sha256=hashlib.sha256(content).digest(), link=_bytes(link), **fields)


def directory(path: str | bytes, mode: int = 0o755, **fields: Any) -> FileEntry:
    return FileEntry(path=_bytes(path), type=DIRECTORY, mode=mode, **fields)


def symlink(path: str | bytes, target: str) -> FileEntry:
    return FileEntry(path=_bytes(path), type=SYMLINK, mode=0o777, target=_bytes(target))


def tree(*entries: FileEntry) -> Manifest:
    """With the directories that the entries lie in."""
    found = {b"": directory("")} | {e.path: e for e in entries}
    for e in entries:
        for above in parents(e.path):
            found.setdefault(above, directory(above))
    return Manifest(found.values())


def layer(*entries: FileEntry, when: Sequence[str] = (), deleted: Iterable[str] = (),
          rows: Iterable[Row] = ()) -> Layer:
    return Layer(when=tuple(when), entries=entries, rows=tuple(rows),
                 deleted=tuple(_bytes(path) for path in deleted))


def laid(name: str, *layers: Layer, kind: str = SOFTWARE) -> Laid:
    return Laid(name=name, kind=kind, blob=f"{BLOB} of {name}", manifest=PartManifest(layers))


def _bytes(word: str | bytes) -> bytes:
    return word.encode() if isinstance(word, str) else word


# -- random trees -----------------------------------------------------------------

CONTENTS = (b"", b"one", b"two", b"three")
_NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
#: A number names a hard-linked file: names of the same number are the same.
_FILES = st.tuples(st.just(FILE), st.sampled_from(CONTENTS), st.sampled_from((0o644, 0o755)),
                   st.none() | st.integers(0, 1))
_THINGS = _FILES | st.tuples(st.just(DIRECTORY), st.sampled_from((0o755, 0o700))) | st.tuples(
    st.just(SYMLINK), st.sampled_from(("a", "b", "../c", "/a/b", "nowhere")))


@st.composite
def trees(draw: st.DrawFn) -> Manifest:
    """Whatever a small file system may hold, hard links and odd links too."""
    told: dict[str, Any] = draw(st.dictionaries(_NAMES, _THINGS, max_size=8))
    found: dict[bytes, FileEntry] = {b"": directory("")}
    linked: dict[int, tuple[Any, list[bytes]]] = {}
    for name in sorted(told):
        path, thing = name.encode(), told[name]
        if any(found.get(above, found[b""]).type != DIRECTORY for above in parents(path)):
            continue
        for above in parents(path):
            found.setdefault(above, directory(above))
        if thing[0] == DIRECTORY:
            found[path] = directory(path, thing[1])
        elif thing[0] == SYMLINK:
            found[path] = symlink(path, thing[1])
        else:
            number = thing[3]
            if number is not None:
                first, names = linked.setdefault(number, (thing, []))
                names.append(path)
                thing = first
            found[path] = file(path, thing[1], mode=thing[2])
    for _, names in linked.values():
        if len(names) > 1:
            for path in names:
                found[path] = msgspec.structs.replace(found[path], link=min(names))
    return Manifest(found.values())


def sources(manifest: Manifest) -> dict[bytes, Source]:
    """Every content of the tree, out of one blob."""
    return {e.path: Source(BLOB, e.sha256.hex().encode()) for e in manifest if e.is_file}


def read(blob: str, members: frozenset[bytes]) -> Iterable[tuple[bytes, BinaryIO]]:
    """The blob of :func:`sources`."""
    for content in CONTENTS:
        name = hashlib.sha256(content).hexdigest().encode()
        if blob == BLOB and name in members:
            yield name, io.BytesIO(content)


# -- a file system in memory ----------------------------------------------------------


class Memory(Session):
    """Stands for a disk: does to names and files what the appliance's rm,
    rmdir and tar do, and is stricter where those would guess."""

    def __init__(self, manifest: Manifest, place: Path, *, blocks: int = 10**6,
                 inodes: int = 10**6) -> None:
        self.place, self.blocks, self.inodes = place, blocks, inodes
        self.mounts = ()
        #: path to the file it names; several may name one
        self.names: dict[bytes, list[FileEntry]] = {}
        leaders: dict[bytes, list[FileEntry]] = {}
        for e in manifest:
            self.names[e.path] = leaders.setdefault(e.link, [e]) if e.link else [e]
        self.log: list[str] = []

    def manifest(self) -> Manifest:
        groups: dict[int, list[bytes]] = {}
        for path, held in self.names.items():
            groups.setdefault(id(held), []).append(path)
        return Manifest(msgspec.structs.replace(
            held[0], path=path, link=min(groups[id(held)]) if len(groups[id(held)]) > 1 else b"",
            mtime=0 if held[0].is_dir else held[0].mtime) for path, held in self.names.items())

    def __exit__(self, *raised: object) -> None:
        self.log.append("closed")

    def facts(self) -> dict[str, Any]:
        return {}

    def read_tree(self, destination: Path) -> None:
        raise NotImplementedError

    def sparse_files(self) -> set[bytes]:
        return set()

    def read_file(self, path: bytes, destination: Path) -> None:
        raise NotImplementedError

    def remove(self, files: Sequence[bytes], directories: Sequence[bytes]) -> None:
        self.log.append("remove")
        for path in files:
            assert not self.names.pop(path)[0].is_dir, path
        for path in sorted(directories, reverse=True):
            assert self.names.pop(path)[0].is_dir, path
            assert not any(parent(name) == path for name in self.names), f"{path!r} is not empty"

    def write(self, fill: Callable[[BinaryIO], None], *, selinux: bool = False) -> None:
        self.log.append("write")
        stream = self.place / "stream.tar"
        with stream.open("wb") as out:
            fill(out)
        for member in TarTree(stream).members():
            path = member.entry.path
            assert self.names[parent(path)][0].is_dir, f"{path!r} has no place"
            there = self.names.get(path)
            if member.hardlink is not None:
                assert there is None or not there[0].is_dir
                self.names[path] = self.names[member.hardlink]
                continue
            e = member.entry
            if there is not None:
                assert there[0].is_dir == e.is_dir, f"{path!r} is in the way"
            if member.content is not None:
                e = msgspec.structs.replace(
                    e, sha256=hashlib.sha256(member.content.read()).digest())
            if there is not None and e.is_dir:
                there[0] = e
            else:
                self.names[path] = [e]

    def space(self) -> list[Space]:
        return [Space("/", 4096, self.blocks, self.inodes)]

    def trim(self) -> None:
        self.log.append("trim")


def text_of(contents: Mapping[str, bytes]) -> Callable[[Source], bytes]:
    """Reads what parts made by :func:`laid` bring: by blob and path."""
    def read(source: Source) -> bytes:
        return contents[f"{source.blob.removeprefix(BLOB + ' of ')}:{source.member.decode()}"]
    return read
