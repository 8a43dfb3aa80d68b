"""Completed images: found, published, deleted when they are too many."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.server import Server
from splitimage_driver.store.glance.api import Description
from splitimage_driver.store.glance.store import GlanceStore
from tests.imagerecords import MOUNTS, Records
from tests.unit.store.glance.conftest import Stores
from tests.unit.store.glance.fake import FakeGlance, writes

RECIPE = "cd" * 32


@pytest.fixture
def store(alpha: Records, stores: Stores) -> GlanceStore:
    return stores(alpha.images)


@pytest.fixture
def lamp(alpha: Records) -> Description:
    return alpha.composite("lamp", apache=alpha.part("apache"))


def shared(glance: FakeGlance, image: Description, visibility: str = "public") -> Description:
    """With its manifest."""
    for name in (image["id"], properties.manifest(image)):
        glance.images[name]["visibility"] = visibility
    return image


@pytest.fixture
def theirs(glance: FakeGlance, beta: Records) -> Description:
    """A composite that beta has published."""
    lamp = beta.composite("theirs")
    for image in glance.images.values():
        image["visibility"] = "public"
    return lamp


def used(glance: FakeGlance, image: Description, seconds_ago: float) -> Description:
    glance.images[image["id"]]["splitimage_used"] = properties.used(time.time() - seconds_ago)
    return image


def ids(images: list[Image]) -> list[str]:
    return [image.id for image in images]


def new(store: GlanceStore, composite: Composite, *, content: bytes | None = None,
        **fields: Any) -> Image:
    """One that was assembled here just now."""
    with store.scratch() as scratch:
        (scratch / "disk").write_bytes(content or uuid.uuid4().bytes)
        disk = store.adopt(scratch / "disk")
    tree = store.put_manifest(Records(store.images_api).tree())
    known: dict[str, Any] = {
        "id": str(uuid.uuid4()), "name": f"{composite.name}+apache", "composite": composite.id,
        "parts": ("apache",), "recipe": hashlib.sha256(disk.encode()).hexdigest(), "disk": disk,
        "disk_size": 16, "virtual_size": 2**30, "manifest": tree, "mounts": MOUNTS,
        "owner": store.project, "created": time.time(), "last_used": time.time()}
    return Image(**(known | fields))


# -- found -------------------------------------------------------------------------


def test_own_ones_of_a_composite_are_found(store: GlanceStore, alpha: Records, beta: Records,
                                           lamp: Description, glance: FakeGlance) -> None:
    other = alpha.composite("other")
    one, two = alpha.completed(lamp, "apache"), alpha.completed(other)
    shared(glance, beta.completed(lamp))
    composite = store.composite("lamp")
    assert ids(store.images(composite=composite.id)) == [one["id"]]
    assert set(ids(store.images())) == {one["id"], two["id"]}
    assert store.images(composite=composite.id)[0].mounts == MOUNTS


def test_of_others_only_public_ones_of_the_composites_owner(
        store: GlanceStore, alpha: Records, beta: Records, theirs: Description,
        glance: FakeGlance) -> None:
    public = shared(glance, beta.completed(theirs, "apache"))
    beta.completed(theirs)
    for visibility in ("community", "shared"):
        image = shared(glance, beta.completed(theirs), visibility)
        glance.members[image["id"]] = {"alpha": "accepted"}
    gamma = Records(glance.user("gamma"))
    shared(glance, gamma.completed(theirs, "apache"))
    mine = alpha.completed(theirs)
    composite = store.composite("theirs")
    assert set(ids(store.images(composite=composite.id))) == {public["id"], mine["id"]}


def test_an_image_is_found_by_name_or_id(store: GlanceStore, alpha: Records,
                                         lamp: Description) -> None:
    made = alpha.completed(lamp, "apache")
    assert store.image("lamp+apache").id == store.image(made["id"]).id == made["id"]
    alpha.completed(lamp, "apache")
    with pytest.raises(exceptions.InvalidInput, match="2 have this name"):
        store.image("lamp+apache")
    for name in ("lamp", lamp["id"], "nothing", str(uuid.uuid4())):
        with pytest.raises(exceptions.NotFound):
            store.image(name)


def test_one_of_others_is_found_by_its_id_where_it_may_be_built_on(
        store: GlanceStore, beta: Records, theirs: Description, glance: FakeGlance) -> None:
    """Else an exact match with it was taken for deleted."""
    public = shared(glance, beta.completed(theirs, "apache"))
    assert store.image(public["id"]).owner == "beta"
    with pytest.raises(exceptions.NotFound):
        store.image("theirs+apache")
    gamma = shared(glance, Records(glance.user("gamma")).completed(theirs))
    for image in (shared(glance, beta.completed(theirs), "community"), gamma,
                  beta.completed(theirs)):
        with pytest.raises(exceptions.NotFound):
            store.image(image["id"])


def test_an_exact_match_is_the_oldest_own_one(store: GlanceStore, alpha: Records,
                                              lamp: Description, glance: FakeGlance) -> None:
    young, old = (alpha.completed(lamp, "apache", recipe=RECIPE) for _ in range(2))
    glance.images[old["id"]]["created_at"] = "2020-01-01T00:00:00Z"
    snapshot = alpha.completed(lamp, recipe=RECIPE, image_type="snapshot")
    glance.images[snapshot["id"]]["created_at"] = "2019-01-01T00:00:00Z"
    composite = store.composite("lamp")
    found = store.find_recipe(RECIPE, owner="alpha", composite=composite)
    assert found is not None
    assert found.id == old["id"] != young["id"]
    assert store.find_recipe("ef" * 32, owner="alpha", composite=composite) is None


def test_an_exact_match_costs_one_list_call(store: GlanceStore, alpha: Records,
                                            lamp: Description, glance: FakeGlance) -> None:
    alpha.completed(lamp, "apache", recipe=RECIPE)
    composite = store.composite("lamp")
    glance.requests.clear()
    assert store.find_recipe(RECIPE, owner="alpha", composite=composite)
    ((method, path),) = glance.requests
    assert method == "GET"
    assert {f"splitimage_recipe={RECIPE}", "owner=alpha", "splitimage_role=completed"} <= set(
        path.partition("?")[2].split("&"))


def test_an_exact_match_of_others_is_a_public_one_of_the_composites_owner(
        store: GlanceStore, beta: Records, theirs: Description, glance: FakeGlance) -> None:
    composite = store.composite("theirs")
    gamma = Records(glance.user("gamma"))
    shared(glance, gamma.completed(theirs, "apache", recipe=RECIPE))
    shared(glance, beta.completed(theirs, "apache", recipe=RECIPE), "community")
    hidden = beta.completed(theirs, "apache", recipe=RECIPE)
    assert store.find_recipe(RECIPE, owner="alpha", composite=composite) is None
    shared(glance, hidden)
    found = store.find_recipe(RECIPE, owner="alpha", composite=composite)
    assert found is not None
    assert found.id == hidden["id"]


# -- near --------------------------------------------------------------------------


def test_who_plans_is_asked(store: GlanceStore, alpha: Records, lamp: Description,
                            glance: FakeGlance) -> None:
    made = alpha.completed(lamp, "apache")
    asked: list[Any] = []

    def planner(document: Any) -> Any:
        asked.append(document)
        return {"candidates": [{"image": lamp["id"]}, {"image": made["id"]}]}

    glance.planner = planner
    found = store.near(store.composite("lamp"), ["apache"], ["ab" * 32], 5)
    assert found is not None
    assert ids(found) == [made["id"]]
    assert asked == [{"composite": lamp["id"], "parts": ["apache"], "filesets": ["ab" * 32],
                      "limit": 5}]


def test_the_order_of_the_answer_stays(store: GlanceStore, alpha: Records, lamp: Description,
                                       glance: FakeGlance) -> None:
    made = [alpha.completed(lamp)["id"] for _ in range(5)]
    glance.planner = lambda document: {"candidates": [{"image": name} for name in made[::-1]]}
    assert ids(store.near(store.composite("lamp"), [], [], 9) or []) == made[::-1]


def test_what_is_named_is_judged_here_all_the_same(
        store: GlanceStore, alpha: Records, beta: Records, lamp: Description,
        theirs: Description, glance: FakeGlance) -> None:
    good = shared(glance, beta.completed(theirs))
    bad = [alpha.completed(lamp), shared(glance, beta.completed(theirs), "community"),
           beta.completed(theirs), alpha.completed(theirs, image_type="snapshot"),
           alpha.completed(theirs, whole=False), alpha.completed(theirs, splitimage_disk="x"),
           shared(glance, Records(glance.user("gamma")).completed(theirs)), alpha.part(),
           alpha.image("plain", {}, b"")]
    named = [good["id"], *(image["id"] for image in bad), str(uuid.uuid4()), "../x", ""]
    glance.planner = lambda document: {"candidates": [{"image": name} for name in named]}
    assert ids(store.near(store.composite("theirs"), [], [], 99) or []) == [good["id"]]


@pytest.mark.parametrize("planner", [
    None, lambda document: {}, lambda document: {"candidates": None}, lambda document: [],
    lambda document: {"candidates": [{}]}, lambda document: {"candidates": ["x"]},
    lambda document: {"candidates": [{"image": 7}]},
    lambda document: "text"])
def test_where_nobody_plans_it_is_done_here(store: GlanceStore, lamp: Description,
                                            glance: FakeGlance,
                                            planner: Callable[[Any], Any] | None) -> None:
    glance.planner = planner
    composite = store.composite("lamp")
    assert store.near(composite, [], [], 5) is None
    glance.requests.clear()
    assert store.near(composite, [], [], 5) is None
    assert glance.requests == []  # once is enough


def test_whoever_does_not_want_that_is_not_asked(alpha: Records, lamp: Description,
                                                 stores: Stores, glance: FakeGlance) -> None:
    glance.planner = lambda document: {"candidates": []}
    store = stores(alpha.images, filter=False)
    assert store.near(store.composite("lamp"), [], [], 5) is None
    assert all(path != "/splitimage/plan" for _, path in glance.requests)


# -- published ---------------------------------------------------------------------


def test_a_published_one_is_the_next_match_and_need_not_be_fetched(
        store: GlanceStore, lamp: Description, glance: FakeGlance) -> None:
    composite = store.composite("lamp")
    image = new(store, composite, content=b"assembled")
    saved = store.add_image(image)
    assert (saved.recipe, saved.owner, saved.parts) == (image.recipe, "alpha", ("apache",))
    assert glance.data[saved.id] == b"assembled"
    assert store.find_recipe(image.recipe, owner="alpha", composite=composite) == saved
    assert store.is_local(saved.disk)
    glance.requests.clear()
    assert store.path(saved.disk).read_bytes() == b"assembled"
    assert all(not path.endswith("/file") for _, path in glance.requests)
    assert store.manifest(saved.manifest).digest == image.manifest


def test_another_host_fetches_it(store: GlanceStore, lamp: Description, alpha: Records,
                                 stores: Stores) -> None:
    saved = store.add_image(new(store, store.composite("lamp"), content=b"assembled"))
    other = stores(alpha.images)
    other.composite("lamp")
    found = other.image(saved.id)
    assert not other.is_local(found.disk)
    assert other.manifest(found.manifest).digest == saved.manifest
    assert other.path(found.disk).read_bytes() == b"assembled"
    assert other.is_local(found.disk)


def test_the_same_recipe_is_published_once(store: GlanceStore, lamp: Description,
                                           alpha: Records, glance: FakeGlance) -> None:
    there = alpha.completed(lamp, "apache", recipe=RECIPE)
    glance.images[there["id"]]["created_at"] = "2020-01-01T00:00:00Z"
    image = new(store, store.composite("lamp"), recipe=RECIPE)
    saved = store.add_image(image)
    assert saved.id == there["id"]
    assert saved.disk != image.disk
    # What was assembled here is not what is there.
    assert store.path(saved.disk).read_bytes() == alpha.disk


def full(glance: FakeGlance, count: int) -> None:
    """A quota of so many completed images with data."""
    def before(method: str, path: str) -> None:
        if method == "PUT" and "completed" in glance.images[path.split("/")[2]].get(
                "splitimage_role", "") and count <= sum(
                image.get("splitimage_role") == "completed" and image["status"] == "active"
                for image in glance.images.values()):
            raise exceptions.QuotaExceeded(project="alpha", reason="full")
    glance.before = before


def test_a_full_quota_is_made_room_in_once(store: GlanceStore, lamp: Description, alpha: Records,
                                           glance: FakeGlance) -> None:
    made = [used(glance, alpha.completed(lamp), 100 - n) for n in range(4)]
    full(glance, 4)
    saved = store.add_image(new(store, store.composite("lamp")))
    left = {image["id"] for image in glance.images.values()
            if image["splitimage_role"] == "completed"}
    assert left == {made[2]["id"], made[3]["id"], saved.id}
    assert all(properties.manifest(image) not in glance.images for image in made[:2])


@pytest.mark.parametrize("there", [0, 1, 4])
def test_a_quota_that_stays_full_is_told(store: GlanceStore, lamp: Description, alpha: Records,
                                         glance: FakeGlance, there: int) -> None:
    made = [alpha.completed(lamp) for _ in range(there)]
    full(glance, 0)
    with pytest.raises(exceptions.QuotaExceeded):
        store.add_image(new(store, store.composite("lamp")))
    left = [image["id"] for image in glance.images.values()
            if image["splitimage_role"] == "completed"]
    assert len(left) == len(made) // 2
    assert set(left) <= {image["id"] for image in made}


def test_use_is_noted_on_own_ones(store: GlanceStore, alpha: Records, beta: Records,
                                  lamp: Description, theirs: Description,
                                  glance: FakeGlance) -> None:
    mine = used(glance, alpha.completed(lamp), 1000)
    store.touch_image(mine["id"])
    assert time.time() - float(glance.images[mine["id"]]["splitimage_used"]) < 500
    public = shared(glance, beta.completed(theirs))
    glance.requests.clear()
    store.touch_image(public["id"])
    assert writes(glance.requests) == []
    with pytest.raises(exceptions.NotFound):
        store.touch_image(str(uuid.uuid4()))


def test_one_that_is_used_follows_its_composite(store: GlanceStore, alpha: Records,
                                                lamp: Description, glance: FakeGlance) -> None:
    glance.images[lamp["id"]] |= {"hw_machine_type": "q35", "os_type": "linux"}
    saved = store.add_image(new(store, store.composite("lamp")))
    made = glance.images[saved.id]
    assert (made["hw_machine_type"], made["os_type"]) == ("q35", "linux")
    made["mine"] = "x"
    del glance.images[lamp["id"]]["os_type"]
    glance.images[lamp["id"]] |= {"hw_machine_type": "pc", "trait:HW_CPU": "required"}
    store.composite("lamp")
    store.touch_image(saved.id)
    assert (made["hw_machine_type"], made["trait:HW_CPU"], made["mine"]) == ("pc", "required", "x")
    assert "os_type" not in made


@pytest.mark.parametrize("error", [
    exceptions.NotPermitted(where="cloud", what="change an image", reason="a reader"),
    exceptions.AlreadyExists(kind="image", name="x", where="cloud")])
def test_an_image_can_be_used_though_that_cannot_be_noted(
        store: GlanceStore, alpha: Records, lamp: Description, glance: FakeGlance,
        error: Exception) -> None:
    mine = used(glance, alpha.completed(lamp), 1000)

    def before(method: str, path: str) -> None:
        if method == "PATCH":
            raise error

    glance.before = before
    store.touch_image(mine["id"])


# -- deleted -----------------------------------------------------------------------


def test_a_deleted_one_goes_with_its_manifest_and_its_copy(
        store: GlanceStore, lamp: Description, glance: FakeGlance) -> None:
    saved = store.add_image(new(store, store.composite("lamp")))
    before = set(glance.images)
    path = store.path(saved.disk)
    store.delete_image(saved.id)
    gone = before - set(glance.images)
    assert saved.id in gone
    assert len(gone) == 2
    assert not path.exists()
    assert not store.is_local(saved.disk)
    with pytest.raises(exceptions.NotFound):
        store.path(saved.disk)


@pytest.mark.parametrize("first", [True, False])
def test_another_image_of_the_same_tree_keeps_its_manifest(
        store: GlanceStore, lamp: Description, first: bool) -> None:
    composite = store.composite("lamp")
    one = store.add_image(new(store, composite))
    two = store.add_image(new(store, composite, manifest=one.manifest))
    store._put.clear()  # as another session would read it
    go, keep = (one, two) if first else (two, one)
    store.delete_image(go.id)
    assert store.manifest(keep.manifest).digest == one.manifest


def test_one_of_others_is_not_deleted(beta: Records, stores: Stores, theirs: Description,
                                      glance: FakeGlance) -> None:
    """Not even by an administrator, whom Glance would let."""
    public = shared(glance, beta.completed(theirs, "apache"))
    store = stores(glance.user("admin", admin=True))
    with pytest.raises(exceptions.NotFound):
        store.delete_image(public["id"])
    assert public["id"] in glance.images


def server(store: GlanceStore, image: Image) -> Server:
    return Server(id="s1", name="web", composite=image.composite, parts=(), image=image.id,
                  disk=image.disk, directory="", owner="alpha", created=1.0, ports={})


def test_one_that_a_server_of_this_host_runs_on_stays(store: GlanceStore, lamp: Description,
                                                      glance: FakeGlance) -> None:
    saved = store.add_image(new(store, store.composite("lamp")))
    store.save_server(server(store, saved))
    with pytest.raises(exceptions.InUse, match="server web"):
        store.delete_image(saved.id)
    assert store.prune_images(max_count=1, max_age=0.0001) == []
    store.delete_server("s1")
    store.delete_image(saved.id)
    assert saved.id not in glance.images


def test_the_least_recently_used_ones_go(store: GlanceStore, alpha: Records, lamp: Description,
                                         glance: FakeGlance) -> None:
    made = [used(glance, alpha.completed(lamp), seconds) for seconds in (10, 40, 20, 30)]
    assert store.prune_images() == []
    assert store.prune_images(owner="beta", max_count=1) == []
    assert set(ids(store.prune_images(max_count=2))) == {made[1]["id"], made[3]["id"]}
    assert ids(store.prune_images(owner="alpha", max_age=15)) == [made[2]["id"]]
    assert ids(store.images()) == [made[0]["id"]]


def test_limits_hold_after_each_publishing(alpha: Records, lamp: Description, stores: Stores,
                                           glance: FakeGlance) -> None:
    store = stores(alpha.images, limits={"max_count": 2})
    old = [used(glance, alpha.completed(lamp), 1000 - n) for n in range(3)]
    saved = store.add_image(new(store, store.composite("lamp"), last_used=1.0))
    # Never the new one, whatever it says.
    assert set(ids(store.images())) == {old[2]["id"], saved.id}


def test_one_that_cannot_be_deleted_is_left_out(store: GlanceStore, alpha: Records,
                                                lamp: Description, glance: FakeGlance) -> None:
    made = [used(glance, alpha.completed(lamp), seconds) for seconds in (40, 30, 20)]
    glance.images[made[0]["id"]]["protected"] = True
    assert ids(store.prune_images(max_age=25)) == [made[1]["id"]]
    assert made[0]["id"] in glance.images


def test_a_failing_prune_does_not_undo_what_was_published(
        alpha: Records, lamp: Description, stores: Stores, glance: FakeGlance) -> None:
    store = stores(alpha.images, limits={"max_count": 1})
    alpha.completed(lamp)

    def before(method: str, path: str) -> None:
        if method == "DELETE":
            raise exceptions.CloudFailed(where="cloud", what="delete", reason="busy")

    composite = store.composite("lamp")
    image = new(store, composite)
    glance.before = before
    assert store.add_image(image).recipe == image.recipe


def test_a_manifest_that_cannot_be_deleted_is_the_collectors(
        store: GlanceStore, alpha: Records, lamp: Description, glance: FakeGlance) -> None:
    made = alpha.completed(lamp)
    held = properties.manifest(made)

    def before(method: str, path: str) -> None:
        if method == "DELETE" and held in path:
            raise exceptions.CloudFailed(where="cloud", what="delete", reason="busy")

    glance.before = before
    store.delete_image(made["id"])
    assert made["id"] not in glance.images
    assert held in glance.images
