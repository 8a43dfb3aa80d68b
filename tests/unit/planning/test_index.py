"""The candidate index against comparing with every image."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

from splitimage_driver import exceptions
from splitimage_driver.model.catalog import File, FileSet
from splitimage_driver.planning import catalog, offline, segments
from splitimage_driver.planning.cost import Rates
from splitimage_driver.planning.difference import Pricing, Stored, Wanted
from splitimage_driver.planning.index import CandidateIndex
from splitimage_driver.planning.offline import Planner
from tests.unit.planning import catalogs
from tests.unit.planning.catalogs import EQUATION_NAMES, Document

pytestmark = pytest.mark.must_show("planning", 1)


def library(stored: Document) -> dict[str, FileSet]:
    read = catalog.read_catalog(msgspec.json.encode(stored), "catalog")
    return catalog.Library(read.parts, "catalog").parts


def put(index: CandidateIndex, image: Stored, rng: random.Random) -> None:
    """By its parts, by its files, or by some of both."""
    if not image.parts or rng.random() < 0.3:
        index.add(image.id, image.os, files=image.files.values(), fetch_bytes=image.fetch_bytes)
        return
    kept = list(image.parts)
    loose = [kept.pop()] if rng.random() < 0.5 else []
    inside = {f.path for name in kept for f in index.elements.parts[name].files}
    files = [f for name in loose for f in index.elements.parts[name].files
             if f.path not in inside or rng.random() < 0.5]
    index.add(image.id, image.os, parts=kept, files=files, fetch_bytes=image.fetch_bytes)


def check(index: CandidateIndex, images: list[Stored], requests: list[Wanted], pricing: Pricing,
          k: int) -> None:
    planner = Planner(images, pricing)
    for request in requests:
        expected = [(c.image.id, c.cost, c.amounts.missing_bytes, c.image.size)
                    for c in planner.nearest(request, k)]
        found = [(n.id, n.total, n.missing_bytes, n.size)
                 for n in index.nearest(request, pricing, k)]
        assert found == expected  # to the last bit


@pytest.mark.parametrize("seed", range(150))
def test_it_finds_what_comparing_with_all_finds(seed: int,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Added, removed and added again, so that documents are in segments of
    all ages and in the list of new ones."""
    monkeypatch.setattr(segments, "_FRESH", 8)
    rng = random.Random(seed)
    stored, wanted = catalogs.documents(rng, images=60, files=40, requests=6)
    images, requests = catalogs.resolved(stored, wanted)
    pricing = Pricing.of(EQUATION_NAMES[seed % 5], catalogs.rates(rng))
    index = CandidateIndex(library(stored))
    there: list[Stored] = []
    for image in images:
        put(index, image, rng)
        there.append(image)
        if rng.random() < 0.3:
            gone = there.pop(rng.randrange(len(there)))
            index.remove(gone.id)
            assert gone.id not in index
            if rng.random() < 0.3:
                put(index, gone, rng)
                there.append(gone)
        if rng.random() < 0.1:
            check(index, there, requests, pricing, rng.choice((1, 2, 7)))
    assert len(index) == len(there)
    for k in (1, 3, 100):
        check(index, there, requests, pricing, k)


