"""The store in the image service, over one in memory."""

from __future__ import annotations

import hashlib
import threading
import uuid
from pathlib import Path

import msgspec
import pytest

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.composite import Composite, PartRef
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import FILESET, SOFTWARE, Part, PartManifest
from splitimage_driver.model.server import Server
from splitimage_driver.store.glance import holdings
from splitimage_driver.store.glance.api import Description
from splitimage_driver.store.glance.store import GlanceStore
from tests.imagerecords import Records
from tests.unit.making import file
from tests.unit.store.glance.conftest import UNSAFE, Stores
from tests.unit.store.glance.fake import FakeGlance, writes
from tests.unit.store.glance.gold import Gold


@pytest.fixture
def store(alpha: Records, stores: Stores) -> GlanceStore:
    return stores(alpha.images, host="mine")


@pytest.fixture
def gold(store: GlanceStore) -> Gold:
    return Gold(store)


def by_role(glance: FakeGlance, role: str) -> list[Description]:
    return [image for image in glance.images.values() if image["splitimage_role"] == role]


def names(glance: FakeGlance, role: str) -> set[str]:
    return {image["name"] for image in by_role(glance, role)}


# -- a capture, and what others have of it -----------------------------------------


def test_what_one_host_captures_another_can_build_on(
        store: GlanceStore, gold: Gold, alpha: Records, stores: Stores) -> None:
    apache, mysql = gold.part("apache"), gold.part("mysql")
    saved = gold.saved("lamp", apache, mysql)
    other = stores(alpha.images)
    found = other.composite("lamp")
    assert found == saved
    assert found.shared == {b"etc/x": b"\xff"}
    assert [composite.name for composite in other.composites()] == ["lamp"]
    assert other.composite_names([saved.id, "nothing"]) == {saved.id: "lamp"}
    assert other.manifest(found.base.manifest) == store.manifest(saved.base.manifest)
    for part in (apache, mysql):
        known = other.part(part.id, owner="alpha")
        assert (known.name, known.blob, known.size) == (part.name, part.blob, part.size)
        assert other.part_manifest(part.id).digest == part.id
        assert not other.is_local(part.blob)
        assert other.path(part.blob).read_bytes() == gold.blobs[part.name]
        assert other.is_local(part.blob)
    assert not other.is_local(found.base.disk)
    assert other.path(found.base.disk).read_bytes().startswith(b"base of ")
    assert {part.name for part in other.parts()} == {"apache", "mysql", "lamp.restore"}


def test_what_was_stored_here_need_not_be_fetched(store: GlanceStore, gold: Gold,
                                                  glance: FakeGlance) -> None:
    apache = gold.part("apache")
    saved = gold.saved("lamp", apache)
    assert store.is_local(apache.blob)
    assert store.is_local(saved.base.disk)
    glance.requests.clear()
    for digest in (apache.blob, saved.base.disk):
        with store.hold([digest]):
            assert store.path(digest).exists()
    assert all(not path.endswith("/file") for _, path in glance.requests)


def test_what_is_not_known_is_not_found(store: GlanceStore, gold: Gold, alpha: Records,
                                        stores: Stores) -> None:
    """Even where the cloud, or this host, has it."""
    apache = gold.part("apache")
    saved = gold.saved("lamp", apache)
    other = stores(alpha.images, host="mine")  # the same directory, another session
    for digest in (apache.blob, saved.base.disk, "00" * 32):
        assert not other.is_local(digest)
        with pytest.raises(exceptions.NotFound, match="no object named"):
            other.path(digest)
        with pytest.raises(exceptions.NotFound):
            other.hold([digest]).__enter__()
    for digest in (saved.base.manifest, "00" * 32):
        with pytest.raises(exceptions.NotFound):
            other.manifest(digest)
    other.composite("lamp")
    assert other.is_local(apache.blob)


# -- parts -------------------------------------------------------------------------


def test_a_part_whose_bytes_are_not_its_ids_is_refused(store: GlanceStore) -> None:
    part = Part(id="00" * 32, name="x", kind=SOFTWARE, blob="", blob_size=0, size=0, files=0,
                owner="alpha", created=0)
    with pytest.raises(exceptions.DigestMismatch, match="manifest of part x"):
        store.add_part(part, PartManifest(()))


