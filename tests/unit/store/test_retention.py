from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver.model.candidate import Image
from splitimage_driver.store.retention import Limits, surplus

NOW = 1000.0


def _image(number: int, used: float, size: int) -> Image:
    return Image(id=f"{number:04}", name="x", composite="c", parts=(), recipe=str(number),
                 disk="", disk_size=size, virtual_size=0, manifest="", mounts=(), owner="o",
                 created=0, last_used=used)


_images = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 50)), max_size=30).map(
    lambda rows: [_image(number, float(used), size)
                  for number, (used, size) in enumerate(rows)])
_limits = st.builds(Limits, max_age=st.integers(0, 1000), max_count=st.integers(0, 20),
                    max_bytes=st.integers(0, 500))


@given(images=_images, limits=_limits, protected=st.sets(st.integers(0, 29)))
def test_surplus(images: list[Image], limits: Limits, protected: set[int]) -> None:
    kept_ids = {f"{number:04}" for number in protected}
    gone = surplus(images, limits, now=NOW, protected=kept_ids)
    left = [image for image in images if image not in gone]
    assert not {image.id for image in gone} & kept_ids
    free = [image for image in left if image.id not in kept_ids]
    # Within the limits, or nothing left that may go.
    if free:
        assert not limits.full(len(left), sum(image.disk_size for image in left))
    assert not any(limits.old(image, NOW) for image in free)
    # None went that could have stayed: the last one to go broke a limit.
    if gone:
        back = [*left, gone[-1]]
        assert limits.old(gone[-1], NOW) or limits.full(
            len(back), sum(image.disk_size for image in back))
    # Least recently used first.
    for image in gone:
        assert all(image.last_used <= other.last_used for other in free)


@given(images=_images)
def test_without_limits_all_stay(images: list[Image]) -> None:
    assert surplus(images, Limits(), now=NOW, protected=()) == []


def test_an_old_protected_image_does_not_drag_others_along() -> None:
    images = [_image(1, 0.0, 1), _image(2, 999.0, 1)]
    assert surplus(images, Limits(max_age=100), now=NOW, protected={"0001"}) == []


def test_limits_with_some_replaced() -> None:
    limits = Limits(max_age=1, max_count=2, max_bytes=3)
    assert limits.but() == limits
    assert limits.but(max_count=0) == Limits(max_age=1, max_count=0, max_bytes=3)


def test_the_limit_holds_for_each_owner(open_local: Any, maker: Any) -> None:
    store = open_local(limits={"max_count": 3})
    make = maker(store)
    composite = make.saved()
    for number in range(6):
        for owner in ("one", "two"):
            make.added(composite, owner=owner, last_used=float(number))
    for owner in ("one", "two"):
        assert [image.last_used for image in store.images(owner=owner)] == [3.0, 4.0, 5.0]


def test_servers_and_the_new_image_are_spared(open_local: Any, maker: Any) -> None:
    store = open_local(limits={"max_count": 2})
    make = maker(store)
    composite = make.saved()
    first, second = make.added(composite), make.added(composite)
    make.running(first)
    make.running(second, image="")  # stands on its disk
    third = make.added(composite, last_used=0.0)
    assert {image.id for image in store.images()} == {first.id, second.id, third.id}
    fourth = make.added(composite)
    assert {image.id for image in store.images()} == {first.id, second.id, fourth.id}
    assert not store.is_local(third.disk) and store.is_local(first.disk)


def test_used_images_stay_longer(open_local: Any, maker: Any) -> None:
    store = open_local(limits={"max_count": 2})
    make = maker(store)
    composite = make.saved()
    first, second = make.added(composite), make.added(composite)
    store.touch_image(first.id)
    assert time.time() - 60 < store.image(first.id).last_used <= time.time()
    third = make.added(composite, last_used=time.time() + 1)
    assert [image.id for image in store.images()] == [first.id, third.id]
    with pytest.raises(Exception, match=second.id):
        store.touch_image(second.id)


def test_prune_by_each_limit(store: Any, make: Any) -> None:
    composite = make.saved()
    now = time.time()
    images = [make.added(composite, last_used=now - 100 * (5 - n), disk_size=100)
              for n in range(5)]
    other = make.added(composite, owner="other", last_used=now - 5000, disk_size=9999)
    assert store.prune_images() == []
    assert store.prune_images(owner="default", max_age=450) == images[:1]
    assert store.prune_images(owner="default", max_bytes=300) == images[1:2]
    assert store.prune_images(owner="default", max_count=2) == images[2:3]
    assert store.images(owner="default") == images[3:]
    assert store.prune_images(max_age=1000) == [other]


def test_zero_lifts_a_configured_limit(open_local: Any, maker: Any) -> None:
    unlimited, limited = open_local(), open_local(limits={"max_count": 1})
    make = maker(unlimited)
    composite = make.saved()
    for _ in range(3):
        make.added(composite)
    assert limited.prune_images(max_count=0) == []
    assert len(limited.prune_images()) == 2


def test_configured_ages_count_from_the_last_use(open_local: Any, maker: Any) -> None:
    store = open_local(limits={"max_age": 100})
    make = maker(store)
    composite = make.saved()
    old = make.added(composite, last_used=1.0)  # the new one is never deleted
    assert store.images() == [old]
    new = make.added(composite, last_used=time.time())
    assert store.images() == [new]
    assert msgspec.structs.asdict(store.image(new.id)) == msgspec.structs.asdict(new)
