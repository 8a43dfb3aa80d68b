"""Several requests at once: the order of least total cost.

Each image is made from a stored one or from another of the same batch: a
minimum-cost arborescence whose root stands for all stored images. Requests
for the same image are one node; all but the first of them cost nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.planning.difference import Comparison, Stored, Wanted
from splitimage_driver.planning.graph import Graph, Parents, executable
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
        self._graph = Graph()
        self._systems: dict[str, list[int]] = defaultdict(list)
        for each in wanted:
            self.add(each)

    def add(self, wanted: Wanted) -> int:
        """Another node with all its arcs; returns its number."""
        best = self.planner.cheapest(wanted)
        if best is None:
            raise exceptions.NothingToCompose(
                reason=f"request {wanted.id}: there is no image of the system {wanted.os}")
        number = self._graph.add(made(best, self.pricing))
        self.wanted.append(wanted)
        self.stored.append(wanted.stored())
        self.images.append(best)
        for other in self._systems[wanted.os]:
            self._connect(other, number)
            self._connect(number, other)
        self._systems[wanted.os].append(number)
        return number

    def _connect(self, source: int, target: int) -> None:
        self._graph.connect(source, target, made(Comparison.of(
            self.stored[source - 1], self.wanted[target - 1], self.pricing), self.pricing))

    def solve(self, without: frozenset[int] = frozenset()) -> Parents:
        """What each node is made from, and what that costs.

        :param without: nodes to leave out
        """
        return self._graph.solve(without)


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
          parents: Parents, *, shared: Callable[[int], bool] = lambda node: False,
          ) -> tuple[Step, ...]:
    """In an order that can be executed; otherwise in the order of the file.

    :param shared: tells nodes that nobody asked for
    """
    order = {request.id: place for place, request in enumerate(requests)}
    repeats: dict[str, list[Wanted]] = defaultdict(list)
    for request in requests:
        if request.id in repeated:
            repeats[repeated[request.id].id].append(request)
    found = []
    for node in executable(parents, lambda node: -1 if shared(node) else
                           order[problem.wanted[node - 1].id]):
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
    return tuple(found)
