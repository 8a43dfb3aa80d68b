"""What an administrator has fetched before it is needed."""

from __future__ import annotations

import types
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.part import DEPENDENCY
from splitimage_driver.nova import precache
from splitimage_driver.store.glance.store import GlanceStore
from splitimage_driver.store.glance.used import Kept, UsedComposite
from tests.imagerecords import Records
from tests.unit.store.glance.conftest import Stores
from tests.unit.store.glance.fake import FakeGlance
from tests.unit.store.glance.gold import Gold


def cache(store: GlanceStore, image: str) -> bool | None:
    application: Any = types.SimpleNamespace(store=store)
    return precache.cache(application, image)


def used(store: GlanceStore, model: Any) -> list[Any]:
    with Kept(store._root) as kept:
        return kept.used(model)


def test_all_of_a_composite_is_fetched_once(glance: FakeGlance, alpha: Records,
                                            stores: Stores) -> None:
    gold = Gold(stores(alpha.images))
    parts = [gold.part("apache"), gold.part("apr", kind=DEPENDENCY)]
    lamp = gold.saved("lamp", *parts)
    host = stores(alpha.images, host="host")
    assert cache(host, lamp.id) is True
    assert [found.id for found in used(host, UsedComposite)] == [lamp.id]
    del glance.requests[:]
    assert cache(stores(alpha.images, host="host"), lamp.id) is False
    assert not any(path.endswith("/file") for _, path in glance.requests)

    later = stores(alpha.images, host="host")
    del glance.requests[:]
    wanted = later.composite("lamp")
    for digest in (wanted.base.disk, *(part.blob for part in parts)):
        assert later.is_local(digest)
    for part in parts:
        later.part_manifest(part.id)
    assert not any(path.endswith("/file") for _, path in glance.requests)


def test_of_whichever_project(glance: FakeGlance, alpha: Records, beta: Records,
                              stores: Stores) -> None:
    """And that it is here gives nothing to anybody who does not see it."""
    gold = Gold(stores(alpha.images))
    lamp = gold.saved("lamp", gold.part("apache"))
    assert cache(stores(glance.user("ops", admin=True), host="host"), lamp.id) is True
    with pytest.raises(exceptions.NotFound):
        stores(beta.images, host="host").composite(lamp.id)
    mine = stores(alpha.images, host="host")
    del glance.requests[:]
    mine.path(mine.composite("lamp").base.disk)
    assert not any(path.endswith("/file") for _, path in glance.requests)


def test_the_limit_of_the_cache_does_not_stop_it_half_way(alpha: Records,
                                                          stores: Stores) -> None:
    gold = Gold(stores(alpha.images))
    parts = [gold.part(name, content=name.encode() * 1000) for name in ("a", "b", "c")]
    lamp = gold.saved("lamp", *parts)
    host = stores(alpha.images, cache_bytes=1500)
    assert cache(host, lamp.id) is True
    assert all(host.is_local(part.blob) for part in parts)


def test_other_images_are_left_to_nova(alpha: Records, stores: Stores) -> None:
    host = stores(alpha.images)
    lamp = alpha.composite()
    snapshot = alpha.composite("copy")
    alpha.images.update(snapshot["id"], {"image_type": "snapshot"})
    claimed = alpha.image("claimed", {"splitimage_role": "completed"}, b"disk")
    for image in (alpha.image("cirros", {}, b"disk")["id"], snapshot["id"], claimed["id"],
                  "unknown"):
        assert cache(host, image) is None
    made = alpha.completed(lamp)
    assert cache(host, made["id"]) is None
    assert [found.id for found in used(host, Image)] == [made["id"]], "it is told of"


def test_a_composite_that_is_damaged_is_told(glance: FakeGlance, alpha: Records,
                                             stores: Stores) -> None:
    gold = Gold(stores(alpha.images))
    lamp = gold.saved("lamp", gold.part("apache"))
    glance.put(lamp.id, b"other")
    with pytest.raises(exceptions.DigestMismatch):
        cache(stores(alpha.images), lamp.id)
