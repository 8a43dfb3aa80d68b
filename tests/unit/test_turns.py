"""Requests that wait together are made from each other."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from splitimage_driver import exceptions
from splitimage_driver.model import part as parts_
from splitimage_driver.model.plan import Plan, Request
from splitimage_driver.service import Assembled
from splitimage_driver.store.records import QueueItem
from splitimage_driver.turns import Turn
from tests.unit.making import file, layer
from tests.unit.test_service import World, request, world

__all__ = ["world"]  # the fixture

SETS = (request("apache"), request("apache", "php"), request("mysql"), request("apache", "mysql"),
        request("apache", "mysql", "php"), request("mysql", filesets=("page",)))


def until(condition: Any) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen in 10 s")


def turn(world: World, wanted: Request, owner: str = "me", **options: Any) -> Turn:
    plans = world.service(owner).plans
    return Turn(plans, plans.plan(wanted), **{"publish": True} | options)


# -- what is told -------------------------------------------------------------------------


def test_a_way_costs_what_the_stored_image_would(world: World) -> None:
    """Although only what differs from the base is compared."""
    world.part("page", [layer(file("srv/page", b"<?php"))], parts_.FILESET)
    turns = [turn(world, wanted) for wanted in SETS]
    for number, (wanted, mine) in enumerate(zip(SETS, turns, strict=True)):
        fresh = World(world.place / str(number))
        fresh.part("page", [layer(file("srv/page", b"<?php"))], parts_.FILESET)
        fresh.service().assemble(wanted)
        (image,) = fresh.store.images()
        for goal, theirs in zip(SETS, turns, strict=True):
            if theirs is not mine:
                plan = fresh.service().plan(goal, source=image.id)
                assert theirs.way is not None
                assert theirs.way(mine.need.changes) == pytest.approx(plan.estimate.cost)
        fresh.store.close()


def test_a_way_that_does_not_exist(world: World) -> None:
    """What the base has and an image has not is not in any part."""
    without = world.part("bare", [layer(deleted=["usr/bin/sh"])], parts_.FILESET)
    bare = turn(world, request(filesets=(without.id,)))
    way = turn(world, request("mysql")).way
    assert way is not None
    assert way(bare.need.changes) == float("inf")
    assert bare.way is not None and bare.way(turn(world, request("mysql")).need.changes) > 0


def test_what_an_assembly_needs(world: World) -> None:
    plan = world.service().plan(request("mysql"))
    need = turn(world, request("mysql")).need
    assert (need.owner, need.composite, need.parts, need.source) == (
        "me", "lamp", ("mysql",), "lamp")
    assert (need.seconds, need.recipe) == (plan.estimate.cost, plan.recipe)
    assert need.room == world.lamp.base.disk_size + 90000
    assert turn(world, request("mysql"), publish=False).need.changes == b""
    assert turn(world, request("mysql"), fixed=True).way is None


def test_kin_are_of_one_project_and_composite(world: World) -> None:
    world.store.save_composite(msgspec.structs.replace(world.lamp, public=True), replace=True)
    world.composite("other", world.store.manifest(world.lamp.base.manifest), {})
    kin = turn(world, request("mysql")).need.kin
    assert turn(world, request("apache")).need.kin == kin
    assert turn(world, request("apache"), owner="you").need.kin != kin
    page = world.part("page", [layer(file("srv/page", b"<?php"))], parts_.FILESET)
    assert turn(world, request(composite="other", filesets=(page.id,))).need.kin != kin


def test_seconds_whatever_plans_are_compared_by(world: World) -> None:
    seconds = turn(world, request("mysql")).need.seconds
    world.conf.set_override("cost", "bytes", group="planning")
    counted = turn(world, request("mysql"))
    assert counted.need.seconds == pytest.approx(seconds) != 90000
    assert counted.way is not None
    assert counted.way(turn(world, request("apache")).need.changes) < 90000


# -- carried out ----------------------------------------------------------------------------


class Launches:
    """Of several at once, which are all in the queue before the first begins.

    :ivar done: in the order in which they ended
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.done: list[tuple[Plan, Assembled]] = []
        self.failed: list[Exception] = []
        self.threads: list[threading.Thread] = []

    @contextlib.contextmanager
    def waiting(self, *wanted: Request, owners: Sequence[str] = (),
                ways: int) -> Iterator[list[QueueItem]]:
        """:param ways: to be worked out"""
        with self.world.store.turn("before them"):
            for number, (one, owner) in enumerate(itertools.zip_longest(wanted, owners), 2):
                self.threads.append(threading.Thread(target=self._launch, args=(one, owner)))
                self.threads[-1].start()
                until(lambda number=number: len(self.world.store.queue()) == number)
            until(lambda: len(self.world.store._queue.ways()) == ways)
            yield self.world.store.queue(forecast=True)[1:]
        for thread in self.threads:
            thread.join()

    def _launch(self, wanted: Request, owner: str | None) -> None:
        try:
            self.done.append(self.world.service(owner or "me").assemble(wanted))
        except exceptions.SplitImageError as error:
            self.failed.append(error)

    @property
    def made(self) -> list[tuple[str, str]]:
        return [(done.image.name if done.image else "", plan.estimate.candidate.name)
                for plan, done in self.done]

    @property
    def injected(self) -> float:
        return sum(done.facts["injected_bytes"] for _, done in self.done)


