"""A completed image is announced before it is made: one host makes it, however many
are asked for it."""

from __future__ import annotations

import contextlib
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from splitimage_driver import exceptions
from splitimage_driver.assembly import assembler
from splitimage_driver.capture import conflicts
from splitimage_driver.model import properties
from splitimage_driver.model.candidate import Image
from splitimage_driver.service import ImageService
from splitimage_driver.store import base
from splitimage_driver.store.glance import holdings, meeting
from splitimage_driver.store.glance.api import Description
from splitimage_driver.store.glance.meeting import Announcement
from splitimage_driver.store.glance.publish import Publisher
from tests.imagerecords import Records
from tests.unit.store.glance.conftest import Stores
from tests.unit.store.glance.fake import FakeGlance
from tests.unit.store.glance.test_planning import Cloud, request
from tests.unit.store.glance.test_publish import (
    DISK,
    LINK,
    TREE,
    Publishers,
    by_role,
    completed,
    disk,
    older,
    publisher,
    publishers,
)

__all__ = ["disk", "publisher", "publishers"]  # fixtures
SECOND = meeting._SECOND


@contextlib.contextmanager
def announced(publisher: Publisher, image: Image | None = None) -> Iterator[Announcement]:
    draft = msgspec.structs.replace(image or completed(), disk="", disk_size=0)
    with publisher.announced(draft, LINK.digest, {}) as found:
        yield found


def the_record(glance: FakeGlance) -> Description:
    (found,) = by_role(glance, properties.COMPLETED)
    return found


def test_it_is_told_until_the_end_of_the_block(publisher: Publisher, glance: FakeGlance) -> None:
    with announced(publisher) as found:
        record = the_record(glance)
        assert record["id"] == found.record
        assert (record["status"], record["os_hidden"], record["visibility"]) == (
            "queued", True, "private")
        assert record["splitimage_recipe"] == completed().recipe
        assert not found.there
        found.check()
    assert glance.images == {}


def test_a_failure_takes_it_back(publisher: Publisher, glance: FakeGlance) -> None:
    with pytest.raises(ZeroDivisionError), announced(publisher):
        raise ZeroDivisionError
    assert glance.images == {}


def test_its_record_becomes_the_image(publisher: Publisher, glance: FakeGlance,
                                      disk: Path) -> None:
    image = completed()
    with announced(publisher, image) as found:
        made = publisher.completed(image, TREE, LINK.digest, {}, disk, found)
        assert made["id"] == found.record
    shown = the_record(glance)
    assert shown["status"] == "active"
    assert properties.completed(shown, image.created) == msgspec.structs.replace(
        image, id=found.record, disk_size=len(DISK))
    assert holdings.TOUCHED not in shown
    assert properties.manifest(shown) == found.holder
    assert len(glance.images) == 2


def test_a_failure_afterwards_does_not_take_the_image_back(
        publisher: Publisher, glance: FakeGlance, disk: Path) -> None:
    with pytest.raises(ZeroDivisionError), announced(publisher) as found:
        publisher.completed(completed(), TREE, LINK.digest, {}, disk, found)
        raise ZeroDivisionError
    assert the_record(glance)["status"] == "active"


def test_a_sign_of_life_as_long_as_it_is_told(publishers: Publishers,
                                              glance: FakeGlance) -> None:
    touched = threading.Event()

    def before(method: str, path: str) -> None:
        if method == "PATCH":
            touched.set()

    glance.before = before
    with announced(publishers(stall=0.01)):
        assert touched.wait(10)
        assert holdings.TOUCHED in the_record(glance)


# -- others ------------------------------------------------------------------------------


def test_an_older_one_is_waited_for_and_used(publisher: Publisher, alpha: Records,
                                             glance: FakeGlance) -> None:
    rising = older(alpha, glance, whole=False)
    looks = iter(range(3))

    def before(method: str, path: str) -> None:
        if "splitimage_recipe=" in path and next(looks, None) is None:
            glance.images[rising["id"]]["status"] = "active"

    glance.before = before
    with announced(publisher) as found:
        assert found.there
    assert the_record(glance)["id"] == rising["id"]


@pytest.mark.parametrize("gone", ["stalls", "vanishes"])
def test_one_that_does_not_come_about_is_taken_over(
        publishers: Publishers, alpha: Records, glance: FakeGlance, gone: str) -> None:
    rising = older(alpha, glance, whole=False)
    looks = iter(range(3))

    def before(method: str, path: str) -> None:
        if "splitimage_recipe=" in path and next(looks, None) is None and gone == "vanishes":
            glance.images.pop(rising["id"], None)

    glance.before = before
    with announced(publishers(stall=0.05 if gone == "stalls" else 60)) as found:
        assert not found.there
        found.check()
        assert the_record(glance)["id"] == found.record


