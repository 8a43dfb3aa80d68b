"""What is in a manifest image: a record and a manifest, compressed.

::

    splitimage-record-1, up to seven blanks, the line's end; then a zstd frame
    that states its length, of MessagePack: [record, canonical bytes of the
    manifest, parts]

The record is a composite's or a part's, nil for a completed image (its record
is in its properties); the manifest that of a tree or a part; ``parts`` are the
records of a composite's parts, the restore part included.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import zstandard

from splitimage_driver import exceptions
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.entry import UNDECODABLE
from splitimage_driver.model.part import Part
from splitimage_driver.store.objects import MANIFEST_LIMIT

_LINE = b"splitimage-record-1"
#: How one begins, as a rule.
MAGIC = _LINE + b"\n"
#: Glance takes what has this here for a broken disk, and refuses it for ever.
_BOOT_MARK, _BOOT_PLACE = b"\x55\xaa", 510
#: Blanks that the first line may end with.
_MOST_BLANKS = 7
_LEVEL = 3
_Record = TypeVar("_Record", Composite, Part, None)
_encode = msgspec.msgpack.Encoder().encode


class Bundle(msgspec.Struct, frozen=True, array_like=True):
    """:ivar record: of the holder, encoded
    :ivar manifest: canonical bytes
    :ivar parts: of a composite
    """

    record: msgspec.Raw
    manifest: bytes
    parts: tuple[Part, ...] = ()

    def of(self, model: type[_Record], where: str) -> _Record:
        """The record. :raises BadImage: it is none of this model"""
        try:
            return msgspec.msgpack.decode(self.record, type=model)
        except UNDECODABLE as error:
            raise exceptions.BadImage(image=where, reason=f"its record: {error}") from error


def pack(record: Composite | Part | None, manifest: bytes, parts: tuple[Part, ...] = ()) -> bytes:
    plain = _encode(Bundle(msgspec.Raw(_encode(record)), manifest, parts))
    frame = zstandard.ZstdCompressor(level=_LEVEL).compress(plain)
    found = b""
    for blanks in range(_MOST_BLANKS + 1):
        found = b"%s%s\n%s" % (_LINE, b" " * blanks, frame)
        if not found.startswith(_BOOT_MARK, _BOOT_PLACE):
            break
    return found


def unpack(data: bytes, where: str, limit: int = MANIFEST_LIMIT) -> Bundle:
    """:param where: id of the image, for messages
    :param limit: bytes that it may have unpacked
    :raises BadImage: these are no bytes of :func:`pack`, or too many
    """
    def bad(reason: Any) -> exceptions.BadImage:
        return exceptions.BadImage(image=where, reason=f"it is no manifest: {reason}")

    end = data.find(b"\n", 0, len(MAGIC) + _MOST_BLANKS)
    if end < 0 or data[:end].rstrip(b" ") != _LINE:
        raise bad("wrong first line")
    frame = memoryview(data)[end + 1:]
    try:
        # Without a length in the frame nothing bounds the memory.
        size = zstandard.frame_content_size(frame)
        if not 0 <= size <= limit:
            raise bad(f"{size} bytes")
        plain = zstandard.ZstdDecompressor().decompress(frame)
        return msgspec.msgpack.decode(plain, type=Bundle)
    except (zstandard.ZstdError, *UNDECODABLE) as error:
        raise bad(error) from error
