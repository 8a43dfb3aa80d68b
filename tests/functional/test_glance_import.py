"""The import plugin in a real Glance: a gold disk is split by ordinary commands,
and whatever fails leaves nothing but its reason. What is left is counted."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from demo import gold
from tests.functional import smallgold
from tests.functional.command import Command
from tests.functional.smallgold import SPLIT

if TYPE_CHECKING:
    from splitimage_driver.store.glance.api import Description
    from tests.functional.cloud import TestCloud
    from tests.functional.imports import Importer

pytest_plugins = ("tests.functional.cloud", "tests.functional.imports")

imported = pytest.mark.must_show("glance", 1)
survives = pytest.mark.must_show("glance", 3)
hostile = pytest.mark.must_show("glance", 6)


def saved(cloud: TestCloud, image: str, path: Path) -> bytes:
    """By the ordinary client."""
    done = cloud.openstack("alpha", "image", "save", "--file", path, image)
    assert done.status == 0, done.err
    return path.read_bytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def parts(image: Mapping[str, Any]) -> dict[str, list[str]]:
    """Of a composite: id of the image and digest, by name."""
    return {key.removeprefix("splitimage_part_"): value.split() for key, value in image.items()
            if key.startswith("splitimage_part_")}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def is_the_capture(cloud: TestCloud, image: Description, store: Path, tmp_path: Path) -> None:
    """What the client gets is what a capture of the same disk, in a store on this
    host, consists of."""
    objects, manifests = names(store / "objects"), names(store / "manifests")
    assert image["splitimage_os"] in manifests
    for name, (part, digest) in parts(image).items():
        assert digest in manifests, name
        blob = saved(cloud, part, tmp_path / name)
        assert sha256(blob) in objects or blob == bytes(512), name
    base = saved(cloud, image["id"], tmp_path / "base")
    assert hashlib.sha512(base).hexdigest() == image["os_hash_value"]
    shown = cloud.openstack("alpha", "splitimage", "composite", "show", image["name"],
                            "-f", "json").json
    assert (shown["id"], shown["base"]) == (image["id"], sha256(base))


def refused(imports: Importer, image: Description, *words: str) -> None:
    """Told where its owner looks for it; the image is theirs to import again."""
    assert image["status"] == "queued"
    reason = str(image["splitimage_error"])
    assert all(word in reason for word in words), reason
    assert str(imports.cloud.directory) not in reason
    assert len(reason.encode()) <= 255
    assert "splitimage_role" not in image and not parts(image)
    assert image["min_disk"] == 0


# -- it works ---------------------------------------------------------------------------


@imported
@pytest.mark.accept
def test_a_gold_disk_becomes_one_composite(cloud: TestCloud, imports: Importer,
                                           finished_gold: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    local = Command(store)("capture", "small", "--disk", finished_gold, *(
        word for pair in smallgold.PACKAGES.items() for word in ("--software", "=".join(pair))))
    assert local.status == 0, local.err

    def listed(*more: str) -> set[str]:
        return {row["ID"] for row in cloud.openstack(
            "alpha", "image", "list", "-f", "json", *more).json}

    before, hidden, work = listed(), listed("--hidden"), imports.left()
    image = imports.run("small", finished_gold)
    assert image["status"] == "active", image.get("splitimage_error")
    assert listed() - before == {image["id"]}
    assert (image["disk_format"], image["min_disk"]) == ("qcow2", 1)
    assert image["virtual_size"] == smallgold.DISK_SIZE
    assert "splitimage_split" not in image and "splitimage_error" not in image
    assert set(parts(image)) == {"db", "dep.db.web", "php", "small-rest", "web"}
    assert {part for part, _ in parts(image).values()} <= listed("--hidden") - hidden
    is_the_capture(cloud, image, store, tmp_path)
    after = imports.left()
    assert (after.staged, after.work) == (work.staged, work.work)


@imported
@pytest.mark.accept
def test_the_demonstrations_machine(cloud: TestCloud, imports: Importer, tmp_path: Path) -> None:
    disk = gold.machine()["php"]
    software = {step.name: ",".join(step.packages) for step in gold.LAMP}
    store = tmp_path / "store"
    local = Command(store)("capture", "lamp", "--disk", disk, *(
        word for pair in software.items() for word in ("--software", "=".join(pair))),
        timeout=1800)
    assert local.status == 0, local.err
    image = imports.run("lamp", disk, splitimage_split=" ".join(
        map("=".join, software.items())))
    assert image["status"] == "active", image.get("splitimage_error")
    assert set(software) <= set(parts(image))
    is_the_capture(cloud, image, store, tmp_path)


@imported
@pytest.mark.accept
def test_any_other_image_passes_untouched(cloud: TestCloud, imports: Importer,
                                          tmp_path: Path) -> None:
    content = os.urandom(1 << 20)
    (tmp_path / "disk").write_bytes(content)
    image = imports.end(imports.begin("plain", tmp_path / "disk", disk_format="raw",
                                      hw_disk_bus="scsi"))
    assert (image["status"], image["hw_disk_bus"]) == ("active", "scsi")
    assert not [name for name in image if name.startswith("splitimage_")]
    assert saved(cloud, image["id"], tmp_path / "saved") == content


@pytest.mark.accept
@imported
def test_two_at_once_share_their_parts_and_others_go_on_meanwhile(
        cloud: TestCloud, imports: Importer, finished_gold: Path, tmp_path: Path) -> None:
    first = imports.begin("first", finished_gold, splitimage_split=SPLIT)
    second = imports.begin("second", finished_gold, splitimage_split=SPLIT)
    (tmp_path / "disk").write_bytes(b"x" * 5000)
    plain = imports.end(imports.begin("plain", tmp_path / "disk", disk_format="raw"))
    assert saved(cloud, plain["id"], tmp_path / "saved") == b"x" * 5000
    # The second one waits for the first; the third one waited for neither.
    assert imports.images.get(second)["status"] == "importing"
    done = [imports.end(first), imports.end(second)]
    assert [image["status"] for image in done] == ["active", "active"]
    one, other = map(parts, done)
    del one["first-rest"], other["second-rest"]
    assert one == other
    imports.images.delete(first)
    assert sha256(saved(cloud, other["web"][0], tmp_path / "web"))
    assert "splitimage" in cloud.openstack("alpha", "image", "show", second).out


@pytest.mark.accept
@pytest.mark.must_show("glance", 2)
def test_parts_are_seen_by_whoever_sees_the_composite(cloud: TestCloud, imports: Importer,
                                                      finished_gold: Path) -> None:
    imports.project = "admin"
    try:
        image = imports.run("offered", finished_gold, "--public")
        assert (image["status"], image["visibility"]) == ("active", "public")
        for part, _ in parts(image).values():
            assert cloud.beta.image.get_image(part).visibility == "public"
    finally:
        imports.remove()


# -- it fails ---------------------------------------------------------------------------


@imported
@hostile
def test_an_order_that_cannot_be_read(imports: Importer, finished_gold: Path) -> None:
    image = imports.begin("small", finished_gold, splitimage_split="web webd")
    before = imports.left()
    failed = imports.end(image)
    refused(imports, failed, "'web' is not of the form NAME=PACKAGE,PACKAGE")
    assert failed["splitimage_split"] == "web webd"
    assert imports.told(image) == failed["splitimage_error"]
    after = imports.left()
    assert after.images == before.images
    assert (after.staged, after.work) == (frozenset(), frozenset())


def bad_disks(folder: Path, finished: Path) -> dict[str, tuple[Path, str]]:
    """By what is told of them, with their format."""
    backed, raw = folder / "backed.qcow2", folder / "empty.raw"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd",
                    backed, "64M"], check=True)
    raw.write_bytes(bytes(1 << 20))
    cut = folder / "cut.qcow2"
    cut.write_bytes(finished.read_bytes()[:-(400 << 10)])
    return {"it has a backing file": (backed, "qcow2"),
            "it has neither a partition table nor a file system": (raw, "raw"),
            "it is cut off": (cut, "qcow2"),
            "the disk is qcow2, not raw": (finished, "raw"),
            "no operating system found in the gold disk": (smallgold.empty_disk(folder), "raw")}


@pytest.mark.accept
@hostile
@survives
def test_disks_that_are_refused(imports: Importer, finished_gold: Path, tmp_path: Path) -> None:
    before = imports.left()
    for reason, (disk, form) in bad_disks(tmp_path, finished_gold).items():
        image = imports.end(imports.begin("small", disk, disk_format=form,
                                          splitimage_split=SPLIT))
        refused(imports, image, reason)
        assert imports.told(image["id"]) == image["splitimage_error"]
        assert image["disk_format"] == form
        imports.images.delete(image["id"])
        assert imports.left() == before


@pytest.mark.accept
@hostile
@pytest.mark.parametrize(("said", "reason"), [
    ({"splitimage_split": "web=webd\n../../x=webd"}, "'../../x=webd' is not of the form"),
    ({"splitimage_split": "web=" + "x" * 254}, "more than 255 bytes"),
    ({"splitimage_part_web": "00000000-0000-0000-0000-000000000000 " + "0" * 64},
     "property splitimage_part_web"),
    ({"splitimage_role": "composite"}, "property splitimage_role"),
    ({"splitimage_split_1": "web=webd", "splitimage_split_9": "x=y"}, "goes on in"),
])
def test_properties_that_are_refused(imports: Importer, finished_gold: Path,
                                     said: dict[str, str], reason: str) -> None:
    image = imports.run("small", finished_gold, **said)
    assert (image["status"], reason in image["splitimage_error"]) == ("queued", True)
    imports.images.delete(image["id"])
    after = imports.left()
    assert (after.staged, after.work) == (frozenset(), frozenset())


@pytest.mark.accept
@imported
@survives
def test_what_failed_is_imported_again_when_it_is_put_right(
        cloud: TestCloud, imports: Importer, finished_gold: Path) -> None:
    image = imports.run("small", finished_gold, splitimage_split="web=apache2")["id"]
    refused(imports, imports.images.get(image), "no package named apache2")
    for words in (("set", "--property", "splitimage_split=web=webd", image),
                  ("stage", "--file", finished_gold, image),
                  ("import", "--method", "glance-direct", image)):
        done = cloud.openstack("alpha", "image", *words)
        assert done.status == 0, done.err
    found = imports.end(image)
    assert found["status"] == "active", found.get("splitimage_error")
    assert "web" in parts(found) and "splitimage_error" not in found
    again = imports.run("small", finished_gold)
    refused(imports, again, "a composite named small exists already")


# -- there is no room -------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def fails(imports: Importer, disk: Path, *words: str) -> None:
    """And leaves nothing."""
    before = imports.left()
    image = imports.run("small", disk)
    refused(imports, image, *words)
    assert imports.told(image["id"]) == image["splitimage_error"]
    imports.images.delete(image["id"])
    assert imports.left() == before


@pytest.mark.accept
@survives
@pytest.mark.parametrize("room", [20_000, 500_000], ids=["for some parts", "for all but the base"])
def test_a_quota_without_room(cloud: TestCloud, imports: Importer, finished_gold: Path,
                              room: int) -> None:
    used = sum(int(each.get("size") or 0) for each in imports.images.list(hidden=None)
               if each["owner"] == imports.images.project)
    with cloud.configured({"glance-api.conf": {"DEFAULT": {
            "user_storage_quota": f"{used + room}B"}}}):
        fails(imports, finished_gold, "quota")


@pytest.mark.accept
@survives
@pytest.mark.parametrize("size", ["32k", "400k"], ids=["for some parts", "for all but the base"])
def test_a_store_without_room(cloud: TestCloud, imports: Importer, finished_gold: Path,
                              tmp_path: Path, size: str) -> None:
    with (small_disk(tmp_path / "full", size) as place,
          cloud.configured({"glance-api.conf": {"fast": {
              "filesystem_store_datadir": str(place)}}})):
        fails(imports, finished_gold, "not enough disk space")
        assert list(place.iterdir()) == []


@pytest.mark.accept
@survives
def test_a_host_without_room(cloud: TestCloud, imports: Importer, finished_gold: Path,
                             tmp_path: Path) -> None:
    with (small_disk(tmp_path / "full", "2m") as place,
          cloud.configured({"splitimage.conf": {
              "split": {"directory": str(place / "splitting")},
              "store": {"minimum_free": "0"}}})):
        fails(imports, finished_gold, "no room in the store of the image service")
        assert list((place / "splitting" / "tmp").iterdir()) == []


# -- it is cut off ------------------------------------------------------------------------


MOMENTS = {
    "while it is split": lambda imports, image: any(imports.work.glob("*/gold/splitimage.db")),
    "while parts are stored": lambda imports, image: len(imports.stored_for(image)) >= 2,
    # It is in the staging area; soon after the image is active.
    "while the base is": lambda imports, image: imports.images.get(image)["min_disk"],
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.accept
@survives
def test_glance_is_killed(cloud: TestCloud, imports: Importer, finished_gold: Path,
                          moment: str) -> None:
    before = imports.left()
    stuck = imports.begin("small", finished_gold, splitimage_split=SPLIT)
    imports.until(lambda: MOMENTS[moment](imports, stuck), 0.02)
    cloud.kill("glance")
    cloud.up()
    assert imports.images.get(stuck)["status"] == "importing"
    assert imports.left().work == frozenset()
    assert composites(cloud) == []
    done = cloud.openstack("alpha", "image", "delete", stuck)
    assert done.status == 0, done.err
    assert imports.left() == before


@pytest.mark.accept
@survives
def test_the_retry_is_a_new_image(cloud: TestCloud, imports: Importer, finished_gold: Path,
                                  tmp_path: Path) -> None:
    before = imports.left()
    stuck = imports.begin("small", finished_gold, splitimage_split=SPLIT)
    imports.until(lambda: len(imports.stored_for(stuck)) >= 2)
    cloud.kill("glance")
    cloud.up()
    again = imports.run("small", finished_gold)
    assert again["status"] == "active", again.get("splitimage_error")
    imports.images.delete(stuck)
    assert [row["id"] for row in composites(cloud)] == [again["id"]]
    for part, _ in parts(again).values():
        assert saved(cloud, part, tmp_path / part)
    imports.remove()
    assert imports.left() == before


@pytest.mark.accept
@survives
def test_its_owner_deletes_it_meanwhile(cloud: TestCloud, imports: Importer,
                                        finished_gold: Path) -> None:
    before = imports.left()
    image = imports.begin("small", finished_gold, splitimage_split=SPLIT)
    imports.until(lambda: any(imports.work.glob("*/gold/splitimage.db")))
    done = cloud.openstack("alpha", "image", "delete", image)
    assert done.status == 0, done.err
    imports.until(lambda: not imports.left().work)
    imports.until(lambda: imports.left() == before)


def composites(cloud: TestCloud) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cloud.openstack(
        "alpha", "splitimage", "composite", "list", "-f", "json").json
    return found
