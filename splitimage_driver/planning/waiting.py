"""Who of those that wait for a place begins next, and what each is made from.

Those of one project and composite are kin: each can be made from a stored
image, from the image of one that runs (and what that still needs is part of
the cost), or from the image of another one that waits. The cheapest way to
make all of them is a minimum-cost arborescence. It is solved anew whenever
somebody comes, begins or ends, so nothing that was promised has to be kept:
where one fails, those that would have been made from it go on without.

Between kin the order is that of the arborescence, otherwise that of arrival:
the first in the queue begins, or whoever it is to be made from. Nobody is
overtaken for ever, see :data:`PATIENCE`.

Pure: no store, no clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from splitimage_driver.planning.graph import Graph

#: So many later ones may begin before an item. Then it is the next, made from
#: what is stored, and nobody passes it any more.
PATIENCE = 8

#: (source, goal): seconds to make the goal from the image of the source.
Ways = Mapping[tuple[str, str], float]


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar kin: those with the same can be made from each other
    :ivar seconds: of one that waits: to make it from a stored image; of one
        that runs: what it still needs
    :ivar room: bytes of scratch space
    :ivar overtaken: how many later ones have begun before it
    """

    id: str
    kin: str
    running: bool
    seconds: float
    room: int = 0
    overtaken: int = 0


class Limits(NamedTuple):
    """:ivar places: how many may run at the same time
    :ivar room: bytes of scratch space that they may need together; 0: any
    """

    places: int
    room: int = 0


class Entered(NamedTuple):
    """:ivar source: id of the item it is made from; "": a stored image"""

    source: str
    seconds: float


class Choice(NamedTuple):
    """:ivar item: id of the one that begins
    :ivar passed: ids of those that it overtakes
    """

    item: str
    passed: tuple[str, ...]


class Forecast(NamedTuple):
    """:ivar source: of the item it will be made from; "": a stored image
    :ivar seconds: until its image is there
    """

    source: str
    seconds: float


def remaining(predicted: float, elapsed: float) -> float:
    """Seconds that one needs that has run for ``elapsed``. What takes longer
    than predicted is taken to need as long again as it is late: so it is not
    waited for without end."""
    return abs(predicted - max(0.0, elapsed))


def entered(kin: Sequence[Item], ways: Ways) -> dict[str, Entered]:
    """What each that waits is made from in the cheapest order of all."""
    waiting = [item for item in kin if not item.running]
    running = [item for item in kin if item.running]
    graph, begins = Graph(), list[Entered]()
    for item in waiting:
        begin = Entered("", item.seconds)
        if item.overtaken < PATIENCE:
            for other in running:
                way = ways.get((other.id, item.id))
                # Not if it only costs the same: a free place is worth something.
                if way is not None and other.seconds + way < begin.seconds:
                    begin = Entered(other.id, other.seconds + way)
        begins.append(begin)
        graph.add(begin.seconds)
    for number, item in enumerate(waiting, 1):
        for source, other in enumerate(waiting, 1):
            way = ways.get((other.id, item.id))
            if way is not None and source != number and item.overtaken < PATIENCE:
                graph.connect(source, number, way)
    if len(graph.arcs) == len(waiting):
        return {item.id: begin for item, begin in zip(waiting, begins, strict=True)}
    solved = graph.solve()
    return {item.id: Entered(waiting[way.source - 1].id, way.cost) if way.source else begin
            for number, (item, begin) in enumerate(zip(waiting, begins, strict=True), 1)
            for way in [solved[number]]}


def choose(items: Sequence[Item], ways: Ways, limits: Limits) -> Choice | None:
    """Who begins now; None: nobody.

    :param items: in order of arrival
    """
    running = [item for item in items if item.running]
    if len(running) >= limits.places:
        return None
    free = limits.room - sum(item.room for item in running) if limits.room else None
    waiting = {item.id: item for item in items if not item.running}
    trees: dict[str, dict[str, Entered]] = {}
    patient: set[str] = set()
    # Who has lost patience is before all others.
    for item in sorted(waiting.values(), key=lambda each: each.overtaken < PATIENCE):
        if item.kin not in trees:
            trees[item.kin] = entered([each for each in items if each.kin == item.kin], ways)
        first = item
        while (source := trees[item.kin][first.id].source) in waiting:
            first = waiting[source]
        if source:  # one that runs, and it is worth while to wait for it
            patient.add(item.id)
        elif free is None or first.room <= free:
            order = list(waiting)
            return Choice(first.id, tuple(
                each for each in order[:order.index(first.id)]
                if waiting[each].kin == first.kin or each not in patient))
        elif item.overtaken >= PATIENCE:
            return None
    return None


def ended(items: Iterable[Item], ways: Ways, done: str) -> list[Item]:
    """The others, after the image of one has been stored."""
    return [msgspec.structs.replace(item, seconds=min(
        item.seconds, ways.get((done, item.id), item.seconds))) if not item.running else item
        for item in items if item.id != done]


def forecast(items: Sequence[Item], ways: Ways, limits: Limits) -> dict[str, Forecast]:
    """For each what will be, if nobody comes and all goes as predicted; one
    that would never begin is left out.

    :param items: in order of arrival
    """
    found: dict[str, Forecast] = {}
    sources: dict[str, str] = defaultdict(str)
    now = 0.0
    state = list(items)
    while state:
        while (choice := choose(state, ways, limits)) is not None:
            state = [msgspec.structs.replace(each, running=True) if each.id == choice.item else
                     each for each in state]
        running = [each for each in state if each.running]
        if not running:
            break
        first = min(running, key=lambda each: each.seconds)
        now += first.seconds
        found[first.id] = Forecast(sources[first.id], now)
        for each in state:
            if not each.running and ways.get((first.id, each.id), each.seconds) < each.seconds:
                sources[each.id] = first.id
        state = ended((msgspec.structs.replace(each, seconds=each.seconds - first.seconds)
                       if each.running else each for each in state), ways, first.id)
    return found
