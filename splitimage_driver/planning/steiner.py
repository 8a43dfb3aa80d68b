"""Batches with images that nobody asked for but several requests share.

The Steiner tree problem in a directed graph is hard, so this is a local
search from the arborescence: images that two nodes have in common are tried,
the most promising first, and kept where they make the whole cheaper. The
outcome is never dearer than the arborescence; a lower bound says how far it
can be from the best.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from splitimage_driver.model.catalog import File
from splitimage_driver.planning import batch, difference
from splitimage_driver.planning.batch import Batch, Problem
from splitimage_driver.planning.difference import (
    EXACT,
    Comparison,
    Pricing,
    Stored,
    Wanted,
    settled,
)
from splitimage_driver.planning.graph import Parents
from splitimage_driver.planning.offline import Planner, made

#: How many shared images are tried in earnest before the search ends.
_TRIES = 200
#: Pairs of nodes that are looked at in one round.
_PAIRS = 20_000


class Shared(Batch, frozen=True, kw_only=True):
    """:ivar lower_bound: no order, with whatever images between, costs less"""

    lower_bound: float

    def told(self) -> dict[str, Any]:
        return {**super().told(), "lower_bound": self.lower_bound}


def plan(requests: Sequence[Wanted], planner: Planner) -> Shared:
    """A cheap way to make all of them, never dearer than
    :func:`splitimage_driver.planning.batch.plan`.

    :raises NothingToCompose: there is no image of a request's system
    """
    first, repeated = batch.distinct(requests)
    search = _Search(first, planner)
    parents = search.run()
    found = batch.steps(requests, repeated, search.problem, parents,
                        shared=lambda node: node > len(first))
    total = math.fsum(step.cost for step in found)
    # Both are sums of rounded numbers: where they meet they may cross.
    return Shared(steps=found, lower_bound=min(total, bound(first, planner)))


class _Search:
    def __init__(self, wanted: Sequence[Wanted], planner: Planner) -> None:
        self.problem = Problem(wanted, planner)
        self.asked = len(wanted)
        self.out: set[int] = set()
        self.tried: set[frozenset[tuple[str, str]]] = {
            _content(w) for w in self.problem.wanted}

    def run(self) -> Parents:
        best = self.problem.solve()
        tries = 0
        while tries < _TRIES:
            better = None
            for candidate in self._promising(best):
                tries += 1
                found, out = self._with(candidate)
                if _lighter(found, best):
                    better, self.out = found, out
                    break
                self.out.add(len(self.problem.wanted))
                if tries >= _TRIES:
                    break
            if better is None:
                break
            best = better
        return best

    def _with(self, wanted: Wanted) -> tuple[Parents, set[int]]:
        """The best tree with one more node, and the nodes left out: shared
        ones that nothing is made from."""
        self.problem.add(wanted)
        out = set(self.out)
        while True:
            found = self.problem.solve(frozenset(out))
            used = {entered.source for entered in found.values()}
            useless = {node for node in found if node > self.asked and node not in used}
            if not useless:
                return found, out
            out |= useless

    def _promising(self, tree: Parents) -> Iterator[Wanted]:
        """Images in common, by what they would save at once."""
        gains: list[tuple[float, int, Wanted]] = []
        nodes = sorted(tree, key=lambda node: (-tree[node].cost, node))
        pairs = itertools.combinations(nodes, 2)
        for a, b in itertools.islice(pairs, _PAIRS):
            common = self._common(a, b)
            if common is None:
                continue
            gain = self._gain(common, tree, (a, b))
            if gain > 0:
                gains.append((-gain, len(gains), common))
        for _, _, common in sorted(gains):
            content = _content(common)
            if content not in self.tried:
                self.tried.add(content)
                number = len(self.problem.wanted) + 1 - self.asked
                yield msgspec.structs.replace(common, id=str(number))

    def _common(self, a: int, b: int) -> Wanted | None:
        one, other = self.problem.wanted[a - 1], self.problem.wanted[b - 1]
        if one.os != other.os:
            return None
        files = {path: f for path, f in one.files.items()
                 if path in other.files and other.files[path].digest == f.digest}
        if not files:
            return None
        charges = tuple(c for c in one.charges if c.paths <= files.keys())
        found = Wanted(id="", os=one.os, files=files, charges=charges)
        return None if _content(found) in self.tried else found

    def _gain(self, common: Wanted, tree: Parents, pair: tuple[int, int]) -> float:
        """What the two, made from the common image, save against now."""
        pricing, stored = self.problem.pricing, common.stored()
        entering = made(_cheapest(common, self.problem.planner), pricing)
        for source in {tree[node].source for node in pair} - {0}:
            entering = min(entering, made(Comparison.of(
                self.problem.stored[source - 1], common, pricing), pricing))
        saved = 0.0
        for node in pair:
            cost = made(Comparison.of(stored, self.problem.wanted[node - 1], pricing), pricing)
            saved += tree[node].cost - cost
        return saved - entering


def _cheapest(wanted: Wanted, planner: Planner) -> Comparison:
    found = planner.cheapest(wanted)
    assert found is not None  # noqa: S101 (its requests were made from one)
    return found


def _content(wanted: Wanted) -> frozenset[tuple[str, str]]:
    return frozenset((f.path, f.digest) for f in wanted.files.values()) | {("", wanted.os)}


def _weight(tree: Parents) -> float:
    return math.fsum(entered.cost for entered in tree.values())


def _lighter(one: Parents, other: Parents) -> bool:
    return settled(_weight(one)) < settled(_weight(other))


def bound(wanted: Sequence[Wanted], planner: Planner) -> float:
    """What any order costs at least, whatever images are made between.

    Each tree that is not stored has to be made and published. And either:
    each file that no stored image has must be written at least once; or: the
    way to one request from its nearest stored image is not shortened by
    stops, because what is missing at its end was missing on the way.
    """
    pricing = planner.pricing
    absent = [w for w in wanted if _cheapest(w, planner).match != EXACT]
    publish = pricing.publish * len({_content(w) for w in absent})
    # A part's own time is left out: some image between may bring its files
    # without it, or it may bring them without their own.
    charged = frozenset().union(*(c.paths for w in wanted for c in w.charges))
    once: dict[tuple[str, str, str], float] = {}
    for request in absent:
        stored = planner.contents(request.os)
        for path, file in request.files.items():
            if (path, file.digest) not in stored:
                key = (request.os, path, file.digest)
                once[key] = min(once.get(key, math.inf), _written(file, charged, pricing))
    farthest = max((min(_direct(image, request, charged, pricing)
                        for image in planner.images(request.os)) for request in absent),
                   default=0.0)
    return publish + max(math.fsum(once.values()), farthest)


def _written(file: File, charged: frozenset[str], pricing: Pricing) -> float:
    """Seconds that it takes to write a file, at least."""
    transfer = pricing.alpha * (file.size / pricing.bandwidth)
    if file.path in charged:
        return transfer
    return transfer + pricing.beta * (pricing.inject_seconds + file.size / pricing.inject_rate)


def _direct(image: Stored, request: Wanted, charged: frozenset[str], pricing: Pricing) -> float:
    """Seconds from one image to a request, at least, on whatever way."""
    files = [_written(request.files[path], charged, pricing)
             for path in difference.missing(image, request)]
    removed = pricing.gamma * pricing.remove_seconds * len(difference.excess(image, request))
    return math.fsum(files) + removed + image.fetch_bytes / pricing.bandwidth
