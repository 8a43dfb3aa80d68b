"""Plans over a store in an image service: what comes and goes there meanwhile."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from splitimage_driver import conf as configuration
from splitimage_driver import exceptions
from splitimage_driver.capture import conflicts, pack
from splitimage_driver.model import properties
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Base
from splitimage_driver.model.part import RESTORE, Part, PartManifest
from splitimage_driver.model.plan import Plan, Request
from splitimage_driver.service import ImageService
from tests.imagerecords import MOUNTS
from tests.unit.making import file, tree
from tests.unit.store.glance.conftest import Stores
from tests.unit.store.glance.fake import FakeGlance
from tests.unit.store.glance.gold import Gold

BASE = tree(file("etc/motd", b"base"))


class Cloud:
    """The composite ``lamp`` of alpha, and services of several projects."""

    def __init__(self, glance: FakeGlance, stores: Stores) -> None:
        self.glance, self.stores = glance, stores
        self.conf = configuration.load(files=[])
        self.alpha = stores(glance.user("alpha"))
        gold = Gold(self.alpha)
        parts = [gold.part(name, content=name.encode() * size) for name, size in (
            ("apache", 1000), ("mysql", 9000), ("php", 3000))]
        restore = pack.restore_manifest(BASE, map(self.alpha.part_manifest, (
            part.id for part in parts)))
        disk = gold.object(b"base disk")
        lamp = gold.composite("lamp", *parts, restore=self.restore(restore).id, shared={},
                              base=Base(disk, 9, 2**30, self.alpha.put_manifest(BASE), MOUNTS))
        self.lamp = self.alpha.save_composite(lamp)

    def restore(self, manifest: PartManifest) -> Part:
        return self.alpha.add_part(Part(
            id=manifest.digest, name="lamp.restore", kind=RESTORE, blob="", blob_size=0, size=0,
            files=0, owner="alpha", created=1.0), manifest, pending=True)

    def publish(self) -> None:
        """All that there is now."""
        for image in self.glance.images.values():
            image["visibility"] = "public"

    def service(self, project: str = "alpha") -> ImageService:
        """On another host, in another session."""
        store = self.stores(self.glance.user(project))
        return ImageService(self.conf, store, emulate=lambda: True, owner=project)

    def completed(self, *parts: str, project: str = "alpha", wanted: Plan | None = None) -> Image:
        """What somebody has assembled somewhere."""
        store = self.stores(self.glance.user(project))
        composite = store.composite(self.lamp.id)
        with store.scratch() as scratch:
            (scratch / "disk").write_bytes(uuid.uuid4().bytes)
            disk = store.adopt(scratch / "disk")
        made = tree(*BASE, *(entry for name in parts for _, entry in store.part_manifest(
            composite.parts[name].id).entries()))
        return store.add_image(Image(
            id=str(uuid.uuid4()), name="+".join(("lamp", *parts)), composite=composite.id,
            parts=parts, disk=disk, disk_size=16, virtual_size=2**30, mounts=MOUNTS,
            recipe=wanted.recipe if wanted else hashlib.sha256(repr(parts).encode()).hexdigest(),
            manifest=store.put_manifest(made), owner=project, created=time.time(),
            last_used=time.time()))


@pytest.fixture
def cloud(glance: FakeGlance, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    monkeypatch.setattr(conflicts, "reader", lambda store: None)  # would start a process
    return Cloud(glance, stores)


def request(*parts: str, composite: str = "lamp") -> Request:
    return Request(composite=composite, parts=parts)


def candidates(plan: Plan) -> list[str]:
    return [estimate.candidate.name for estimate in plan.considered]


def test_the_nearest_of_what_there_is(cloud: Cloud) -> None:
    for parts in ("apache",), ("apache", "mysql"), ("php",):
        cloud.completed(*parts)
    plan = cloud.service().plan(request("apache", "mysql", "php"))
    assert candidates(plan)[0] == "lamp+apache+mysql"
    assert set(candidates(plan)) == {"lamp", "lamp+apache", "lamp+apache+mysql", "lamp+php"}
    assert plan.estimate.inject_bytes == 9000
    # None of it is on this host.
    assert plan.estimate.fetch_bytes > 0


def test_with_and_without_the_filter_it_is_the_same(cloud: Cloud) -> None:
    made = [cloud.completed(*parts) for parts in (("apache",), ("apache", "mysql"), ("php",))]
    here = cloud.service().plan(request("apache", "mysql", "php"))
    cloud.glance.planner = lambda document: {
        "candidates": [{"image": image.id} for image in made]}
    there = cloud.service().plan(request("apache", "mysql", "php"))
    assert there.estimate == here.estimate
    assert (there.basis, there.recipe) == (here.basis, here.recipe)


@pytest.mark.parametrize("project", ["alpha", "beta"])
def test_an_exact_match_is_found_and_used(cloud: Cloud, project: str) -> None:
    """Of one's own, or of the owner of a public composite."""
    wanted = cloud.service().plan(request("apache", "mysql"))
    made = cloud.completed("apache", "mysql", wanted=wanted)
    cloud.publish()
    service = cloud.service(project)
    plan, done = service.assemble(request("apache", "mysql"))
    assert plan.exact
    assert done.image is not None
    assert (done.image.id, done.disk) == (made.id, made.disk)
    assert service.store.is_local(made.disk)


def test_who_needs_no_disk_has_none_fetched(cloud: Cloud) -> None:
    wanted = cloud.service().plan(request("apache", "mysql"))
    made = cloud.completed("apache", "mysql", wanted=wanted)
    service = cloud.service()
    service.plan(request("apache", "mysql"))  # the composite's record is read
    cloud.glance.requests.clear()
    with service.assembled(request("apache", "mysql"), fetch=False) as (plan, done):
        assert plan.exact
        assert done.image is not None
        assert done.image.id == made.id
    assert not [path for _, path in cloud.glance.requests if path.endswith("/file")]
    assert not service.store.is_local(made.disk)
    assert done.image.last_used < service.store.image(made.id).last_used, "it was used"