def test_a_file_set_is_there_at_once_and_stays(gold: Gold, store: GlanceStore,
                                               glance: FakeGlance) -> None:
    part = gold.part("page", kind=FILESET, pending=False)
    assert names(glance, "part") == {"page"}
    assert store.part("page") == store.part(part.id) == part
    store.close()
    assert names(glance, "part") == {"page"}
    assert len(glance.images) == 2


def test_a_file_set_leaves_the_parts_of_a_capture_to_their_composite(
        gold: Gold, store: GlanceStore, glance: FakeGlance) -> None:
    apache = gold.part("apache")
    store.rising.arrived(apache)
    gold.part("page", kind=FILESET, pending=False)
    store.close()
    assert names(glance, "part") == {"page"}


def test_parts_go_again_where_no_composite_comes(gold: Gold, store: GlanceStore,
                                                 glance: FakeGlance) -> None:
    for name in ("apache", "mysql", "php"):
        gold.part(name)
    store.close()
    assert glance.images == {}


def test_parts_that_a_composite_has_stay(gold: Gold, store: GlanceStore,
                                         glance: FakeGlance) -> None:
    gold.saved("lamp", gold.part("apache"))
    gold.part("left.over")
    store.close()
    assert names(glance, "part") == {"apache", "lamp.restore"}
    assert len(by_role(glance, "manifest")) == 3


def test_a_part_that_is_met_again_is_stored_once(gold: Gold, store: GlanceStore, stores: Stores,
                                                 alpha: Records, glance: FakeGlance) -> None:
    apache = gold.part("apache", content=b"same")
    assert gold.part("httpd", content=b"same") != apache  # another path in it
    gold.saved("lamp", apache)
    image = next(each["id"] for each in by_role(glance, "part") if each["name"] == "apache")
    other = Gold(stores(alpha.images))
    again = other.part("apache", content=b"same")
    assert again.id == apache.id
    other.saved("web", again)
    assert [each["id"] for each in by_role(glance, "part") if each["name"] == "apache"] == [image]
    # The collector is to know that somebody reckons with it.
    assert holdings.TOUCHED in glance.images[image]


def test_a_part_that_is_met_again_while_it_goes_up_is_awaited(gold: Gold,
                                                              glance: FakeGlance) -> None:
    one = gold.part("apache", content=b"same")
    two = gold.part("apache", content=b"same")
    assert one == two
    gold.saved("lamp", two)
    assert len([part for part in by_role(glance, "part") if part["name"] == "apache"]) == 1


def test_an_import_claims_what_is_there(gold: Gold, stores: Stores, alpha: Records,
                                        glance: FakeGlance) -> None:
    gold.saved("lamp", gold.part("apache", content=b"same"))
    holder = str(uuid.uuid4())
    Gold(stores(alpha.images, purpose=holder)).part("apache", content=b"same")
    part = next(part for part in by_role(glance, "part") if part["name"] == "apache")
    assert part["splitimage_for"] == holder


def test_one_that_went_meanwhile_is_stored_anew(gold: Gold, store: GlanceStore, alpha: Records,
                                                glance: FakeGlance) -> None:
    gold.saved("lamp", gold.part("apache", content=b"same"))
    for image in by_role(glance, "part"):
        alpha.images.discard(image["id"])
    gold.part("apache", content=b"same", pending=False)
    assert names(glance, "part") == {"apache"}


def test_a_part_can_be_read_while_it_goes_up_and_after(gold: Gold, store: GlanceStore,
                                                       glance: FakeGlance) -> None:
    """A capture looks into its parts for what they disagree about."""
    held, begun = threading.Event(), threading.Event()

    def before(method: str, path: str) -> None:
        if method == "PUT":
            begun.set()
            assert held.wait(10)

    glance.before = before
    apache = gold.part("apache")
    assert begun.wait(10)
    assert store.path(apache.blob).read_bytes() == gold.blobs["apache"]
    assert store.is_local(apache.blob)
    assert store.part_manifest(apache.id).digest == apache.id
    held.set()
    store.rising._rising[apache.id].result(10)
    # Nobody has asked for its image yet.
    assert store.path(apache.blob).read_bytes() == gold.blobs["apache"]
    with store.hold([apache.blob]):
        pass


