"""Of many images the nearest by their parts."""

from __future__ import annotations

import random
from typing import Any

import pytest

from splitimage_driver.model.candidate import Image
from splitimage_driver.model.part import Part
from splitimage_driver.planning import shortlist
from splitimage_driver.planning.cost import Bytes, Count, Inject, Rates, Remove, Weighted

#: A byte takes a second to transfer, a file none to inject unless told.
RATES = Rates(bandwidth=1.0, inject_rate=1e9, inject_seconds=0.0, remove_seconds=10.0)


def part(name: str, size: int, files: int = 1) -> Part:
    return Part(id=name * 8, name=name, kind="software", blob="", blob_size=size, size=size,
                files=files, owner="me", created=0)


PARTS = {name: part(name, size) for name, size in (
    ("apache", 100), ("mysql", 900), ("php", 300), ("page", 50))}


def image(name: str, *parts: str, **fields: Any) -> Image:
    known: dict[str, Any] = {
        "id": name, "name": name, "composite": "c", "parts": parts, "recipe": "", "disk": name,
        "disk_size": 10, "virtual_size": 1, "manifest": "", "mounts": (), "owner": "me",
        "created": 0, "last_used": 0}
    return Image(**(known | fields))


def nearest(images: list[Image], *wanted: str, **options: Any) -> str:
    known: dict[str, Any] = {"cost": Remove(), "rates": RATES, "limit": 99}
    found = shortlist.nearest(images, {name: PARTS[name] for name in wanted}, PARTS,
                              **(known | options))
    return " ".join(each.id for each in found)


IMAGES = [image("none"), image("a", "apache"), image("m", "mysql"),
          image("am", "apache", "mysql"), image("amp", "apache", "mysql", "php")]


@pytest.mark.parametrize(("wanted", "order"), [
    # What is to be removed costs 10 s a file, what is to be added its bytes.
    (("apache", "mysql"), "am amp m a none"), (("apache",), "a am amp none m"),
    ((), "none a m am amp"), (("php",), "amp none a m am"),
    (("apache", "mysql", "php"), "amp am m a none")])
def test_what_is_missing_and_what_is_in_excess_counts(wanted: tuple[str, ...],
                                                      order: str) -> None:
    assert nearest(IMAGES, *wanted) == order


def test_the_order_of_the_list_does_not_count() -> None:
    dice = random.Random(1)
    for _ in range(20):
        shuffled = dice.sample(IMAGES, len(IMAGES))
        assert nearest(shuffled, "apache", "mysql", limit=3) == "am amp m"


@pytest.mark.parametrize("limit", [0, 1, 4, 5, 6])
def test_there_are_no_more_than_wanted(limit: int) -> None:
    assert len(nearest(IMAGES, "apache", limit=limit).split()) == min(limit, 5)


def test_ties_go_to_the_lower_id() -> None:
    same = [image(name, "apache") for name in ("c", "a", "b")]
    assert nearest(same, "apache", limit=2) == "a b"


@pytest.mark.parametrize(("cost", "order"), [
    (Count(), "amp am a m none"), (Bytes(), "amp am m a none"), (Inject(), "amp am m a none"),
    (Weighted(), "amp am m a none")])
def test_the_equation_is_the_one_that_was_chosen(cost: Any, order: str) -> None:
    # By their number of missing files a and m are the same.
    assert nearest(IMAGES, "apache", "mysql", "php", cost=cost) == order


def test_files_count_where_they_take_time() -> None:
    parts = {"many": part("many", 10, files=1000), "large": part("large", 500, files=1)}
    images = [image("m", "many"), image("l", "large")]
    rates = Rates(bandwidth=1.0, inject_rate=1e9, inject_seconds=1.0)
    found = shortlist.nearest(images, parts, parts, cost=Inject(), rates=rates, limit=9)
    assert [each.id for each in found] == ["m", "l"]


def test_file_sets_are_parts_too() -> None:
    images = [image("plain", "apache"), image("mine", "apache", filesets=("page",))]
    assert nearest(images, "apache", "page") == "mine plain"
    assert nearest(images, "apache") == "plain mine"


def test_of_what_nobody_knows_only_the_number_counts() -> None:
    """As a file set that is not asked for, or a part that the composite had."""
    images = [image("a", "apache", "gone", filesets=("other",)), image("b", "apache", "gone"),
              image("c", "apache")]
    assert nearest(images, "apache") == "c b a"
    assert nearest([*images, image("d")], "apache") == "c b a d"


def test_what_has_to_be_fetched_first_is_farther() -> None:
    images = [image("here"), image("there", "apache")]
    far = {"here": 0, "there": 10_000}
    assert nearest(images, "apache", fetched=lambda one: far[one.id]) == "here there"
    assert nearest(images, "apache", fetched=lambda one: 0) == "there here"
    # A distance in files or bytes is not one in seconds.
    assert nearest(images, "apache", cost=Bytes(), fetched=lambda one: far[one.id]) == (
        "there here")
