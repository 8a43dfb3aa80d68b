from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.store import objects


def test_an_object_is_named_by_its_content_and_read_only(store: Any, make: Any) -> None:
    digest = make.object(b"disk")
    assert digest == hashlib.sha256(b"disk").hexdigest()
    path = store.path(digest)
    assert path == make.root / "objects" / digest[:2] / digest
    assert path.read_bytes() == b"disk"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert store.is_local(digest)
    store.verify(digest)


def test_directories_are_for_their_user_only(store: Any, make: Any) -> None:
    make.object()
    store.put_manifest(make.tree())
    directories = [make.root, *(path for path in make.root.rglob("*") if path.is_dir())]
    assert len(directories) > 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in directories} == {0o700}
    assert stat.S_IMODE((make.root / "splitimage.db").stat().st_mode) == 0o600


def test_adopting_again_keeps_the_first_file(store: Any, make: Any) -> None:
    digest = make.object(b"disk")
    inode = store.path(digest).stat().st_ino
    make.age(store.path(digest), 1000)
    before = store.path(digest).stat().st_mtime
    assert make.object(b"disk") == digest
    assert store.path(digest).stat().st_ino == inode
    assert store.path(digest).stat().st_mtime > before + 900


def test_a_truncated_object_is_replaced_when_it_comes_again(store: Any, make: Any) -> None:
    digest = make.object(b"a whole disk")
    store.path(digest).chmod(0o600)
    store.path(digest).write_bytes(b"a who")
    assert make.object(b"a whole disk") == digest
    store.verify(digest)


def test_a_sparse_file_is_hashed_as_it_reads(store: Any) -> None:
    with store.scratch() as folder:
        file = folder / "disk"
        with open(file, "wb") as stream:
            stream.truncate(3 * 2**20)
            stream.seek(2**20)
            stream.write(b"data")
        expected = hashlib.sha256(file.read_bytes()).hexdigest()
        assert store.adopt(file) == expected
        assert not file.exists()
    assert store.path(expected).stat().st_blocks * 512 < 2**20


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "absent"])
def test_only_plain_files_are_adopted(store: Any, kind: str) -> None:
    with store.scratch() as folder:
        path = folder / "x"
        if kind == "link":
            path.symlink_to("/etc/passwd")
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        with pytest.raises(exceptions.InvalidInput, match=str(path)):
            store.adopt(path)


@pytest.mark.parametrize("digest", ["0" * 64, "", "../../etc/passwd", "A" * 64, "0" * 64 + "\n"])
def test_what_is_not_there_is_not_found(store: Any, digest: str) -> None:
    assert not store.is_local(digest)
    for call in (store.path, store.verify, store.manifest, store.part_manifest):
        with pytest.raises(exceptions.NotFound):
            call(digest)


def test_a_changed_object_does_not_verify(store: Any, make: Any) -> None:
    digest = make.object(b"disk")
    store.path(digest).chmod(0o600)
    store.path(digest).write_bytes(b"disc")
    with pytest.raises(exceptions.DigestMismatch, match=digest):
        store.verify(digest)


def test_a_manifest_comes_back_as_it_was(store: Any, make: Any) -> None:
    tree = make.tree()
    digest = store.put_manifest(tree)
    assert digest == tree.digest
    assert store.manifest(digest) == tree
    assert store.put_manifest(tree) == digest
    store.verify(digest)
    part = make.part(manifest=(layers := make.part_manifest()))
    assert store.part_manifest(part.id).layers == layers.layers


@pytest.mark.parametrize("content", [b"", b"not zstd", objects.pack(b"something else"),
                                     b"\x28\xb5\x2f\xfd\xc0\x00" + b"\xff" * 12])
def test_a_damaged_manifest_is_refused_and_replaced(store: Any, make: Any,
                                                    content: bytes) -> None:
    tree = make.tree()
    digest = store.put_manifest(tree)
    file = make.file(digest, "manifests")
    file.chmod(0o600)
    file.write_bytes(content)
    with pytest.raises(exceptions.DigestMismatch):
        store.manifest(digest)
    assert store.put_manifest(tree) == digest
    assert store.manifest(digest) == tree


def test_a_part_whose_manifest_is_another_is_refused(make: Any) -> None:
    import msgspec
    part, other = make.part(), make.part_manifest()
    with pytest.raises(exceptions.DigestMismatch, match=other.digest):
        make.store.add_part(msgspec.structs.replace(part, name="x"), other)