def test_a_part_that_does_not_go_up_is_told_where_it_is_needed(
        gold: Gold, store: GlanceStore, glance: FakeGlance) -> None:
    def before(method: str, path: str) -> None:
        if method == "PUT":
            raise exceptions.QuotaExceeded(project="alpha", reason="full")

    composite = gold.composite("lamp", gold.part("apache", content=b"same"))
    store._links(composite)
    glance.before = before
    broken = gold.composite("web", gold.part("mysql", content=b"other"))
    with pytest.raises(exceptions.QuotaExceeded):
        store.save_composite(broken)
    glance.live()
    # It is not taken for stored when it is met again.
    gold.saved("db", gold.part("mysql", content=b"other"))
    assert "mysql" in names(glance, "part")
    store.close()
    assert names(glance, "composite") == {"db"}
    assert names(glance, "part") == {"mysql", "db.restore"}


def test_uploads_that_have_not_begun_are_not_awaited(gold: Gold, store: GlanceStore,
                                                     glance: FakeGlance) -> None:
    held, asked = threading.Event(), threading.Event()

    def before(method: str, path: str) -> None:
        if method == "POST":
            asked.set()
            assert held.wait(10)

    glance.before = before
    for number in range(9):
        gold.part(f"p{number}")
    assert asked.wait(10)
    ended = threading.Semaphore(0)
    for future in store.rising._rising.values():
        future.add_done_callback(lambda future: ended.release())
    closing = threading.Thread(target=store.close)
    closing.start()
    for _ in range(7):
        assert ended.acquire(timeout=10)
    held.set()
    closing.join(10)
    # Two at a time at most, and each makes two records.
    assert sum(method == "POST" for method, _ in glance.requests) <= 4
    assert glance.images == {}


def test_closing_tells_no_error_of_what_is_dropped(gold: Gold, store: GlanceStore,
                                                   glance: FakeGlance) -> None:
    """It would hide the one that ends the command."""
    def before(method: str, path: str) -> None:
        if method == "PUT":
            raise RuntimeError("no error of ours")

    glance.before = before
    gold.part("apache")
    with pytest.raises(RuntimeError):
        store.rising._rising[next(iter(store.rising._rising))].result(10)
    store.close()


def test_what_cannot_be_dropped_is_left_to_the_collector(gold: Gold, store: GlanceStore,
                                                         glance: FakeGlance) -> None:
    store.rising.arrived(gold.part("apache"))

    def before(method: str, path: str) -> None:
        if method == "DELETE":
            raise exceptions.CloudUnreachable(where="cloud", reason="gone")

    glance.before = before
    store.close()
    assert len(glance.images) == 2


def test_a_part_is_named_by_its_id_or_by_a_name_that_is_one(gold: Gold, store: GlanceStore,
                                                            stores: Stores,
                                                            alpha: Records) -> None:
    one = gold.part("page", kind=FILESET, pending=False)
    other = stores(alpha.images)
    assert other.part("page").id == one.id
    two = gold.part("page", kind=FILESET, pending=False)
    with pytest.raises(exceptions.InvalidInput, match="2 have this name, give an id"):
        stores(alpha.images).part("page")
    assert stores(alpha.images).part(two.id).id == two.id
    for name in ("nothing", "", "PAGE", one.id[:12]):
        with pytest.raises(exceptions.NotFound):
            other.part(name)


def test_the_same_file_set_of_two_projects_is_each_ones_own(
        gold: Gold, store: GlanceStore, stores: Stores, beta: Records,
        glance: FakeGlance) -> None:
    """Also on one host: nobody learns that somebody else has it."""
    mine = gold.part("page", kind=FILESET, pending=False, content=b"same")
    other = stores(beta.images, host="mine")
    with pytest.raises(exceptions.NotFound):
        other.part("page")
    with pytest.raises(exceptions.NotFound):
        other.part(mine.id)
    assert not other.is_local(mine.blob)
    theirs = Gold(other)
    same = theirs.part("page", kind=FILESET, pending=False, content=b"same")
    assert (same.id, same.owner) == (mine.id, "beta")
    assert {image["owner"] for image in by_role(glance, "part")} == {"alpha", "beta"}
    other.delete_part("page")
    assert store.path(mine.blob).read_bytes() == gold.blobs["page"]
    assert {image["owner"] for image in glance.images.values()} == {"alpha"}


