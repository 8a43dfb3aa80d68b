"""``store check`` of what a project has in the image service."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.part import FILESET, SOFTWARE, Layer, Part, PartManifest
from splitimage_driver.model.server import Server
from splitimage_driver.store.glance.store import GlanceStore
from splitimage_driver.store.records import Finding
from tests.imagerecords import Records
from tests.unit.store.conftest import options
from tests.unit.store.glance.fake import FakeGlance, writes


@pytest.fixture
def store(tmp_path: Path, alpha: Records) -> Iterator[GlanceStore]:
    own = types.SimpleNamespace(store="", parallel=2, stall=1.0, grace=0, cache_bytes=0,
                                filter=False)
    made = GlanceStore(tmp_path / "cache", options(), own=own, transport=alpha.images.transport)
    yield made
    made.close()


def kinds(found: Iterator[Finding]) -> list[tuple[str, str]]:
    """With the image's id."""
    return [(each.kind, each.subject.rpartition("(")[2].rstrip(")")) for each in found]


def test_nothing_is_wrong_with_what_is_whole(store: GlanceStore, alpha: Records,
                                             beta: Records, glance: FakeGlance) -> None:
    lamp = alpha.composite(apache=alpha.part("apache"))
    alpha.completed(lamp)
    alpha.part("page", kind=FILESET)
    beta.part("theirs")
    glance.requests.clear()
    assert list(store.check()) == []
    assert writes(glance.requests) == []


def test_few_requests_show_many_images(store: GlanceStore, alpha: Records,
                                       glance: FakeGlance) -> None:
    parts = {f"part{n}": alpha.part(f"part{n}") for n in range(30)}
    alpha.composite(**parts)
    assert len(store.parts()) == 31
    glance.requests.clear()
    assert len(store.parts()) == 31
    assert [c.name for c in store.composites()] == ["lamp"]
    shown = [path for method, path in glance.requests if path.count("/") == 2]
    assert shown == []


def test_what_is_referred_to_and_not_there_is_missing(store: GlanceStore, alpha: Records,
                                                      glance: FakeGlance) -> None:
    apache, mysql = alpha.part("apache"), alpha.part("mysql")
    lamp = alpha.composite(apache=apache, mysql=mysql)
    done = alpha.completed(lamp)
    del glance.images[apache["id"]]
    del glance.images[properties.manifest(done)]
    glance.images[mysql["id"]]["splitimage_digest"] = "0" * 64
    found = kinds(store.check())
    assert ("missing", done["id"]) in found
    assert found.count(("missing", lamp["id"])) == 2
    assert ("damaged", mysql["id"]) in found


def test_what_does_not_agree_with_its_manifest_is_damaged(store: GlanceStore, alpha: Records,
                                                          glance: FakeGlance) -> None:
    lamp, other = alpha.composite(apache=alpha.part()), alpha.composite("other")
    glance.images[lamp["id"]]["splitimage_part_mysql"] = "nonsense"
    manifest = properties.manifest(other)
    glance.data[manifest] = b"no manifest"
    glance.images[manifest]["size"] = len(glance.data[manifest])
    assert {found for found in kinds(store.check()) if found[0] == "damaged"} == {
        ("damaged", lamp["id"]), ("damaged", other["id"])}


def test_what_nothing_refers_to_is_told_and_removed_on_request(
        store: GlanceStore, alpha: Records, glance: FakeGlance) -> None:
    alpha.composite(apache=alpha.part())
    lost, page, begun = alpha.part("lost"), alpha.part("page", kind=FILESET), alpha.begun("begun")
    assert set(kinds(store.check())) == {("unreferenced", lost["id"]), ("leftover", begun["id"])}
    removed = list(store.check(repair=True))
    assert all(each.repaired and each.harmless for each in removed)
    assert {lost["id"], properties.manifest(lost), begun["id"]} <= {
        image for _, image in kinds(iter(removed))}
    assert page["id"] in glance.images
    assert list(store.check()) == []


def test_access_is_put_right(store: GlanceStore, alpha: Records, glance: FakeGlance) -> None:
    apache = alpha.part()
    lamp = alpha.composite(apache=apache)
    glance.images[apache["id"]]["visibility"] = "community"
    [*done] = store.check(repair=True)
    assert ("access", apache["id"]) in kinds(iter(done))
    assert glance.images[apache["id"]]["visibility"] == "private"
    glance.images[apache["id"]]["visibility"] = "community"
    assert kinds(iter(store.reconcile(lamp["id"])))[0] == ("access", apache["id"])
    assert store.reconcile() == []


