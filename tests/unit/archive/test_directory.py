from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from splitimage_driver import exceptions
from splitimage_driver.archive.tree import DirTree, Limits, open_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir(mode=0o755)
    return made


def test_a_tree_with_everything_a_user_can_make(root: Path) -> None:
    raw = os.fsencode(root)
    (root / "d").mkdir()
    (root / "d").chmod(0o1750)
    (root / "d" / "f").write_bytes(b"data")
    os.utime(root / "d" / "f", ns=(0, 1_000_000_001))
    os.link(root / "d" / "f", root / "a")
    os.symlink(b"/nowhere/\xff", raw + b"/new\nline\xff")
    os.mkfifo(root / "fifo", 0o600)
    (root / "empty").touch(mode=0o600)
    tree = open_tree(root)
    assert isinstance(tree, DirTree)
    found = tree.manifest().by_path
    assert list(found) == [b"", b"a", b"d", b"d/f", b"empty", b"fifo", b"new\nline\xff"]
    assert (found[b"d"].mode, found[b"d"].mtime, found[b"d"].size) == (0o1750, 0, 0)
    assert found[b"d/f"].link == found[b"a"].link == b"a"
    assert found[b"a"].mtime == 1_000_000_001
    assert found[b"a"].sha256 == hashlib.sha256(b"data").digest()
    assert (found[b"new\nline\xff"].target, found[b"new\nline\xff"].mode) == (
        b"/nowhere/\xff", 0o777)
    assert found[b"fifo"].type == "p"
    assert found[b"empty"].sha256 == hashlib.sha256().digest()
    assert found[b""].uid == os.getuid()
    assert [(p, s.read()) for p, s in tree.contents({b"d/f"})] == [(b"a", b"data")]
    assert tree.read([b"d/f", b"d", b"fifo"]) == {b"d/f": b"data"}


def test_sockets_are_left_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # a socket's name is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("s")
        assert [m.entry.path for m in DirTree(root).members()] == [b""]


def test_an_owner_replaces_the_hosts(root: Path) -> None:
    (root / "f").touch()
    assert {(e.uid, e.gid) for e in DirTree(root, (0, 7)).manifest()} == {(0, 7)}


def test_links_are_never_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"x")
    (root / "way").symlink_to(tmp_path / "outside")
    assert [e.path for e in DirTree(root).manifest()] == [b"", b"way"]


def test_a_file_that_becomes_a_link_is_noticed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"data")
    (root / "f").write_bytes(b"data")
    members = DirTree(root).members()
    next(members)
    member = next(members)
    (root / "f").unlink()
    (root / "f").symlink_to(tmp_path / "secret")
    with pytest.raises(exceptions.BadArchive, match="/f"):
        _ = member.content


def test_a_file_that_is_exchanged_is_noticed(root: Path) -> None:
    (root / "f").write_bytes(b"data")
    (root / "other").write_bytes(b"DATA")
    member = [m for m in DirTree(root).members() if m.entry.path == b"f"]
    members = DirTree(root).members()
    next(members)
    [first] = [next(members)]
    os.rename(root / "other", root / "f")
    assert first.entry == member[0].entry
    with pytest.raises(exceptions.BadArchive, match="/f changed"):
        _ = first.content


def test_a_file_that_grows_is_noticed(root: Path) -> None:
    (root / "f").write_bytes(b"data")
    tree = DirTree(root)
    members = tree.members()
    next(members)
    member = next(members)
    with (root / "f").open("ab") as out:
        out.write(b"more")
    with pytest.raises(exceptions.BadArchive, match="8 bytes instead of 4"):
        tree._described(b"f", member)


def test_limits(root: Path) -> None:
    (root / "f").write_bytes(b"12345")
    with pytest.raises(exceptions.TooLarge, match="5 > 4 bytes"):
        DirTree(root).manifest(limits=Limits(bytes=4))
    with pytest.raises(exceptions.TooLarge, match="2 > 1 entries"):
        DirTree(root).manifest(limits=Limits(entries=1))


def test_nesting_without_end_is_one_error(root: Path) -> None:
    place = root
    for _ in range(420):
        place /= "d"
        place.mkdir()
    with pytest.raises(exceptions.BadArchive, match="nested"):
        DirTree(root).manifest()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(exceptions.BadArchive, match="No such file"):
        DirTree(tmp_path / "nowhere").manifest()


@pytest.mark.parametrize("name", ["nowhere", "fifo", "nul\0"])
def test_what_is_no_tree(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(exceptions.BadArchive, match=r"no such file|not a regular file|null"):
        open_tree(tmp_path / name)
