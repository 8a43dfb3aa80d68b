"""The exact description of a file tree, with the algebra of sets over it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.model.entry import UNDECODABLE, FileEntry, text

#: Raised when the encoding changes; part of every digest.
MAGIC = b"splitimage-manifest-1\n"

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[FileEntry, ...])


class Manifest:
    """Entries sorted by path, each path once.

    The canonical form is :data:`MAGIC` followed by the MessagePack array of
    the entries, each an array in the order of the fields of
    :class:`FileEntry`; integers are in their shortest form, so equal trees
    have equal bytes and the sha256 of the bytes names the tree.
    """

    __slots__ = ("__dict__", "entries")

    def __init__(self, entries: Iterable[FileEntry] = ()) -> None:
        self.entries: tuple[FileEntry, ...] = tuple(sorted(entries, key=_path))
        for one, two in zip(self.entries, self.entries[1:], strict=False):
            if one.path == two.path:
                raise exceptions.InvalidInput(what="manifest",
                                              reason=f"{text(one.path)} occurs twice")

    # -- access ---------------------------------------------------------------

    @functools.cached_property
    def by_path(self) -> Mapping[bytes, FileEntry]:
        return {entry.path: entry for entry in self.entries}

    def get(self, path: bytes) -> FileEntry | None:
        return self.by_path.get(path)

    def __contains__(self, path: bytes) -> bool:
        return path in self.by_path

    def __iter__(self) -> Iterator[FileEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and self.entries == other.entries

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def content_bytes(self) -> int:
        """Sum of the content sizes, a hard-linked file counted once."""
        return sum(e.size for e in self.entries if not e.link or e.link == e.path)

    # -- algebra --------------------------------------------------------------

    def missing_from(self, other: Manifest) -> tuple[FileEntry, ...]:
        """Entries of this tree that ``other`` lacks or has differently."""
        there = other.by_path
        return tuple(e for e in self.entries if there.get(e.path) != e)

    def excess_over(self, other: Manifest) -> tuple[FileEntry, ...]:
        """Entries of this tree whose path ``other`` does not have."""
        there = other.by_path
        return tuple(e for e in self.entries if e.path not in there)

    def __or__(self, entries: Iterable[FileEntry]) -> Manifest:
        """This tree with ``entries`` added or put in place of their paths."""
        return Manifest((dict(self.by_path) | {e.path: e for e in entries}).values())

    def __sub__(self, paths: Iterable[bytes]) -> Manifest:
        """This tree without ``paths`` (and only these)."""
        gone = set(paths)
        return Manifest(e for e in self.entries if e.path not in gone)

    # -- form -----------------------------------------------------------------

    def encode(self) -> bytes:
        return MAGIC + _encoder.encode(self.entries)

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """:raises BadArchive: the bytes are not a manifest of this version"""
        if not data.startswith(MAGIC):
            raise exceptions.BadArchive(path="manifest", expected="a splitimage manifest",
                                        reason="wrong first line")
        try:
            return cls(_decoder.decode(memoryview(data)[len(MAGIC):]))
        except UNDECODABLE as error:
            raise exceptions.BadArchive(path="manifest", expected="a splitimage manifest",
                                        reason=str(error)) from error

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of the canonical form, in hexadecimal."""
        return hashlib.sha256(self.encode()).hexdigest()


def _path(entry: FileEntry) -> bytes:
    return entry.path
