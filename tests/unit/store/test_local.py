from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from splitimage_driver import exceptions
from splitimage_driver.model.composite import Answer, Conflict
from splitimage_driver.model.part import FILESET, RESTORE
from splitimage_driver.store import host


def _replaced(record: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(record, **fields)


# -- parts --------------------------------------------------------------------

def test_a_part_is_found_by_name_and_id(store: Any, make: Any) -> None:
    apache, php = make.part("apache"), make.part("php", owner="other")
    assert store.part("apache") == apache == store.part(apache.id)
    assert store.parts() == [apache, php]
    assert store.parts(owner="other") == [php]
    with pytest.raises(exceptions.NotFound, match="no part named php"):
        store.part("php", owner="default")


def test_a_part_met_again_is_the_first_one(store: Any, make: Any) -> None:
    manifest = make.part_manifest()
    first = make.part("apache", manifest=manifest)
    blob = make.object()
    assert make.part("httpd", manifest=manifest, blob=blob) == first
    assert not store.is_local(blob)  # the second blob is not kept
    assert store.is_local(first.blob)
    other = make.part("httpd", manifest=manifest, owner="other", blob=first.blob)
    assert other.owner == "other"
    assert store.parts(owner="default") == [first]


def test_a_name_of_several_parts_asks_for_an_id(store: Any, make: Any) -> None:
    one, two = make.part("apache"), make.part("apache")
    with pytest.raises(exceptions.InvalidInput, match=one.id) as caught:
        store.part("apache")
    assert two.id in str(caught.value)
    with pytest.raises(exceptions.InvalidInput):
        store.delete_part("apache")
    store.delete_part(one.id)
    assert store.part("apache") == two


def test_a_part_of_several_projects_is_deleted_for_one(store: Any, make: Any) -> None:
    manifest = make.part_manifest()
    one = make.part(manifest=manifest)
    two = make.part(manifest=manifest, owner="other", blob=one.blob)
    with pytest.raises(exceptions.InvalidInput, match="default, other"):
        store.delete_part(one.id)
    store.delete_part(one.id, owner="default")
    assert store.parts() == [two]
    assert store.is_local(two.blob)
    assert store.part_manifest(two.id).digest == two.id
    store.delete_part(two.id)
    assert not store.is_local(two.blob)
    with pytest.raises(exceptions.NotFound):
        store.part_manifest(two.id)


def test_a_part_without_contents_needs_no_blob(store: Any, make: Any) -> None:
    part = make.part(blob="")
    assert store.part(part.id) == part


def test_a_part_whose_blob_is_not_there_is_not_recorded(store: Any, make: Any) -> None:
    with pytest.raises(exceptions.NotFound, match="no object named"):
        make.part(blob="0" * 64)
    assert store.parts() == []


def test_parts_in_use_are_not_deleted(store: Any, make: Any) -> None:
    apache, restore, pages = make.part(), make.part("r", kind=RESTORE), make.part(
        "pages", kind=FILESET)
    composite = make.saved("lamp", apache, restore=restore.id)
    image = make.added(composite, filesets=(pages.id,))
    with pytest.raises(exceptions.InUse, match="composite lamp"):
        store.delete_part("apache")
    with pytest.raises(exceptions.InUse, match="composite lamp"):
        store.delete_part(restore.id)
    with pytest.raises(exceptions.InUse, match=f"file set pages .* image .*{image.name[-1]}"):
        store.delete_part("pages")
    server = make.running(image, filesets=(pages.id,))
    with pytest.raises(exceptions.InUse, match=f"server {server.name}"):
        store.delete_part("pages")
    store.delete_server(server.id)
    store.delete_image(image.id)
    store.delete_part("pages")
    store.delete_composite("lamp")
    store.delete_part("apache")
    store.delete_part("r")
    assert not any(path.is_file() for where in ("objects", "manifests")
                   for path in (make.root / where).rglob("*"))


def test_anothers_composite_guards_a_part_that_only_one_project_has(
        store: Any, make: Any) -> None:
    part = make.part()
    make.saved("theirs", part, owner="other")
    with pytest.raises(exceptions.InUse, match="theirs"):
        store.delete_part(part.id)
    make.part(manifest=store.part_manifest(part.id), owner="other", blob=part.blob)
    store.delete_part(part.id, owner="default")
    assert [part.owner for part in store.parts()] == ["other"]


# -- composites ---------------------------------------------------------------

def test_a_composite_comes_back_whole(store: Any, make: Any, open_local: Any) -> None:
    composite = make.saved(
        "lamp", make.part(), answers=(Answer(b"etc/x\xff", ("a", "b"), "file", content=b"\0"),),
        conflicts=(Conflict(b"etc/y", ("a", "b"), "text"),), public=True,
        shared={b"etc/passwd\xff": b"\xfe"}, hardware={"drivers": ["virtio"], "disk": {"bus": 1}})
    other = make.saved("a")
    again = open_local()
    assert again.composite("lamp") == composite == again.composite(composite.id)
    assert again.composites() == [other, composite]


def test_composite_names_and_ids_are_unique(store: Any, make: Any) -> None:
    lamp, other = make.saved("lamp"), make.saved("other")
    for clash in (make.composite("lamp"), _replaced(lamp, name="new"),
                  _replaced(other, name="lamp")):
        with pytest.raises(exceptions.AlreadyExists):
            store.save_composite(clash)
    with pytest.raises(exceptions.AlreadyExists):
        store.save_composite(_replaced(other, name="lamp"), replace=True)
    assert store.composites() == [lamp, other]


def test_replacing_a_composite_frees_what_it_does_not_need(store: Any, make: Any) -> None:
    lamp = make.saved("lamp")
    image = make.added(lamp)
    new = _replaced(lamp, base=_replaced(lamp.base, disk=make.object()), name="lamp2")
    store.save_composite(new, replace=True)
    assert store.composites() == [new]
    assert not store.is_local(lamp.base.disk)
    assert store.images(composite=lamp.id) == [image]


def test_a_new_composite_takes_the_place_of_an_unused_one(store: Any, make: Any) -> None:
    old, new = make.saved("lamp"), make.composite("lamp")
    image = make.added(old)
    with pytest.raises(exceptions.InUse, match=image.name[-1]):
        store.save_composite(new, replace=True)
    assert store.composites() == [old]
    store.delete_image(image.id)
    store.save_composite(new, replace=True)
    assert store.composites() == [new]


def test_a_composite_without_its_parts_is_not_saved(store: Any, make: Any) -> None:
    part = make.part()
    composite = make.composite("lamp", part)
    store.delete_part(part.id)
    with pytest.raises(exceptions.NotFound, match=part.id):
        store.save_composite(composite)
    with pytest.raises(exceptions.InvalidInput, match="composite name"):
        store.save_composite(_replaced(composite, name="No Name", parts={}))
    assert store.composites() == []


def test_a_composite_in_use_is_not_deleted(store: Any, make: Any) -> None:
    composite = make.saved()
    images = [make.added(composite, name=f"lamp+{number:02}") for number in range(11)]
    server = make.running(images[0], composite="lamp")  # by name
    with pytest.raises(exceptions.InUse) as caught:
        store.delete_composite("lamp")
    assert "image lamp+00, image lamp+01" in str(caught.value)
    assert "and 2 more" in str(caught.value)
    for image in images[1:]:
        store.delete_image(image.id)
    store.delete_server(server.name)
    store.delete_image(images[0].id)
    store.delete_composite("lamp")
    assert store.composites() == []
    assert not store.is_local(composite.base.disk)


def test_a_composite_goes_with_its_own_parts(store: Any, make: Any) -> None:
    shared, own, restore, pages = (make.part("shared"), make.part("own"), make.part(
        "r", kind=RESTORE), make.part("pages", kind=FILESET))
    make.saved("lamp", shared, own, pages, restore=restore.id)
    make.saved("other", shared)
    store.delete_composite("lamp", parts=True)
    assert {part.name for part in store.parts()} == {"shared", "pages"}
    assert not store.is_local(own.blob) and store.is_local(shared.blob)


def test_composites_are_named_together(store: Any, make: Any) -> None:
    one, two = make.composite("one"), make.composite("two")
    for each in (one, two):
        store.save_composite(each)
    assert store.composite_names([one.id, two.id, one.id, "gone"]) == {one.id: "one", two.id: "two"}


# -- completed images ---------------------------------------------------------

def test_an_image_is_found_by_name_and_id(store: Any, make: Any) -> None:
    lamp, other = make.saved("lamp"), make.saved("other")
    image, second = make.added(lamp), make.added(other, owner="somebody")
    assert store.image(image.id) == image == store.image(image.name)
    assert store.images() == [image, second]
    assert store.images(composite=other.id) == [second] == store.images(owner="somebody")


def test_the_first_image_of_a_recipe_stays(store: Any, make: Any) -> None:
    composite = make.saved()
    first = make.added(composite, recipe="r")
    second = make.image(composite, recipe="r")
    assert store.add_image(second) == first
    assert store.images() == [first]
    assert not store.is_local(second.disk)
    with pytest.raises(exceptions.NotFound):
        store.manifest(second.manifest)
    theirs = make.added(composite, recipe="r", owner="other")
    assert store.images() == [first, theirs]


@pytest.mark.parametrize("missing", ["disk", "manifest", "composite", "filesets"])
def test_an_image_without_what_it_needs_is_not_recorded(
        store: Any, make: Any, missing: str) -> None:
    image = make.image(make.saved())
    absent: Any = "0" * 64 if missing != "filesets" else ("0" * 64,)
    with pytest.raises(exceptions.NotFound, match="0" * 64):
        store.add_image(_replaced(image, **{missing: absent}))
    assert store.images() == []
    assert store.add_image(image) == image


def test_an_image_with_a_server_is_not_deleted(store: Any, make: Any) -> None:
    composite = make.saved()
    image = make.added(composite)
    on_image, on_disk = make.running(image, disk=""), make.running(image, image="")
    with pytest.raises(exceptions.InUse, match=f"server {on_image.name}, server {on_disk.name}"):
        store.delete_image(image.id)
    store.delete_server(on_image.id)
    with pytest.raises(exceptions.InUse):
        store.delete_image(image.id)
    store.delete_server(on_disk.id)
    store.delete_image(image.name)
    assert store.images() == [] and not store.is_local(image.disk)


def test_what_two_images_share_stays_with_the_second(store: Any, make: Any) -> None:
    composite = make.saved()
    one = make.added(composite)
    two = make.added(composite, disk=one.disk, manifest=one.manifest)
    store.delete_image(one.id)
    assert store.is_local(two.disk)
    assert store.manifest(two.manifest).digest == two.manifest
    store.delete_image(two.id)
    assert not store.is_local(two.disk)


def test_exact_matches_come_from_oneself_or_the_composites_owner(
        store: Any, make: Any) -> None:
    composite = make.saved(owner="admin")
    assert store.find_recipe("r", owner="me", composite=composite) is None
    make.added(composite, recipe="r", owner="stranger", public=True, created=1.0)
    assert store.find_recipe("r", owner="me", composite=composite) is None
    private = make.added(composite, recipe="r", owner="admin", created=3.0)
    assert store.find_recipe("r", owner="me", composite=composite) is None
    assert store.find_recipe("r", owner="admin", composite=composite) == private
    store.delete_image(private.id)
    public = make.added(composite, recipe="r", owner="admin", public=True, created=3.0)
    assert store.find_recipe("r", owner="me", composite=composite) == public
    mine = make.added(composite, recipe="r", owner="me", created=2.0)
    assert store.find_recipe("r", owner="me", composite=composite) == mine  # the older one
    assert store.find_recipe("other", owner="me", composite=composite) is None


# -- servers ------------------------------------------------------------------

def test_a_server_is_saved_again_and_deleted_with_its_directory(store: Any, make: Any) -> None:
    image = make.added(make.saved())
    server = make.running(image)
    directory = store.server_directory(server.id)
    assert directory == make.root / "servers" / server.id
    assert not directory.exists()  # a record comes before it
    directory.mkdir()
    (directory / "console.log").write_text("login:")
    changed = _replaced(server, state="running", pid=5, ports={80: 1, 443: 2})
    store.save_server(changed)
    assert store.servers() == [changed] == [store.server(server.name)]
    store.delete_server(server.id)
    assert store.servers() == [] and not directory.exists()


@pytest.mark.parametrize("name", ["../x", "", ".", "a/b", "-rf", "x" * 65, "a\n"])
def test_a_servers_directory_stays_inside(store: Any, make: Any, name: str) -> None:
    with pytest.raises(exceptions.InvalidInput):
        store.server_directory(name)
    with pytest.raises(exceptions.InvalidInput):
        store.save_server(make.server(make.added(make.saved()), id=name))


def test_a_server_on_a_deleted_disk_is_refused(store: Any, make: Any) -> None:
    image = make.added(make.saved())
    server = make.server(image)
    store.delete_image(image.id)
    with pytest.raises(exceptions.NotFound, match=image.disk):
        store.save_server(server)


def test_a_server_of_a_damaged_store_can_still_be_changed(store: Any, make: Any) -> None:
    server = make.running(make.added(make.saved()))
    make.file(server.disk).unlink()
    store.save_server(_replaced(server, state="stopped"))
    store.delete_server(server.id)


def test_a_servers_disk_stays_for_it(store: Any, make: Any) -> None:
    composite = make.saved()
    image = make.added(composite)
    server = make.running(image, image="", disk=make.object())
    store.delete_image(image.id)
    assert store.is_local(server.disk)
    store.delete_server(server.id)
    assert not store.is_local(server.disk)


# -- history ------------------------------------------------------------------

def test_history_is_newest_first(store: Any) -> None:
    for number in range(5):
        store.record("launch" if number % 2 else "assemble",
                     {"number": number, "parts": ("a", "b"), "cost": 1.5})
    found = store.history()
    assert [fact["number"] for fact in found] == [4, 3, 2, 1, 0]
    assert found[0]["event"] == "assemble" and found[0]["parts"] == ["a", "b"]
    assert time.time() - 60 < found[0]["time"] <= time.time()
    assert [fact["number"] for fact in store.history("launch", limit=1)] == [3]


def test_history_keeps_the_newest(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_REMEMBERED", 3)
    store.record("capture", {"number": -1})
    for number in range(8):
        store.record("launch", {"number": number})
    assert [fact["number"] for fact in store.history()] == [7, 6, 5, -1]


def test_unknown_names(store: Any) -> None:
    for call in (store.part, store.composite, store.image, store.server, store.delete_part,
                 store.delete_composite, store.delete_image, store.delete_server):
        with pytest.raises(exceptions.NotFound, match="named ghost"):
            call("ghost")
    with pytest.raises(exceptions.NotFound):
        store.touch_image("ghost")
