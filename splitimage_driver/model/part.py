"""A part: a named set of files laid over a base."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.model.entry import UNDECODABLE, FileEntry

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
MAGIC = b"splitimage-part-1\n"
#: Where a blob holds the contents of entries under a condition, which may
#: have the path of an unconditional one: CONTENT/<sha256 in hexadecimal>.
CONTENT = b".splitimage/sha256"

SOFTWARE, DEPENDENCY, FILESET, REST, RESTORE = (
    "software", "dependency", "fileset", "rest", "restore")


def check_name(what: str, name: str) -> str:
    """:raises InvalidInput: not a name of a part or composite"""
    if not NAME.match(name):
        raise exceptions.InvalidInput(
            what=f"{what} name {name!r}",
            reason="use 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit")
    return name


#: Before the name of a file set where it could be taken for a part's.
FILESET_PREFIX = "fileset "


def speaker(kind: str, name: str) -> str:
    """What a part is called among others: a file set that happens to have the
    name of a piece of software does not stand in for it."""
    return FILESET_PREFIX + name if kind == FILESET else name


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A change of one row of a shared file.

    :ivar path: the shared file
    :ivar key: what identifies the row in it: an account's or package's name,
        or the line itself
    :ivar value: the row's new bytes, without its separator; None removes it
    :ivar rank: where an added row belongs: (number of the base's rows before
        it, its own number) in the gold machine's file
    """

    path: bytes
    key: bytes
    value: bytes | None
    rank: tuple[int, int] = (0, 0)


class Layer(msgspec.Struct, frozen=True, array_like=True):
    """What a part brings when all parts in ``when`` are present too.

    Where layers of a request speak about the same path, the one with the
    largest condition (``when`` and the part itself) wins; equals must agree
    or be merged.

    :ivar when: names of parts, sorted; empty: always
    :ivar entries: sorted by path
    :ivar deleted: paths that vanish, sorted
    :ivar rows: sorted by path and key
    """

    when: tuple[str, ...] = ()
    entries: tuple[FileEntry, ...] = ()
    deleted: tuple[bytes, ...] = ()
    rows: tuple[Row, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[Layer, ...])


class PartManifest:
    """All layers of a part; the sha256 of its canonical bytes names the part."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        kept = [layer for layer in layers if layer.entries or layer.deleted or layer.rows]
        self.layers = tuple(sorted(
            (Layer(when=tuple(sorted(layer.when)),
                   entries=tuple(sorted(layer.entries, key=lambda e: e.path)),
                   deleted=tuple(sorted(layer.deleted)),
                   rows=tuple(sorted(layer.rows, key=lambda r: (r.path, r.key))))
             for layer in kept), key=lambda layer: (len(layer.when), layer.when)))

    def encode(self) -> bytes:
        return MAGIC + _encoder.encode(self.layers)

    @classmethod
    def decode(cls, data: bytes) -> PartManifest:
        """:raises BadArchive: the bytes are not a part manifest of this version"""
        if not data.startswith(MAGIC):
            raise exceptions.BadArchive(path="part manifest", expected="a splitimage part",
                                        reason="wrong first line")
        try:
            return cls(_decoder.decode(memoryview(data)[len(MAGIC):]))
        except UNDECODABLE as error:
            raise exceptions.BadArchive(path="part manifest", expected="a splitimage part",
                                        reason=str(error)) from error

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.encode()).hexdigest()

    def entries(self) -> Iterator[tuple[Layer, FileEntry]]:
        for layer in self.layers:
            for entry in layer.entries:
                yield layer, entry

    @property
    def size(self) -> int:
        """Bytes of content, hard links counted once."""
        # A group's leader may be another part's.
        return sum({(layer.when, e.link or e.path): e.size
                    for layer, e in self.entries()}.values())

    @property
    def files(self) -> int:
        return sum(len(layer.entries) for layer in self.layers)

    def paths(self) -> set[bytes]:
        """Every path that any layer adds, changes, deletes or has rows for."""
        return {path for layer in self.layers for path in (
            *(e.path for e in layer.entries), *layer.deleted, *(r.path for r in layer.rows))}


def member(layer: Layer, entry: FileEntry) -> bytes:
    """Where the part's blob holds the content of ``entry``."""
    if layer.when:
        return CONTENT + b"/" + entry.sha256.hex().encode()
    return entry.link or entry.path


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a stored part.

    :ivar id: digest of its manifest
    :ivar blob: sha256 of the squashfs with its contents; "" where it has none
    :ivar blob_size: bytes of the blob
    :ivar size: bytes of its files
    :ivar packages: ``name=version`` of the packages it brings
    :ivar owner: project
    """

    id: str
    name: str
    kind: str
    blob: str
    blob_size: int
    size: int
    files: int
    owner: str
    created: float
    packages: tuple[str, ...] = ()
    public: bool = False