def one_by_one(place: Path, *wanted: Request) -> float:
    """Bytes injected in order of arrival."""
    fresh = World(place)
    found = sum(fresh.service().assemble(each)[1].facts["injected_bytes"] for each in wanted)
    fresh.store.close()
    return found


def test_those_that_wait_together_are_made_from_each_other(world: World) -> None:
    wanted = request("mysql"), request("apache", "php"), request("apache", "mysql", "php")
    launches = Launches(world)
    with launches.waiting(*wanted, ways=6) as items:
        told = {item.subject: item.source for item in items}
    # In order of arrival mysql would be injected twice.
    assert launches.made == [("lamp+mysql", "lamp"), ("lamp+apache+mysql+php", "lamp+mysql"),
                             ("lamp+apache+php", "lamp+apache+mysql+php")]
    assert told == dict(launches.made)
    assert launches.injected < one_by_one(world.place / "fresh", *wanted)
    for plan, done in launches.done:
        alone = World(world.place / plan.recipe)
        _, single = alone.service().assemble(plan.request)
        assert alone.tree(single.disk) == world.tree(done.disk)
        alone.store.close()


def test_the_worst_order_of_arrival(world: World) -> None:
    launches = Launches(world)
    wanted = request("apache", "mysql", "php"), request("apache", "mysql"), request("apache")
    with launches.waiting(*wanted, ways=6):
        pass
    assert launches.made == [("lamp+apache", "lamp"), ("lamp+apache+mysql", "lamp+apache"),
                             ("lamp+apache+mysql+php", "lamp+apache+mysql")]


def test_nothing_of_another_project_is_used(world: World) -> None:
    world.store.save_composite(msgspec.structs.replace(world.lamp, public=True), replace=True)
    launches = Launches(world)
    wanted = request("apache", "mysql"), request("apache", "php"), request("apache")
    with launches.waiting(*wanted, owners=("me", "you", "you"), ways=2) as items:
        assert [item.source for item in items] == ["lamp", "lamp+apache", "lamp"]
    assert launches.made == [("lamp+apache+mysql", "lamp"), ("lamp+apache", "lamp"),
                             ("lamp+apache+php", "lamp+apache")]


def test_where_one_fails_the_next_is_made_without(world: World,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    launches = Launches(world)
    adopt, times = world.store.adopt, itertools.count()

    def failing(path: Path) -> str:
        if next(times) == 0:
            raise exceptions.ApplianceFailed(step="injection", reason="no")
        return adopt(path)

    with launches.waiting(request("apache", "mysql"), request("apache"), ways=2) as items:
        assert [item.source for item in items] == ["lamp+apache", "lamp"]
        monkeypatch.setattr(world.store, "adopt", failing)
    assert launches.made == [("lamp+apache+mysql", "lamp")]
    assert [type(error) for error in launches.failed] == [exceptions.ApplianceFailed]


def test_more_scratch_space_than_there_may_be_is_refused(world: World) -> None:
    world.store._queue.room = 50_000
    with pytest.raises(exceptions.TooLarge, match=r"lamp\+mysql") as raised:
        world.service().assemble(request("mysql"))
    assert "max_scratch_bytes" in raised.value.advice
    assert world.store.queue() == []
    world.service().assemble(request("apache"))
