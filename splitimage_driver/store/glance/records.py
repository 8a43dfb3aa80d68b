"""What is in a manifest image: a record and a manifest, compressed.

::

    splitimage-manifest-1\\n, then a zstd frame that states its length, of
    MessagePack: [record, canonical bytes of the manifest, parts]

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

MAGIC = b"splitimage-manifest-1\n"
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
    return MAGIC + zstandard.ZstdCompressor(level=_LEVEL).compress(plain)


def unpack(data: bytes, where: str, limit: int = MANIFEST_LIMIT) -> Bundle:
    """:param where: id of the image, for messages
    :param limit: bytes that it may have unpacked
    :raises BadImage: these are no bytes of :func:`pack`, or too many
    """
    def bad(reason: Any) -> exceptions.BadImage:
        return exceptions.BadImage(image=where, reason=f"it is no manifest: {reason}")

    if not data.startswith(MAGIC):
        raise bad("wrong first line")
    frame = memoryview(data)[len(MAGIC):]
    try:
        # Without a length in the frame nothing bounds the memory.
        size = zstandard.frame_content_size(frame)
        if not 0 <= size <= limit:
            raise bad(f"{size} bytes")
        plain = zstandard.ZstdDecompressor().decompress(frame)
        return msgspec.msgpack.decode(plain, type=Bundle)
    except (zstandard.ZstdError, *UNDECODABLE) as error:
        raise bad(error) from error
