"""Which stored image is nearest, by the parts that images are made of.

Inside Glance there are no trees of files, and there is no time to read them: an
image is the set of its parts, each with the files and bytes that its record
states. The equations are those of every plan
(:mod:`splitimage_driver.planning.cost`). What a rule merges and what a condition
brings is not seen this way, nor what of a disk a host has already: whoever
assembles compares the best few file by file.

An element of an image is the name of a part or the digest of a file set; a
digest is too long to be a name.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from splitimage_driver.planning.cost import Amounts, Cost, Rates, total
from splitimage_driver.planning.difference import (
    BASE,
    EXACT,
    PARTIAL,
    SUBSET,
    SUPERSET,
    settled,
)
from splitimage_driver.planning.graph import Graph, executable

Elements = frozenset[str]


class Weight(NamedTuple):
    """Of an element."""

    files: int
    size: int


#: Of an element that an image has too much and of which nothing more is known,
#: because the composite has lost that part or the file set is not the caller's
#: concern any more.
UNKNOWN = Weight(1, 0)


class Source(NamedTuple):
    """An image that can be completed.

    :ivar recipe: "" of a base
    :ivar size: bytes of its disk
    """

    id: str
    elements: Elements
    recipe: str
    size: int


class Goal(NamedTuple):
    """What is wanted.

    :ivar recipe: whose image needs no work; "": not known
    :ivar weights: of all elements that are known
    """

    elements: Elements
    recipe: str
    weights: Mapping[str, Weight]


class Way(NamedTuple):
    """From an image to what is wanted.

    :ivar cost: of the equation, in its unit
    :ivar missing_bytes: to be written
    """

    source: Source
    match: str
    cost: float
    missing: Elements
    excess: Elements
    missing_bytes: int

    @property
    def order(self) -> tuple[bool, float, int, int, str]:
        """The best first, as every plan has it."""
        return (self.match != EXACT, settled(self.cost), self.missing_bytes, self.source.size,
                self.source.id)


class Step(NamedTuple):
    """Of a batch: one image is made.

    :ivar goal: number
    :ivar source: number of the goal whose image it is made from; None: a
        stored one
    """

    goal: int
    source: int | None
    way: Way


class Ranking:
    """:param prepare: seconds that any assembly takes"""

    def __init__(self, cost: Cost, rates: Rates, prepare: float) -> None:
        self._cost, self._rates = cost, rates
        self._prepare = prepare if cost.unit == "s" else 0.0
        self.unit = cost.unit

    def ranked(self, sources: Iterable[Source], goal: Goal) -> list[Way]:
        """All of them, the best first."""
        return sorted(self._ways(sources, goal), key=lambda way: way.order)

    def nearest(self, sources: Iterable[Source], goal: Goal, limit: int) -> list[Way]:
        """The ``limit`` best, the best first."""
        return heapq.nsmallest(limit, self._ways(sources, goal), key=lambda way: way.order)

    def _ways(self, sources: Iterable[Source], goal: Goal) -> Iterator[Way]:
        # Many images are made of the same parts.
        known: dict[Elements, tuple[float, Elements, Elements, int]] = {}
        for source in sources:
            found = known.get(source.elements)
            if found is None:
                found = known[source.elements] = self._judged(source.elements, goal)
            cost, missing, excess, missing_bytes = found
            match = _match(source, goal, missing, excess)
            yield Way(source, match, 0.0 if match == EXACT else cost, missing, excess,
                      missing_bytes)

    def _judged(self, has: Elements, goal: Goal) -> tuple[float, Elements, Elements, int]:
        missing, excess = goal.elements - has, has - goal.elements
        lacks = [goal.weights.get(element, UNKNOWN) for element in missing]
        extra = [goal.weights.get(element, UNKNOWN) for element in excess]
        amounts = Amounts(missing=sum(w.files for w in lacks),
                          missing_bytes=sum(w.size for w in lacks),
                          excess=sum(w.files for w in extra),
                          excess_bytes=sum(w.size for w in extra))
        cost = total(self._cost(amounts, self._rates)) + self._prepare
        return cost, missing, excess, amounts.missing_bytes

    def batch(self, goals: Sequence[Goal], stored: Sequence[Way],
              groups: Sequence[str]) -> list[Step]:
        """The cheapest order that makes all of them, each from a stored image
        or from another one of these.

        :param stored: of each goal, the best way from a stored image
        :param groups: of each goal: what can be made from each other
        :returns: each after the one it is made from
        """
        graph = Graph()
        for way in stored:
            graph.add(way.cost)
        ways: dict[tuple[int, int], Way] = {}
        for number, goal in enumerate(goals):
            if stored[number].match == EXACT:
                continue  # it is not made
            others = [other for other in range(len(goals)) if other != number
                      and groups[other] == groups[number]]
            made = [Source(str(other), goals[other].elements, goals[other].recipe, 0)
                    for other in others]
            for other, way in zip(others, self._ways(made, goal), strict=True):
                ways[other, number] = way
                graph.connect(other + 1, number + 1, way.cost)
        solved = graph.solve()
        return [Step(node - 1, source - 1 if source else None,
                     ways[source - 1, node - 1] if source else stored[node - 1])
                for node in executable(solved) for source in [solved[node].source]]


def _match(source: Source, goal: Goal, missing: Elements, excess: Elements) -> str:
    if source.recipe and source.recipe == goal.recipe:
        return EXACT
    if not source.recipe:
        return BASE if missing else EXACT
    if missing:
        return PARTIAL if excess else SUBSET
    # With the same parts, but not by the same recipe, it has another edition of
    # some part or another answer to a conflict: something is missing after all.
    return SUPERSET if excess else PARTIAL
