"""A header of an rpm database: one package's tags, read within bounds.

The layout (rpm's docs/manual/format_header.md): two big-endian integers, the
number of index entries and the bytes of data; the entries (tag, type,
offset, count); the data.
"""

from __future__ import annotations

import struct

from splitimage_driver import exceptions

NAME, VERSION, RELEASE, EPOCH = 1000, 1001, 1002, 1003
INSTALLTIME, SIZE, GROUP, ARCH = 1008, 1009, 1016, 1022
PREIN, POSTIN, PREUN, POSTUN, PRETRANS, POSTTRANS = 1023, 1024, 1025, 1026, 1151, 1152
FILESTATES, FILEFLAGS, SOURCERPM, PROVIDENAME = 1029, 1037, 1044, 1047
REQUIREFLAGS, REQUIRENAME = 1048, 1049
DIRINDEXES, BASENAMES, DIRNAMES = 1116, 1117, 1118
LONGSIZE, RECOMMENDNAME = 5009, 5046

_WANTED = frozenset((
    NAME, VERSION, RELEASE, EPOCH, INSTALLTIME, SIZE, GROUP, ARCH, PREIN, POSTIN, PREUN, POSTUN,
    PRETRANS, POSTTRANS, FILESTATES, FILEFLAGS, SOURCERPM, PROVIDENAME, REQUIREFLAGS,
    REQUIRENAME, DIRINDEXES, BASENAMES, DIRNAMES, LONGSIZE, RECOMMENDNAME))

#: Type to bytes of one value and its struct code.
_NUMBERS = {1: (1, "B"), 2: (1, "B"), 3: (2, "H"), 4: (4, "I"), 5: (8, "Q")}
_STRINGS = frozenset((6, 8, 9))  # one, several, several translations

#: rpm's own bounds are 65,535 tags and 256 MiB; real headers stay under 10 MiB.
MAX_BYTES = 64 << 20
MAX_ENTRIES = 0xFFFF

_ENTRY = struct.Struct(">IIII")


class Header:
    """The tags of one package that this project asks for."""

    def __init__(self, blob: bytes) -> None:
        """:raises InvalidInput: not a header, or values outside of it"""
        if not 8 <= len(blob) <= MAX_BYTES:
            raise _bad(f"{len(blob)} bytes")
        count, length = struct.unpack_from(">II", blob)
        start = 8 + count * _ENTRY.size
        if count > MAX_ENTRIES or start + length != len(blob):
            raise _bad("its lengths do not add up")
        data = memoryview(blob)[start:]
        self._values: dict[int, tuple[bytes, ...] | tuple[int, ...]] = {}
        # What installation added stands behind the tags of the package
        # itself and replaces them: the last one of a tag counts.
        entries = {entry[0]: entry for entry in _ENTRY.iter_unpack(blob[8:start])
                   if entry[0] in _WANTED}
        for tag, kind, offset, number in entries.values():
            if offset > length or number > length - offset:
                raise _bad(f"tag {tag} lies outside")
            if kind in _NUMBERS:
                size, code = _NUMBERS[kind]
                if number * size > length - offset:
                    raise _bad(f"tag {tag} lies outside")
                self._values[tag] = struct.unpack_from(f">{number}{code}", data, offset)
            elif kind in _STRINGS:
                pieces = bytes(data[offset:]).split(b"\0", number)
                if len(pieces) != number + 1:
                    raise _bad(f"tag {tag} lies outside")
                self._values[tag] = tuple(pieces[:number])

    def strings(self, tag: int) -> tuple[bytes, ...]:
        """:raises InvalidInput: the tag holds numbers"""
        values = self._values.get(tag, ())
        found = tuple(value for value in values if isinstance(value, bytes))
        if len(found) != len(values):
            raise _bad(f"tag {tag} should be text")
        return found

    def numbers(self, tag: int) -> tuple[int, ...]:
        """:raises InvalidInput: the tag holds text"""
        values = self._values.get(tag, ())
        found = tuple(value for value in values if isinstance(value, int))
        if len(found) != len(values):
            raise _bad(f"tag {tag} should be numbers")
        return found

    def string(self, tag: int) -> bytes:
        """The first value, b"" where there is none."""
        return next(iter(self.strings(tag)), b"")

    def number(self, tag: int) -> int:
        """The first value, 0 where there is none."""
        return next(iter(self.numbers(tag)), 0)


def _bad(reason: str) -> exceptions.InvalidInput:
    return exceptions.InvalidInput(what="a header of the rpm database", reason=reason)