@pytest.mark.parametrize("seed", range(5))
def test_windows_blocks_and_lists_exclude_nothing_that_is_near(seed: int) -> None:
    """Thousands of images of parts: bounds are at work."""
    rng = np.random.default_rng(seed)
    parts = {f"part{n}": FileSet(tuple(
        File(f"p{n}/{m}", int(rng.integers(0, 10**7)), "d") for m in range(rng.integers(1, 4))))
        for n in range(300)}
    names, images = list(parts), 40_000
    share = 1 / np.arange(1, 301)
    taken = rng.random((images, 300)) < np.minimum(0.9, 2.5 * share)
    has = taken.astype(np.float64)
    start = np.concatenate([[0], np.cumsum(taken.sum(axis=1))])
    index = CandidateIndex(parts)
    index.extend("debian", [f"i{n:05}" for n in range(images)], start, np.nonzero(taken)[1])
    gone = rng.choice(images, 2000, replace=False)
    for number in gone.tolist():
        index.remove(f"i{number:05}")
    files = np.array([len(part.files) for part in parts.values()])
    sizes = np.array([sum(f.size for f in part.files) for part in parts.values()])
    p = Pricing.of(EQUATION_NAMES[seed % 5], Rates(delta=0.3, remove_seconds=0.01))
    lack = p.alpha * sizes / p.bandwidth + p.beta * (files * p.inject_seconds
                                                     + sizes / p.inject_rate)
    much = p.gamma * files * p.remove_seconds + p.delta * sizes / p.bandwidth
    for number in range(40):
        if number % 2:
            wanted = rng.random(300) < np.minimum(0.9, 2.5 * share)
        else:
            wanted = taken[rng.integers(images)].copy()
            wanted[rng.integers(0, 300, 3)] ^= True
        chosen = tuple(names[n] for n in np.flatnonzero(wanted))
        request = Wanted(id="r", os="debian", parts=chosen, files={
            f.path: f for name in chosen for f in parts[name].files})
        totals = lack @ wanted - has @ (lack * wanted) + has @ (much * ~wanted)
        totals[gone] = np.inf
        found = index.nearest(request, p, 5)
        assert [n.total for n in found] == pytest.approx(np.sort(totals)[:5], rel=1e-9,
                                                         abs=1e-9)
        assert [totals[int(n.id[1:])] for n in found] == pytest.approx(
            [n.total for n in found], rel=1e-9, abs=1e-9)


def test_more_ties_than_there_is_room_for() -> None:
    index = CandidateIndex()
    for number in range(3000):
        index.add(f"i{number:04}", "debian", files=[File(f"x{number}", 1, "d")])
    found = index.nearest(Wanted(id="r", os="debian", files={}),
                          Pricing.of("remove", Rates()), 3)
    assert [n.id for n in found] == ["i0000", "i0001", "i0002"]


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    rng = random.Random(3)
    stored, wanted = catalogs.documents(rng, images=40, requests=20)
    images, requests = catalogs.resolved(stored, wanted)
    index = CandidateIndex(library(stored))
    for image in images:
        put(index, image, rng)
    index.remove(images[0].id)
    index.save(tmp_path / "index")
    assert [p.name for p in tmp_path.iterdir()] == ["index"]
    loaded = CandidateIndex.load(tmp_path / "index")
    check(loaded, images[1:], requests, Pricing.of("transport", Rates()), 3)
    loaded.add("later", "debian", files=[File("x", 1, "d")])
    assert "later" in loaded
    (tmp_path / "index").write_bytes(b"no index")
    with pytest.raises(exceptions.InvalidInput, match="index"):
        CandidateIndex.load(tmp_path / "index")


def test_ids_parts_and_paths_are_checked() -> None:
    index = CandidateIndex({"p": FileSet((File("a", 1, "d"),))})
    index.add("one", "debian", parts=["p"])
    with pytest.raises(exceptions.AlreadyExists):
        index.add("one", "rocky")
    with pytest.raises(exceptions.InvalidInput, match="no part q"):
        index.add("two", "debian", parts=["q"])
    with pytest.raises(exceptions.InvalidInput, match="path a is there twice"):
        index.add("two", "debian", parts=["p"], files=[File("a", 1, "other")])
    with pytest.raises(exceptions.NotFound):
        index.remove("two")


def test_a_planner_of_many_answers_as_one_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(11)
    stored, wanted = catalogs.documents(rng, images=40, requests=30)
    images, requests = catalogs.resolved(stored, wanted)
    pricing = Pricing.of("weighted", Rates())
    few = Planner(images, pricing)
    monkeypatch.setattr(offline, "_WORTH_AN_INDEX", 0)
    many = Planner(images, pricing, expected=30, parts=library(stored))
    for request in requests:
        assert [c.image.id for c in many.nearest(request, 4)] == [
            c.image.id for c in few.nearest(request, 4)]
        one, other = many.cheapest(request), few.cheapest(request)
        assert (one and one.image.id) == (other and other.image.id)