def test_a_part_that_is_in_use_stays(gold: Gold, store: GlanceStore, alpha: Records,
                                     glance: FakeGlance) -> None:
    apache, page = gold.part("apache"), gold.part("page", kind=FILESET, pending=False)
    lamp = gold.saved("lamp", apache)
    with pytest.raises(exceptions.InUse, match="software part apache is in use by composite lamp"):
        store.delete_part("apache")
    for said in ({"status": "deactivated"}, {"os_hidden": True}):
        glance.images[lamp.id] |= said
        with pytest.raises(exceptions.InUse):
            store.delete_part("apache")
    made = alpha.completed(glance.images[lamp.id], "apache", splitimage_filesets=page.id)
    with pytest.raises(exceptions.InUse, match=r"file set page is in use by image lamp\+apache"):
        store.delete_part("page")
    alpha.images.discard(made["id"])
    store.save_server(Server(
        id="s1", name="web", composite=lamp.id, parts=(), filesets=(page.id,), image="", disk="",
        directory="", owner="alpha", created=1.0, ports={}))
    with pytest.raises(exceptions.InUse, match="server web"):
        store.delete_part(page.id)
    store.delete_server("s1")
    path = store.path(page.blob)
    store.delete_part("page")
    assert "page" not in names(glance, "part")
    assert not path.exists()
    with pytest.raises(exceptions.NotFound):
        store.part(page.id)


# -- composites --------------------------------------------------------------------


def test_a_composite_needs_a_name_that_is_free(gold: Gold, store: GlanceStore,
                                               beta: Records, stores: Stores) -> None:
    assert not store.taken("lamp")
    gold.saved("lamp")
    assert store.taken("lamp")
    with pytest.raises(exceptions.AlreadyExists, match="a composite named lamp"):
        gold.saved("lamp")
    with pytest.raises(exceptions.InvalidInput, match="composite name"):
        gold.saved("Lamp/x")
    # Other projects have names of their own.
    other = stores(beta.images)
    assert not other.taken("lamp")
    Gold(other).saved("lamp")


def test_a_composite_whose_part_is_not_there_is_not_saved(
        gold: Gold, store: GlanceStore, alpha: Records, glance: FakeGlance) -> None:
    """As where a collector took it, a minute before the end of a long capture."""
    apache = gold.part("apache")
    composite = gold.composite("lamp", apache)
    alpha.images.discard(store.rising.arrived(apache))
    with pytest.raises(exceptions.NotFound, match="no part named"):
        store.save_composite(composite)
    assert by_role(glance, "composite") == []
    with pytest.raises(exceptions.NotFound):
        gold.saved("web", restore="00" * 32)


def test_a_composite_that_fails_leaves_nothing(gold: Gold, store: GlanceStore,
                                               glance: FakeGlance) -> None:
    composite = gold.composite("lamp", gold.part("apache"))

    def before(method: str, path: str) -> None:
        if method == "PUT" and glance.images[path.split("/")[2]]["splitimage_role"] == "composite":
            raise exceptions.QuotaExceeded(project="alpha", reason="full")

    glance.before = before
    with pytest.raises(exceptions.QuotaExceeded):
        store.save_composite(composite)
    store.close()
    assert glance.images == {}


def without(composite: Composite, part: str) -> Composite:
    return msgspec.structs.replace(composite, parts={
        name: ref for name, ref in composite.parts.items() if name != part})


def test_a_change_is_one_request_to_the_composite(gold: Gold, store: GlanceStore,
                                                  stores: Stores, alpha: Records,
                                                  glance: FakeGlance) -> None:
    lamp = gold.saved("lamp", gold.part("apache"), gold.part("mysql"))
    old = properties.manifest(glance.images[lamp.id])
    glance.requests.clear()
    changed = store.save_composite(without(lamp, "mysql"), replace=True)
    assert [method for method, path in writes(glance.requests)
            if path == f"/images/{lamp.id}"] == ["PATCH"]
    assert changed.id == lamp.id
    assert set(changed.parts) == {"apache"}
    assert stores(alpha.images).composite("lamp") == changed
    assert "splitimage_part_mysql" not in glance.images[lamp.id]
    held = properties.manifest(glance.images[lamp.id])
    assert held != old
    assert old not in glance.images
    assert glance.images[held]["splitimage_for"] == lamp.id


def test_a_change_of_what_somebody_else_changed_is_refused(
        gold: Gold, store: GlanceStore, stores: Stores, alpha: Records,
        glance: FakeGlance) -> None:
    lamp = gold.saved("lamp", gold.part("apache"), gold.part("mysql"))
    other = stores(alpha.images)
    other.save_composite(without(other.composite("lamp"), "mysql"), replace=True)
    count = len(glance.images)
    with pytest.raises(exceptions.ChangedMeanwhile, match="composite lamp was changed"):
        store.save_composite(without(lamp, "apache"), replace=True)
    assert set(other.composite("lamp").parts) == {"apache"}
    assert len(glance.images) == count