@given(data=st.binary(max_size=2000))
@settings(max_examples=50)
def test_pack_and_unpack_are_inverse(data: bytes, tmp_path_factory: Any) -> None:
    file = tmp_path_factory.mktemp("pack") / "packed"
    file.write_bytes(objects.pack(data))
    digest = hashlib.sha256(data).hexdigest()
    assert objects.unpack(file, digest) == data
    with pytest.raises(exceptions.DigestMismatch):
        objects.unpack(file, "0" * 64)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "rename", "utime"])
def test_no_room_while_adopting_is_a_full_store(
        store: Any, make: Any, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with store.scratch() as folder:
        file = folder / "file"
        file.write_bytes(b"disk")
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(exceptions.StoreFull, match=str(make.root)):
                store.adopt(file)
    assert make.object(b"disk") == hashlib.sha256(b"disk").hexdigest()


def test_scratch_needs_the_minimum_free(open_local: Any) -> None:
    store = open_local(minimum_free=2**62)
    with pytest.raises(exceptions.StoreFull) as caught, store.scratch():
        pass
    assert caught.value.fields["needed"] == 2**62
    assert 0 < caught.value.fields["available"] < 2**62
    with pytest.raises(exceptions.StoreFull):
        store.put_manifest(Manifest())


def test_writing_into_a_full_scratch_is_a_full_store(store: Any) -> None:
    with (pytest.raises(exceptions.StoreFull), store.scratch() as folder,
          open("/dev/full", "wb", buffering=0) as stream):
        stream.write(b"x")
    assert not folder.exists()
    with pytest.raises(OSError, match="elsewhere"), store.scratch():
        raise OSError(errno.ENOSPC, "no room", "/elsewhere/file")


def test_held_objects_outlive_their_records(store: Any, make: Any) -> None:
    image = make.added(make.saved())
    with store.hold([image.disk, ""]):
        store.delete_image(image.id)
        assert store.is_local(image.disk)
    assert not store.is_local(image.disk)
    with pytest.raises(exceptions.NotFound), store.hold([image.disk]):
        pass


def test_an_adopted_object_outlives_the_records_of_others(
        store: Any, make: Any, open_local: Any, maker: Any) -> None:
    composite = make.saved()
    image = make.added(composite, disk=make.object(b"same"))
    other = maker(open_local())
    assert other.object(b"same") == image.disk  # not yet recorded
    store.delete_image(image.id)
    assert store.is_local(image.disk)
    again = other.added(composite, disk=image.disk)
    store.delete_image(again.id)
    assert not store.is_local(image.disk)


def test_the_lease_of_a_dead_session_counts_for_nothing(store: Any, make: Any) -> None:
    image = make.added(make.saved())
    make.sql("INSERT INTO leases (reason, target, digest, session)"
             " VALUES ('adopted', 'object', ?, 'dead')", image.disk)
    store.delete_image(image.id)
    assert not store.is_local(image.disk)


def test_what_is_in_no_record_goes_when_its_store_is_closed(
        open_local: Any, maker: Any) -> None:
    store, other = open_local(), open_local()
    make = maker(store)
    recorded = make.part()
    digest, tree = make.object(), store.put_manifest(make.tree())
    shared = make.object(b"same")
    assert maker(other).object(b"same") == shared
    store.close()
    assert other.is_local(recorded.blob) and other.is_local(shared)
    assert not other.is_local(digest)
    with pytest.raises(exceptions.NotFound):
        other.manifest(tree)
    other.close()
    assert not make.file(shared).exists() and make.file(recorded.blob).exists()


@pytest.mark.parametrize("reason", ["adopted", "dropped"])
def test_what_a_dead_session_left_goes_at_the_next_start(
        store: Any, make: Any, open_local: Any, reason: str) -> None:
    image, digest = make.added(make.saved()), make.object()
    make.sql("UPDATE leases SET session = 'dead', reason = ?", reason)
    for one in (digest, image.disk):
        make.sql("INSERT INTO leases (reason, target, digest, session)"
                 " VALUES (?, 'object', ?, 'dead')", reason, one)
    again = open_local()
    assert not again.is_local(digest) and again.is_local(image.disk)
    assert make.sql("SELECT count(*) FROM leases") == [(0,)]
