"""Records into the image service: in which order, and what a failure leaves."""

from __future__ import annotations

import hashlib
import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Base, Composite, System
from splitimage_driver.model.part import SOFTWARE, Layer, Part, PartManifest
from splitimage_driver.model.properties import Link, Links
from splitimage_driver.store.glance import holdings, meeting, records
from splitimage_driver.store.glance.api import Description
from splitimage_driver.store.glance.publish import EMPTY, Publisher, gib
from splitimage_driver.store.scratch import Scratch
from splitimage_driver.store.space import Space
from tests.imagerecords import Records
from tests.unit.making import file
from tests.unit.store.glance.fake import FakeGlance, Killed

MANIFEST = PartManifest((Layer(entries=(file("usr/bin/apache"),)),))
SECOND = meeting._SECOND
PART = Part(id=MANIFEST.digest, name="apache", kind=SOFTWARE, blob="", blob_size=0, size=0,
            files=1, owner="alpha", created=1.0)
TREE = b"a tree"
DISK = b"QFI\xfb" + bytes(508)
LINK = Link("11111111-2222-3333-4444-555555555555", "ab" * 32)
RECIPE = "cd" * 32


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(DISK)
    return path


Publishers = Callable[..., Publisher]


@pytest.fixture
def publishers(glance: FakeGlance, tmp_path: Path, no_pauses: None) -> Publishers:
    """Each as on a host of its own."""
    (tmp_path / "tmp").mkdir()

    def publisher(project: str = "alpha", **options: Any) -> Publisher:
        return Publisher(glance.user(project), Scratch(tmp_path / "tmp", Space(tmp_path, 0)),
                         **options)
    return publisher


@pytest.fixture
def publisher(publishers: Publishers) -> Publisher:
    return publishers()


def composite(**fields: Any) -> Composite:
    known: dict[str, Any] = {
        "name": "lamp", "id": str(uuid.uuid4()), "owner": "alpha", "created": 1.0, "parts": {},
        "restore": LINK.digest, "system": System("debian", "12", "Debian 12", "x86_64"),
        "base": Base(hashlib.sha256(DISK).hexdigest(), 512, 3 * 2**30 + 1,
                     hashlib.sha256(TREE).hexdigest(), ())}
    return Composite(**(known | fields))


def completed(**fields: Any) -> Image:
    known: dict[str, Any] = {
        "id": str(uuid.uuid4()), "name": "lamp+apache", "composite": LINK.image,
        "parts": ("apache",), "recipe": RECIPE, "disk": hashlib.sha256(DISK).hexdigest(),
        "disk_size": 512, "virtual_size": 2**30, "manifest": hashlib.sha256(TREE).hexdigest(),
        "mounts": (), "owner": "alpha", "created": 1.0, "last_used": 2.0}
    return Image(**(known | fields))


def by_role(glance: FakeGlance, role: str) -> list[Description]:
    with glance.guard:
        return [image for image in glance.images.values() if image["splitimage_role"] == role]


def active(glance: FakeGlance) -> set[str]:
    return {image["splitimage_role"] for image in glance.images.values()
            if image["status"] == "active"}


# -- parts -------------------------------------------------------------------------


@pytest.mark.parametrize("contents", [b"squashfs", None])
def test_a_part_is_hidden_protected_and_has_its_manifest(
        publisher: Publisher, glance: FakeGlance, tmp_path: Path, contents: bytes | None) -> None:
    blob = None
    if contents is not None:
        blob = tmp_path / "blob"
        blob.write_bytes(contents)
    image = glance.images[publisher.part(PART, MANIFEST.encode(), blob)["id"]]
    manifest = glance.images[properties.manifest(image)]
    for each in (image, manifest):
        assert (each["status"], each["os_hidden"], each["protected"]) == ("active", True, True)
        assert (each["disk_format"], each["container_format"]) == ("raw", "bare")
        assert each["visibility"] == "private"
    assert image["name"] == "apache"
    assert properties.digest(image) == MANIFEST.digest
    assert glance.data[image["id"]] == (contents or EMPTY)
    assert manifest["splitimage_for"] == image["id"]
    bundle = records.unpack(glance.data[manifest["id"]], "x")
    assert bundle.of(Part, "x") == PART
    assert bundle.manifest == MANIFEST.encode()
    assert len(glance.images) == 2
    assert "splitimage_for" not in image


def test_a_part_tells_what_it_is_stored_for(publishers: Publishers, glance: FakeGlance) -> None:
    image = publishers(purpose=LINK.image).part(PART, MANIFEST.encode(), None)
    assert glance.images[image["id"]]["splitimage_for"] == LINK.image


