"""One path of a file tree, as exactly as a file system can hold it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

#: What decoding raises for bytes that this project has not encoded.
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
FILE, DIRECTORY, SYMLINK, CHAR, BLOCK, FIFO = "f", "d", "l", "c", "b", "p"


class FileEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry of a manifest.

    :ivar path: relative to the root, no leading or trailing slash; the root
        itself is ``b""``. Bytes, because names need not be UTF-8
    :ivar type: one of ``f d l c b p``; sockets are not kept
    :ivar mode: permission bits, 0o0000 to 0o7777
    :ivar size: bytes of content, 0 for everything but files
    :ivar mtime: nanoseconds since the epoch; 0 for directories, whose times
        are derived at assembly so that laying order cannot show
    :ivar sha256: of the content, 32 bytes; empty for everything but files
    :ivar target: of a symbolic link
    :ivar link: hard-link group: the lowest path of the group; empty where
        the file has one name
    :ivar device: (major, minor) of a device node
    :ivar xattrs: (name, value) sorted by name; POSIX ACLs and file
        capabilities are here in the kernel's own binary form
    :ivar sparse: (offset, length) of the data segments of a sparse file
    """

    path: bytes
    type: str
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    sha256: bytes = b""
    target: bytes = b""
    link: bytes = b""
    device: tuple[int, int] | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse: tuple[tuple[int, int], ...] = ()

    def same(self, other: FileEntry | None) -> bool:
        """Equal in everything that parts can disagree about: all but time
        and place of holes."""
        return other is not None and (
            self.type == other.type and self.mode == other.mode
            and self.uid == other.uid and self.gid == other.gid
            and self.size == other.size and self.sha256 == other.sha256
            and self.target == other.target and self.link == other.link
            and self.device == other.device and self.xattrs == other.xattrs)

    def with_content(self, content: bytes) -> FileEntry:
        """The same file with other content, no longer a hard link."""
        return msgspec.structs.replace(self, size=len(content), link=b"", sparse=(),
                                       sha256=hashlib.sha256(content).digest())

    @property
    def is_dir(self) -> bool:
        return self.type == DIRECTORY

    @property
    def is_file(self) -> bool:
        return self.type == FILE


def text(path: bytes) -> str:
    """A path for people: a leading slash, undecodable bytes and control
    characters escaped."""
    shown = "/" + path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def parents(path: bytes) -> list[bytes]:
    """The directories above ``path``, outermost first, without the root."""
    pieces = path.split(b"/")[:-1]
    return [b"/".join(pieces[:n]) for n in range(1, len(pieces) + 1)]


def directories(paths: Iterable[bytes]) -> set[bytes]:
    """All directories above any of the paths, without the root."""
    found = {b""}
    for path in paths:
        above = parent(path)
        while above not in found:
            found.add(above)
            above = parent(above)
    return found - {b""}


def parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]