def test_a_change_keeps_who_sees_it(gold: Gold, store: GlanceStore, glance: FakeGlance,
                                    alpha: Records) -> None:
    lamp = gold.saved("lamp", gold.part("apache"))
    alpha.images.add_member(lamp.id, "beta")
    mysql = gold.part("mysql")
    changed = msgspec.structs.replace(lamp, parts={
        **lamp.parts, "mysql": PartRef(id=mysql.id, kind=SOFTWARE)})
    store.save_composite(changed, replace=True)
    for image in glance.images.values():
        assert set(glance.members[image["id"]]) == {"beta"}, image["name"]


def test_a_part_that_is_taken_out_is_not_seen_any_more(
        gold: Gold, store: GlanceStore, alpha: Records, glance: FakeGlance) -> None:
    lamp = gold.saved("lamp", gold.part("apache"), gold.part("mysql"))
    alpha.images.add_member(lamp.id, "beta")
    store.reconcile(lamp.id)
    out = properties.links(glance.images[lamp.id]).parts["mysql"].image
    assert set(glance.members[out]) == {"beta"}
    store.save_composite(without(store.composite("lamp"), "mysql"), replace=True)
    assert glance.images[out]["visibility"] == "private"
    assert not glance.members.get(out)
    assert holdings.UNREFERENCED in glance.images[out]


def test_a_public_one_is_public_with_all_of_it(glance: FakeGlance, stores: Stores,
                                               beta: Records) -> None:
    store = stores(glance.user("admin", admin=True))
    lamp = Gold(store).saved("lamp", Gold(store).part("apache"), public=True)
    assert lamp.public or glance.images[lamp.id]["visibility"] == "public"
    assert {image["visibility"] for image in glance.images.values()} == {"public"}
    other = stores(beta.images)
    found = other.composite("lamp")
    assert (found.owner, found.public) == ("admin", True)
    assert other.part_manifest(found.parts["apache"].id)
    assert other.path(found.base.disk).exists()


def test_a_composite_goes_with_its_manifest_and_its_parts_when_nobody_needs_them(
        gold: Gold, store: GlanceStore, glance: FakeGlance) -> None:
    apache = gold.part("apache")
    gold.saved("lamp", apache)
    gold.saved("web", apache)
    store.delete_composite("lamp")
    with pytest.raises(exceptions.NotFound):
        store.composite("lamp")
    assert names(glance, "composite") == {"web"}
    assert names(glance, "manifest") >= {"web.manifest", "apache.manifest"}
    assert "lamp.manifest" not in names(glance, "manifest")
    assert store.path(apache.blob).exists()


def test_a_composite_that_is_in_use_stays(gold: Gold, store: GlanceStore, alpha: Records,
                                          glance: FakeGlance) -> None:
    lamp = gold.saved("lamp")
    made = alpha.completed(glance.images[lamp.id])
    with pytest.raises(exceptions.InUse, match=r"composite lamp is in use by image lamp\+"):
        store.delete_composite("lamp")
    alpha.images.discard(made["id"])
    store.save_server(Server(
        id="s1", name="web", composite=lamp.id, parts=(), image="", disk="", directory="",
        owner="alpha", created=1.0, ports={}))
    with pytest.raises(exceptions.InUse, match="server web"):
        store.delete_composite(lamp.id)
    assert lamp.id in glance.images


def test_a_composite_of_others_is_not_deleted(stores: Stores, beta: Records,
                                              glance: FakeGlance) -> None:
    theirs = beta.composite("lamp")
    for image in glance.images.values():
        image["visibility"] = "public"
    store = stores(glance.user("admin", admin=True))
    with pytest.raises(exceptions.NotFound):
        store.delete_composite("lamp")
    assert theirs["id"] in glance.images


def test_a_damaged_composite_can_be_deleted(store: GlanceStore, alpha: Records,
                                            glance: FakeGlance) -> None:
    lamp = alpha.composite("lamp")
    alpha.images.discard(properties.manifest(lamp))
    with pytest.raises(exceptions.BadImage):
        store.composite("lamp")
    store.delete_composite("lamp")
    assert lamp["id"] not in glance.images


