from __future__ import annotations

import hashlib
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.manifest import MAGIC, Manifest

_bytes = st.binary(max_size=40)
_pair = st.tuples(st.integers(0, 2**62), st.integers(0, 2**62))
entries = st.builds(
    FileEntry, path=_bytes, type=st.sampled_from("fdlcbp"), mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32), gid=st.integers(0, 2**32), size=st.integers(0, 2**63),
    mtime=st.integers(-2**63, 2**63), sha256=st.sampled_from([b"", b"x" * 32]), target=_bytes,
    link=_bytes, device=st.none() | _pair, xattrs=st.lists(st.tuples(_bytes, _bytes),
                                                            max_size=3).map(tuple),
    sparse=st.lists(_pair, max_size=3).map(tuple))
trees = st.lists(entries, max_size=8, unique_by=lambda e: e.path)


def file(path: bytes, content: bytes = b"", link: bytes = b"") -> FileEntry:
    return FileEntry(path, "f", 0o644, size=len(content), link=link,
                     sha256=hashlib.sha256(content).digest())


@given(trees)
def test_round_trip(tree: list[FileEntry]) -> None:
    manifest = Manifest(tree)
    again = Manifest.decode(manifest.encode())
    assert again == manifest
    assert again.digest == manifest.digest == hashlib.sha256(manifest.encode()).hexdigest()
    assert list(again) == sorted(tree, key=lambda e: e.path)


@given(trees, st.randoms())
def test_the_order_of_the_source_cannot_show(tree: list[FileEntry], dice: random.Random) -> None:
    shuffled = list(tree)
    dice.shuffle(shuffled)
    assert Manifest(shuffled).digest == Manifest(tree).digest


@given(trees, st.data())
def test_any_difference_shows(tree: list[FileEntry], data: st.DataObject) -> None:
    other = data.draw(trees)
    assert ((Manifest(tree).digest == Manifest(other).digest)
            == (Manifest(tree) == Manifest(other)))


def test_the_canonical_form_never_changes() -> None:
    """Digests name stored objects: a change of these bytes is a new MAGIC."""
    manifest = Manifest([
        FileEntry(b"", "d", 0o755),
        FileEntry(b"b", "f", 0o4755, 1, 2, 3, -4, b"\xab" * 32, b"", b"a", None,
                  ((b"user.x", b"\0"),), ((0, 1), (2, 1)))])
    assert manifest.digest == (
        "4de4873a23931c1cda106499ee7dd0e25662a383ba307efeb82a0d89afba3046")


def test_a_hundred_thousand_entries() -> None:
    digest = hashlib.sha256(b"x").digest()
    manifest = Manifest(
        FileEntry(b"usr/share/%d/%d" % (n % 997, n), "f", 0o644, size=n, mtime=n * 10**9,
                  sha256=digest) for n in range(100_000))
    again = Manifest.decode(manifest.encode())
    assert len(again) == 100_000
    assert again == manifest
    assert again.by_path[b"usr/share/7/7"].size == 7


@pytest.mark.parametrize("data", [
    b"", b"splitimage-manifest-2\n\x90", MAGIC, MAGIC + b"\xc1", MAGIC + b"\x91\x01",
    MAGIC + b"\x91\x93\xc4\x01a\xa1f\xa1x", Manifest([file(b"a")]).encode()[:-1],
    Manifest([file(b"a")]).encode() + b"\0",
    MAGIC + b"\x91\x93\xc4\x01a\xa1\xff\x00",  # a type that is no UTF-8
    MAGIC + b"\x91\x9d\xc4\x01a\xa1f" + b"\x91" * 100_000])
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(exceptions.BadArchive):
        Manifest.decode(data)


def test_a_path_occurs_once() -> None:
    twice = [file(b"a\n", b"1"), file(b"a\n", b"2")]
    with pytest.raises(exceptions.InvalidInput, match=r"/a\\n occurs twice"):
        Manifest(twice)
    with pytest.raises(exceptions.InvalidInput):
        Manifest.decode(MAGIC + msgspec.msgpack.encode(twice))


def test_access() -> None:
    manifest = Manifest([file(b"b"), file(b"a")])
    assert b"a" in manifest
    assert b"c" not in manifest
    assert manifest.get(b"b") == file(b"b")
    assert manifest.get(b"c") is None
    assert len(manifest) == len(list(manifest)) == 2
    assert hash(manifest) == hash(Manifest([file(b"a"), file(b"b")]))
    assert manifest != "a manifest"


def test_bytes_count_hard_links_once() -> None:
    manifest = Manifest([file(b"a", b"1234", link=b"a"), file(b"b", b"1234", link=b"a"),
                         file(b"c", b"56")])
    assert manifest.content_bytes == 6


@given(trees, trees)
def test_the_algebra(one: list[FileEntry], two: list[FileEntry]) -> None:
    """A candidate without its excess and with what is missing is the request."""
    request, candidate = Manifest(one), Manifest(two)
    missing, excess = request.missing_from(candidate), candidate.excess_over(request)
    assert (candidate - [e.path for e in excess]) | missing == request
    assert not set(missing) & set(candidate)
    assert all(e.path not in request for e in excess)
    assert request.missing_from(request) == request.excess_over(request) == ()


def test_removal_takes_only_what_is_named() -> None:
    manifest = Manifest([FileEntry(b"d", "d", 0o755), file(b"d/f")])
    assert list(manifest - [b"d", b"nothing"]) == [file(b"d/f")]
