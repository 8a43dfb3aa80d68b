"""Which tree is made from which: the graph of a batch."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from splitimage_driver.planning import arborescence


class Entered(NamedTuple):
    """How a node is made.

    :ivar source: the node it is made from; 0: a stored image
    """

    source: int
    cost: float


Parents = dict[int, Entered]


class Graph:
    """Node 0 stands for all stored images; the others for trees to be made.

    :ivar arcs: (source, target, cost)
    """

    def __init__(self) -> None:
        self.arcs: list[tuple[int, int, float]] = []
        self._stored: list[float] = [0.0]

    def add(self, cost: float) -> int:
        """Another node, and what it costs to make it from a stored image;
        returns its number."""
        number = len(self._stored)
        self._stored.append(cost)
        self.arcs.append((0, number, cost))
        return number

    def connect(self, source: int, target: int, cost: float) -> None:
        """One that is not cheaper than a stored image is never part of an
        optimum: the stored image would take its place and break no tree."""
        if cost < self._stored[target]:
            self.arcs.append((source, target, cost))

    def solve(self, without: frozenset[int] = frozenset()) -> Parents:
        """The minimum-cost arborescence.

        :param without: nodes to leave out
        """
        import numpy as np
        arcs = [arc for arc in self.arcs if arc[0] not in without and arc[1] not in without]
        # What is left out hangs off the root, so that numbers stay.
        arcs += [(0, node, 0.0) for node in without]
        sources, targets = (np.array([arc[side] for arc in arcs], dtype=np.int32)
                            for side in (0, 1))
        weights = np.array([arc[2] for arc in arcs], dtype=np.float64)
        found = arborescence.solve(len(self._stored), 0, sources, targets, weights)
        assert found is not None  # noqa: S101 (the root leads everywhere)
        return {node: Entered(arcs[arc][0], arcs[arc][2])
                for node, arc in enumerate(found.tolist()) if node and node not in without}


def executable(parents: Mapping[int, Entered],
               key: Callable[[int], Any] = lambda node: node) -> Iterator[int]:
    """The nodes, each after the one it is made from, otherwise by ``key``."""
    children: dict[int, list[int]] = defaultdict(list)
    for node, entered in parents.items():
        children[entered.source].append(node)
    ready = [(key(node), node) for node in children[0]]
    heapq.heapify(ready)
    while ready:
        _, node = heapq.heappop(ready)
        yield node
        for child in children[node]:
            heapq.heappush(ready, (key(child), child))
