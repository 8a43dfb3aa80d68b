"""Why a candidate lost: the term that made the difference, and the files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from splitimage_driver.model.entry import FileEntry, text
from splitimage_driver.model.plan import Estimate, Lost, Work
from splitimage_driver.planning import difference
from splitimage_driver.planning.difference import Comparison

#: Terms that come from missing files; the others come from files in excess.
_OF_MISSING = frozenset({"download", "inject", "missing"})
FETCH, ORDER = "fetch", "order"


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


# -- of a store's own candidates --------------------------------------------------

def explained(found: Sequence[tuple[Estimate, Work | None]], *, top: int,
              ) -> list[tuple[Estimate, Work | None]]:
    """Each of the ``top`` best with why it lost against the first.

    :param found: the best first, with what there is to do
    """
    winner, todo = found[0]
    return [found[0], *(
        (msgspec.structs.replace(each, lost=_behind(winner, todo, each, work)), work)
        if place < top and not each.refused else (each, work)
        for place, (each, work) in enumerate(found[1:], 1))]


def _behind(winner: Estimate, todo: Work | None, loser: Estimate, work: Work | None,
            most: int = 5) -> Lost:
    if winner.match == difference.EXACT and loser.cost <= winner.cost:
        return Lost(term=ORDER, reason="an exact match comes first")
    if difference.settled(winner.cost) == difference.settled(loser.cost):
        return Lost(term=ORDER, reason=_order(winner, loser))
    wins = {term.name: term.value for term in winner.terms}
    by = {term.name: term.value - wins.get(term.name, 0.0) for term in loser.terms}
    term = max(by, key=lambda name: by[name])
    if term in _OF_MISSING:
        paths = _sizes(work.missing if work else (), todo.missing if todo else ())
    elif term in ("remove", "transport"):
        paths = _sizes(work.excess if work else (), todo.excess if todo else ())
    else:  # of the assembly as a whole
        return Lost(term=term, seconds=by[term])
    found = named(term, by[term], paths, most=most)
    return msgspec.structs.replace(found, unit=loser.terms[0].unit)


def _sizes(of: Iterable[FileEntry], without: Iterable[FileEntry]) -> dict[str, int]:
    known = {entry.path for entry in without}
    return {text(entry.path): entry.size for entry in of if entry.path not in known}


def _order(winner: Estimate, loser: Estimate) -> str:
    if winner.missing_bytes < loser.missing_bytes:
        return "equal cost, more missing bytes"
    if winner.candidate.disk_size < loser.candidate.disk_size:
        return "equal cost, larger image"
    return "equal cost, higher id"