def test_a_protected_composite_stays(gold: Gold, store: GlanceStore, glance: FakeGlance) -> None:
    lamp = gold.saved("lamp")
    glance.images[lamp.id]["protected"] = True
    with pytest.raises(exceptions.NotPermitted):
        store.delete_composite("lamp")
    assert store.composite("lamp") == lamp


# -- what is here ------------------------------------------------------------------


def test_what_is_held_may_be_more_than_the_cache_has_room_for(
        gold: Gold, alpha: Records, stores: Stores) -> None:
    parts = [gold.part(f"p{number}") for number in range(5)]
    saved = gold.saved("lamp", *parts)
    other = stores(alpha.images, cache_bytes=1)
    other.composite("lamp")
    wanted = [saved.base.disk, *(part.blob for part in parts)]
    with other.hold([*wanted, "", wanted[0]]):
        assert all(other.path(digest).exists() for digest in wanted)
        assert all(other.is_local(digest) for digest in wanted)
    other.path(wanted[0])
    other.cache.trim()
    assert sum(other.is_local(digest) for digest in wanted) <= 1


def test_what_cannot_be_brought_is_not_held(gold: Gold, alpha: Records, stores: Stores,
                                            glance: FakeGlance) -> None:
    saved = gold.saved("lamp", gold.part("apache"))
    other = stores(alpha.images)
    other.composite("lamp")
    glance.data[saved.id] = bytes(len(glance.data[saved.id]))
    with pytest.raises(exceptions.DigestMismatch), other.hold([saved.base.disk]):
        pass
    assert not other.is_local(saved.base.disk)
    assert other._database.query("SELECT 1 FROM leases WHERE reason = 'held'") == []


def test_a_damaged_copy_is_told_and_fetched_again(gold: Gold, store: GlanceStore) -> None:
    apache = gold.part("apache")
    gold.saved("lamp", apache)
    path = store.path(apache.blob)
    path.chmod(0o600)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(exceptions.DigestMismatch):
        store.verify(apache.blob)
    assert store.path(apache.blob).read_bytes() == gold.blobs["apache"]
    store.verify(apache.blob)


def test_a_disk_that_refers_to_other_files_is_refused(store: GlanceStore, glance: FakeGlance,
                                                      ) -> None:
    hostile = Records(glance.user("alpha"), disk=UNSAFE + b" qcow2")
    hostile.composite("lamp")
    found = store.composite("lamp")
    with pytest.raises(exceptions.UnsafeDisk):
        store.path(found.base.disk)
    assert not store.is_local(found.base.disk)


def test_a_disk_that_came_as_a_part_is_looked_into_all_the_same(
        gold: Gold, store: GlanceStore, alpha: Records, stores: Stores,
        glance: FakeGlance) -> None:
    bytes_ = UNSAFE + b" qcow2"
    part = Part(id=PartManifest(()).digest, name="page", kind=FILESET, blob=gold.object(bytes_),
                blob_size=1, size=0, files=0, owner="alpha", created=1.0)
    store.add_part(part, PartManifest(()))
    assert store.path(part.blob).read_bytes() == bytes_
    Records(glance.user("alpha"), disk=bytes_).composite("lamp")
    store.rising.arrived(part)
    other = stores(alpha.images)
    other.part("page")
    assert other.path(part.blob).read_bytes() == bytes_
    assert other.composite("lamp").base.disk == part.blob
    with pytest.raises(exceptions.UnsafeDisk):
        other.path(part.blob)


def test_a_composite_that_claims_the_disk_of_another_does_not_take_its_place(
        gold: Gold, store: GlanceStore, beta: Records, glance: FakeGlance,
        stores: Stores, alpha: Records) -> None:
    mine = gold.saved("lamp")
    beta.disk = b"other bytes"
    beta.digest = mine.base.disk  # what it claims them to be
    beta.composite("theirs")
    for image in glance.images.values():
        if image["owner"] == "beta":
            image["visibility"] = "public"
    other = stores(alpha.images)
    for first in (("lamp", "theirs"), ("theirs", "lamp")):
        for name in first:
            assert other.composite(name).base.disk == mine.base.disk
        assert other.path(mine.base.disk).read_bytes() == store.path(mine.base.disk).read_bytes()
    claimed = stores(alpha.images)
    claimed.composite("theirs")
    with pytest.raises(exceptions.DigestMismatch):
        claimed.path(mine.base.disk)


