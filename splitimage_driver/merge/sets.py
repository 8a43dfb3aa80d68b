"""Three-way merges of values that are sets written as lists."""

from __future__ import annotations

from collections.abc import Iterable


def three_way(base: Iterable[bytes], one: Iterable[bytes],
              two: Iterable[bytes]) -> list[bytes]:
    """What one added or two added, and what neither removed.

    The base's members keep their order, the added ones follow sorted:
    commutative in ``one`` and ``two``, and associative when folded over more.
    """
    was = list(dict.fromkeys(base))
    first, second = set(one), set(two)
    added = (first | second).difference(was)
    return [m for m in was if m in first and m in second] + sorted(added)