def test_parts_and_manifests_go_to_the_store_that_was_chosen(
        publishers: Publishers, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disks do not: servers start from the default one."""
    stores: dict[str, str] = {}
    publisher = publishers(store="second")
    put = publisher.images.put

    def noted(image: str, content: Any, *, store: str = "") -> None:
        stores[image] = store
        put(image, content, store=store)

    monkeypatch.setattr(publisher.images, "put", noted)
    part = publisher.part(PART, MANIFEST.encode(), None)
    lamp = publisher.composite(composite(), TREE, Links({}, LINK), (), disk)
    image = publisher.completed(completed(), TREE, LINK.digest, {}, disk)
    assert {stores.pop(each["id"]) for each in (lamp, image)} == {""}
    assert len(stores) == 4
    assert part["id"] in stores
    assert set(stores.values()) == {"second"}


# -- composites --------------------------------------------------------------------


def test_a_composite_is_shown_when_it_is_complete(publisher: Publisher, glance: FakeGlance,
                                                  disk: Path) -> None:
    shown: list[str] = []

    def before(method: str, path: str) -> None:
        shown.extend(image["status"] for image in glance.images.values()
                     if not image["os_hidden"])

    glance.before = before
    wanted = composite()
    image = publisher.composite(wanted, TREE, Links({"apache": LINK}, LINK), (PART,), disk)
    assert set(shown) <= {"active"}
    found = glance.images[image["id"]]
    assert (found["status"], found["os_hidden"], found["name"]) == ("active", False, "lamp")
    assert (found["disk_format"], found["min_disk"]) == ("qcow2", 4)
    assert glance.data[found["id"]] == DISK
    assert properties.links(found) == Links({"apache": LINK}, LINK)
    bundle = records.unpack(glance.data[properties.manifest(found)], "x")
    record = bundle.of(Composite, "x")
    # An attempt that fails is not repeated under its id.
    assert record.id == found["id"] != wanted.id
    assert (record.name, record.base) == (wanted.name, wanted.base)
    assert bundle.parts == (PART,)
    assert not any("unfinished" in name for name in found)


def test_a_description_is_stored_without_touching_the_composite(publisher: Publisher,
                                                                glance: FakeGlance) -> None:
    wanted = composite()
    said = publisher.describe(wanted, TREE, Links({"apache": LINK}, LINK), (PART,))
    (manifest,) = glance.images.values()
    assert properties.manifest(said) == manifest["id"]
    assert manifest["splitimage_for"] == wanted.id
    assert manifest["protected"]
    assert properties.links(said).parts == {"apache": LINK}


# -- failures ----------------------------------------------------------------------

Work = Callable[[Publisher, Path], object]
WORK: dict[str, Work] = {
    "part": lambda publisher, disk: publisher.part(PART, MANIFEST.encode(), disk),
    "composite": lambda publisher, disk: publisher.composite(
        composite(), TREE, Links({}, LINK), (), disk),
    "description": lambda publisher, disk: publisher.describe(
        composite(), TREE, Links({}, LINK), ()),
    "completed": lambda publisher, disk: publisher.completed(
        completed(), TREE, LINK.digest, {}, disk)}


def requests_of(work: Work, publishers: Publishers, glance: FakeGlance, disk: Path) -> int:
    """How many it makes; nothing stays."""
    glance.requests.clear()
    work(publishers(), disk)
    glance.images.clear()
    return len(glance.requests)


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_whatever_is_refused_leaves_nothing(work: Work, publishers: Publishers,
                                            glance: FakeGlance, disk: Path) -> None:
    """At each request, with a quota that is exceeded at that moment."""
    count = requests_of(work, publishers, glance, disk)
    assert count > 1
    for number in range(count):
        asked = itertools.count()

        def refuse(method: str, path: str, asked: Iterator[int] = asked,
                   number: int = number) -> None:
            if next(asked) == number:
                raise exceptions.QuotaExceeded(project="alpha", reason="full")

        glance.before = refuse
        with pytest.raises(exceptions.QuotaExceeded):
            work(publishers(), disk)
        assert list(glance.images) == [], f"after request {number}"
        glance.live()


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_whoever_is_killed_leaves_what_nobody_takes_for_anything(
        work: Work, publishers: Publishers, glance: FakeGlance, disk: Path) -> None:
    count = requests_of(work, publishers, glance, disk)
    for number in range(count):
        glance.die_at(number)
        with pytest.raises(Killed):
            work(publishers(), disk)
        glance.live()
        for image in glance.images.values():
            if image["splitimage_role"] == properties.MANIFEST:
                continue
            held = glance.images.get(image.get("splitimage_manifest", ""))
            finished = image["status"] == "active" and not image["os_hidden"]
            assert not finished or (held is not None and held["status"] == "active")
            # What a manifest is for is always there before it.
            assert held is None or held["splitimage_for"] in (image["id"], LINK.image)
        for image in by_role(glance, properties.MANIFEST):
            if work is not WORK["description"]:
                assert image["splitimage_for"] in glance.images
        glance.images.clear()


def test_a_failure_of_the_undoing_does_not_hide_the_first(publisher: Publisher,
                                                          glance: FakeGlance) -> None:
    def broken(method: str, path: str) -> None:
        if method == "PUT":
            glance.before = refuse
            raise exceptions.QuotaExceeded(project="alpha", reason="full")

    def refuse(method: str, path: str) -> None:
        raise exceptions.CloudUnreachable(where="cloud", reason="gone")

    glance.before = broken
    with pytest.raises(exceptions.QuotaExceeded):
        publisher.part(PART, MANIFEST.encode(), None)


def test_a_record_that_glance_does_not_give_back_is_left_for_another(
        publisher: Publisher, glance: FakeGlance, disk: Path) -> None:
    """It stays `saving` where a connection broke; Glance finds out later."""
    broken = iter([True, True])

    def before(method: str, path: str) -> None:
        name = path.split("/")[2] if path.endswith("/file") else ""
        if name and glance.images[name]["splitimage_role"] == properties.PART and next(
                broken, False):
            glance.images[name]["status"] = "saving"
            raise ConnectionError("reset")

    glance.before = before
    image = publisher.part(PART, MANIFEST.encode(), disk)
    assert by_role(glance, properties.PART) == [glance.images[image["id"]]]
    assert len(glance.images) == 2


def test_three_attempts_are_enough(publisher: Publisher, glance: FakeGlance, disk: Path) -> None:
    def before(method: str, path: str) -> None:
        if path.endswith("/file"):
            glance.images[path.split("/")[2]]["status"] = "saving"
            raise ConnectionError("reset")

    glance.before = before
    with pytest.raises(exceptions.CloudFailed, match="failed to store an image"):
        publisher.part(PART, MANIFEST.encode(), disk)
    assert glance.images == {}


def test_what_is_discarded_last_may_be_gone(publisher: Publisher, alpha: Records) -> None:
    part = alpha.part()
    publisher.discard("", part["id"], "11111111-2222-3333-4444-555555555555",
                      properties.manifest(part))
    assert list(alpha.images.list(hidden=None)) == []


# -- who publishes -----------------------------------------------------------------


def test_a_completed_image_has_its_manifest(publisher: Publisher, glance: FakeGlance,
                                            disk: Path) -> None:
    image = glance.images[publisher.completed(completed(), TREE, LINK.digest, {}, disk)["id"]]
    assert (image["status"], image["os_hidden"], image["disk_format"]) == ("active", True, "qcow2")
    assert image["visibility"] == "private"
    assert image["min_disk"] == 1
    assert glance.data[image["id"]] == DISK
    assert properties.completed(image, 0.0).recipe == RECIPE
    manifest = glance.images[properties.manifest(image)]
    assert manifest["splitimage_for"] == image["id"]
    assert records.unpack(glance.data[manifest["id"]], "x").manifest == TREE
    assert len(glance.images) == 2


def test_a_completed_image_is_for_servers_what_its_composite_is(
        publisher: Publisher, glance: FakeGlance, disk: Path) -> None:
    wanted = {"hw_machine_type": "q35", "hw:cpu_policy": "dedicated", "trait:HW_CPU": "required",
              "os_type": "linux", "img_config_drive": "mandatory", "architecture": "x86_64",
              "kernel_id": LINK.image, "ramdisk_id": LINK.image}
    others = {"os_hash_algo": "md5", "os_hash_value": "ab", "os_hidden": "x", "mine": "x",
              "os_glance_failed_import": "", "img_signature": "x", "img_signature_key_type": "x",
              "owner_specified.openstack.md5": "x", "splitimage_role": "composite",
              "name": "lamp", "protected": True, "hw_odd": None}
    image = glance.images[publisher.completed(completed(), TREE, LINK.digest, {
        **wanted, **others, "min_disk": 7, "min_ram": 512}, disk)["id"]]
    assert {name: image.get(name) for name in wanted} == wanted
    assert not [name for name in image if image.get(name) and image[name] == others.get(name)]
    assert (image["min_disk"], image["min_ram"], image["os_hidden"]) == (7, 512, True)
    less = publisher.completed(completed(recipe="ee" * 32), TREE, LINK.digest,
                               {"min_disk": 0}, disk)
    assert (less["min_disk"], less["min_ram"]) == (1, 0)


def test_of_too_many_properties_none_is_left_out(publisher: Publisher, glance: FakeGlance,
                                                 disk: Path) -> None:
    with pytest.raises(exceptions.BadImage, match="it has 81 properties for servers"):
        publisher.completed(completed(), TREE, LINK.digest, {
            "id": LINK.image, **{f"hw_{number}": "" for number in range(81)}}, disk)
    assert glance.images == {}


def older(alpha: Records, glance: FakeGlance, *, whole: bool = True, **said: str) -> Description:
    """A record of the same recipe that was there before."""
    lamp = alpha.image("lamp", properties.common(properties.COMPOSITE), None)
    made = alpha.completed(lamp, "apache", recipe=RECIPE, whole=whole,
                           **{"splitimage_composite": LINK.image, **said})
    glance.images[made["id"]]["created_at"] = "2020-01-01T00:00:00Z"
    return made


def test_one_that_is_published_already_is_taken(publisher: Publisher, alpha: Records,
                                                glance: FakeGlance, disk: Path) -> None:
    there = older(alpha, glance)
    before = set(glance.images)
    assert publisher.completed(completed(), TREE, LINK.digest, {}, disk)["id"] == there["id"]
    assert set(glance.images) == before


@pytest.mark.parametrize("said", [
    {"image_type": "snapshot"}, {"base_image_ref": "x"}, {"splitimage_size": "large"},
    {"splitimage_schema": "2"}, {"splitimage_disk": ""},
    {"splitimage_composite": str(uuid.uuid4())}])
def test_one_that_nobody_would_find_does_not_lead(
        publisher: Publisher, alpha: Records, glance: FakeGlance, disk: Path,
        said: dict[str, Any]) -> None:
    there = older(alpha, glance, **said)
    made = publisher.completed(completed(), TREE, LINK.digest, {}, disk)
    assert made["id"] != there["id"]
    assert made["status"] == "active"


def test_one_of_another_owner_does_not_lead(publisher: Publisher, beta: Records,
                                            glance: FakeGlance, disk: Path) -> None:
    """However visible: it is that owner's word what it is."""
    there = older(beta, glance)
    glance.images[there["id"]]["visibility"] = "public"
    made = publisher.completed(completed(), TREE, LINK.digest, {}, disk)
    assert (made["owner"], made["status"]) == ("alpha", "active")


def test_an_older_publisher_is_waited_for(publisher: Publisher, alpha: Records,
                                          glance: FakeGlance, disk: Path) -> None:
    rising = older(alpha, glance, whole=False)
    looks = iter(range(3))

    def before(method: str, path: str) -> None:
        if "splitimage_recipe=" in path and next(looks, None) is None:
            glance.images[rising["id"]]["status"] = "active"

    glance.before = before
    assert publisher.completed(completed(), TREE, LINK.digest, {}, disk)["id"] == rising["id"]
    assert [image["id"] for image in by_role(glance, properties.COMPLETED)] == [rising["id"]]


def test_one_that_gives_up_is_not_waited_for(publisher: Publisher, alpha: Records,
                                             glance: FakeGlance, disk: Path) -> None:
    rising = older(alpha, glance, whole=False)
    looks = iter(range(3))

    def before(method: str, path: str) -> None:
        if "splitimage_recipe=" in path and next(looks, None) is None:
            glance.images.pop(rising["id"], None)

    glance.before = before
    made = publisher.completed(completed(), TREE, LINK.digest, {}, disk)
    assert [image["id"] for image in by_role(glance, properties.COMPLETED)] == [made["id"]]


class Clock:
    """Each look at it is a second later."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_one_that_shows_no_sign_of_life_is_taken_over(
        publishers: Publishers, alpha: Records, glance: FakeGlance, disk: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    rising = older(alpha, glance, whole=False)
    monkeypatch.setattr(meeting, "time", Clock())
    made = publishers(stall=20).completed(completed(), TREE, LINK.digest, {}, disk)
    assert made["id"] != rising["id"]
    assert made["status"] == "active"
    assert rising["id"] not in glance.images
    assert properties.manifest(rising) not in glance.images


def test_one_whose_manifest_is_touched_lives(
        publishers: Publishers, alpha: Records, glance: FakeGlance, disk: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    """The image itself is not touched while its data go up."""
    rising = older(alpha, glance, whole=False)
    clock = Clock()
    monkeypatch.setattr(meeting, "time", clock)
    held = glance.images[properties.manifest(rising)]

    def before(method: str, path: str) -> None:
        held["updated_at"] = f"2026-01-01T00:00:{int(clock.now / 10) % 60:02}Z"
        if clock.now > 200:
            glance.images[rising["id"]]["status"] = "active"

    glance.before = before
    made = publishers(stall=20).completed(completed(), TREE, LINK.digest, {}, disk)
    assert made["id"] == rising["id"]


def test_of_two_that_both_end_the_older_stays(publisher: Publisher, alpha: Records,
                                              glance: FakeGlance, disk: Path) -> None:
    """As where one was taken for dead and was not, or two clocks differ."""
    found: list[Description] = []

    def before(method: str, path: str) -> None:
        if method == "PUT" and not found and by_role(glance, properties.COMPLETED):
            glance.live()
            found.append(older(alpha, glance))

    glance.before = before
    assert publisher.completed(completed(), TREE, LINK.digest, {}, disk)["id"] == found[0]["id"]
    assert [image["id"] for image in by_role(glance, properties.COMPLETED)] == [found[0]["id"]]
    assert len(by_role(glance, properties.MANIFEST)) == 1


def test_a_younger_one_does_not_lead(publisher: Publisher, alpha: Records, glance: FakeGlance,
                                     disk: Path) -> None:
    there = older(alpha, glance, whole=False)
    glance.images[there["id"]]["created_at"] = "2099-01-01T00:00:00Z"
    made = publisher.completed(completed(), TREE, LINK.digest, {}, disk)
    assert made["id"] != there["id"]


def test_in_the_same_second_the_lower_id_leads(publisher: Publisher, alpha: Records,
                                               glance: FakeGlance, disk: Path) -> None:
    there = older(alpha, glance)

    def before(method: str, path: str) -> None:
        for image in by_role(glance, properties.COMPLETED):
            image["created_at"] = "2026-01-01T00:00:00Z"

    glance.before = before
    made = publisher.completed(completed(), TREE, LINK.digest, {}, disk)
    assert made["id"] == there["id"] or made["id"] < there["id"]


def test_several_hosts_at_once_publish_one_image(publishers: Publishers, glance: FakeGlance,
                                                 disk: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    # Without it the one who leads may have finished when an equally old record is made.
    monkeypatch.setattr(meeting, "_SECOND", SECOND)
    met = threading.Barrier(4)
    made: list[str] = []

    def publish_it() -> None:
        met.wait(10)
        made.append(publishers(stall=30).completed(completed(), TREE, LINK.digest, {}, disk)["id"])

    threads = [threading.Thread(target=publish_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 4
    assert len(set(made)) == 1
    assert [image["id"] for image in by_role(glance, properties.COMPLETED)] == made[:1]
    assert len(glance.images) == 2


def test_whoever_was_taken_for_dead_ends_with_the_one_that_took_over(
        publisher: Publisher, alpha: Records, glance: FakeGlance, disk: Path) -> None:
    found: list[Description] = []

    def before(method: str, path: str) -> None:
        mine = by_role(glance, properties.COMPLETED)
        if method == "PUT" and mine and mine[0]["id"] in path:
            glance.live()
            del glance.images[mine[0]["id"]]
            found.append(older(alpha, glance))

    glance.before = before
    assert publisher.completed(completed(), TREE, LINK.digest, {}, disk)["id"] == found[0]["id"]


def test_a_publisher_at_work_touches_its_manifest(publishers: Publishers, glance: FakeGlance,
                                                  disk: Path) -> None:
    touched = threading.Event()

    def before(method: str, path: str) -> None:
        mine = by_role(glance, properties.COMPLETED)
        if method == "PUT" and mine and mine[0]["id"] in path:
            touched.wait(10)
        if method == "PATCH" and mine and mine[0]["splitimage_manifest"] in path:
            touched.set()

    glance.before = before
    image = publishers(stall=0.01).completed(completed(), TREE, LINK.digest, {}, disk)
    assert touched.is_set()
    assert holdings.TOUCHED in glance.images[properties.manifest(image)]


@pytest.mark.parametrize(("size", "wanted"), [
    (1, 1), (2**30, 1), (2**30 + 1, 2), (40 * 2**30, 40)])
def test_a_disk_fits_whole_gibibytes(size: int, wanted: int) -> None:
    assert gib(size) == wanted

