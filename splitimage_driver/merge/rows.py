"""Changes of shared files, row by row: taken from one machine, applied to
another, the same whatever the order of the parts.

Where a row belongs is its rank ``(place, number)``. A row of the base that
keeps its place among the base's rows has its own index there as ``place``;
every other row has the index after the last row before it that kept its
place. ``number`` counts the rows of the gold machine's file from 1, so
``(0, 0)`` says nothing about a place.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.merge.base import Merger, plain
from splitimage_driver.model.entry import text
from splitimage_driver.model.part import Row

Rank = tuple[int, int]


class Merged(msgspec.Struct, frozen=True):
    """:ivar content: None where no row is left and the base had no such file
    :ivar clashes: (key, names of the parts) that no rule decides, sorted;
        their rows are the base's in ``content``. The key is empty where the
        rows agree one by one and make no file together
    """

    content: bytes | None
    clashes: tuple[tuple[bytes, tuple[str, ...]], ...] = ()


def diff(merger: Merger, path: bytes, old: bytes | None, new: bytes | None, *,
         places: Mapping[bytes, Rank] | None = None) -> list[Row]:
    """What turns ``old`` into ``new``, sorted by key.

    :param old: None: no such file
    :param places: from :func:`places`, where ``old`` is not the base or
        ``new`` not the gold machine's last state; without it ``old`` is the
        base that the ranks count
    :returns: nothing too where the files differ only in what their owner
        would not write (:func:`faithful`), or one of them is there and empty
    :raises InvalidInput: one of them is not a file of the merger's kind
    """
    before, after = _rows(merger, old), _rows(merger, new)
    own = _places(before, after)
    known = {**own, **(places or {})}
    index = {key: n for n, key in enumerate(before)}
    ordered = _ordered(merger, after)
    found = [Row(path, key, None) for key in before if key not in after]
    for key, value in after.items():
        moved = not ordered and key in index and own[key][0] != index[key]
        if before.get(key) != value or moved:
            found.append(Row(path, key, value, known[key]))
    return sorted(found, key=lambda row: row.key)


def places(merger: Merger, base: bytes | None, final: bytes | None) -> dict[bytes, Rank]:
    """The rank of every row of a gold machine's last state, counted against
    the base: with it the rows of each of its steps end where they stand in
    the last one.

    :raises InvalidInput: one of them is not a file of the merger's kind
    """
    return _places(_rows(merger, base), _rows(merger, final))


def keyed(merger: Merger, content: bytes | None) -> dict[bytes, bytes]:
    """A file's rows by the keys that :func:`diff` gives them.

    :raises InvalidInput: not a file of the merger's kind
    """
    return _rows(merger, content)


def faithful(merger: Merger, content: bytes) -> bool:
    """Whether the merger would write these very bytes (and not, say, end
    their last line).

    :raises InvalidInput: not a file of the merger's kind
    """
    rows = _rows(merger, content)
    return merger.build(_sorted(merger, rows)) == content


def apply(merger: Merger, path: bytes, base: bytes | None,
          rows: Mapping[str, Sequence[Row]]) -> Merged:
    """The base's file with the rows of all parts.

    :param path: for messages
    :param base: None: it has no such file
    :param rows: of this path: name of the part to its rows, one a key
    :raises InvalidInput: the base's file is not of the merger's kind
    """
    was = _rows(merger, base)
    index = {key: n for n, key in enumerate(was)}
    claims: dict[bytes, dict[str, Row]] = {}
    for part in sorted(rows):
        for row in rows[part]:
            claims.setdefault(row.key, {})[part] = row
    now = dict(was)
    moves: dict[bytes, Rank] = {}
    clashes = []
    for key in sorted(claims):
        parts = claims[key]
        values = {part: row.value for part, row in parts.items() if row.value != was.get(key)}
        try:
            value = _decide(merger, key, was.get(key), values)
        except _Undecided:
            clashes.append((key, tuple(values)))
            continue
        if value is None:
            now.pop(key, None)
            continue
        now[key] = value
        ranks = [row.rank for row in parts.values() if row.value is not None
                 and (key not in index or row.rank not in ((0, 0), (index[key], row.rank[1])))]
        if ranks:
            moves[key] = min(ranks)
    if now == was and not (moves and not _ordered(merger, was)):
        return Merged(base, tuple(clashes))
    try:
        content = merger.build(_sorted(merger, now, _position(index, moves)))
    except exceptions.InvalidInput:
        return Merged(base, (*clashes, (b"", tuple(sorted(rows)))))
    if not content and (base is None or merger.vanishes):
        return Merged(None, tuple(clashes))
    return Merged(content, tuple(clashes))


class _Undecided(Exception):
    """No rule makes one row of several."""


def _decide(merger: Merger, key: bytes, base: bytes | None,
            values: Mapping[str, bytes | None]) -> bytes | None:
    """One value of those that differ from the base's; None: no row."""
    wanted = list(dict.fromkeys(values.values()))
    if not wanted:
        return base
    if len(wanted) == 1:
        return wanted[0]
    versions = [value for value in wanted if value is not None]
    if len(versions) < len(wanted):
        raise _Undecided
    merged = versions[0]
    for value in versions[1:]:
        both = merger.combine(plain(key), base, merged, value)
        if both is None:
            raise _Undecided
        merged = both
    # a machine that had all of it wrote it in its own way
    alike = [value for value in versions
             if merger.combine(plain(key), base, value, value) == merged]
    return min(alike, default=merged)


