"""Merges of plain text: three-way by lines, and concatenation."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence

#: Larger files are data, whatever their bytes look like.
MAX_BYTES = 1 << 20
#: How often the stretches between matches are searched again: bounds the
#: work for files made to be slow to compare.
_DEPTH = 16


def is_text(content: bytes) -> bool:
    """At most 1 MiB of UTF-8 without NUL."""
    if len(content) > MAX_BYTES or b"\0" in content:
        return False
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def three_way(base: bytes, one: bytes, two: bytes) -> bytes | None:
    """The base with the changes of both, by lines; commutative.

    :returns: None where both changed the same or neighbouring lines in
        different ways, or where one of them is not text
    """
    if not (is_text(base) and is_text(one) and is_text(two)):
        return None
    if one in (base, two):
        return two
    if two == base:
        return one
    was, first, second = (content.splitlines(keepends=True) for content in (base, one, two))
    out: list[bytes] = []
    for old, left, right in _stretches(was, first, second):
        if left == right or right == old:
            out += left
        elif left == old:
            out += right
        else:
            return None
    return b"".join(out)


def concatenate(texts: Sequence[tuple[str, bytes]]) -> bytes:
    """One text after the other in the order of their parts' names, each
    ended by a newline, equal ones once.

    :param texts: (name of the part, its text)
    """
    pieces = [text if text.endswith(b"\n") or not text else text + b"\n"
              for _, text in sorted(texts)]
    return b"".join(dict.fromkeys(pieces))


def _stretches(was: list[bytes], first: list[bytes], second: list[bytes],
               ) -> Iterator[tuple[list[bytes], list[bytes], list[bytes]]]:
    """The files cut into pieces that belong together, alternately changed
    and common to all three (diff3: Khanna, Kunal, Pierce, 2007)."""
    left, right = dict(_matches(was, first)), dict(_matches(was, second))
    at, at_left, at_right = 0, 0, 0
    for line in range(len(was)):
        if line not in left or line not in right:
            continue
        if (line, left[line], right[line]) != (at, at_left, at_right):
            yield was[at:line], first[at_left:left[line]], second[at_right:right[line]]
        yield was[line:line + 1], was[line:line + 1], was[line:line + 1]
        at, at_left, at_right = line + 1, left[line] + 1, right[line] + 1
    yield was[at:], first[at_left:], second[at_right:]


def _matches(one: list[bytes], two: list[bytes]) -> Iterator[tuple[int, int]]:
    """Pairs of equal lines, both rising (patience diff, Bram Cohen): equal
    ends first, then the lines that are unique on both sides, then likewise
    between those. Never quadratic; lines that only repeat stay unmatched."""
    todo = [(0, len(one), 0, len(two), _DEPTH)]
    while todo:
        low, high, low2, high2, depth = todo.pop()
        while low < high and low2 < high2 and one[low] == two[low2]:
            yield low, low2
            low, low2 = low + 1, low2 + 1
        while low < high and low2 < high2 and one[high - 1] == two[high2 - 1]:
            high, high2 = high - 1, high2 - 1
            yield high, high2
        if low == high or low2 == high2 or not depth:
            continue
        anchors = _rising(_unique(one, low, high, two, low2, high2))
        if not anchors:
            continue
        for at, at2 in [*anchors, (high, high2)]:
            todo.append((low, at, low2, at2, depth - 1))
            low, low2 = at, at2


def _unique(one: list[bytes], low: int, high: int,
            two: list[bytes], low2: int, high2: int) -> list[tuple[int, int]]:
    """Places of the lines that are there once on each side, by the first."""
    places = [_once(one, low, high), _once(two, low2, high2)]
    return [(at, places[1][line]) for line, at in places[0].items() if line in places[1]]


def _once(lines: list[bytes], low: int, high: int) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    repeated = set()
    for at in range(low, high):
        if lines[at] in found:
            repeated.add(lines[at])
        found[lines[at]] = at
    return {line: at for line, at in found.items() if line not in repeated}


def _rising(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """A longest run of pairs whose second numbers rise too."""
    tails: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for number, (_, second) in enumerate(pairs):
        at = bisect.bisect_left(tails, second)
        before.append(ends[at - 1] if at else -1)
        tails[at:at + 1] = [second]
        ends[at:at + 1] = [number]
    found = []
    number = ends[-1] if ends else -1
    while number >= 0:
        found.append(pairs[number])
        number = before[number]
    return found[::-1]
