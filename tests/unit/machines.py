"""Invented gold machines: a tree in memory with a dpkg database."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from splitimage_driver.archive.base import Member, Tree
from splitimage_driver.capture.draft import Draft
from splitimage_driver.capture.gold import GoldState, Spool
from splitimage_driver.model.entry import DIRECTORY, FILE, SYMLINK, FileEntry, parents
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.paths import Resolver
from splitimage_driver.model.plan import Source, Target
from splitimage_driver.planning import target
from tests.unit import making

__all__ = ["making"]  # for its settings

#: A file's content, a link's target (str), a directory (None), or exactly
#: this with this content.
Thing = bytes | str | None | tuple[FileEntry, bytes]
State = dict[str, Thing]


class Made(Tree):
    """A tree that is told path by path; ``links`` are further names."""

    expected = "an invented tree"

    def __init__(self, things: Mapping[str, Thing],
                 links: Mapping[str, str] | None = None) -> None:
        super().__init__(Path("invented"))
        self.things, self.links = dict(things), dict(links or {})

    def members(self) -> Iterator[Member]:
        found: dict[bytes, tuple[FileEntry, bytes | None]] = {}
        for name, thing in self.things.items():
            path = name.encode()
            for above in (b"", *parents(path)):
                found.setdefault(above, (FileEntry(above, DIRECTORY, 0o755), None))
            found[path] = _entry(path, thing)
        for path in sorted(found):
            yield _member(*found[path])
        for name, leader in sorted(self.links.items()):
            yield Member(FileEntry(name.encode(), FILE, 0), hardlink=leader.encode())


def _entry(path: bytes, thing: Thing) -> tuple[FileEntry, bytes | None]:
    if thing is None:
        return FileEntry(path, DIRECTORY, 0o755), None
    if isinstance(thing, str):
        return FileEntry(path, SYMLINK, 0o777, target=thing.encode()), None
    if isinstance(thing, bytes):
        return FileEntry(path, FILE, 0o644, size=len(thing)), thing
    entry, content = thing
    return msgspec.structs.replace(entry, path=path), content if entry.is_file else None


def _member(entry: FileEntry, content: bytes | None) -> Member:
    return Member(entry, opener=None if content is None else lambda: io.BytesIO(content))


def state(name: str, things: Mapping[str, Thing], links: Mapping[str, str] | None = None,
          place: Resolver | None = None) -> GoldState:
    return GoldState(name, Made(things, links), place)


def states(*told: tuple[str, Mapping[str, Thing]]) -> list[GoldState]:
    """Of the base, then of each step."""
    first = state(*told[0])
    return [first, *(state(name, things, place=first.place) for name, things in told[1:])]


# -- packages ------------------------------------------------------------------------

INFO = "var/lib/dpkg/info/"
STATUS, EXTENDED = "var/lib/dpkg/status", "var/lib/apt/extended_states"


def install(machine: Mapping[str, Thing], package: str, files: Mapping[str, Thing] | None = None,
            *, depends: Sequence[str] = (), recommends: Sequence[str] = (), manual: bool = True,
            script: str = "", priority: str = "optional", listed: Sequence[str] = ()) -> State:
    """The machine with one package more, as dpkg leaves it.

    :param listed: paths of the package besides ``files``
    """
    after = dict(machine)
    after.update(files or {})
    fields = {"Package": package, "Status": "install ok installed", "Priority": priority,
              "Section": "misc", "Installed-Size": "1", "Architecture": "amd64", "Version": "1",
              "Depends": ", ".join(depends), "Recommends": ", ".join(recommends),
              "Description": package}
    stanza = "".join(f"{key}: {value}\n" for key, value in fields.items() if value).encode()
    before = after.get(STATUS, b"")
    assert isinstance(before, bytes)
    stanzas = [*filter(None, before.split(b"\n\n")), stanza.rstrip(b"\n")]
    after[STATUS] = b"".join(one + b"\n\n" for one in sorted(stanzas))
    paths = {*(files or {}), *listed}
    paths |= {str(above) for path in paths for above in Path(path).parents} - {"."}
    after[f"{INFO}{package}.list"] = "".join(
        f"{line}\n" for line in ("/.", *(f"/{path}" for path in sorted(paths)))).encode()
    if script:
        after[f"{INFO}{package}.postinst"] = f"#!/bin/sh\n{script}\n".encode()
    marks = after.get(EXTENDED, b"")
    assert isinstance(marks, bytes)
    if not manual:
        marks += (f"Package: {package}\nArchitecture: amd64\nAuto-Installed: 1\n\n").encode()
    after[EXTENDED] = marks
    return after


def with_account(machine: Mapping[str, Thing], name: str, number: int) -> State:
    after = dict(machine)
    for path, line in (("etc/passwd", f"{name}:x:{number}:{number}::/:/bin/false\n"),
                       ("etc/group", f"{name}:x:{number}:\n")):
        before = after.get(path, b"")
        assert isinstance(before, bytes)
        after[path] = before + line.encode()
    return after


def base() -> State:
    """A system of one required package."""
    machine: State = {"bin": "usr/bin", "usr/bin": None, "etc/passwd": b"", "etc/group": b""}
    machine = install(machine, "base-files", {"usr/bin/sh": b"shell",
                                              "etc/debian_version": b"12.5\n"},
                      priority="required",
                      listed=["etc", "usr/bin", "usr/lib", "usr/sbin", "var/lib", "srv"])
    machine = with_account(machine, "root", 0)
    return with_account(machine, "www-data", 33)


# -- what comes of them -----------------------------------------------------------------


def laid(found: Draft, base: Manifest, trees: Sequence[GoldState], chosen: Sequence[str],
         spool: Spool, shared: Mapping[bytes, bytes]) -> Target:
    """The draft's parts of these names, and all they require, over the base."""
    manifests = found.manifests(base, [s.manifest for s in trees])
    names: set[str] = set()
    for name in chosen:
        names |= found.closure(name) & manifests.keys()

    def read(source: Source) -> bytes:
        for s in trees:
            spool.take(s, [e.path for e in s.manifest if e.is_file and e.size])
        part = source.blob
        for layer, e in manifests[part].entries():
            if target.parts_.member(layer, e) == source.member:
                return spool.get(e.sha256)
        raise KeyError(source)

    return target.lay(base, [target.Laid(name=name, kind=found.kind(name), blob=name,
                                         manifest=manifests[name]) for name in sorted(names)],
                      shared=shared, read=read)


def contents(tree: Manifest, known: Mapping[bytes, bytes]) -> dict[str, object]:
    """Every path with what it holds: content, link target, or its mode.

    :param known: contents by their sha256
    """
    return {e.path.decode(): known[e.sha256] if e.is_file else e.target.decode()
            if e.type == SYMLINK else e.mode for e in tree if e.path}


def digests(*found: bytes) -> dict[bytes, bytes]:
    return {hashlib.sha256(content).digest(): content for content in found}