def test_a_disk_that_is_here_is_held_even_for_who_needs_none(cloud: Cloud) -> None:
    service = cloud.service()
    wanted = service.plan(request("apache", "mysql"))
    made = cloud.completed("apache", "mysql", wanted=wanted)
    service.assemble(request("apache", "mysql"))
    with service.assembled(request("apache", "mysql"), fetch=False) as (_, done):
        service.store.delete_image(made.id)
        with service.store.scratch():  # as any other work that lets go of what is not used
            assert service.store._contents.path(done.disk).exists()  # type: ignore[attr-defined]


def test_what_only_others_have_is_neither_seen_nor_used(cloud: Cloud) -> None:
    cloud.publish()
    wanted = cloud.service("beta").plan(request("apache", "mysql"))
    cloud.completed("apache", "mysql", wanted=wanted)
    cloud.completed("apache", project="gamma")
    for image in list(cloud.glance.images.values()):
        if image["owner"] == "gamma":
            image["visibility"] = "public"
    plan = cloud.service("beta").plan(request("apache", "mysql"))
    assert not plan.exact
    assert candidates(plan) == ["lamp"]


def test_a_plan_is_current_as_long_as_nothing_comes_or_goes(cloud: Cloud) -> None:
    made = cloud.completed("apache")
    plans = cloud.service().plans
    plan = plans.plan(request("apache", "mysql"))
    assert plans.current(plan)
    plans.store.touch_image(made.id)
    assert plans.current(plan)  # that it was used changes nothing
    other = cloud.completed("mysql")
    assert not plans.current(plan)
    plan = plans.plan(request("apache", "mysql"))
    cloud.alpha.delete_image(other.id)
    assert not plans.current(plan)


def test_a_plan_is_not_current_once_somebody_has_done_it(cloud: Cloud) -> None:
    plans = cloud.service().plans
    plan = plans.plan(request("apache", "mysql"))
    cloud.completed("apache", "mysql", wanted=plan)
    assert not plans.current(plan)
    assert plans.plan(request("apache", "mysql")).exact


def test_a_plan_is_not_current_once_its_composite_has_changed(cloud: Cloud) -> None:
    plans = cloud.service().plans
    plan = plans.plan(request("apache"))
    known = cloud.alpha.composite("lamp")
    cloud.alpha.save_composite(msgspec.structs.replace(known, notes=("mended",)), replace=True)
    assert not plans.current(plan)
    assert plans.current(plans.plan(request("apache")))


Change = Callable[[Cloud, Image], object]


@pytest.mark.parametrize("change", [
    lambda cloud, image: cloud.alpha.delete_image(image.id),
    lambda cloud, image: cloud.glance.images[image.id].update(status="deactivated"),
    lambda cloud, image: cloud.glance.images[image.id].update(image_type="snapshot")])
def test_a_match_that_goes_before_it_is_fetched_is_planned_around(
        cloud: Cloud, monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    wanted = cloud.service().plan(request("apache", "mysql"))
    made = cloud.completed("apache", "mysql", wanted=wanted)
    service = cloud.service()
    planned: list[bool] = []
    plan = service.plans.plan

    def planning(*about: Any, **options: Any) -> Plan:
        found = plan(*about, **options)
        planned.append(found.exact)
        if len(planned) == 1:
            change(cloud, made)
        if len(planned) == 2:
            raise exceptions.Cancelled(what="what comes next")
        return found

    monkeypatch.setattr(service.plans, "plan", planning)
    with pytest.raises(exceptions.Cancelled):
        service.assemble(request("apache", "mysql"))
    assert planned == [True, False]


def test_a_candidate_that_goes_while_it_is_compared_is_left_out(
        cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cloud.completed("apache")
    service = cloud.service()
    manifest = service.store.manifest

    def read(digest: str) -> Any:
        if digest == made.manifest and made.id in cloud.glance.images:
            cloud.alpha.delete_image(made.id)
        return manifest(digest)

    monkeypatch.setattr(service.store, "manifest", read)
    assert candidates(service.plan(request("apache", "mysql"))) == ["lamp"]


def test_many_images_are_ranked_by_their_parts(cloud: Cloud) -> None:
    for parts in ("apache",), ("mysql",), ("php",), ("apache", "php"), ("mysql", "php"):
        cloud.completed(*parts)
    cloud.conf.set_override("shortlist", 2, group="planning")
    service = cloud.service()
    before = len(cloud.glance.requests)
    plan = service.plan(request("apache", "mysql", "php"))
    assert candidates(plan)[0] == "lamp+mysql+php"
    assert len(plan.considered) == 3
    # Trees of the others are not even fetched.
    fetched = {path for method, path in cloud.glance.requests[before:]
               if method == "GET" and path.endswith("/file")}
    trees = {properties.manifest(cloud.glance.images[image.id])
             for image in service.store.images(composite=cloud.lamp.id)}
    assert len([tree for tree in trees if any(tree in path for path in fetched)]) == 2


def test_a_name_is_taken_in_ones_own_project_only(cloud: Cloud) -> None:
    cloud.publish()
    service = cloud.service("beta")
    service._not_yet("lamp")
    with pytest.raises(exceptions.AlreadyExists):
        cloud.service()._not_yet("lamp")
    before = len(cloud.glance.requests)
    service._not_yet("web")
    assert len(cloud.glance.requests) == before + 1
