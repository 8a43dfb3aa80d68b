"""Immutable files that are named by the sha256 of their content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

from splitimage_driver import exceptions
from splitimage_driver.store.database import sync_directory
from splitimage_driver.store.space import Space

DIGEST = re.compile(r"[0-9a-f]{64}\Z")
#: Bytes of the largest manifest that is read, far above any real one.
MANIFEST_LIMIT = 2**31
_LEVEL = 3


class ObjectDirectory:
    """``root/ab/abcdef...``, mode 0400."""

    def __init__(self, root: Path, space: Space) -> None:
        self.root, self.space = root, space

    def path(self, digest: str) -> Path:
        """Where the object is, if it is there."""
        return self.root / digest[:2] / digest

    def has(self, digest: str) -> bool:
        return bool(DIGEST.match(digest)) and self.path(digest).is_file()

    def place(self, file: Path, digest: str, *, replace: bool = False) -> None:
        """Move a synced file in under its digest; dropped when it is there
        already, unless the one there is to be replaced or has another length
        and so is damaged."""
        target = self.path(digest)
        with self.space.guard():
            if not target.parent.is_dir():
                target.parent.mkdir(mode=0o700, exist_ok=True)
                sync_directory(self.root)
            file.chmod(0o400)
            try:
                there = not replace and target.stat().st_size == file.stat().st_size
            except FileNotFoundError:
                there = False
            if there:
                file.unlink()
            else:
                os.rename(file, target)
            self.touch(digest)

    def touch(self, digest: str) -> None:
        """An object found there is as good as new: whoever renamed it may
        not have come to sync its name."""
        os.utime(self.path(digest))
        sync_directory(self.path(digest).parent)

    def remove(self, digest: str) -> int:
        """:returns: the bytes it had, 0 if it was not there"""
        target = self.path(digest)
        try:
            size = target.stat().st_size
            target.unlink()
        except FileNotFoundError:
            return 0
        return size

    def __iter__(self) -> Iterator[Path]:
        """Every file below the root, whatever its name."""
        for folder, _, names in os.walk(self.root):
            for name in sorted(names):
                yield Path(folder) / name

    def digest_of(self, path: Path) -> str:
        """The digest that a file's place names; "" for a stray file."""
        good = DIGEST.match(path.name) and path == self.path(path.name)
        return path.name if good and not path.is_symlink() and path.is_file() else ""


def finish(file: Path, known: str = "") -> str:
    """Sync a finished file to the disk and return its sha256.

    :param known: that of what was just written to it; it is not read again
    :raises InvalidInput: not a plain file
    """
    try:
        # Not following a link, and not waiting for a pipe's other end.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise exceptions.InvalidInput(what=f"object {file}", reason=error.strerror) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise exceptions.InvalidInput(what=f"object {file}", reason="not a plain file")
    with open(descriptor, "rb") as stream:
        os.fsync(descriptor)
        return known or hashlib.file_digest(stream, "sha256").hexdigest()


def digest(path: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """sha256 of a file; ``advance`` is told the bytes as they are read."""
    found = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(2**20):
            found.update(piece)
            advance(len(piece))
    return found.hexdigest()


def pack(data: bytes) -> bytes:
    """A manifest's canonical bytes as they are stored."""
    return zstandard.ZstdCompressor(level=_LEVEL).compress(data)


def unpack(path: Path, expected: str) -> bytes:
    """The canonical bytes of a stored manifest.

    :raises DigestMismatch: they are not what the name says
    """
    found = "data that cannot be decompressed"
    data = path.read_bytes()
    with contextlib.suppress(zstandard.ZstdError):
        # The frame states its length; without one nothing bounds the memory.
        if 0 <= zstandard.frame_content_size(data) <= MANIFEST_LIMIT:
            plain = zstandard.ZstdDecompressor().decompress(data)
            found = hashlib.sha256(plain).hexdigest()
            if found == expected:
                return plain
    raise exceptions.DigestMismatch(what=f"manifest {path}", expected=expected, found=found)
