"""Numbers of users and groups, over all parts and the base.

Found at capture and answered there: a file's owner is a number, so parts
whose accounts disagree must never meet in one tree.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.merge import accounts
from splitimage_driver.merge import base as base_
from splitimage_driver.model.entry import text
from splitimage_driver.model.part import Row

PASSWD, GROUP, SUBUID, SUBGID = b"etc/passwd", b"etc/group", b"etc/subuid", b"etc/subgid"
FILES = {"uid": PASSWD, "gid": GROUP}
#: The base, where an origin is named.
BASE = ""
#: 100 is the first that Debian gives by itself; Red Hat gives from 999 down.
SYSTEM, USERS = range(100, 1000), range(1000, 60000)


class Holder(msgspec.Struct, frozen=True, order=True):
    """:ivar part: its name; empty for the base"""

    part: str
    name: bytes
    number: int


class AccountClash(msgspec.Struct, frozen=True):
    """:ivar kind: ``uid`` or ``gid``
    :ivar reason: ``number`` (one number, several names) or ``name`` (one
        name, several numbers)
    :ivar holders: sorted
    """

    kind: str
    reason: str
    holders: tuple[Holder, ...]

    def __str__(self) -> str:
        shown = ", ".join(
            f"{text(h.name)[1:]}={h.number} in {'the base' if h.part == BASE else h.part}"
            for h in self.holders)
        what = "several names" if self.reason == "number" else "several numbers"
        return f"{self.kind} with {what}: {shown}"


def account_clashes(base: Mapping[bytes, bytes],
                    rows: Mapping[str, Sequence[Row]]) -> list[AccountClash]:
    """What must be answered before these parts may meet.

    Two names of one number within one part, or within the base, are that
    machine's own intention and no clash.

    :param base: the base's contents by path; others than etc/passwd and
        etc/group are ignored
    :param rows: name of the part to its rows, of whatever paths
    :raises InvalidInput: a file or row is not of the accounts' kind
    """
    found = []
    for kind, path in FILES.items():
        touched: dict[bytes, set[str]] = {}
        for part, changes in rows.items():
            for row in changes:
                if row.path == path:
                    touched.setdefault(base_.plain(row.key), set()).add(part)
        by_name: dict[bytes, set[Holder]] = {}
        by_number: dict[int, set[Holder]] = {}
        for holder in _holders(path, base, rows):
            by_name.setdefault(holder.name, set()).add(holder)
            by_number.setdefault(holder.number, set()).add(holder)
        for same in by_name.values():
            if _disagree((h.number, h.part, frozenset()) for h in same):
                found.append(AccountClash(kind, "name", tuple(sorted(same))))
        for same in by_number.values():
            if _disagree((h.name, h.part, frozenset(touched.get(h.name, ()))) for h in same):
                found.append(AccountClash(kind, "number", tuple(sorted(same))))
    return sorted(found, key=lambda clash: (clash.kind, clash.reason, clash.holders))


def free_ids(kind: str, wanted: Iterable[int], base: Mapping[bytes, bytes],
             rows: Mapping[str, Sequence[Row]]) -> dict[int, int]:
    """New numbers for old ones, that nothing else has.

    A system account's number stays one (100 to 999), a user's too (1000 to
    59999); the lowest free ones, in the order of the old numbers.

    :param kind: ``uid`` or ``gid``
    :param wanted: the numbers to be replaced
    :param base: as in :func:`account_clashes`
    :param rows: as in :func:`account_clashes`, of every part there is
    :raises InvalidInput: none is free
    """
    used = {holder.number for holder in _holders(FILES[kind], base, rows)}
    found = {}
    for old in sorted(set(wanted)):
        room = USERS if old in USERS else SYSTEM
        free = next((n for n in room if n not in used), None)
        if free is None:
            raise exceptions.InvalidInput(
                what=f"{kind} {old}",
                reason=f"no other is free between {room[0]} and {room[-1]}")
        used.add(free)
        found[old] = free
    return found


def renumber(rows: Sequence[Row], uids: Mapping[int, int],
             gids: Mapping[int, int]) -> list[Row]:
    """A part's rows with other numbers in its etc/passwd and etc/group, and
    in etc/subuid and etc/subgid where those name an account by its number.

    The caller renumbers the owners of the part's files.

    :param uids: old to new; likewise ``gids``
    """
    fields = {PASSWD: ((2, uids), (3, gids)), GROUP: ((2, gids),),
              SUBUID: ((0, uids),), SUBGID: ((0, uids),)}
    found = []
    for row in rows:
        if row.value is None or row.path not in fields or not accounts.is_account(row.value):
            found.append(row)
            continue
        pieces = row.value.split(b":")
        for at, numbers in fields[row.path]:
            old = _number(pieces[at]) if at < len(pieces) else None
            if old is not None and old in numbers:
                pieces[at] = b"%d" % numbers[old]
        key = row.key
        if row.path in (SUBUID, SUBGID):
            key = pieces[0] + key[len(base_.plain(key)):]
        found.append(Row(row.path, key, b":".join(pieces), row.rank))
    return found


def _holders(path: bytes, base: Mapping[bytes, bytes],
             rows: Mapping[str, Sequence[Row]]) -> Iterator[Holder]:
    merger = accounts.Passwd() if path == PASSWD else accounts.Group()
    contents = [(BASE, base.get(path, b""))]
    for part in sorted(rows):
        values = [row.value for row in rows[part] if row.path == path and row.value is not None]
        contents.append((part, b"".join(value + b"\n" for value in values)))
    for part, content in contents:
        for name, row in merger.parse(content):
            if accounts.is_account(row):
                yield Holder(part, name, int(row.split(b":")[2]))


def _disagree(claims: Iterable[tuple[object, str, frozenset[str]]]) -> bool:
    """Whether two of the things that claim the same come from different
    origins, and none has both.

    :param claims: (thing, its origin, parts that changed or removed what the
        base has of it, to whom the base's claim means nothing)
    """
    origins: dict[object, set[str]] = {}
    freed: dict[object, frozenset[str]] = {}
    for thing, origin, parts in claims:
        origins.setdefault(thing, set()).add(origin)
        freed[thing] = parts
    # What comes from the same places needs one comparison, however many there
    # are. Sorted, so that the base, if it is one of two, is in the first.
    kinds = sorted({(frozenset(origins[thing]), freed[thing]) for thing in origins},
                   key=lambda kind: (sorted(kind[0]), sorted(kind[1])))
    return any(
        not (ones & twos) and any(
            one != BASE or two not in one_freed for one in ones for two in twos)
        for (ones, one_freed), (twos, _) in itertools.combinations(kinds, 2))


def _number(piece: bytes) -> int | None:
    return int(piece) if re.fullmatch(rb"[0-9]{1,10}", piece) else None
