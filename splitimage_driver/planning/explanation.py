"""Why a candidate lost: the term that made the difference, and the files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from splitimage_driver.planning import difference
from splitimage_driver.planning.difference import Comparison

#: Terms that come from missing files; the others come from files in excess.
_OF_MISSING = frozenset({"download", "inject"})
FETCH, ORDER = "fetch", "order"


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar term: that differs most from the winner's, to the loser's
        disadvantage; ``fetch`` where the image itself has to come from
        elsewhere; ``order`` where costs are equal and a tie was broken
    :ivar seconds: by which it differs
    :ivar files: that the loser has to write or remove for it and the winner
        has not, the largest first
    :ivar more: how many further ones there are
    :ivar reason: of a broken tie
    """

    term: str
    seconds: float = 0.0
    files: tuple[str, ...] = ()
    more: int = 0
    reason: str = ""

    def told(self) -> dict[str, Any]:
        return {name: value for name, value in msgspec.structs.asdict(self).items()
                if value != "" or name == "term"}


def lost(winner: Comparison, loser: Comparison, *, most: int = 5) -> Lost:
    """:param most: files to name"""
    if difference.settled(winner.cost) == difference.settled(loser.cost):
        return Lost(term=ORDER, reason=_tie(winner, loser))
    if winner.match == difference.EXACT and winner.cost > loser.cost:
        return Lost(term=ORDER, reason="an exact match comes first")
    wins, loses = winner.terms._asdict(), loser.terms._asdict()
    term = max(loses, key=lambda name: loses[name] - wins[name])
    by = loses[term] - wins[term]
    if term in _OF_MISSING:
        fetched = loser.fetch - winner.fetch
        if term == "download" and fetched > by / 2:
            return Lost(term=FETCH, seconds=fetched)
        sizes = {path: f.size for path, f in loser.request.files.items()}
        paths = set(loser.missing) - set(winner.missing)
    else:
        sizes = {path: f.size for path, f in loser.image.files.items()}
        paths = set(loser.excess) - set(winner.excess)
    return named(term, by, {path: sizes[path] for path in paths}, most=most)


def named(term: str, seconds: float, sizes: Mapping[str, int], *, most: int = 5) -> Lost:
    """With the largest of the files (path: bytes)."""
    paths = sorted(sizes, key=lambda path: (-sizes[path], path))
    return Lost(term=term, seconds=seconds, files=tuple(paths[:most]),
                more=max(0, len(paths) - most))


def _tie(winner: Comparison, loser: Comparison) -> str:
    if winner.match == difference.EXACT and loser.match != difference.EXACT:
        return "an exact match comes first"
    if winner.amounts.missing_bytes < loser.amounts.missing_bytes:
        return "equal cost, more missing bytes"
    if winner.image.size < loser.image.size:
        return "equal cost, larger image"
    return "equal cost, higher id"