def test_of_two_composites_on_one_base_the_other_keeps_it(
        gold: Gold, store: GlanceStore) -> None:
    one = gold.saved("one")
    two = gold.saved("two", base=one.base)
    store.delete_composite("one")
    assert store.path(two.base.disk).exists()
    assert store.manifest(two.base.manifest).digest == two.base.manifest


def test_nothing_of_a_server_of_another_project_is_given_away(
        gold: Gold, store: GlanceStore, stores: Stores, beta: Records) -> None:
    lamp = gold.saved("lamp")
    store.save_server(Server(
        id="s1", name="web", composite=lamp.id, parts=(), image="", disk=lamp.base.disk,
        directory="", owner="alpha", created=1.0, ports={}))
    other = stores(beta.images, host="mine")
    assert not other.is_local(lamp.base.disk)
    with pytest.raises(exceptions.NotFound):
        other.path(lamp.base.disk)
    assert stores(store.images_api, host="mine").path(lamp.base.disk).exists()


def test_a_tree_that_is_not_its_digests_is_told(gold: Gold, alpha: Records, stores: Stores,
                                                glance: FakeGlance) -> None:
    made = alpha.completed(alpha.composite("lamp"))
    glance.images[made["id"]]["splitimage_tree"] = "00" * 32
    other = stores(alpha.images)
    image = other.image(made["id"])
    with pytest.raises(exceptions.DigestMismatch, match="manifest image"):
        other.manifest(image.manifest)


def test_trees_of_this_session_are_its_own(store: GlanceStore) -> None:
    made = Manifest([file("a", b"x")])
    assert store.put_manifest(made) == made.digest
    assert store.manifest(made.digest) == made
    assert hashlib.sha256(made.encode()).hexdigest() == made.digest


def test_each_host_keeps_its_own_state(store: GlanceStore, alpha: Records, stores: Stores,
                                       tmp_path: Path) -> None:
    store.record("assembly", {"seconds": 1})
    assert stores(alpha.images, host="mine").history("assembly")[0]["seconds"] == 1
    assert stores(alpha.images).history("assembly") == []
    assert store.location == "cloud in memory"
    assert (tmp_path / "mine" / "splitimage.db").exists()


# -- leftovers ---------------------------------------------------------------------


def test_what_the_killed_have_left_goes_with_the_next_change(
        store: GlanceStore, gold: Gold, alpha: Records, glance: FakeGlance) -> None:
    lamp = gold.saved("lamp")
    lost = alpha.manifest(str(uuid.uuid4()))
    rising = alpha.part("rising", data=None)
    young = alpha.part("young", data=None)
    glance.age(9999, rising["id"], held := properties.manifest(rising))
    forget(store)
    store.save_composite(msgspec.structs.replace(lamp, notes=("x",)), replace=True)
    assert not {lost["id"], rising["id"], held} & glance.images.keys()
    assert young["id"] in glance.images


def forget(store: GlanceStore) -> None:
    """That leftovers were looked for."""
    with store._database.writing() as connection:
        connection.execute("DELETE FROM history")


def looks(glance: FakeGlance) -> int:
    return sum("splitimage_role=manifest" in path and "visibility=all" in path
               for _, path in glance.requests)


def test_leftovers_are_looked_for_once_in_the_grace_time(
        store: GlanceStore, gold: Gold, alpha: Records, stores: Stores,
        glance: FakeGlance) -> None:
    gold.saved("lamp")
    assert looks(glance)
    glance.requests.clear()
    gold.saved("web")
    store.prune_images()
    assert looks(glance) == 0
    forget(store)
    store.prune_images()
    assert looks(glance)
    hasty = stores(alpha.images, grace=0)
    for work in (hasty.prune_images, lambda: hasty.delete_composite("lamp")):
        glance.requests.clear()
        work()
        assert looks(glance)


@pytest.mark.parametrize("error", [
    exceptions.CloudUnreachable(where="cloud", reason="gone"),
    exceptions.CloudFailed(where="cloud", what="list images", reason="busy")])
def test_leftovers_fail_no_command(store: GlanceStore, gold: Gold, glance: FakeGlance,
                                   error: Exception) -> None:
    composite = gold.composite("lamp")

    def before(method: str, path: str) -> None:
        if "splitimage_role=completed" in path:
            raise error

    glance.before = before
    saved = store.save_composite(composite)
    assert store.composite("lamp") == saved
    glance.live()
    glance.requests.clear()
    store.prune_images()  # it was not done, so it is tried again
    assert looks(glance)
