"""Which image has what a digest names."""

from __future__ import annotations

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.part import FILESET
from splitimage_driver.store.glance.api import Description
from splitimage_driver.store.glance.places import Places
from tests.imagerecords import Records
from tests.unit.store.glance.conftest import Stores
from tests.unit.store.glance.fake import FakeGlance


@pytest.fixture
def places(alpha: Records, stores: Stores) -> Places:
    return stores(alpha.images).places


@pytest.fixture
def lamp(alpha: Records) -> Description:
    return alpha.composite("lamp", apache=alpha.part("apache"))


def learn(places: Places, composite: Description) -> None:
    places.learn_composite(places.reader.composite(composite["id"]))


def downloads(glance: FakeGlance) -> list[str]:
    return [path.split("/")[2] for method, path in glance.requests
            if method == "GET" and path.endswith("/file")]


def test_nothing_is_known_before_a_record_is_read(places: Places, lamp: Description,
                                                  alpha: Records) -> None:
    link = properties.links(lamp).parts["apache"]
    assert not places.has_data(alpha.digest)
    assert places.part(link.digest) is None
    assert places.tree(link.digest) is None
    learn(places, lamp)
    assert places.has_data(alpha.digest)
    assert not places.is_here(alpha.digest)
    place = places.part(link.digest, "alpha")
    assert place is not None
    assert (place.image, place.part.owner) == (link.image, "alpha")
    assert places.part(link.digest, "beta") is None
    assert places.tree(link.digest) is not None


def test_data_come_from_whichever_image_is_here(places: Places, alpha: Records,
                                                glance: FakeGlance) -> None:
    """Completed images of the same bytes, for one."""
    lamp, web = alpha.composite("lamp"), alpha.composite("web")
    learn(places, lamp)
    learn(places, web)
    places.cache.path(web)
    glance.requests.clear()
    assert places.is_here(alpha.digest)
    assert places.path(alpha.digest).read_bytes() == alpha.disk
    assert downloads(glance) == []


@pytest.mark.parametrize("gone", ["deleted", "deactivated", "damaged", "another's"])
def test_what_one_image_has_not_got_another_may_have(
        places: Places, alpha: Records, glance: FakeGlance, gone: str) -> None:
    one, two = alpha.composite("one"), alpha.composite("two")
    learn(places, one)
    learn(places, two)
    match gone:
        case "deleted":
            alpha.images.discard(one["id"])
        case "deactivated":
            glance.images[one["id"]]["status"] = "deactivated"
        case "damaged":
            glance.put(one["id"], bytes(len(alpha.disk)) + b"x")
        case "another's":
            glance.images[one["id"]]["owner"] = "beta"
    assert places.path(alpha.digest).read_bytes() == alpha.disk
    assert places.cache.digest(two["id"]) == alpha.digest


def test_where_no_image_has_it_the_last_reason_is_told(places: Places, alpha: Records,
                                                       lamp: Description) -> None:
    learn(places, lamp)
    alpha.images.discard(lamp["id"])
    with pytest.raises(exceptions.BadImage, match="there is no such composite"):
        places.path(alpha.digest)


def test_what_is_forgotten_is_not_known_from_that_image(places: Places, alpha: Records) -> None:
    one, two = alpha.composite("one"), alpha.composite("two")
    learn(places, one)
    learn(places, two)
    places.path(alpha.digest)
    places.forget(one["id"])
    assert places.has_data(alpha.digest)
    places.forget(two["id"])
    assert not places.has_data(alpha.digest)
    assert places.cache.digest(one["id"]) == places.cache.digest(two["id"]) == ""


def test_a_damaged_copy_goes_whichever_image_it_is_of(places: Places, alpha: Records) -> None:
    lamp = alpha.composite("lamp")
    learn(places, lamp)
    path = places.path(alpha.digest)
    places.damaged(alpha.digest)
    places.damaged("00" * 32)
    assert not path.exists()
    assert not places.is_here(alpha.digest)


def test_a_part_that_its_composite_does_not_name_is_none(places: Places, alpha: Records,
                                                         lamp: Description,
                                                         glance: FakeGlance) -> None:
    """The image of a link says what it is, too."""
    learn(places, lamp)
    link = properties.links(lamp).parts["apache"]
    glance.images[link.image]["splitimage_digest"] = "00" * 32
    with pytest.raises(exceptions.BadImage, match="it is not the part that its composite names"):
        places.tree(link.digest)


def test_a_part_of_another_owner_is_none(places: Places, beta: Records, lamp: Description,
                                         glance: FakeGlance) -> None:
    """As of a composite whose part properties point to another tenant's image."""
    learn(places, lamp)
    link = properties.links(lamp).parts["apache"]
    for visibility in ("public", "shared"):
        glance.images[link.image] |= {"owner": "beta", "visibility": visibility}
        glance.members[link.image] = {"alpha": "accepted"}
        places.reader.forget(link.image)
        with pytest.raises(exceptions.BadImage, match="there is no such part of the owner"):
            places.tree(link.digest)
        assert beta.images.project == glance.images[link.image]["owner"]


def test_a_tree_comes_from_whichever_image_has_it(places: Places, alpha: Records,
                                                  glance: FakeGlance) -> None:
    one, two = alpha.part("page", kind=FILESET), alpha.part("page", kind=FILESET)
    same = properties.digest(one)
    for part in (one, two):
        places.learn_part_image(part)
    places._learn_tree(same, two)  # it claims that
    assert places.tree(same) is not None
    alpha.images.discard(properties.manifest(one))
    places.reader.forget(properties.manifest(one))
    places.reader._bundles.clear()
    with pytest.raises(exceptions.DigestMismatch, match="manifest image"):
        places.tree(same)


def test_a_part_on_its_way_up_has_no_tree_elsewhere(places: Places, alpha: Records) -> None:
    part = places.reader.part(alpha.part("apache"))
    places.learn_part(part, "")
    assert places.tree(part.id) is None
    assert not places.has_data(part.blob)
    places.forget_part(part)
    assert places.part(part.id) is None
    places.forget_part(part)
