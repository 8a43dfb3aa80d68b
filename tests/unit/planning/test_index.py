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


def order(has: np.ndarray, wanted: np.ndarray, files: np.ndarray, sizes: np.ndarray,
          p: Pricing) -> list[int]:
    """Images by cost, the documented tie-break included. All amounts are
    whole numbers, and exact as such.

    :param has: by image and part: 1 or 0
    """
    there, there_bytes, much, much_bytes = (
        has @ np.stack([files * wanted, sizes * wanted, files * ~wanted, sizes * ~wanted], 1)).T
    missing, missing_bytes = files @ wanted - there, sizes @ wanted - there_bytes
    totals = (p.alpha * missing_bytes / p.bandwidth
              + p.beta * (missing * p.inject_seconds + missing_bytes / p.inject_rate)
              + p.gamma * much * p.remove_seconds + p.delta * much_bytes / p.bandwidth)
    found: list[int] = np.lexsort((there_bytes + much_bytes, missing_bytes, totals.round(9),
                                   missing + much > 0)).tolist()
    return found


@pytest.mark.parametrize("size", ["all the same", "one of three", "any"])
@pytest.mark.parametrize("seed", range(5))
def test_windows_and_sums_exclude_nothing_that_is_near(seed: int, size: str) -> None:
    """Thousands of images of parts, in more than two windows: bounds are at
    work. With equal parts they are not rounded, and very many images tie."""
    rng = np.random.default_rng(seed)
    choice = {"all the same": np.array([10**6]), "any": rng.integers(0, 10**7, 500),
              "one of three": np.array([10**5, 3 * 10**6, 10**7])}[size]
    known = {f"part{n}": FileSet(tuple(
        File(f"p{n}/{m}", int(rng.choice(choice)), "d")
        for m in range(2 if size == "all the same" else rng.integers(1, 4))))
        for n in range(300)}
    names, images = list(known), 40_000
    share = np.minimum(0.9, 2.5 / np.arange(1, 301))
    taken = rng.random((images, 300)) < share
    start = np.concatenate([[0], np.cumsum(taken.sum(axis=1))])
    index = CandidateIndex(known)
    index.extend("debian", [f"i{n:05}" for n in range(images)], start, np.nonzero(taken)[1])
    gone = set(rng.choice(images, 2000, replace=False).tolist())
    for number in gone:
        index.remove(f"i{number:05}")
    has = taken.astype(np.float64)
    files = np.array([float(len(part.files)) for part in known.values()])
    sizes = np.array([float(sum(f.size for f in part.files)) for part in known.values()])
    p = Pricing.of(EQUATION_NAMES[seed % 5], Rates(delta=0.3, remove_seconds=0.01))
    for number in range(12):
        if number % 2:
            wanted = rng.random(300) < share
        else:
            wanted = taken[rng.integers(images)].copy()
            wanted[rng.integers(0, 300, 3)] ^= True
        chosen = tuple(names[n] for n in np.flatnonzero(wanted))
        request = Wanted(id="r", os="debian", parts=chosen, files={
            f.path: f for name in chosen for f in known[name].files})
        expected = [f"i{n:05}" for n in order(has, wanted, files, sizes, p) if n not in gone]
        for k in (1, 20):
            assert [n.id for n in index.nearest(request, p, k)] == expected[:k]


def test_parts_too_small_for_the_unit_of_sums_count() -> None:
    """All images have the one large part; only small ones, none of which is
    rare, tell them apart."""
    rng = np.random.default_rng(1)
    known = {f"part{n}": FileSet((File(f"p{n}", 450_000 if n else 512_000_000, "d"),))
             for n in range(41)}
    taken = rng.random((5000, 41)) < 0.5
    taken[:, 0] = True
    index = CandidateIndex(known)
    index.extend("debian", [f"i{n:04}" for n in range(5000)],
                 np.concatenate([[0], np.cumsum(taken.sum(axis=1))]), np.nonzero(taken)[1])
    request = Wanted(id="r", os="debian", parts=tuple(known), files={
        f.path: f for part in known.values() for f in part.files})
    p = Pricing.of("download", Rates())
    ones, sizes = np.ones(41), np.array([float(s.files[0].size) for s in known.values()])
    expected = order(taken.astype(np.float64), np.ones(41, dtype=bool), ones, sizes, p)
    assert [n.id for n in index.nearest(request, p, 5)] == [f"i{n:04}" for n in expected[:5]]


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
