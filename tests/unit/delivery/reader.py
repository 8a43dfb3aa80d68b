"""The guest in a few lines of Python: reads a plan and carries it out on a
file system in memory, its chunks in any order."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes

from splitimage_driver.model.entry import DIRECTORY, FILE, SYMLINK, FileEntry, parent
from tests.unit.making import Memory

Line = list[bytes]


def lines(text: bytes) -> list[Line]:
    assert text.endswith(b"\n")
    found = []
    for line in text.split(b"\n")[:-1]:
        assert not re.search(rb"[^\t!-~]", line)
        found.append([unquote_to_bytes(each) for each in line.split(b"\t")])
    assert found[0][:2] == [b"splitimage-plan", b"1"] and found[-1] == [b"end"]
    return found


def chunks(plan: Sequence[Line]) -> list[list[Line]]:
    """Each with the line that begins it."""
    found: list[list[Line]] = []
    for line in plan:
        if line[0] == b"chunk":
            found.append([line])
        elif line[0] in (b"file", b"name", b"onto", b"link", b"node", b"gone"):
            found[-1].append(line)
    return found


class Guest:
    """:param contents: sha256 to content, of all blobs and the plan's disk"""

    def __init__(self, memory: Memory, plan: Sequence[Line],
                 contents: Mapping[bytes, bytes]) -> None:
        self.memory, self.plan, self.contents = memory, plan, contents
        self.last: list[FileEntry] = []

    def run(self, order: Sequence[int]) -> None:
        for line in self.plan:
            if line[0] == b"dir":
                self._directory(line)
        pieces = chunks(self.plan)
        gone = [p for p in pieces if any(_is_directory(line) for line in p)]
        for number in order:
            if pieces[number] not in gone:
                self._chunk(pieces[number])
        for piece in gone:
            self._chunk(piece)

    def _directory(self, line: Line) -> None:
        _, _, path, mode, uid, gid, _, before = line
        self._as_expected(path, before)
        entry = FileEntry(path=path, type=DIRECTORY, mode=int(mode, 8), uid=int(uid), gid=int(gid))
        if before.startswith(b"d:"):
            self.memory.names[path][0] = entry
        else:
            self.memory.names[path] = [entry]

    def _chunk(self, piece: Sequence[Line]) -> None:
        for line in piece[1:]:
            getattr(self, "_" + line[0].decode())(*line[1:])

    def _file(self, parts: bytes, path: bytes, mode: bytes, uid: bytes, gid: bytes, size: bytes,
              mtime: bytes, digest: bytes, member: bytes, sparse: bytes, xattrs: bytes,
              before: bytes) -> None:
        self._as_expected(path, before)
        content = self.contents[digest] if int(size) else b""
        assert (len(content), hashlib.sha256(content).hexdigest()) == (int(size), digest.decode())
        self.last = [FileEntry(path=path, type=FILE, mode=int(mode, 8), uid=int(uid), gid=int(gid),
                               size=int(size), mtime=int(mtime), sha256=bytes.fromhex(
                                   digest.decode()))]
        self.memory.names[path] = self.last

    def _name(self, path: bytes, before: bytes) -> None:
        self._as_expected(path, before)
        self.memory.names[path] = self.last

    def _onto(self, parts: bytes, path: bytes, there: bytes, before: bytes) -> None:
        self._as_expected(path, before)
        self.memory.names[path] = self.memory.names[there]

    def _link(self, parts: bytes, path: bytes, uid: bytes, gid: bytes, mtime: bytes,
              target: bytes, xattrs: bytes, before: bytes) -> None:
        self._as_expected(path, before)
        self.memory.names[path] = [FileEntry(
            path=path, type=SYMLINK, mode=0o777, uid=int(uid), gid=int(gid), mtime=int(mtime),
            target=target)]

    def _gone(self, parts: bytes, path: bytes, before: bytes) -> None:
        self._as_expected(path, before)
        del self.memory.names[path]
        assert not any(parent(name) == path for name in self.memory.names)

    def _as_expected(self, path: bytes, before: bytes) -> None:
        there = self.memory.names.get(path)
        assert (path == b"" or self.memory.names[parent(path)][0].is_dir)
        if before == b"-":
            assert there is None, path
            return
        assert there is not None, path
        kind, *fields = before.split(b":", 6 if before[:1] == b"f" else 3)
        e = there[0]
        assert kind.decode() == e.type
        if e.is_file:
            assert fields == [b"%o" % e.mode, b"%d" % e.uid, b"%d" % e.gid, b"%d" % e.size,
                              b"%d" % e.mtime, e.sha256.hex().encode()]
        elif e.type == SYMLINK:
            assert unquote_to_bytes(fields[2]) == e.target
        else:
            assert fields == [b"%o" % e.mode, b"%d" % e.uid, b"%d" % e.gid]


def _is_directory(line: Line) -> bool:
    return line[0] == b"gone" and line[3].startswith(b"d:")
