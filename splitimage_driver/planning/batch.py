"""Several requests at once: the order of least total cost.

Each image is made from a stored one or from another of the same batch: a
minimum-cost arborescence whose root stands for all stored images. Requests
for the same image are one node; all but the first of them cost nothing.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.planning import arborescence
from splitimage_driver.planning.difference import Comparison, Stored, Wanted
from splitimage_driver.planning.offline import Planner, made

IMAGE, REQUEST, SHARED = "image", "request", "shared"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One image made.

    :ivar source: ``image:ID``, ``request:ID`` or ``shared:NUMBER``
    :ivar cost: in seconds, publishing included
    """

    wanted: Wanted
    source: str
    cost: float
    shared: bool = False

    def told(self) -> dict[str, Any]:
        if self.shared:
            return {"shared": self.wanted.id, "files": sorted(self.wanted.files),
                    "from": self.source, "cost": self.cost}
        return {"request": self.wanted.id, "from": self.source, "cost": self.cost}


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar steps: each after the one it starts from"""

    steps: tuple[Step, ...]

    @property
    def total(self) -> float:
        return math.fsum(step.cost for step in self.steps)

    def told(self) -> dict[str, Any]:
        return {"total": self.total, "steps": [step.told() for step in self.steps]}


def identity(wanted: Wanted) -> Hashable:
    """Requests with the same are one node of the batch."""
    return (wanted.os, frozenset((f.path, f.digest, f.size) for f in wanted.files.values()),
            frozenset(wanted.charges))


class Problem:
    """The graph of a batch: node 0 stands for the stored images, the others
    for distinct trees.

    :param wanted: distinct requests; the order decides between equal totals
    :raises NothingToCompose: there is no image of a request's system
    """

    def __init__(self, wanted: Iterable[Wanted], planner: Planner) -> None:
        self.planner, self.pricing = planner, planner.pricing
        self.wanted: list[Wanted] = []
        self.stored: list[Stored] = []
        self.images: list[Comparison] = []
        #: (source, target, weight)
        self.arcs: list[tuple[int, int, float]] = []
        self._systems: dict[str, list[int]] = defaultdict(list)
        for each in wanted:
            self.add(each)

    def add(self, wanted: Wanted) -> int:
        """Another node with all its arcs; returns its number."""
        best = self.planner.cheapest(wanted)
        if best is None:
            raise exceptions.NothingToCompose(
                reason=f"request {wanted.id}: there is no image of the system {wanted.os}")
        number = len(self.wanted) + 1
        stored = wanted.stored()
        self.arcs.append((0, number, made(best, self.pricing)))
        self.wanted.append(wanted)
        self.stored.append(stored)
        self.images.append(best)
        for other in self._systems[wanted.os]:
            self._connect(other, number)
            self._connect(number, other)
        self._systems[wanted.os].append(number)
        return number

    def _connect(self, source: int, target: int) -> None:
        cost = made(Comparison.of(self.stored[source - 1], self.wanted[target - 1],
                                  self.pricing), self.pricing)
        # Never part of an optimum otherwise: the stored image would take its
        # place and break no tree.
        if cost < made(self.images[target - 1], self.pricing):
            self.arcs.append((source, target, cost))

    def solve(self, without: frozenset[int] = frozenset()) -> dict[int, tuple[int, float]]:
        """Node to the node it is made from, and the weight of that.

        :param without: nodes to leave out
        """
        import numpy as np
        arcs = [arc for arc in self.arcs if arc[0] not in without and arc[1] not in without]
        # What is left out hangs off the root, so that numbers stay.
        arcs += [(0, node, 0.0) for node in without]
        sources, targets = (np.array([arc[side] for arc in arcs], dtype=np.int32)
                            for side in (0, 1))
        weights = np.array([arc[2] for arc in arcs], dtype=np.float64)
        found = arborescence.solve(len(self.wanted) + 1, 0, sources, targets, weights)
        assert found is not None  # noqa: S101 (the root leads everywhere)
        return {node: (arcs[arc][0], arcs[arc][2]) for node, arc in enumerate(found.tolist())
                if node and node not in without}


def plan(requests: Sequence[Wanted], planner: Planner) -> Batch:
    """The cheapest way to make all of them.

    :raises NothingToCompose: there is no image of a request's system
    """
    first, repeated = distinct(requests)
    problem = Problem(first, planner)
    return Batch(steps=steps(requests, repeated, problem, problem.solve()))


def distinct(requests: Sequence[Wanted]) -> tuple[list[Wanted], dict[str, Wanted]]:
    """Those that differ, and for each repeated one (by id) the one it repeats."""
    first: dict[Hashable, Wanted] = {}
    repeated: dict[str, Wanted] = {}
    for request in requests:
        found = first.setdefault(identity(request), request)
        if found is not request:
            repeated[request.id] = found
    return list(first.values()), repeated


def steps(requests: Sequence[Wanted], repeated: dict[str, Wanted], problem: Problem,
          parents: dict[int, tuple[int, float]], *,
          shared: Callable[[int], bool] = lambda node: False) -> tuple[Step, ...]:
    """In an order that can be executed; otherwise in the order of the file.

    :param shared: tells nodes that nobody asked for
    """
    order = {request.id: place for place, request in enumerate(requests)}

    def key(node: int) -> tuple[int, int]:
        return order.get(problem.wanted[node - 1].id, -1) if not shared(node) else -1, node

    children: dict[int, list[int]] = defaultdict(list)
    for node, (source, _) in parents.items():
        children[source].append(node)
    repeats: dict[str, list[Wanted]] = defaultdict(list)
    for request in requests:
        if request.id in repeated:
            repeats[repeated[request.id].id].append(request)
    ready = [key(node) for node in children[0]]
    heapq.heapify(ready)
    found = []
    while ready:
        node = heapq.heappop(ready)[1]
        wanted = problem.wanted[node - 1]
        source, cost = parents[node]
        if source == 0:
            name = f"{IMAGE}:{problem.images[node - 1].image.id}"
        else:
            kind = SHARED if shared(source) else REQUEST
            name = f"{kind}:{problem.wanted[source - 1].id}"
        found.append(Step(wanted=wanted, source=name, cost=cost, shared=shared(node)))
        if not shared(node):
            found += [Step(wanted=again, source=f"{REQUEST}:{wanted.id}", cost=0.0)
                      for again in repeats[wanted.id]]
        for child in children[node]:
            heapq.heappush(ready, key(child))
    return tuple(found)