def test_a_dead_one_that_cannot_be_deleted_keeps_nobody(
        publishers: Publishers, alpha: Records, glance: FakeGlance) -> None:
    rising = older(alpha, glance, whole=False)

    def before(method: str, path: str) -> None:
        if method == "DELETE" and rising["id"] in path:
            raise exceptions.CloudRefused(where="cloud", what="delete", reason="no")

    glance.before = before
    with announced(publishers(stall=0.05)) as found:
        assert not found.there
        found.check()
        assert rising["id"] in glance.images


def test_waiting_ends_with_the_command(publisher: Publisher, alpha: Records,
                                       glance: FakeGlance) -> None:
    rising = older(alpha, glance, whole=False)
    publisher.images.stopping.set()
    with pytest.raises(exceptions.Cancelled), announced(publisher):
        pass
    assert the_record(glance)["id"] == rising["id"]


def test_an_equally_old_one_is_met_before_the_work(
        publisher: Publisher, alpha: Records, glance: FakeGlance,
        monkeypatch: pytest.MonkeyPatch) -> None:
    """It was created in the same second, after this one had looked."""
    monkeypatch.setattr(meeting, "_SECOND", SECOND)
    began = time.monotonic()
    with pytest.raises(base.Overtaken), announced(publisher) as found:
        assert time.monotonic() - began < SECOND / 2, "what can be done meanwhile is done"
        older(alpha, glance, whole=False)
        found.check()
    assert time.monotonic() - began >= SECOND
    assert found.record not in glance.images


def test_whoever_was_taken_for_dead_stores_what_it_has_made(
        publisher: Publisher, alpha: Records, glance: FakeGlance, disk: Path) -> None:
    """Without waiting for who took over: it holds a place that he may wait for."""
    with announced(publisher) as found:
        del glance.images[found.record]
        other = older(alpha, glance, whole=False)
        made = publisher.completed(completed(), TREE, LINK.digest, {}, disk, found)
    assert made["status"] == "active"
    assert {image["id"] for image in by_role(glance, properties.COMPLETED)} == {
        made["id"], other["id"]}
    with announced(publisher) as again:
        assert again.there, "nobody makes it once more, although a record leads"


def test_whoever_was_taken_for_dead_uses_what_is_there(
        publisher: Publisher, alpha: Records, glance: FakeGlance, disk: Path) -> None:
    with announced(publisher) as found:
        del glance.images[found.record]
        there = older(alpha, glance)
        made = publisher.completed(completed(), TREE, LINK.digest, {}, disk, found)
        assert made["id"] == there["id"]
    assert the_record(glance)["id"] == there["id"]
    assert len(by_role(glance, properties.MANIFEST)) == 1


def broken_once(glance: FakeGlance, error: Exception, status: str) -> Callable[[str, str], None]:
    """The first upload of a completed image."""
    left = [True]

    def before(method: str, path: str) -> None:
        image = glance.images.get(path.split("/")[2]) if path.endswith("/file") else None
        if left and image and image["splitimage_role"] == properties.COMPLETED:
            left.clear()
            image["status"] = status
            raise error
    return before


@pytest.mark.usefixtures("no_pauses")
def test_a_second_attempt_is_told_by_the_first(publisher: Publisher, glance: FakeGlance,
                                               disk: Path) -> None:
    """Those who wait go on waiting."""
    glance.before = broken_once(glance, ConnectionError("reset"), "saving")
    with announced(publisher) as found:
        made = publisher.completed(completed(), TREE, LINK.digest, {}, disk, found)
        assert made["id"] != found.record
        assert glance.images[found.record]["status"] == "saving"
        assert len(by_role(glance, properties.MANIFEST)) == 1
    assert the_record(glance)["id"] == made["id"]


def test_after_a_full_quota_it_is_told_still(publisher: Publisher, glance: FakeGlance,
                                             disk: Path) -> None:
    glance.before = broken_once(
        glance, exceptions.QuotaExceeded(project="alpha", reason="full"), "queued")
    with announced(publisher) as found:
        with pytest.raises(exceptions.QuotaExceeded):
            publisher.completed(completed(), TREE, LINK.digest, {}, disk, found)
        assert the_record(glance)["id"] == found.record
        made = publisher.completed(completed(), TREE, LINK.digest, {}, disk, found)
    assert the_record(glance)["id"] == made["id"]
    assert len(glance.images) == 2


# -- the way of a launch -----------------------------------------------------------------


