"""What a killed process has begun in the image service goes as soon as somebody
comes by on its host."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.part import FILESET
from splitimage_driver.store.glance import meeting
from splitimage_driver.store.glance.store import GlanceStore
from tests.imagerecords import Records
from tests.unit.store.glance.conftest import Stores
from tests.unit.store.glance.fake import FakeGlance, Killed
from tests.unit.store.glance.gold import Gold
from tests.unit.store.glance.test_announced import announced
from tests.unit.store.glance.test_publish import completed

HOST = "mine"


def kill(store: GlanceStore) -> None:
    """The kernel frees the lock of its session; nothing else happens."""
    store.rising._pool.shutdown()
    os.close(store._session._descriptor)
    store._session._descriptor = -1


@pytest.fixture(autouse=True)
def no_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of life: a thread of its own would die, too, and be told of."""
    monkeypatch.setattr(meeting.Meeting, "alive", lambda *_: contextlib.nullcontext())


def noted(store: GlanceStore) -> int:
    return len(store._database.query("SELECT 1 FROM uses WHERE kind = 'unfinished'"))


def roles(glance: FakeGlance) -> list[str]:
    return sorted(image["splitimage_role"] for image in glance.images.values())


def part(store: GlanceStore) -> None:
    Gold(store).part("page", kind=FILESET, pending=False)


def composite(store: GlanceStore) -> None:
    Gold(store).saved("lamp")


def image(store: GlanceStore) -> None:
    with announced(store.publisher, completed()) as found, store.scratch() as scratch:
        (scratch / "disk").write_bytes(b"disk")
        store.publisher.completed(completed(), b"tree", "ab" * 32, {}, scratch / "disk", found)


Work = Callable[[GlanceStore], None]
WORK: dict[str, Work] = {"part": part, "composite": composite, "image": image}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_what_is_finished_or_taken_back_is_not_noted(
        work: Work, stores: Stores, alpha: Records, glance: FakeGlance) -> None:
    store = stores(alpha.images, host=HOST)
    work(store)
    assert noted(store) == 0

    def full(method: str, path: str) -> None:
        if method == "PUT":
            raise exceptions.QuotaExceeded(project="alpha", reason="full")

    glance.before = full
    with pytest.raises(exceptions.QuotaExceeded):
        store.publisher.completed(completed(recipe="ee" * 32), b"tree", "ab" * 32, {},
                                  store._root / "splitimage.db")
    assert noted(store) == 0


@pytest.mark.parametrize("work", [image, part], ids=["image", "part"])
@pytest.mark.parametrize("admin", [False, True], ids=["project", "administrator"])
def test_wherever_it_was_killed_the_next_session_removes_it(
        work: Work, stores: Stores, glance: FakeGlance, admin: bool) -> None:
    counted = stores(glance.user("alpha"))
    glance.requests.clear()
    work(counted)
    count = len(glance.requests)
    counted.close()
    glance.images.clear()
    assert count > 5
    for number in range(count):
        store = stores(glance.user("alpha"), host=f"{HOST}{number}")
        glance.die_at(number)
        with contextlib.suppress(Killed):
            work(store)
        glance.live()
        kill(store)
        whole = [image["id"] for image in glance.images.values()
                 if image["status"] == "active" and image["splitimage_role"] != "manifest"]
        if admin:
            with contextlib.closing(stores(glance.user("service", admin=True),
                                           host=f"{HOST}{number}")) as other:
                assert len(glance.images) in (0, 1, 2)
                other.discard_leftovers()
        else:
            stores(glance.user("alpha"), host=f"{HOST}{number}").close()
        assert roles(glance) == sorted(
            [role for _ in whole for role in (properties.MANIFEST, work.__name__.replace(
                "image", properties.COMPLETED))])
        glance.images.clear()


def test_a_composite_that_was_not_finished_goes(stores: Stores, glance: FakeGlance,
                                                alpha: Records) -> None:
    store = stores(alpha.images, host=HOST)

    def before(method: str, path: str) -> None:
        shown = glance.images.get(path.split("/")[2]) if method == "PATCH" else None
        if shown and shown["splitimage_role"] == properties.COMPOSITE:
            raise Killed

    glance.before = before
    with pytest.raises(Killed):
        composite(store)
    glance.live()
    kill(store)
    stores(alpha.images, host=HOST)
    assert properties.COMPOSITE not in roles(glance)


def test_it_is_of_dead_sessions_of_this_project_and_host_only(
        stores: Stores, glance: FakeGlance, alpha: Records) -> None:
    living, dead = (stores(alpha.images, host=HOST) for _ in range(2))
    for store in (living, dead):
        store.publisher._record([], "x", properties.common(properties.COMPLETED))
    kill(dead)
    others = stores(glance.user("beta"), host=HOST)
    stores(alpha.images)
    assert others.journal.dead("beta") == []
    assert len(glance.images) == 2
    stores(alpha.images, host=HOST)
    assert len(glance.images) == 1
    assert noted(living) == 1


@pytest.mark.parametrize("change", [{"owner": "beta"}, {"splitimage_role": "x"},
                                    {"image_type": "snapshot"}])
def test_what_is_not_what_was_begun_is_left_alone(
        stores: Stores, glance: FakeGlance, alpha: Records, change: dict[str, Any]) -> None:
    store = stores(alpha.images, host=HOST)
    name = store.publisher._record([], "x", properties.common(properties.COMPLETED))
    kill(store)
    glance.images[name] |= change
    other = stores(glance.user("service", admin=True), host=HOST)
    assert other.discard_leftovers() == []
    assert name in glance.images
    assert noted(other) == 0


def test_what_cannot_be_removed_now_is_tried_again(stores: Stores, glance: FakeGlance,
                                                   alpha: Records) -> None:
    store = stores(alpha.images, host=HOST)
    store.publisher._record([], "x", properties.common(properties.COMPLETED))
    kill(store)
    for error in (exceptions.CloudUnreachable(where="cloud", reason="gone"),
                  exceptions.NotPermitted(where="cloud", what="delete an image", reason="no")):
        def before(method: str, path: str, error: Exception = error) -> None:
            raise error

        glance.before = before
        stores(alpha.images, host=HOST)
        assert len(glance.images) == 1
    glance.live()
    stores(alpha.images, host=HOST)
    assert glance.images == {}


def test_a_check_of_the_host_does_not_stumble_over_it(stores: Stores, alpha: Records) -> None:
    store = stores(alpha.images, host=HOST)
    store.journal.begin("11111111-2222-3333-4444-555555555555")
    assert [each for each in store.check() if each.kind != "leftover"] == []
