"""POSIX access control lists: the kernel's binary form and tar's text.

The kernel keeps a list in ``system.posix_acl_access`` or ``..._default``:
a version, then (tag, permissions, id) of each entry, all little-endian.
Tar archives carry it as text (``SCHILY.acl.*``): ``user:33:rw-`` and so on.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"

_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_NO_ID = 0xFFFFFFFF
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_TAGS = {"user": (_USER_OBJ, _USER), "u": (_USER_OBJ, _USER),
         "group": (_GROUP_OBJ, _GROUP), "g": (_GROUP_OBJ, _GROUP),
         "mask": (_MASK, None), "m": (_MASK, None),
         "other": (_OTHER, None), "o": (_OTHER, None)}
_NAMES = {_USER_OBJ: "user", _USER: "user", _GROUP_OBJ: "group", _GROUP: "group",
          _MASK: "mask", _OTHER: "other"}
_MAX_ENTRIES = 8191  # what fits in an extended attribute of 64 KiB

#: (tag, permissions, id)
Ace = tuple[int, int, int]


def from_text(text: str) -> bytes:
    """The binary form of a list as ``acl_to_text`` or star write it:
    entries after commas or newlines; a fourth field is the numeric id of a
    name.

    :returns: empty where there is no list, or one that says no more than
        the file's mode
    :raises ValueError: not such a text, or a name without a number
    """
    entries = []
    for line in text.replace(",", "\n").splitlines():
        line = line.partition("#")[0].strip()
        if line:
            entries.append(_entry(line))
    if not entries:
        return b""
    entries.sort(key=lambda entry: (entry[0], entry[2]))
    _check(entries)
    if all(tag in (_USER_OBJ, _GROUP_OBJ, _OTHER) for tag, _, _ in entries):
        return b""
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)


def to_text(value: bytes) -> str:
    """The text form with numeric ids, entries separated by commas.

    :raises ValueError: not a list in the kernel's form
    """
    return ",".join(
        f"{_NAMES[tag]}:{'' if identity == _NO_ID else identity}:"
        f"{'r' if bits & 4 else '-'}{'w' if bits & 2 else '-'}{'x' if bits & 1 else '-'}"
        for tag, bits, identity in parse(value))


def mode(value: bytes, other: int) -> int:
    """The permission bits that a file with this access list has: the
    kernel shows the mask as the group's (libarchive stores them apart).

    :param other: its mode, for the bits that no list has
    :raises ValueError: not a list in the kernel's form
    """
    bits = {tag: permissions for tag, permissions, _ in parse(value)}
    group = bits.get(_MASK, bits[_GROUP_OBJ])
    return other & 0o7000 | bits[_USER_OBJ] << 6 | group << 3 | bits[_OTHER]


def renumbered(value: bytes, users: Mapping[int, int], groups: Mapping[int, int]) -> bytes:
    """The same list for users and groups with other numbers.

    :param users: old to new; others stay
    :raises ValueError: not a list in the kernel's form
    """
    tables = {_USER: users, _GROUP: groups}
    entries = sorted(((tag, bits, tables[tag].get(identity, identity) if tag in tables
                       else identity) for tag, bits, identity in parse(value)),
                     key=lambda entry: (entry[0], entry[2]))
    _check(entries)
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)


def parse(value: bytes) -> list[Ace]:
    """:raises ValueError: not a list in the kernel's form"""
    body = len(value) - _HEADER.size
    if body < 0 or body % _ENTRY.size or _HEADER.unpack_from(value)[0] != _VERSION:
        raise ValueError("not a POSIX ACL of version 2")
    entries = [(tag, bits, _NO_ID if tag not in (_USER, _GROUP) else identity)
               for tag, bits, identity in _ENTRY.iter_unpack(value[_HEADER.size:])]
    _check(entries)
    return entries


def _entry(line: str) -> Ace:
    fields = line.split(":")
    if fields[0] in ("default", "d"):
        del fields[0]
    if fields[0] in ("other", "o", "mask", "m") and len(fields) == 2:
        fields.insert(1, "")  # the short form other:rwx
    if not 3 <= len(fields) <= 4 or fields[0] not in _TAGS:
        raise ValueError(f"ACL entry {line!r} is not TAG:ID:PERMISSIONS")
    plain, named = _TAGS[fields[0]]
    who = fields[1].strip()
    bits = 0
    for letter in fields[2].strip():
        if letter not in "rwx-":
            raise ValueError(f"ACL entry {line!r} has unknown permissions")
        bits |= {"r": 4, "w": 2, "x": 1, "-": 0}[letter]
    if not who:
        return plain, bits, _NO_ID
    number = fields[3].strip() if len(fields) == 4 else who
    if named is None or not (number.isascii() and number.isdigit()):
        raise ValueError(f"ACL entry {line!r} names someone without a number")
    return named, bits, int(number)


def _check(entries: Sequence[Ace]) -> None:
    """What the kernel demands (posix_acl_valid); an invalid list would fail
    only at extraction."""
    tags = [tag for tag, _, _ in entries]
    named = [(tag, identity) for tag, _, identity in entries if tag in (_USER, _GROUP)]
    if (len(entries) > _MAX_ENTRIES or set(tags) - set(_NAMES)
            or any(bits > 7 for _, bits, _ in entries)):
        raise ValueError("a POSIX ACL with unknown tags or permissions")
    if any(tags.count(tag) != 1 for tag in (_USER_OBJ, _GROUP_OBJ, _OTHER)):
        raise ValueError("a POSIX ACL without exactly one owner, group and other")
    if tags.count(_MASK) != 1 and (named or _MASK in tags):
        raise ValueError("a POSIX ACL that names someone without exactly one mask")
    if tags != sorted(tags) or len(set(named)) != len(named):
        raise ValueError("a POSIX ACL that is not in order")
    if any(not 0 <= identity < _NO_ID for _, identity in named):
        raise ValueError("a POSIX ACL with an impossible id")
