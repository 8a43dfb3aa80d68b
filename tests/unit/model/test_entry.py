from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver.model import entry
from splitimage_driver.model.entry import FileEntry

PLAIN = FileEntry(b"etc/motd", "f", 0o644, size=3, mtime=5, sha256=b"x" * 32)


@pytest.mark.parametrize(("field", "value"), [
    ("mode", 0o600), ("uid", 1), ("gid", 1), ("size", 4), ("sha256", b"y" * 32), ("type", "p"),
    ("target", b"t"), ("link", b"a"), ("device", (1, 3)), ("xattrs", ((b"user.x", b"1"),))])
def test_parts_disagree_about_everything_but_time_and_holes(field: str, value: object) -> None:
    assert not PLAIN.same(msgspec.structs.replace(PLAIN, **{field: value}))


def test_time_and_holes_are_no_disagreement() -> None:
    other = msgspec.structs.replace(PLAIN, mtime=9, sparse=((1, 2),))
    assert PLAIN.same(other)
    assert other != PLAIN
    assert not PLAIN.same(None)


def test_kinds() -> None:
    assert PLAIN.is_file
    assert not PLAIN.is_dir
    assert FileEntry(b"d", "d", 0o755).is_dir


@pytest.mark.parametrize(("path", "shown"), [
    (b"", "/"), (b"etc/motd", "/etc/motd"), ("größe".encode(), "/größe"),
    (b"a\nb\x1b[31m", r"/a\nb\x1b[31m"), (b"\xff", r"/\xff"),
    ("right-to-left \u202e".encode(), r"/right-to-left \u202e")])
def test_paths_for_people_hold_nothing_that_a_terminal_obeys(path: bytes, shown: str) -> None:
    assert entry.text(path) == shown


@given(st.binary(max_size=30))
def test_any_path_can_be_shown(path: bytes) -> None:
    assert entry.text(path).isprintable()


def test_the_pieces_of_a_path() -> None:
    assert entry.parents(b"a/b/c") == [b"a", b"a/b"]
    assert entry.parents(b"a") == []
    assert entry.directories([b"a/b/c", b"a/b/d", b"e", b"f/g"]) == {b"a", b"a/b", b"f"}
    assert entry.directories([]) == entry.directories([b"e"]) == set()
    assert (entry.parent(b"a/b/c"), entry.parent(b"a")) == (b"a/b", b"")
    assert (entry.name(b"a/b"), entry.name(b"a")) == (b"b", b"a")
