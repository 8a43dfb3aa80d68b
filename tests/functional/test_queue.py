"""Requests that wait together, on real appliances: commands that arrive while
nothing can begin, in the worst order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver.model.plan import Request
from splitimage_driver.store.base import Store
from tests.functional import smallgold, trees
from tests.functional.dying import Child, opened, run, until

#: Bytes of each file set.
BULK = 300_000


def request(*parts: str, filesets: tuple[str, ...] = ()) -> Request:
    return Request(composite=smallgold.NAME, parts=parts, filesets=filesets)


WEB, BOTH, ALL = request("web"), request("web", "db"), request("web", "db", "php")
ONE, TWO = request(filesets=("one",)), request(filesets=("two",))
TOGETHER = request(filesets=("one", "two"))


def arrive(path: Path, places: int, *wanted: Request) -> list[dict[str, Any]]:
    """All wait before the first begins; what was assembled, in order."""
    config = f"[assembly]\nmax_parallel = {places}\n"
    with contextlib.ExitStack() as stack:
        store: Any = stack.enter_context(opened(path, assembly__max_parallel=places)).store
        with contextlib.ExitStack() as taken:
            for _ in range(places):
                taken.enter_context(store.turn("before them"))
            children = []
            for number, each in enumerate(wanted, places + 1):
                words = [word for part in each.parts for word in ("--part", part)]
                words += [word for name in each.filesets for word in ("--fileset", name)]
                children.append(stack.enter_context(Child(
                    path, "assemble", smallgold.NAME, *words, "-f", "json", config=config)))
                until(lambda number=number: len(store.queue()) == number)  # type: ignore[misc]
            until(lambda: len(store._queue.ways()) == len(wanted) * (len(wanted) - 1))
            listed = [{key.lower(): value for key, value in row.items()}
                      for row in run(path, "queue", "list", "-f", "json", config=config)]
        for child in children:
            child.success()
        assert [row["state"] for row in listed] == (
            ["running"] * places + ["waiting"] * len(wanted))
        assert all(row["left"] > 0 and row["from"] for row in listed[places:])
        assert store.queue() == [] and list(store.check()) == []
        return list(reversed(store.history("assembly")))


def injected(facts: list[dict[str, Any]]) -> int:
    return sum(int(fact["measured"]["injected_bytes"]) for fact in facts)


def names(facts: list[dict[str, Any]], store: Store) -> list[tuple[str, str]]:
    """Each, and what it was made from; named by its parts and file sets."""
    known = {image.name: image for image in store.images()}

    def short(name: str) -> str:
        if name not in known:
            return "base"
        image = known[name]
        return "+".join(sorted([*(part for part in image.parts if "." not in part),
                                *(store.part(each).name for each in image.filesets)]))

    return [(short(next(i.name for i in known.values() if i.recipe == fact["recipe"])),
             short(fact["candidate_name"])) for fact in facts]


def check(path: Path, places: int, *wanted: Request,
          ) -> tuple[list[dict[str, Any]], list[tuple[str, str]], list[int]]:
    """What was assembled, from what, and what each would inject by itself; the
    disks have what single assemblies would make."""
    with opened(path) as application:
        alone = [application.images.plan(each) for each in wanted]
    facts = arrive(path, places, *wanted)
    with opened(path) as application:
        store = application.store
        images = {image.recipe: image for image in store.images()}
        assert images.keys() == {plan.recipe for plan in alone}
        for plan in alone:
            assert plan.target is not None
            image = images[plan.recipe]
            assert image.manifest == plan.target.manifest.digest
            assert trees.told(trees.read(store.path(image.disk)), plan.target.manifest) == []
        return facts, names(facts, store), [plan.estimate.inject_bytes for plan in alone]


def test_what_two_have_in_common_is_injected_once(
        fresh_store: Path, tmp_path: Path, record_property: Callable[..., None]) -> None:
    for name in "one", "two":
        (tmp_path / name / "srv").mkdir(parents=True)
        (tmp_path / name / "srv" / name).write_bytes(os.urandom(BULK))
        run(fresh_store, "part", "create", name, "--from", tmp_path / name, "-f", "json")
    facts, made, (one, two, both) = check(fresh_store, 1, ONE, TWO, TOGETHER)
    # In order of arrival each of the two, and then one of them once more.
    before = one + two + min(both - one, both - two)
    record_property("bytes", injected(facts))
    record_property("bytes in order of arrival", before)
    first, last = made[0][0], made[2][0]
    assert {first, last} == {"one", "two"}
    assert made == [(first, "base"), ("one+two", first), (last, "one+two")]
    assert 2 * BULK <= injected(facts) < 0.7 * before


def test_in_the_background(fresh_store: Path) -> None:
    """The command is over at once; what it left to another process waits in the queue,
    and is done, or tells why not."""
    words = ("assemble", smallgold.NAME, "--background", "-f", "json", "--part")
    config = "[assembly]\nmax_parallel = 1\n"
    with opened(fresh_store, assembly__max_parallel=1) as application:
        store: Any = application.store
        with contextlib.ExitStack() as kept, store.turn("before them"):
            # Each command's configuration stays with it.
            begun = {part: kept.enter_context(Child(
                fresh_store, *words, part, config=config)).success() for part in ("web", "db")}
            until(lambda: len(store.queue()) == 3)
            items = {item.pid: item for item in store.queue()}
            for told in begun.values():
                assert items[told["pid"]].state == "waiting" and Path(told["log"]).exists()
                assert os.getpriority(os.PRIO_PROCESS, told["pid"]) == 10
                assert os.getsid(told["pid"]) == told["pid"]
            store.cancel(items[begun["db"]["pid"]].id)
            until(lambda: "was cancelled" in Path(begun["db"]["log"]).read_text())
        until(lambda: not Path(begun["web"]["log"]).exists())
        [image] = store.images()
        assert "web" in image.parts
        assert store.queue() == [] and list(store.check()) == []
    assert run(fresh_store, *words, "web")["match"] == "exact"


@pytest.mark.accept
def test_each_is_made_from_the_one_before(fresh_store: Path,
                                          record_property: Callable[..., None]) -> None:
    """Nothing is laid only to be removed again."""
    facts, made, (largest, _, _) = check(fresh_store, 1, ALL, BOTH, WEB)
    assert made == [("web", "base"), ("db+web", "web"), ("db+php+web", "db+web")]
    assert [fact["excess"] for fact in facts] == [0, 0, 0]
    record_property("bytes", injected(facts))
    record_property("bytes of the largest alone", largest)
    # What each writes anew is the package database.
    assert injected(facts) < largest + 8192


@pytest.mark.accept
def test_two_at_a_time(fresh_store: Path, record_property: Callable[..., None]) -> None:
    """In order of arrival the two largest would begin at once, from the base."""
    facts, made, (first, second, _) = check(fresh_store, 2, ALL, BOTH, WEB)
    record_property("bytes", injected(facts))
    record_property("bytes in order of arrival", first + second)
    assert dict(made)["db+php+web"] in ("web", "db+web")
    assert injected(facts) < first + second
