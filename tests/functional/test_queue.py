"""Requests that wait together, on real appliances: commands that arrive while
nothing can begin, in the worst order."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from splitimage_driver.model.candidate import BASE
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.plan import Request
from tests.functional import smallgold, trees
from tests.functional.dying import Child, opened, run, until

WEB, DB = ("web",), ("db",)
BOTH, ALL = ("web", "db"), ("web", "db", "php")


def name(parts: tuple[str, ...]) -> str:
    return "+".join((smallgold.NAME, *sorted(parts)))


def arrive(store: Path, places: int, *wanted: tuple[str, ...]) -> list[dict[str, object]]:
    """All wait before the first begins; what was assembled, in order."""
    config = f"[assembly]\nmax_parallel = {places}\n"
    with contextlib.ExitStack() as stack:
        application = stack.enter_context(opened(store, assembly__max_parallel=places))
        queue = application.store
        with contextlib.ExitStack() as taken:
            for _ in range(places):
                taken.enter_context(queue.turn("before them"))
            children = []
            for number, parts in enumerate(wanted, 1):
                words = [word for part in parts for word in ("--part", part)]
                children.append(stack.enter_context(Child(
                    store, "assemble", smallgold.NAME, *words, "-f", "json", config=config)))
                until(lambda number=number: len(queue.queue()) == places + number)  # type: ignore[misc]
            until(lambda: len(queue._queue.ways()) == len(wanted) * (len(wanted) - 1))  # type: ignore[attr-defined]
            listed = run(store, "queue", "list", "-f", "json", config=config)
            assert [row["Subject" if "Subject" in row else "subject"] for row in listed] == [
                *["before them"] * places, *map(name, wanted)]
            told = {item.subject: item for item in queue.queue(forecast=True)}
            assert all(told[name(parts)].left for parts in wanted)
        for child in children:
            child.success()
        assert queue.queue() == [] and list(queue.check()) == []
        return list(reversed(queue.history("assembly")))


def injected(facts: list[dict[str, object]]) -> int:
    return sum(int(fact["measured"]["injected_bytes"]) for fact in facts)  # type: ignore[index, misc]


def ways(facts: list[dict[str, object]]) -> list[tuple[str, object]]:
    return [(name(tuple(fact["request"])), fact["candidate_name"])  # type: ignore[arg-type]
            for fact in facts]


class Single(NamedTuple):
    """:ivar facts: of what was assembled one after the other
    :ivar largest: bytes that the largest alone injects
    :ivar disks: trees by recipe, as they really are
    """

    facts: list[dict[str, object]]
    largest: int
    disks: dict[str, Manifest]


@pytest.fixture(scope="module")
def single(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Single:
    """Where nothing waits: the same requests one after the other."""
    store = Path(shutil.copytree(small_store, tmp_path_factory.mktemp("single") / "store",
                                 symlinks=True))
    with opened(store) as application:
        images = application.images
        largest = images.plan(Request(composite=smallgold.NAME, parts=ALL)).estimate.inject_bytes
        for parts in DB, WEB, BOTH, ALL:
            images.assemble(Request(composite=smallgold.NAME, parts=parts))
        facts = list(reversed(application.store.history("assembly")))
    return Single(facts, largest, disks(store))


def disks(store: Path) -> dict[str, Manifest]:
    with opened(store) as application:
        return {image.recipe: trees.read(application.store.path(image.disk))
                for image in application.store.images()}


def same(store: Path, single: Single) -> None:
    found = disks(store)
    assert len(found) == 3
    for recipe, tree in found.items():
        assert trees.differences(tree, single.disks[recipe]) == []


@pytest.mark.accept
def test_each_is_made_from_the_one_before(fresh_store: Path, single: Single,
                                          record_property: Callable[..., None]) -> None:
    """Nothing is laid only to be removed again."""
    facts = arrive(fresh_store, 1, ALL, BOTH, WEB)
    assert ways(facts) == [(name(WEB), smallgold.NAME), (name(BOTH), name(WEB)),
                           (name(ALL), name(BOTH))]
    assert [fact["excess"] for fact in facts] == [0, 0, 0]
    record_property("bytes", injected(facts))
    # What each writes anew is the package database.
    assert injected(facts) < single.largest + 8192
    same(fresh_store, single)


def test_what_two_have_in_common_is_injected_once(
        fresh_store: Path, single: Single, record_property: Callable[..., None]) -> None:
    facts = arrive(fresh_store, 1, DB, WEB, BOTH)
    before = injected(single.facts[:3])
    record_property("bytes", injected(facts))
    record_property("bytes in order of arrival", before)
    assert injected(facts) < 0.7 * before
    same(fresh_store, single)


@pytest.mark.accept
def test_two_at_a_time(fresh_store: Path, single: Single,
                       record_property: Callable[..., None]) -> None:
    """In order of arrival the two largest would begin at once, from the base."""
    facts = arrive(fresh_store, 2, ALL, BOTH, WEB)
    made = dict(ways(facts))
    assert made.keys() == {name(parts) for parts in (ALL, BOTH, WEB)}
    assert made[name(ALL)] in (name(WEB), name(BOTH))
    with opened(fresh_store) as application:
        before = single.largest + sum(
            found.inject_bytes for found in application.images.plan(
                Request(composite=smallgold.NAME, parts=BOTH), explain=True).considered
            if found.candidate.kind == BASE)
    record_property("bytes", injected(facts))
    record_property("bytes in order of arrival", before)
    assert injected(facts) < before
    same(fresh_store, single)