class Appliance:
    """Assembles, as far as that shows here.

    :ivar opened: so many disks
    :ivar assembled: so many of them
    :ivar work: what else happens then
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = self.assembled = 0
        self.work: Callable[[], object] = lambda: None
        self._guard = threading.Lock()
        monkeypatch.setattr(assembler, "validate", lambda *_: None)
        monkeypatch.setattr(assembler, "assemble", self._assemble)
        monkeypatch.setattr(conflicts, "reader", lambda store: None)  # would start a process

    def __call__(self, disk: Path, *_: Any, **__: Any) -> Any:
        self.opened += 1
        return contextlib.nullcontext(types.SimpleNamespace(disk=disk))

    def _assemble(self, session: Any, *_: Any) -> dict[str, float]:
        with self._guard:
            self.assembled += 1
            number = self.assembled
        self.work()
        session.disk.write_bytes(b"disk %d" % number)
        return {}


@pytest.fixture
def appliance(monkeypatch: pytest.MonkeyPatch) -> Appliance:
    return Appliance(monkeypatch)


@pytest.fixture
def cloud(glance: FakeGlance, stores: Stores, appliance: Appliance) -> Cloud:
    return Cloud(glance, stores)


def service(cloud: Cloud, appliance: Appliance, project: str = "alpha") -> ImageService:
    found = cloud.service(project)
    found.session = appliance  # type: ignore[assignment]
    return found


def test_several_hosts_assemble_the_same_once(
        cloud: Cloud, appliance: Appliance, glance: FakeGlance,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "_SECOND", SECOND)
    monkeypatch.setattr(meeting, "_POLL", 0.05)
    met = threading.Barrier(3)
    done = []

    def launch() -> None:
        one = service(cloud, appliance)
        met.wait(30)
        done.append(one.assemble(request("apache", "mysql"))[1])

    threads = [threading.Thread(target=launch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert appliance.assembled == 1
    assert len({each.image.id for each in done if each.image}) == 1
    assert len(done) == 3
    assert len(by_role(glance, properties.COMPLETED)) == 1


def test_nothing_is_fetched_of_what_another_host_makes_meanwhile(
        cloud: Cloud, appliance: Appliance, glance: FakeGlance,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "_SECOND", SECOND)
    first, second = service(cloud, appliance), service(cloud, appliance)
    second.plan(request("apache", "mysql"))
    found: list[Any] = []

    def launch() -> None:
        with second.assembled(request("apache", "mysql"), fetch=False) as (plan, done):
            found.append((plan, done))

    other = threading.Thread(target=launch)

    def work() -> None:
        glance.requests.clear()
        other.start()
        while len(by_role(glance, properties.COMPLETED)) < 2:
            time.sleep(0.01)

    appliance.work = work
    _, made = first.assemble(request("apache", "mysql"))
    other.join(60)
    (plan, done), = found
    assert plan.exact
    assert made.image is not None
    assert done.image.id == made.image.id
    assert appliance.opened == 1
    assert not [path for method, path in glance.requests
                if method == "GET" and path.endswith("/file")]


def test_whoever_is_overtaken_waits_outside_the_queue(
        cloud: Cloud, appliance: Appliance, monkeypatch: pytest.MonkeyPatch) -> None:
    one = service(cloud, appliance)
    wanted = one.plan(request("apache", "mysql"))
    checks = []

    def check(self: Announcement) -> None:
        checks.append(self.record)
        cloud.completed("apache", "mysql", wanted=wanted)
        raise base.Overtaken

    monkeypatch.setattr(Announcement, "check", check)
    plan, done = one.assemble(request("apache", "mysql"))
    assert plan.exact
    assert len(checks) == 1
    assert appliance.assembled == 0
    assert one.store.queue() == []
    assert done.image is not None
    assert checks[0] not in cloud.glance.images


def test_what_is_not_published_is_not_announced(cloud: Cloud, appliance: Appliance,
                                                glance: FakeGlance) -> None:
    _, done = service(cloud, appliance).assemble(request("apache", "mysql"), publish=False)
    assert done.image is None
    assert by_role(glance, properties.COMPLETED) == []


def test_one_who_is_taken_out_of_the_queue_leaves_nothing(
        cloud: Cloud, appliance: Appliance, glance: FakeGlance) -> None:
    one = service(cloud, appliance)
    with one.store.turn("before it"):
        def cancel() -> None:
            while not (waiting := [item for item in one.store.queue()
                                   if item.state == "waiting"]):
                time.sleep(0.01)
            assert by_role(glance, properties.COMPLETED)
            one.store.cancel(waiting[0].id)

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(exceptions.Cancelled):
            one.assemble(request("apache", "mysql"))
        thread.join(30)
    assert by_role(glance, properties.COMPLETED) == []


@pytest.mark.usefixtures("no_pauses")
def test_a_failure_of_the_assembly_leaves_nothing(cloud: Cloud, appliance: Appliance,
                                                  glance: FakeGlance) -> None:
    before = set(glance.images)

    def work() -> None:
        raise exceptions.ApplianceFailed(step="injection", reason="no")

    appliance.work = work
    with pytest.raises(exceptions.ApplianceFailed):
        service(cloud, appliance).assemble(request("apache", "mysql"))
    assert set(glance.images) == before
