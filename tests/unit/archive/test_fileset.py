from __future__ import annotations

import pytest

from splitimage_driver import exceptions
from splitimage_driver.archive import fileset
from splitimage_driver.archive.tree import Limits
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.manifest import Manifest

from .helpers import file

CAPABLE = ((b"security.capability", b"\1\0\0\2" + bytes(16)),)


def test_an_ordinary_set_passes() -> None:
    fileset.check("set", Manifest([
        FileEntry(b"", "d", 0o755), FileEntry(b"srv", "d", 0o2775),
        FileEntry(b"tmp", "d", 0o1777), file(b"srv/index.php", b"<?php"),
        FileEntry(b"srv/link", "l", 0o777, target=b"/etc/passwd"), FileEntry(b"p", "p", 0o600)]))


@pytest.mark.parametrize(("entry", "what"), [
    (file(b"x", mode=0o4755), "set-uid"), (file(b"x", mode=0o2755), "set-gid"),
    (file(b"x", mode=0o6755), "set-uid"), (file(b"x", xattrs=CAPABLE), "capabilities")])
def test_privileges_need_an_administrators_word(entry: FileEntry, what: str) -> None:
    with pytest.raises(exceptions.UnsafeMode, match=f"set: /x is a .*{what}"):
        fileset.check("set", Manifest([entry]))
    fileset.check("set", Manifest([entry]), allow_setuid=True)


@pytest.mark.parametrize("kind", ["c", "b"])
def test_device_nodes_are_always_refused(kind: str) -> None:
    with pytest.raises(exceptions.UnsafeMode, match="device node"):
        fileset.check("set", Manifest([FileEntry(b"sda", kind, 0o600, device=(8, 0))]),
                      allow_setuid=True)


def test_no_way_through_a_link_of_its_own() -> None:
    with pytest.raises(exceptions.UnsafePath, match=r"/way/in .*below /way"):
        fileset.check("set", Manifest([FileEntry(b"way", "l", 0o777, target=b"/etc"),
                                       file(b"way/in")]))


def test_the_blobs_own_directory_is_reserved() -> None:
    with pytest.raises(exceptions.UnsafePath, match="reserved"):
        fileset.check("set", Manifest([file(b".splitimage/sha256/00")]))
    fileset.check("set", Manifest([file(b".splitimages"), file(b"home/.splitimage")]))


def test_limits_name_their_option() -> None:
    manifest = Manifest([file(b"a", b"12"), file(b"b", b"34")])
    fileset.check("set", manifest, limits=Limits(entries=2, bytes=4))
    with pytest.raises(exceptions.TooLarge) as caught:
        fileset.check("set", manifest, limits=Limits(bytes=3))
    assert "max_fileset_bytes" in caught.value.advice
    with pytest.raises(exceptions.TooLarge, match="entries"):
        fileset.check("set", manifest, limits=Limits(entries=1))