def test_composites_are_named_by_one_request(store: GlanceStore, alpha: Records,
                                             beta: Records, glance: FakeGlance) -> None:
    lamp, other, theirs = alpha.composite(), alpha.composite("other"), beta.composite("theirs")
    glance.requests.clear()
    assert store.composite_names([lamp["id"], other["id"], theirs["id"], "no id"]) == {
        lamp["id"]: "lamp", other["id"]: "other"}
    assert len(glance.requests) == 1


def test_a_part_that_lost_its_manifest_stands_in_nobodys_way(
        store: GlanceStore, alpha: Records, glance: FakeGlance) -> None:
    manifest = PartManifest((Layer(entries=(FileEntry(b"one", "d", 0o755),)),))
    lost = alpha.part("apache", manifest=manifest)
    del glance.images[properties.manifest(lost)]
    with pytest.raises(exceptions.BadImage):
        store.part("apache")
    record = Part(id=manifest.digest, name="apache", kind=SOFTWARE, blob="", blob_size=0, size=0,
                  files=1, owner="alpha", created=0)
    assert store.add_part(record, manifest) == record
    again = [image for image in glance.images.values()
             if image.get("splitimage_digest") == manifest.digest]
    assert len(again) == 2


def test_a_part_that_lost_its_manifest_can_be_deleted(
        store: GlanceStore, alpha: Records, glance: FakeGlance) -> None:
    page, used = alpha.part("page", kind=FILESET), alpha.part("used")
    alpha.composite(used=used)
    for each in (page, used):
        del glance.images[properties.manifest(each)]
    store.delete_part("page")
    assert page["id"] not in glance.images
    with pytest.raises(exceptions.InUse, match="composite lamp"):
        store.delete_part("used")


# -- copies on this host -----------------------------------------------------------


def copied(store: GlanceStore, alpha: Records) -> tuple[Path, str]:
    """A file of the cache, and the image it is a copy of."""
    lamp = alpha.composite()
    found = store.composite("lamp").base.disk
    store.places.reader.cache.path(lamp)
    return store._contents.path(found), lamp["id"]


def here(store: GlanceStore, *, repair: bool) -> list[Finding]:
    """Without what is put right of who sees what."""
    return [each for each in store.check(repair=repair) if each.kind != "access"]


def damage(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"x" * path.stat().st_size)


@pytest.mark.parametrize("harm", [damage, Path.unlink])
def test_a_copy_that_is_damaged_or_gone_is_no_loss(
        store: GlanceStore, alpha: Records, harm: Callable[[Path], None]) -> None:
    path, image = copied(store, alpha)
    harm(path)
    for repair in (False, True):
        (found,) = here(store, repair=repair)
        assert (found.kind, found.repaired, found.harmless) == ("leftover", repair, True)
        assert image in found.subject + found.detail
    assert list(store.check()) == []
    assert store.places.reader.cache.path(alpha.images.get(image)).read_bytes() == alpha.disk


def test_a_damaged_disk_of_a_server_is_a_loss(store: GlanceStore, alpha: Records) -> None:
    path, image = copied(store, alpha)
    store.save_server(Server(
        id="s1", name="web", composite=image, parts=(), image="", disk=path.name, directory="",
        owner="alpha", created=1.0, ports={}))
    damage(path)
    assert [each.kind for each in here(store, repair=True)] == ["damaged"]
    path.unlink()
    # The server needs it; the copy is another matter.
    assert sorted(each.kind for each in here(store, repair=True)) == ["leftover", "missing"]


def test_what_may_not_be_put_right_keeps_from_nothing_else(
        store: GlanceStore, alpha: Records, glance: FakeGlance) -> None:
    """An administrator has published a composite, its owner may not publish its
    parts."""
    lamp = alpha.composite(apache=alpha.part("apache"))
    lost = alpha.manifest("11111111-2222-3333-4444-555555555555")
    glance.user("admin", admin=True).update(lamp["id"], {"visibility": "public"})
    found = list(store.check(repair=True))
    assert {(each.kind, each.repaired) for each in found} == {
        ("access", False), ("unreferenced", True)}
    assert lost["id"] not in glance.images


def test_sizes_are_known_without_a_transfer(store: GlanceStore, alpha: Records,
                                            glance: FakeGlance) -> None:
    """A plan says what would be fetched, and fetches none of it."""
    lamp = alpha.composite(apache=alpha.part())
    composite = store.composite(lamp["id"])
    glance.requests.clear()
    assert store.size(composite.base.disk) == len(alpha.disk)
    assert [path for _, path in glance.requests if path.endswith("/file")] == []
    with pytest.raises(exceptions.NotFound):
        store.size("0" * 64)
