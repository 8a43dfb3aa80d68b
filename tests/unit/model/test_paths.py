from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.model import paths
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.paths import Resolver


def tree(*members: bytes | tuple[bytes, bytes]) -> Manifest:
    """Directories by name, symbolic links as (name, target)."""
    return Manifest(FileEntry(m, "d", 0o755) if isinstance(m, bytes)
                    else FileEntry(m[0], "l", 0o777, target=m[1]) for m in members)


DEBIAN = tree(b"usr", b"usr/bin", b"usr/lib", b"run", b"run/lock", b"var",
              (b"bin", b"usr/bin"), (b"lib", b"usr/lib"), (b"lib64", b"/usr/lib64/"),
              (b"var/run", b"/run"), (b"var/lock", b"/run/lock"), (b"usr/tmp", b"../var/tmp"),
              (b"usr/lib/up", b"../../../../bin"), (b"etc/mtab", b"../proc/self/mounts"))


@pytest.mark.parametrize(("path", "real"), [
    (b"", b""), (b"bin", b"bin"), (b"bin/ls", b"usr/bin/ls"), (b"/bin//ls", b"usr/bin/ls"),
    (b"usr/bin/ls", b"usr/bin/ls"), (b"lib64/ld.so", b"usr/lib64/ld.so"),
    (b"lib/systemd/system/x", b"usr/lib/systemd/system/x"),
    (b"var/run", b"var/run"), (b"var/run/x", b"run/x"), (b"var/lock/a/b", b"run/lock/a/b"),
    (b"usr/tmp/x", b"var/tmp/x"), (b"bin/.", b"usr/bin"), (b"bin/..", b"usr"),
    (b"bin/../share", b"usr/share"), (b"../../etc", b"etc"),
    (b"usr/lib/up/ls", b"usr/bin/ls"), (b"no/such/place", b"no/such/place")])
def test_real_places(path: bytes, real: bytes) -> None:
    assert Resolver(DEBIAN)(path) == real


def test_directories_are_followed_themselves() -> None:
    resolver = Resolver(DEBIAN)
    assert resolver.directory(b"bin") == b"usr/bin"
    assert resolver.directory(b"var/run") == b"run"
    assert resolver.directory(b"") == b""


def test_targets() -> None:
    resolver = Resolver(DEBIAN)
    links = DEBIAN.by_path
    assert resolver.target(links[b"etc/mtab"]) == b"proc/self/mounts"
    assert resolver.target(links[b"var/lock"]) == b"run/lock"
    # the target's own last component is not followed
    assert resolver.target(FileEntry(b"usr/bin/sh", "l", 0o777, target=b"/bin/dash")) == (
        b"usr/bin/dash")


@pytest.mark.parametrize("members", [
    [(b"a", b"a")], [(b"a", b"b"), (b"b", b"a")], [(b"a", b"a/x")], [(b"a", b"./../a/b/..")]])
def test_circles_are_one_error(members: list[tuple[bytes, bytes]]) -> None:
    resolver = Resolver(tree(*members))
    assert resolver(b"a") == b"a"
    with pytest.raises(exceptions.InvalidInput, match="circle"):
        resolver(b"a/file")


def test_chains_of_links() -> None:
    chain = [(b"l%d" % n, b"l%d" % (n + 1)) for n in range(30)]
    assert Resolver(tree(b"l30", *chain))(b"l0/x") == b"l30/x"


def test_links_that_would_multiply_are_resolved_once() -> None:
    members = [(b"l0", b"d"), *((b"l%d" % n, b"l%d/../l%d" % (n - 1, n - 1))
                                for n in range(1, 15))]
    assert Resolver(tree(b"d", *members))(b"l14/x") == b"d/x"


def test_deep_directories_are_no_circle() -> None:
    deep = b"d/" * 2000 + b"f"
    assert Resolver(tree())(deep) == deep


@given(st.lists(st.sampled_from([b"bin", b"usr", b"lib", b"..", b".", b"x", b"var", b"run", b"up",
                                 b"tmp"]), max_size=8).map(b"/".join))
def test_resolution_stays_inside_and_is_final(path: bytes) -> None:
    resolver = Resolver(DEBIAN)
    real = resolver(path)
    assert not real.startswith(b"/")
    assert b".." not in real.split(b"/")
    assert resolver(real) == real


@pytest.mark.parametrize(("raw", "clean"), [
    (b"a/b", b"a/b"), (b"./a", b"a"), (b"a//b/", b"a/b"), (b".", b""), (b"./", b""), (b"", b""),
    (b"a/./b", b"a/b"), (b"..a/b..", b"..a/b.."), (b"\xff\n", b"\xff\n")])
def test_clean_members(raw: bytes, clean: bytes) -> None:
    assert paths.clean_member("set.tar", raw) == clean


@pytest.mark.parametrize("raw", [b"/etc/passwd", b"/", b"..", b"a/../b", b"../a", b"a/..", b"//a"])
def test_members_out_of_the_tree(raw: bytes) -> None:
    with pytest.raises(exceptions.UnsafePath, match=r"set\.tar"):
        paths.clean_member("set.tar", raw)


@given(st.binary(max_size=30))
def test_a_clean_member_is_relative_and_plain(raw: bytes) -> None:
    try:
        clean = paths.clean_member("set", raw)
    except exceptions.UnsafePath:
        return
    assert not set(clean.split(b"/")) & {b".", b".."}
    assert clean == clean.strip(b"/")
    assert paths.clean_member("set", clean) == clean


def test_members_below_what_is_no_directory_escape() -> None:
    plain = tree(b"a", b"a/b", (b"a/l", b"/etc"))
    paths.refuse_escapes("set", plain)
    for below in (b"a/l/x", b"a/l/deep/er"):
        with pytest.raises(exceptions.UnsafePath, match="/a/l, which is not a directory"):
            paths.refuse_escapes("set", [*plain, FileEntry(below, "f", 0o644)])
    with pytest.raises(exceptions.UnsafePath):
        paths.refuse_escapes("set", [FileEntry(b"f", "f", 0o644), FileEntry(b"f/x", "d", 0o755)])
