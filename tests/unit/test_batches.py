"""Batches: which image is made from which, and what happens when one fails."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import pytest

from splitimage_driver import batches, exceptions, workers
from splitimage_driver.batches import BatchService
from splitimage_driver.model.plan import BatchStep, Request
from splitimage_driver.servers import NEVER, Launched, Wish
from splitimage_driver.workers import Message
from tests.unit.test_service import World, request, world

__all__ = ["world"]  # the fixture


# -- the plan -----------------------------------------------------------------------------


def steps(world: World, *requests: Request, **options: Any) -> list[BatchStep]:
    return world.service().plans.batch(requests, **options)


def ways(found: Sequence[BatchStep]) -> dict[tuple[int, ...], int | str]:
    return {step.requests: step.estimate.candidate.name if step.source is None else step.source
            for step in found}


def test_what_several_have_in_common_is_made_once(world: World) -> None:
    found = steps(world, request("apache", "mysql", "php"), request("mysql"),
                  request("mysql", "php"))
    assert ways(found) == {(1,): "lamp", (2,): 1, (0,): 2}
    assert [step.requests for step in found] == [(1,), (2,), (0,)]
    assert found[1].estimate.match == "subset"
    assert found[1].estimate.cost < found[1].plan.estimate.cost


def test_equal_requests_are_one_step(world: World) -> None:
    found = steps(world, request("php", "apache"), request("mysql"), request("apache", "php"))
    assert sorted(step.requests for step in found) == [(0, 2), (1,)]


def test_a_stored_image_is_taken_where_it_is_nearest(world: World) -> None:
    service = world.service()
    service.assemble(request("mysql"))
    found = steps(world, request("mysql", "php"), request("mysql"), request())
    assert ways(found) == {(0,): "lamp+mysql", (1,): "lamp+mysql", (2,): "lamp"}
    assert [step.estimate.match for step in found if step.requests != (0,)] == ["exact"] * 2


def test_nothing_is_made_from_what_is_not_published(world: World) -> None:
    wanted = request("apache", "mysql"), request("mysql")
    assert ways(steps(world, *wanted)) == {(1,): "lamp", (0,): 1}
    assert ways(steps(world, *wanted, parents=[True, False]))[(0,)] == "lamp"


def test_one_that_cannot_be_made_is_told_before_anything_is(world: World) -> None:
    with pytest.raises(exceptions.UnknownPart):
        steps(world, request("mysql"), request("no-such"))
    assert steps(world) == []


def test_the_total_is_the_least_of_all_ways(world: World) -> None:
    """Against every order in which each is made from any other."""
    wanted = [request(*parts) for parts in (
        ("apache",), ("apache", "php"), ("mysql",), ("mysql", "php"))]
    service = world.service()
    found = steps(world, *wanted)
    total = sum(step.estimate.cost for step in found)
    least = float("inf")
    for order in itertools.permutations(range(len(wanted))):
        fresh = World(world.place / "".join(map(str, order)))
        spent = 0.0
        for number in order:
            plan, _ = fresh.service().assemble(wanted[number])
            spent += plan.estimate.cost
        least = min(least, spent)
        fresh.store.close()
    assert total == pytest.approx(least)
    made: dict[int, str] = {}
    for step in found:
        with service.assembled(wanted[step.requests[0]], source=None if step.source is None
                               else made[step.source]) as (plan, done):
            assert done.image is not None
            made[step.requests[0]] = done.image.id
        assert plan.estimate.cost == pytest.approx(step.estimate.cost)


def test_a_source_is_taken_though_another_is_nearer(world: World) -> None:
    service = world.service()
    service.assemble(request("apache", "php"))
    plan = service.plan(request("apache", "php", "mysql"), source=world.lamp.id)
    assert (plan.estimate.match, len(plan.considered)) == ("base", 1)
    plan = service.plan(request("apache", "php", "mysql"), source="gone")
    assert plan.estimate.candidate.name == "lamp+apache+php"


def test_why_the_others_lost(world: World) -> None:
    service = world.service()
    service.assemble(request("apache", "php"))
    plan = service.plan(request("apache", "php", "mysql"), explain=True)
    best, other = plan.considered
    assert best.lost is None and other.lost is not None
    assert (other.candidate.name, other.lost.term) == ("lamp", "inject")
    assert other.lost.files[0] == "/usr/php"
    assert "/usr/mysql" not in other.lost.files
    assert other.lost.seconds > 0
    counted = service.plan(request("apache", "php", "mysql"), explain=True, cost="count")
    assert counted.considered[1].lost is not None
    assert counted.considered[1].lost.told()["unit"] == "files"
    alone = service.plan(request("apache", "php", "mysql"), explain=True, top=1)
    assert alone.considered[1].lost is None


# -- carried out ----------------------------------------------------------------------------


class Workers:
    """Launches that end when their turn comes in ``script``: a title, and
    what becomes of it.

    :ivar started: (title, source) in order
    """

    def __init__(self, script: dict[str, str]) -> None:
        self.script, self.started = script, list[tuple[str, str | None]]()
        self.most = 0

    def __call__(self, work: Any, wish: Wish, source: str | None, *, title: str) -> Fake:
        self.started.append((wish.name, source))
        return Fake(wish, self.script.get(wish.name, "done"))

    def messages(self, running: Sequence[Fake]) -> Iterator[tuple[Fake, Message]]:
        self.most = max(self.most, len(running))
        worker = next(iter(running))
        if worker.end_as == "done" and not worker.told:
            worker.told = True
            yield worker, Message(workers.TOLD, None if worker.wish.publish == NEVER
                                  else f"image of {worker.wish.name}")
        elif worker.end_as == "done":
            yield worker, Message(workers.DONE, worker.wish.name)
        else:
            yield worker, Message(workers.FAILED, exceptions.Cancelled(what=worker.wish.name))


class Fake:
    def __init__(self, wish: Wish, end_as: str) -> None:
        self.wish, self.end_as, self.told, self.gone = wish, end_as, False, False

    def join(self) -> None:
        self.gone = True

    def end(self) -> None:
        pass


def wish(name: str, *parts: str, **fields: Any) -> Wish:
    return Wish(request=request(*parts), name=name, **fields)


WISHES = (wish("all", "apache", "mysql", "php"), wish("db", "mysql"), wish("two", "mysql", "php"),
          wish("web", "apache"))


def launch(world: World, monkeypatch: pytest.MonkeyPatch, wishes: Sequence[Wish],
           parallel: int = 8, **script: str) -> tuple[Workers, dict[str, Any]]:
    found = Workers(script)
    monkeypatch.setattr(batches, "Worker", found)
    monkeypatch.setattr(workers, "messages", found.messages)
    work: Any = None  # the workers are none
    service = BatchService(world.service().plans, work, parallel=parallel)
    outcomes = service.launch(wishes)
    return found, {wish.name: outcome.launched or outcome.error
                   for wish, outcome in zip(wishes, outcomes, strict=True)}


def test_parents_come_before_children_and_others_beside_them(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    found, outcomes = launch(world, monkeypatch, WISHES)
    # The last by removal.
    assert found.started == [("db", world.lamp.id), ("two", "image of db"),
                             ("all", "image of two"), ("web", "image of all")]
    assert outcomes == {name: name for name in ("all", "db", "two", "web")}
    apart = wish("db", "mysql"), wish("web", "apache")
    found, _ = launch(world, monkeypatch, apart)
    assert found.started == [("db", world.lamp.id), ("web", world.lamp.id)]
    assert found.most == 2
    found, _ = launch(world, monkeypatch, apart, parallel=1)
    assert (found.most, len(found.started)) == (1, 2)


def test_a_server_that_lays_its_parts_is_made_from_no_other(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    found, outcomes = launch(world, monkeypatch, (
        wish("all", "apache", "mysql", "php", deliver="stream"), wish("db", "mysql"),
        wish("auto", "mysql", "php", deliver="auto"), wish("more", "apache", "mysql", "php")))
    assert found.started[0] == ("all", None), "at once"
    assert ("more", "image of auto") not in found.started
    assert set(outcomes) == {"all", "db", "auto", "more"}
    found, _ = launch(world, monkeypatch, (wish("one", "mysql", deliver="stream"),))
    assert found.started == [("one", None)]


def test_one_that_lays_its_parts_is_planned_so(world: World) -> None:
    """It comes first, has nothing in excess, and keeps its number."""
    world.service().assemble(request("apache", "mysql"))
    wishes = [wish("web", "apache"), wish("laid", "apache", deliver="stream"),
              wish("both", "apache", "php")]
    steps = BatchService(world.service().plans, mock.Mock(), parallel=1).plan(wishes)
    first, *others = steps
    assert (first.requests, first.source, first.estimate.excess) == ((1,), None, 0)
    assert first.estimate.candidate.id == world.lamp.id
    assert {step.requests for step in others} == {(0,), (2,)}
    assert [step.source for step in others if step.requests == (2,)] in ([0], [None])


def test_a_failed_branch_is_planned_again_without_it(world: World,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    found, outcomes = launch(world, monkeypatch, WISHES, db="failed")
    assert isinstance(outcomes["db"], exceptions.Cancelled)
    assert {name: outcomes[name] for name in ("all", "two", "web")} == {
        "all": "all", "two": "two", "web": "web"}
    assert dict(found.started)["two"] == world.lamp.id
    assert dict(found.started)["all"] == "image of two"


def test_all_can_fail(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    found, outcomes = launch(world, monkeypatch, WISHES, db="failed", two="failed",
                             web="failed", all="failed")
    assert all(isinstance(error, exceptions.Cancelled) for error in outcomes.values())
    assert len(found.started) == len(WISHES)


def test_equal_requests_wait_for_the_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    wishes = (wish("one", "mysql"), wish("two", "mysql"), wish("three", "mysql"))
    found, outcomes = launch(world, monkeypatch, wishes)
    assert found.started == [("one", world.lamp.id), ("two", "image of one"),
                             ("three", "image of one")]
    assert outcomes == {"one": "one", "two": "two", "three": "three"}


def test_the_others_follow_one_that_is_published(world: World,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    wishes = (wish("one", "mysql", publish=NEVER), wish("two", "mysql"),
              wish("more", "mysql", "php"))
    found, _ = launch(world, monkeypatch, wishes)
    assert found.started[0] == ("two", world.lamp.id)
    assert dict(found.started)["one"] == dict(found.started)["more"] == "image of two"


def test_what_is_told_between_processes_can_be_pickled() -> None:
    error = exceptions.NotFound(kind="image", name="x", where="/y")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(again), str(again), again.advice) == (type(error), str(error), error.advice)
    told = Launched(servers=(), plan=None, measured={"a": 1.0})  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(told)) == told  # noqa: S301 - our own
