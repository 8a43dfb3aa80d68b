"""Whose records are believed, and which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.part import FILESET
from splitimage_driver.store.glance import records
from splitimage_driver.store.glance.api import Description
from splitimage_driver.store.glance.reader import Reader
from tests.imagerecords import Records
from tests.unit.store.glance.conftest import Stores
from tests.unit.store.glance.fake import FakeGlance, FakeUser

FORGED = "f" * 64


@pytest.fixture
def reader(alpha: Records, stores: Stores) -> Reader:
    return stores(alpha.images).reader


@pytest.fixture
def lamp(alpha: Records) -> Description:
    return alpha.composite("lamp", apache=alpha.part("apache"))


class World:
    """What others do to the images of beta."""

    def __init__(self, glance: FakeGlance, beta: Records) -> None:
        self.glance, self.beta = glance, beta
        self.admin = glance.user("admin", admin=True)

    def composite(self, name: str = "lamp") -> Description:
        return self.beta.composite(name, apache=self.beta.part("apache"))

    def publish(self, image: Description) -> None:
        """With all that it refers to."""
        for name in [image["id"], *_references(self.glance, image)]:
            self.admin.update(name, {"visibility": "public"})

    def share(self, image: Description, *, status: str) -> None:
        for name in [image["id"], *_references(self.glance, image)]:
            self.glance.members.setdefault(name, {})["alpha"] = status


def _references(glance: FakeGlance, image: Description) -> list[str]:
    links = properties.links(image)
    parts = [link.image for link in (*links.parts.values(), links.restore)]
    return [properties.manifest(image), *parts,
            *(properties.manifest(glance.images[part]) for part in parts)]


@pytest.fixture
def world(glance: FakeGlance, beta: Records) -> World:
    return World(glance, beta)


def missing(reader: Reader, name_or_id: str) -> bool:
    try:
        reader.composite(name_or_id)
    except exceptions.NotFound:
        return True
    return False


# -- composites: whose -------------------------------------------------------------


def test_an_own_one_is_found_by_name_and_by_id(reader: Reader, lamp: Description) -> None:
    for name in ("lamp", lamp["id"]):
        known = reader.composite(name)
        assert (known.composite.id, known.composite.name) == (lamp["id"], "lamp")
        assert known.composite.owner == "alpha"
        assert not known.composite.public
        assert set(known.composite.parts) == {"apache"}
        link = known.links.parts["apache"]
        assert known.link(link.digest) == link
        assert known.link(FORGED) is None
    assert [each.composite.id for each in reader.all_composites()] == [lamp["id"]]


def test_what_glance_says_wins_over_the_record(reader: Reader, lamp: Description,
                                               glance: FakeGlance, alpha: Records) -> None:
    """Names, owners and visibility change without this project."""
    alpha.images.update(lamp["id"], {"name": "web"})
    glance.user("admin", admin=True).update(lamp["id"], {"visibility": "public"})
    composite = reader.composite("web").composite
    assert (composite.name, composite.owner, composite.public) == ("web", "alpha", True)
    assert missing(reader, "lamp")


def test_a_public_one_is_found(reader: Reader, world: World) -> None:
    theirs = world.composite()
    assert missing(reader, "lamp")
    assert missing(reader, theirs["id"])
    world.publish(theirs)
    for name in ("lamp", theirs["id"]):
        assert reader.composite(name).composite.owner == "beta"
        assert reader.composite(name).composite.public
    assert [each.composite.id for each in reader.all_composites()] == [theirs["id"]]


def test_an_own_one_comes_before_a_public_one(reader: Reader, world: World,
                                              lamp: Description) -> None:
    theirs = world.composite("lamp")
    world.publish(theirs)
    assert reader.composite("lamp").composite.id == lamp["id"]
    assert reader.composite(theirs["id"]).composite.id == theirs["id"]
    assert {each.composite.id for each in reader.all_composites()} == {lamp["id"], theirs["id"]}


def test_one_that_was_shared_and_accepted_is_found_by_its_id_only(reader: Reader,
                                                                  world: World) -> None:
    theirs = world.composite()
    world.share(theirs, status="accepted")
    assert missing(reader, "lamp")
    assert reader.composite(theirs["id"]).composite.owner == "beta"
    assert reader.all_composites() == []


@pytest.mark.parametrize("status", ["pending", "rejected"])
def test_one_that_was_not_accepted_is_none(reader: Reader, world: World, status: str) -> None:
    theirs = world.composite()
    world.share(theirs, status=status)
    assert missing(reader, theirs["id"])
    assert missing(reader, "lamp")


def test_one_that_was_unshared_is_none_any_more(reader: Reader, world: World) -> None:
    theirs = world.composite()
    world.share(theirs, status="accepted")
    assert reader.composite(theirs["id"])
    world.beta.images.remove_member(theirs["id"], "alpha")
    assert missing(reader, theirs["id"])


def test_a_community_one_of_others_is_none(reader: Reader, world: World) -> None:
    theirs = world.composite()
    for name in [theirs["id"], *_references(world.glance, theirs)]:
        world.beta.images.update(name, {"visibility": "community"})
    assert missing(reader, theirs["id"])
    assert missing(reader, "lamp")
    assert reader.all_composites() == []


def test_several_of_one_name_are_told_apart_by_their_ids(reader: Reader, alpha: Records,
                                                         world: World) -> None:
    one, two = alpha.composite("lamp"), alpha.composite("lamp")
    with pytest.raises(exceptions.InvalidInput, match="2 have this name, give an id") as raised:
        reader.composite("lamp")
    assert one["id"] in str(raised.value)
    assert two["id"] in str(raised.value)
    assert reader.composite(two["id"]).composite.id == two["id"]
    for each in (world.composite("web"), world.composite("web")):
        world.publish(each)
    with pytest.raises(exceptions.InvalidInput, match="2 have this name"):
        reader.composite("web")


def test_letters_have_their_case_whatever_the_database_thinks(
        reader: Reader, alpha: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    alpha.composite("Lamp")
    monkeypatch.setattr(FakeUser, "_fits", staticmethod(
        lambda image, name, value: str(image.get(name)).lower() == value.lower()))
    assert [image["name"] for image in alpha.images.list(name="lamp")] == ["Lamp"]
    assert missing(reader, "lamp")
    assert reader.composite("Lamp").composite.name == "Lamp"


@pytest.mark.parametrize("mark", [{"image_type": "snapshot"}, {"base_image_ref": "x"}])
def test_a_snapshot_of_a_server_is_none(reader: Reader, alpha: Records, lamp: Description,
                                        mark: dict[str, str]) -> None:
    """It has all properties of the image that its server was booted from."""
    inherited = {name: value for name, value in lamp.items() if name.startswith("splitimage_")}
    snapshot = alpha.image("snapshot", inherited | mark, b"disk", hidden=False,
                           disk_format="qcow2")
    assert missing(reader, "snapshot")
    assert missing(reader, snapshot["id"])
    assert [each.composite.id for each in reader.all_composites()] == [lamp["id"]]


def test_what_is_no_composite_is_none(reader: Reader, alpha: Records, lamp: Description) -> None:
    plain = alpha.image("plain", {}, b"disk", hidden=False)
    for name in ("plain", plain["id"], alpha.part()["id"], properties.manifest(lamp),
                 alpha.completed(lamp)["id"], "11111111-2222-3333-4444-555555555555", "", "../x",
                 "nothing"):
        assert missing(reader, name)


# -- composites: whether they can be believed --------------------------------------


def refused(reader: Reader, image: Description, match: str) -> None:
    with pytest.raises(exceptions.BadImage, match=match):
        reader.composite(image["id"])
    # One bad apple leaves the others.
    assert image["id"] not in {known.composite.id for known in reader.all_composites()}


@pytest.mark.parametrize("status", ["queued", "saving", "importing", "deactivated"])
def test_one_that_is_not_active_is_refused(reader: Reader, lamp: Description, glance: FakeGlance,
                                           status: str) -> None:
    reader.composite(lamp["id"])  # also one that was read before
    glance.images[lamp["id"]]["status"] = status
    refused(reader, lamp, f"it is {status}")


def test_a_manifest_of_another_owner_is_refused(reader: Reader, alpha: Records,
                                                world: World) -> None:
    """As of who points at what somebody else has published."""
    theirs = world.composite()
    world.publish(theirs)
    copied = {name: value for name, value in theirs.items() if name.startswith("splitimage_")}
    mine = alpha.image("copied", copied, alpha.disk, hidden=False)
    refused(reader, mine, "there is no such manifest of the owner of what names it")


def test_a_manifest_that_is_not_there_is_refused_in_the_same_words(
        reader: Reader, lamp: Description, world: World, glance: FakeGlance) -> None:
    """Nobody learns which ids there are."""
    secret = properties.manifest(world.composite())
    told = []
    for name in (secret, "11111111-2222-3333-4444-555555555555",
                 properties.links(lamp).restore.image, lamp["id"]):
        glance.images[lamp["id"]]["splitimage_manifest"] = name
        with pytest.raises(exceptions.BadImage) as raised:
            reader.composite(lamp["id"])
        told.append(str(raised.value).replace(name, "ID"))
    assert len(set(told)) == 1


def test_a_part_that_the_record_does_not_have_is_refused(reader: Reader, lamp: Description,
                                                         glance: FakeGlance) -> None:
    link = properties.links(lamp).parts["apache"]
    for name, value in (("splitimage_part_mysql", str(link)),
                        ("splitimage_part_apache", f"{link.image} {FORGED}"),
                        ("splitimage_restore", str(link)), ("splitimage_os", FORGED)):
        kept = dict(glance.images[lamp["id"]])
        glance.images[lamp["id"]][name] = value
        refused(reader, lamp, "its properties and its manifest do not agree")
        glance.images[lamp["id"]] = kept
        assert reader.composite(lamp["id"])
    del glance.images[lamp["id"]]["splitimage_part_apache"]
    refused(reader, lamp, "its properties and its manifest do not agree")


def _bundle(glance: FakeGlance, image: Description) -> records.Bundle:
    return records.unpack(glance.data[properties.manifest(image)], "x")


Change = Callable[[records.Bundle], bytes]


@pytest.mark.parametrize(("change", "reason"), [
    (lambda bundle: b"qcow2", "it is no manifest"),
    (lambda bundle: records.pack(None, bundle.manifest, bundle.parts), "its record"),
    (lambda bundle: records.pack(bundle.parts[0], bundle.manifest, bundle.parts), "its record"),
    (lambda bundle: records.pack(bundle.of(records.Composite, ""), b"another tree", bundle.parts),
     "do not agree"),
    *((lambda bundle, left=left: records.pack(
        bundle.of(records.Composite, ""), bundle.manifest,
        tuple(part for part in bundle.parts if part.name != left)), "do not agree")
      for left in ("apache", "restore"))])
def test_a_manifest_image_that_holds_something_else_is_refused(
        reader: Reader, alpha: Records, lamp: Description, glance: FakeGlance, change: Change,
        reason: str) -> None:
    data = change(_bundle(glance, lamp))
    other = alpha.manifest(lamp["id"], data)
    glance.images[lamp["id"]]["splitimage_manifest"] = other["id"]
    refused(reader, lamp, reason)


def test_a_manifest_that_changed_on_its_way_is_refused(reader: Reader, lamp: Description,
                                                       glance: FakeGlance) -> None:
    held = properties.manifest(lamp)
    glance.data[held] = glance.data[held][:-1] + b"x"
    with pytest.raises(exceptions.DigestMismatch):
        reader.composite("lamp")
    assert reader.all_composites() == []


def test_a_composite_of_more_than_64_parts_is_refused(reader: Reader, lamp: Description,
                                                      glance: FakeGlance) -> None:
    link = str(properties.links(lamp).restore)
    glance.images[lamp["id"]] |= {f"splitimage_part_p{n}": link for n in range(64)}
    refused(reader, lamp, "it has 65 parts")


# -- changes within a session ------------------------------------------------------


def test_a_composite_is_read_again_when_it_changed(reader: Reader, alpha: Records,
                                                   lamp: Description, glance: FakeGlance) -> None:
    before = reader.composite("lamp")
    assert reader.composite("lamp") is before
    # Somebody else gives it another part; as a change does, by one request.
    other = alpha.composite("other", mysql=alpha.part("mysql"))
    glance.images[lamp["id"]] = {
        name: value for name, value in lamp.items() if name != "splitimage_part_apache"} | {
        name: value for name, value in other.items() if name.startswith("splitimage_")}
    alpha.images.discard(properties.manifest(lamp))
    assert set(reader.composite("lamp").composite.parts) == {"mysql"}


def test_an_image_that_was_shown_is_not_asked_for_again(reader: Reader, alpha: Records,
                                                        lamp: Description,
                                                        glance: FakeGlance) -> None:
    held = properties.manifest(lamp)
    reader.shown(held, properties.MANIFEST, "alpha")
    glance.requests.clear()
    reader.shown(held, properties.MANIFEST, "alpha")
    assert glance.requests == []
    # Whom it belongs to is judged each time.
    for role, owner in ((properties.MANIFEST, "beta"), (properties.PART, "alpha")):
        with pytest.raises(exceptions.BadImage):
            reader.shown(held, role, owner)
    alpha.images.discard(held)
    reader.forget(held)
    with pytest.raises(exceptions.BadImage):
        reader.shown(held, properties.MANIFEST, "alpha")


@pytest.mark.parametrize("status", ["queued", "saving", "deactivated"])
def test_an_image_that_is_not_active_is_refused_as_long_as_it_is_not(
        reader: Reader, lamp: Description, glance: FakeGlance, status: str) -> None:
    """Also where its data are on this host."""
    held = properties.manifest(lamp)
    glance.images[held]["status"] = status
    for look in (lambda: None, lambda: reader.look([held])):
        look()
        with pytest.raises(exceptions.BadImage, match=f"it is {status}"):
            reader.shown(held, properties.MANIFEST, "alpha")
    glance.images[held]["status"] = "active"
    assert reader.shown(held, properties.MANIFEST, "alpha")["id"] == held


def test_manifests_in_memory_are_bounded_by_their_bytes(
        reader: Reader, alpha: Records, glance: FakeGlance,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitimage_driver.store.glance.reader._KEPT", 1000)
    for number in range(9):
        data = records.pack(None, bytes([number]) * 400)
        held = alpha.manifest("x", data)
        assert reader.bundle(held["id"], "alpha").manifest == bytes([number]) * 400
        assert len(reader._bundles) <= 4
    large = alpha.manifest("x", records.pack(None, bytes(5000)))
    assert len(reader.bundle(large["id"], "alpha").manifest) == 5000
    assert len(reader._bundles) <= 4


# -- parts and completed images ----------------------------------------------------


def test_parts_are_the_owners_and_complete(reader: Reader, alpha: Records, beta: Records,
                                           glance: FakeGlance) -> None:
    apache = alpha.part("apache")
    theirs = beta.part("theirs")
    glance.user("admin", admin=True).update(theirs["id"], {"visibility": "public"})
    alpha.part("rising", data=None)
    alpha.part("snapshot", image_type="snapshot")
    assert [part["id"] for part in reader.part_images("alpha")] == [apache["id"]]
    assert [part["id"] for part in reader.part_images("beta")] == [theirs["id"]]
    assert reader.part_images("alpha", name="mysql") == []


def test_a_part_is_what_its_image_says(reader: Reader, alpha: Records,
                                       glance: FakeGlance) -> None:
    page = alpha.part("page", kind=FILESET)
    part = reader.part(page)
    assert (part.id, part.name, part.owner, part.kind) == (
        page["splitimage_digest"], "page", "alpha", FILESET)
    assert not part.public
    assert reader.part(page | {"visibility": "public"}).public
    for said in ({"splitimage_digest": FORGED}, {"splitimage_blob": FORGED}):
        with pytest.raises(exceptions.BadImage, match="do not agree"):
            reader.part(page | said)
    with pytest.raises(exceptions.BadImage, match="there is no such manifest"):
        reader.part(page | {"owner": "beta"})


def test_completed_images_are_the_owners_and_sound(
        reader: Reader, alpha: Records, beta: Records, lamp: Description,
        glance: FakeGlance) -> None:
    one, two = alpha.completed(lamp, "apache"), alpha.completed(lamp)
    beta.completed(lamp, "apache")
    alpha.completed(lamp, whole=False)
    alpha.completed(lamp, image_type="snapshot")
    alpha.completed(lamp, base_image_ref="x")
    alpha.completed(lamp, splitimage_size="large")
    found = [image for image, _ in reader.completed("alpha")]
    assert sorted(image.id for image in found) == sorted((one["id"], two["id"]))
    assert reader.completed("alpha", splitimage_recipe=one["splitimage_recipe"])[0][0].id == (
        one["id"])
    assert reader.completed("alpha", visibility="public") == []


def test_a_completed_image_has_the_mounts_of_its_composite(reader: Reader, alpha: Records,
                                                           lamp: Description) -> None:
    made = alpha.completed(lamp, "apache")
    assert reader.image(made).mounts == ()
    known = reader.composite("lamp")
    assert reader.image(made).mounts == known.composite.base.mounts != ()


def test_images_are_shown_by_few_requests(reader: Reader, alpha: Records,
                                          glance: FakeGlance) -> None:
    held = [alpha.manifest("x")["id"] for _ in range(130)]
    glance.requests.clear()
    reader.look([*held, "nonsense", None, "11111111-2222-3333-4444-555555555555"])
    assert len(glance.requests) == 2
    for each in held:
        reader.shown(each, properties.MANIFEST, "alpha")
    assert len(glance.requests) == 2


def test_names_of_composites_are_few_requests_too(reader: Reader, lamp: Description,
                                                  world: World) -> None:
    theirs = world.composite("theirs")
    assert reader.names([lamp["id"], theirs["id"], "nonsense"]) == {lamp["id"]: "lamp"}


def test_work_is_done_in_order(reader: Reader) -> None:
    assert reader.map(lambda n: n * n, range(9)) == [n * n for n in range(9)]

    def fail(number: int) -> Any:
        raise exceptions.NotFound(kind="image", name=str(number), where="here")

    with pytest.raises(exceptions.NotFound, match="named 0"):
        reader.map(fail, range(3))
