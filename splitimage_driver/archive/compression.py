"""Decompression of archives as bounded streams."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
#: What a broken or truncated stream raises.
ERRORS = (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, gzip.BadGzipFile)

_CHUNK = 1 << 18
#: Memory a stream may ask of its reader: enough for ``xz -9e`` (65 MiB) and
#: for ``zstd --ultra -22`` (128 MiB).
_MEMORY = 1 << 28
_WINDOW = 1 << 27


def method(head: bytes) -> str:
    """``gzip``, ``xz``, ``zstd`` or ``""``, by a file's first bytes."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed where it is compressed.

    :raises ERRORS: while it is read
    """
    with open(path, "rb") as file:
        kind = method(file.peek(8)[:8])
        if kind == "gzip":
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file))
        elif kind == "xz":
            yield cast(BinaryIO, io.BufferedReader(_Xz(file), _CHUNK))
        elif kind == "zstd":
            decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
            stream = decompressor.stream_reader(file, read_across_frames=True)
            yield cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), _CHUNK))
        else:
            yield file


class _Xz(io.RawIOBase):
    """As lzma.LZMAFile, which cannot limit the memory a stream asks for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            if self._decoder.eof:
                rest = (self._decoder.unused_data or self._file.read(_CHUNK)).lstrip(b"\0")
                if not rest:
                    return 0
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
            elif self._decoder.needs_input:
                rest = self._file.read(_CHUNK)
                if not rest:
                    raise EOFError("the compressed stream ends early")
            else:
                rest = b""
            data = self._decoder.decompress(rest, len(buffer))
            if data:
                buffer[:len(data)] = data
                return len(data)
