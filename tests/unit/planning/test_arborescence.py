"""Minimum-cost arborescences against networkx and against enumeration."""

from __future__ import annotations

import itertools
import math
import random

import networkx
import numpy as np
import pytest

from splitimage_driver.planning import arborescence

pytestmark = pytest.mark.must_show("planning", 2)

Arc = tuple[int, int, float]


def solved(nodes: int, root: int, arcs: list[Arc]) -> list[Arc] | None:
    sources, targets, weights = (np.array(column) for column in zip(*arcs, strict=True))
    found = arborescence.solve(nodes, root, sources, targets, weights)
    if found is None:
        return None
    assert found[root] == -1
    return [arcs[number] for node, number in enumerate(found) if node != root]


def check_tree(nodes: int, root: int, chosen: list[Arc]) -> None:
    above = {target: source for source, target, _ in chosen}
    assert set(above) == set(range(nodes)) - {root}
    for node in range(nodes):
        seen = set()
        while node != root:
            assert node not in seen
            seen.add(node)
            node = above[node]


def by_networkx(nodes: int, root: int, arcs: list[Arc]) -> float:
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(nodes))
    for source, target, weight in arcs:
        if target != root:
            before = graph.get_edge_data(source, target)
            if before is None or weight < before["weight"]:
                graph.add_edge(source, target, weight=weight)
    found = networkx.minimum_spanning_arborescence(graph)
    return math.fsum(data["weight"] for _, _, data in found.edges(data=True))


def drawn(rng: random.Random, nodes: int, density: float, *, whole: bool) -> list[Arc]:
    def weight() -> float:
        return float(rng.randint(0, 5)) if whole else rng.uniform(0, 100)
    arcs = [(source, target, weight())
            for source, target in itertools.permutations(range(nodes), 2)
            if rng.random() < density]
    # The root leads everywhere, as a base does.
    return arcs + [(0, node, weight() + 3) for node in range(1, nodes)]


@pytest.mark.parametrize("seed", range(150))
def test_the_total_is_that_of_networkx(seed: int) -> None:
    rng = random.Random(seed)
    nodes = rng.randint(2, 60 if seed % 10 == 0 else 25)
    arcs = drawn(rng, nodes, rng.choice((0.05, 0.2, 1.0)), whole=seed % 2 == 0)
    chosen = solved(nodes, 0, arcs)
    assert chosen is not None
    check_tree(nodes, 0, chosen)
    assert math.fsum(w for *_, w in chosen) == pytest.approx(by_networkx(nodes, 0, arcs),
                                                             rel=1e-12)


@pytest.mark.parametrize("seed", range(60))
def test_the_total_is_the_least_of_all_trees(seed: int) -> None:
    rng = random.Random(seed)
    nodes = rng.randint(2, 6)
    arcs = [arc for arc in drawn(rng, nodes, rng.choice((0.3, 0.7)), whole=seed % 2 == 0)
            if arc[0] or rng.random() < 0.6]
    entering = [[arc for arc in arcs if arc[1] == node] for node in range(1, nodes)]
    least = math.inf
    for choice in itertools.product(*entering):
        above = {target: source for source, target, _ in choice}
        reached = {0}
        while more := {node for node, source in above.items() if source in reached} - reached:
            reached |= more
        if len(reached) == nodes:
            least = min(least, math.fsum(w for *_, w in choice))
    chosen = solved(nodes, 0, arcs) if arcs else None
    if math.isinf(least):
        assert chosen is None
    else:
        assert chosen is not None
        assert math.fsum(w for *_, w in chosen) == pytest.approx(least, rel=1e-12)


def test_weights_may_be_negative() -> None:
    arcs = [(0, 1, -1.0), (0, 2, 2.0), (1, 2, -3.0), (2, 1, -4.0)]
    assert solved(3, 0, arcs) == [(0, 1, -1.0), (1, 2, -3.0)]


def test_compiled_it_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    arcs = drawn(rng, 40, 0.5, whole=False)
    plain = solved(40, 0, arcs)
    monkeypatch.setattr(arborescence, "_COMPILE", 0)
    assert solved(40, 0, arcs) == plain


def test_what_cannot_be_reached_is_told() -> None:
    assert solved(3, 0, [(0, 1, 1.0), (2, 1, 1.0)]) is None
