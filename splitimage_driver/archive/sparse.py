"""Where the data of a sparse file lies."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import BinaryIO

#: What file systems give room in, bytes.
BLOCK = 4096
Segments = tuple[tuple[int, int], ...]


def normal(segments: Iterable[tuple[int, int]], size: int) -> Segments:
    """One form for each map: non-empty data segments in order, neighbours
    joined; ``()`` for a file without holes, ``((size, 0),)`` for one that is
    nothing but a hole.

    :param segments: (offset, length) in bytes
    :raises ValueError: they overlap, go backwards or beyond ``size``
    """
    kept: list[tuple[int, int]] = []
    end = 0
    for offset, length in segments:
        if length == 0 and 0 <= offset <= size:
            continue  # tar's mark for a hole at the end
        if length < 0 or offset < end or offset + length > size:
            raise ValueError("its sparse map does not fit the file")
        if kept and offset == end:
            kept[-1] = (kept[-1][0], kept[-1][1] + length)
        else:
            kept.append((offset, length))
        end = offset + length
    if not kept:
        return ((size, 0),) if size else ()
    return () if kept == [(0, size)] else tuple(kept)


def of_file(descriptor: int, size: int) -> Segments:
    """The map of an open file as its file system tells it."""
    segments = []
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError:  # ENXIO: no data from here to the end
            break
        position = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        if start < position:
            segments.append((start, position - start))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return normal(segments, size)


def of_content(stream: BinaryIO) -> Segments:
    """The map of a file that is known to have holes, by its blocks of zeros:
    exact up to blocks that were written as zeros."""
    segments = []
    position = 0
    while block := stream.read(BLOCK):
        if block.strip(b"\0"):
            segments.append((position, len(block)))
        position += len(block)
    return normal(segments, position)


def for_tar(segments: Segments, size: int) -> Segments:
    """The map as GNU tar wants it: a hole at the end needs an empty segment
    behind it, or extraction makes the file too short."""
    data = tuple(segment for segment in segments if segment[1])
    if not data or sum(data[-1]) < size:
        return (*data, (size, 0))
    return data
