"""Whose images an own request is made of, whatever others say of theirs."""

from __future__ import annotations

from splitimage_driver.store.glance.api import Images
from tests.imagerecords import Records
from tests.unit.store.glance.conftest import Stores
from tests.unit.store.glance.fake import FakeGlance

RECIPE = "5" * 64


def accepted(glance: FakeGlance, image: str, owner: Images, project: str) -> None:
    owner.update(image, {"visibility": "shared"})
    owner.add_member(image, project)
    glance.members[image][project] = "accepted"


def test_a_recipe_of_anothers_composite_is_no_match_for_an_own_one(
        glance: FakeGlance, alpha: Records, beta: Records, stores: Stores) -> None:
    own, forged = alpha.composite("lamp"), beta.composite("other")
    evil = beta.completed(forged, recipe=RECIPE)
    admin = glance.user("admin", admin=True)
    for each in (forged["id"], evil["id"], beta.images.get(forged["id"])["splitimage_manifest"]):
        admin.update(each, {"visibility": "public"})
    store = stores(alpha.images)
    mine, theirs = store.composite(own["id"]), store.composite(forged["id"])
    assert store.find_recipe(RECIPE, owner="alpha", composite=mine) is None
    found = store.find_recipe(RECIPE, owner="alpha", composite=theirs)
    assert found is not None and found.id == evil["id"], "offered by its composite's owner"


def test_what_was_made_from_anothers_composite_is_no_match_for_an_own_one(
        glance: FakeGlance, alpha: Records, beta: Records, stores: Stores) -> None:
    """However much its recipe is the same: what is merged comes from the record of
    the composite, which is beta's word."""
    own, clone = alpha.composite("lamp"), beta.composite("lamp")
    admin = glance.user("admin", admin=True)
    for each in (clone["id"], beta.images.get(clone["id"])["splitimage_manifest"]):
        admin.update(each, {"visibility": "public"})
    made = alpha.completed(clone, recipe=RECIPE)
    store = stores(alpha.images)
    mine, theirs = store.composite(own["id"]), store.composite(clone["id"])
    assert store.find_recipe(RECIPE, owner="alpha", composite=mine) is None
    found = store.find_recipe(RECIPE, owner="alpha", composite=theirs)
    assert found is not None and found.id == made["id"]


def test_labels_of_others_are_never_a_match(
        glance: FakeGlance, alpha: Records, beta: Records, stores: Stores) -> None:
    lamp = alpha.composite("lamp")
    store = stores(alpha.images)
    composite = store.composite(lamp["id"])
    admin = glance.user("admin", admin=True)
    forged = [beta.completed(lamp, recipe=RECIPE) for _ in range(4)]
    accepted(glance, forged[1]["id"], beta.images, "alpha")
    beta.images.update(forged[2]["id"], {"visibility": "community"})
    admin.update(forged[3]["id"], {"visibility": "public"})
    assert store.find_recipe(RECIPE, owner="alpha", composite=composite) is None
    assert store.images(composite=lamp["id"]) == []
    snapshot = alpha.completed(lamp, recipe=RECIPE, image_type="snapshot")
    based = alpha.completed(lamp, recipe=RECIPE, base_image_ref=lamp["id"])
    assert store.find_recipe(RECIPE, owner="alpha", composite=composite) is None
    own = alpha.completed(lamp, recipe=RECIPE)
    found = store.find_recipe(RECIPE, owner="alpha", composite=composite)
    assert found is not None and found.id == own["id"]
    assert {each.id for each in store.images(composite=lamp["id"])} == {own["id"]}
    assert {snapshot["id"], based["id"]} <= glance.images.keys()