def _rows(merger: Merger, content: bytes | None) -> dict[bytes, bytes]:
    """Rows by key in the file's order, repeated keys numbered (:func:`plain`)."""
    found: dict[bytes, bytes] = {}
    seen: dict[bytes, int] = {}
    for key, row in merger.parse(content) if content is not None else ():
        if b"\0" in key:
            raise exceptions.InvalidInput(what=text(key), reason="a key holds a NUL byte")
        number = seen[key] = seen.get(key, 0) + 1
        found[key if number == 1 else b"%s\0%08d" % (key, number)] = row
    return found


def _places(base: Mapping[bytes, bytes], new: Iterable[bytes]) -> dict[bytes, Rank]:
    index = {key: n for n, key in enumerate(base)}
    keys = list(new)
    kept = _longest_rise([index[key] for key in keys if key in index])
    found = {}
    place = 0
    for number, key in enumerate(keys, 1):
        at = index.get(key)
        if at is not None and at in kept:
            found[key] = (at, number)
            place = at + 1
        else:
            found[key] = (place, number)
    return found


def _longest_rise(numbers: Sequence[int]) -> set[int]:
    """A longest increasing subsequence of distinct numbers."""
    tails: list[int] = []
    before: dict[int, int | None] = {}
    for number in numbers:
        at = bisect.bisect_left(tails, number)
        before[number] = tails[at - 1] if at else None
        tails[at:at + 1] = [number]
    found = set()
    number_: int | None = tails[-1] if tails else None
    while number_ is not None:
        found.add(number_)
        number_ = before[number_]
    return found


def _ordered(merger: Merger, keys: Iterable[bytes]) -> bool:
    return any(merger.order(plain(key)) is not None for key in keys)


def _position(index: Mapping[bytes, int],
              moves: Mapping[bytes, Rank]) -> Callable[[bytes], tuple[int, int, int, bytes]]:
    """Sort key: rows of the base by their index, the others before the row
    of the base that their place names."""
    def position(key: bytes) -> tuple[int, int, int, bytes]:
        if key in moves:
            place, number = moves[key]
            return place, 0, number, key
        return index[key], 1, 0, key
    return position


def _sorted(merger: Merger, rows: Mapping[bytes, bytes],
            position: Callable[[bytes], tuple[int, int, int, bytes]] | None = None,
            ) -> list[tuple[bytes, bytes]]:
    keys = list(rows)
    if position is not None:
        keys.sort(key=position)
    if _ordered(merger, keys):
        # stable: equal sort keys stay as above
        keys.sort(key=lambda key: merger.order(plain(key)))  # type: ignore[arg-type,return-value]
    return [(plain(key), rows[key]) for key in keys]
