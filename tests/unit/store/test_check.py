from __future__ import annotations

import os
from typing import Any

import pytest

from splitimage_driver import progress
from splitimage_driver.model.part import FILESET, RESTORE
from splitimage_driver.store import objects

OLD = 10_000


def _seen(store: Any, repair: bool = False) -> set[tuple[str, bool]]:
    return {(finding.kind, finding.repaired) for finding in store.check(repair=repair)}


@pytest.fixture
def full(store: Any, make: Any) -> Any:
    """A store with one of everything."""
    composite = make.saved("lamp", make.part(), restore=make.part("r", kind=RESTORE).id)
    image = make.added(composite, filesets=(make.part("pages", kind=FILESET).id,))
    server = make.running(image)
    store.server_directory(server.id).mkdir()
    return store


def _damage(make: Any, digest: str, where: str = "objects", content: bytes = b"bad") -> None:
    file = make.file(digest, where)
    file.chmod(0o600)
    file.write_bytes(content)
    make.age(file, OLD)


def test_a_whole_store_has_no_findings(full: Any) -> None:
    assert list(full.check()) == []
    assert list(full.check(repair=True)) == []
    assert full.images() and full.servers()


def test_progress_counts_bytes(full: Any, make: Any) -> None:
    events: list[progress.Event] = []
    with progress.listening(events.append):
        list(full.check())
    size = sum(path.stat().st_size for where in ("objects", "manifests")
               for path in (make.root / where).rglob("*") if path.is_file())
    assert events[-1].operation == "check" and events[-1].unit == "bytes"
    assert events[-1].current == events[-1].total == size


@pytest.mark.parametrize("content", [b"bad", b""])
def test_a_damaged_object_is_told_and_stays(full: Any, make: Any, content: bytes) -> None:
    image = full.images()[0]
    _damage(make, image.disk, content=content)
    found = list(full.check(repair=True))
    assert [(f.kind, f.repaired, f.harmless) for f in found] == [("damaged", False, False)]
    assert image.disk in found[0].subject
    assert full.is_local(image.disk)


@pytest.mark.parametrize("content", [b"bad", objects.pack(b"bad"), objects.pack(b"")])
def test_a_damaged_manifest_is_told(full: Any, make: Any, content: bytes) -> None:
    image = full.images()[0]
    _damage(make, image.manifest, "manifests", content)
    assert _seen(full, repair=True) == {("damaged", False)}


def test_a_manifest_that_is_none_is_told(full: Any, make: Any) -> None:
    import hashlib
    digest = hashlib.sha256(b"no manifest").hexdigest()
    full._contents.put(b"no manifest", digest)
    make.sql("INSERT INTO uses VALUES ('image', ?, 'default', 'manifest', ?)",
             full.images()[0].id, digest)
    found = list(full.check())
    assert [f.kind for f in found] == ["damaged"]
    assert "manifest" in found[0].detail


def test_missing_objects_and_parts_are_told_with_who_needs_them(full: Any, make: Any) -> None:
    image = full.images()[0]
    make.file(image.disk).unlink()
    make.file(image.manifest, "manifests").unlink()
    make.sql("DELETE FROM parts WHERE name = 'apache'")
    found = list(full.check(repair=True))
    missing = {(f.subject, f.detail.split()[2]) for f in found if f.kind == "missing"}
    assert missing == {(f"image {image.name}", "object"), (f"image {image.name}", "manifest"),
                       (f"server {full.servers()[0].name}", "object"),
                       ("composite lamp", "part")}
    assert len(found) == 4 and not any(f.harmless for f in found)


def test_records_that_cannot_be_read_are_told(full: Any, make: Any) -> None:
    make.sql("UPDATE images SET document = x'00'")
    make.sql("DELETE FROM uses WHERE kind = 'composite' AND target = 'part'")
    found = list(full.check(repair=True))
    assert {f.kind for f in found} == {"damaged"}
    assert sorted(f.subject.split()[0] for f in found) == ["composite", "composite", "image"]


def test_broken_relations_are_told_and_nothing_else_is_done(full: Any, make: Any) -> None:
    orphan = make.object()
    make.age(make.file(orphan), OLD)
    make.sql("DELETE FROM leases")
    make.sql("DELETE FROM composites")
    found = list(full.check(repair=True))
    assert [f.kind for f in found] == ["damaged"] and "composites" in found[0].detail
    assert full.is_local(orphan)


def test_unreferenced_objects_go_when_they_are_old(full: Any, make: Any) -> None:
    digest, tree = make.object(), full.put_manifest(make.tree())
    files = [make.file(digest), make.file(tree, "manifests")]
    for file in files:
        make.age(file, OLD)
    assert list(full.check(repair=True)) == []  # this process may still record them
    make.sql("DELETE FROM leases")
    assert _seen(full) == {("unreferenced", False)}
    for file in files:
        make.age(file, -OLD)
    found = list(full.check(repair=True))
    assert [(f.kind, f.repaired) for f in found] == [("unreferenced", False)] * 2
    assert "left alone for 3600 s" in found[0].detail
    for file in files:
        make.age(file, OLD)
    assert _seen(full, repair=True) == {("unreferenced", True)}
    assert not any(file.exists() for file in files)
    assert list(full.check()) == []


def test_a_damaged_object_that_nothing_needs_goes(full: Any, make: Any) -> None:
    digest = make.object()
    make.sql("DELETE FROM leases")
    _damage(make, digest)
    assert _seen(full, repair=True) == {("unreferenced", True)}
    assert not full.is_local(digest)


def test_leftovers_go(full: Any, make: Any) -> None:
    places = [make.root / "objects" / "stray", make.root / "objects" / "ab" / ("0" * 64),
              make.root / "manifests" / "x.tmp"]
    for place in places:
        place.parent.mkdir(exist_ok=True)
        place.write_text("x")
    (make.root / "servers" / "gone").mkdir()
    (make.root / "servers" / "gone" / "console.log").touch()
    (make.root / "tmp" / "dead").mkdir()
    assert len(list(full.check())) == 5
    found = list(full.check(repair=True))
    assert {(f.subject, f.repaired) for f in found} == {
        ("objects/stray", False), ("objects/ab/" + "0" * 64, False), ("manifests/x.tmp", False),
        ("servers/gone", False), ("tmp/dead", True)}
    for place in (*places, make.root / "servers" / "gone"):
        make.age(place, OLD)
    assert _seen(full, repair=True) == {("leftover", True)}
    assert list(full.check()) == []
    assert os.listdir(make.root / "servers") == [full.servers()[0].id]


def test_links_in_the_objects_directory_are_not_followed(full: Any, make: Any) -> None:
    target = make.root.parent / "elsewhere"
    target.write_text("x")
    link = make.root / "objects" / "ab" / ("ab" + "0" * 62)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target)
    os.utime(link, (1, 1), follow_symlinks=False)
    assert _seen(full, repair=True) == {("leftover", True)}
    assert target.read_text() == "x" and not link.is_symlink()
