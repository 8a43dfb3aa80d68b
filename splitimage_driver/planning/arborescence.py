"""Minimum-cost arborescences: Tarjan's algorithm with mergeable heaps.

Chu and Liu's contraction of cycles, along one growing path as Gabow et al.
do it. The arcs into a (contracted) node are a skew heap whose weights are
lowered lazily, so it takes O(m log n) in all. Contractions are kept by a
union-find without path compression, which is rolled back to expand them in
reverse.

The algorithm is one plain Python function over sequences, which is compiled
where a problem is large enough to pay for loading the compiler.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

#: From this many arcs on compiled code is faster, its loading included.
_COMPILE = 20_000


def solve(nodes: int, root: int, sources: np.ndarray, targets: np.ndarray,
          weights: np.ndarray) -> np.ndarray | None:
    """A spanning arborescence of least total weight.

    :param nodes: numbered from 0
    :param sources: of each arc; ``targets`` and ``weights`` (finite, of any
        sign) likewise
    :returns: for each node the number of the arc that enters it, -1 for the
        root; None where a node cannot be reached. Of several that weigh the
        same the outcome depends on the order of the arcs and on nothing else
    """
    import numpy as np
    numbers = np.flatnonzero((sources != targets) & (targets != root))
    # The lightest first: a sorted chain is a heap.
    numbers = numbers[np.lexsort((weights[numbers], targets[numbers]))]
    source = sources[numbers].astype(np.int32)
    target = targets[numbers].astype(np.int32)
    arcs = len(numbers)
    heap = np.full(nodes, -1, dtype=np.int32)
    first = np.flatnonzero(np.diff(target, prepend=-1))
    heap[target[first]] = first
    left = np.arange(1, arcs + 1, dtype=np.int32)
    left[np.append(first[1:], arcs)[:len(first)] - 1] = -1
    entering = np.full(nodes, -1, dtype=np.int64)
    state: list[Any] = [
        source, target, weights[numbers].astype(np.float64), left,
        np.full(arcs, -1, dtype=np.int32), np.zeros(arcs), heap, entering,
        *(np.zeros(size, dtype=np.int32) for size in (nodes, nodes, 2 * nodes, 2 * nodes,
                                                      nodes, nodes, nodes + 1, 2 * nodes))]
    run: Callable[..., bool] = _solve
    if arcs >= _COMPILE:
        run = _compiled()
    else:  # of lists it is faster to take one element at a time
        state = [array.tolist() for array in state]
    if not run(nodes, root, *state):
        return None
    found = np.asarray(state[7], dtype=np.int64)
    used = found >= 0
    found[used] = numbers[found[used]]
    return found


@functools.cache
def _compiled() -> Callable[..., bool]:
    import numba
    compiled: Callable[..., bool] = numba.njit(cache=True)(_solve)
    return compiled


def _solve(  # type: ignore[no-untyped-def]
        nodes, root, source, target, key, left, right, lower, heap, entering, above, seen,
        joined, joined_size, path, cycle_node, cycle_start, cycle_arcs):
    """Fills ``entering``; false where a node cannot be reached.

    :param key: of each arc: its weight as lowered by now
    :param lower: of each arc: to be taken off the keys below it in its heap
    :param above: union-find: the parent, or minus the size of the set
    :param seen: the start of the path that came by, plus one; 0: none did
    :param joined: what was united, in order, with its size before
    :param path: the arcs of the path, each into its node
    :param cycle_node: which node stands for a cycle; ``cycle_start`` tells
        where its arcs begin in ``cycle_arcs``
    """
    for node in range(nodes):
        above[node] = -1
    seen[root] = nodes + 1
    unions = cycles = kept = 0
    for start in range(nodes):
        node = start
        while above[node] >= 0:
            node = above[node]
        length = 0
        while seen[node] == 0:
            arc = heap[node]
            if arc < 0:
                return False
            path[length] = arc
            length += 1
            seen[node] = start + 1
            node = source[arc]
            while above[node] >= 0:
                node = above[node]
            if seen[node] != start + 1:
                continue
            # A cycle: its nodes become one. The arcs on it leave their heaps,
            # all others become cheaper by those they would replace.
            end, closing, united = length, node, -1
            node = -1
            while True:
                length -= 1
                arc = path[length]
                member = target[arc]
                while above[member] >= 0:
                    member = above[member]
                for side in range(2):
                    a, b = united, left[arc] if side == 0 else right[arc]
                    if b >= 0:
                        off = lower[arc] + key[arc]
                        key[b] -= off
                        lower[b] += off
                    united, before = -1, -1
                    while a >= 0 and b >= 0:
                        if key[b] < key[a]:
                            a, b = b, a
                        off = lower[a]
                        lower[a] = 0.0
                        if left[a] >= 0:
                            key[left[a]] -= off
                            lower[left[a]] += off
                        if right[a] >= 0:
                            key[right[a]] -= off
                            lower[right[a]] += off
                        if before < 0:
                            united = a
                        else:
                            left[before] = a
                        before = a
                        rest = right[a]
                        right[a] = left[a]
                        a = rest
                    if a < 0:
                        a = b
                    if before < 0:
                        united = a
                    else:
                        left[before] = a
                last = member == closing
                if node < 0:
                    node = member
                else:
                    if above[node] > above[member]:
                        node, member = member, node
                    joined[unions], joined_size[unions] = member, above[member]
                    unions += 1
                    above[node] += above[member]
                    above[member] = node
                if last:
                    break
            heap[node] = united
            seen[node] = 0
            if end - length > 1:
                cycle_node[cycles], cycle_start[cycles] = node, kept
                cycles += 1
                for place in range(length, end):
                    cycle_arcs[kept] = path[place]
                    kept += 1
        for place in range(length):
            node = target[path[place]]
            while above[node] >= 0:
                node = above[node]
            entering[node] = path[place]

    cycle_start[cycles] = kept
    for cycle in range(cycles - 1, -1, -1):
        outer = entering[cycle_node[cycle]]
        # As many unions as it had arcs, but one.
        for _ in range(cycle_start[cycle + 1] - cycle_start[cycle] - 1):
            unions -= 1
            member = joined[unions]
            above[above[member]] -= joined_size[unions]
            above[member] = joined_size[unions]
        for place in range(cycle_start[cycle], cycle_start[cycle + 1]):
            node = target[cycle_arcs[place]]
            while above[node] >= 0:
                node = above[node]
            entering[node] = cycle_arcs[place]
        node = target[outer]
        while above[node] >= 0:
            node = above[node]
        entering[node] = outer
    return True
