from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.model import part
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.part import Layer, PartManifest, Row

from .test_manifest import entries, file

_paths = st.binary(max_size=20)
_rows = st.builds(Row, _paths, _paths, st.none() | st.binary(max_size=20),
                  st.tuples(st.integers(0, 99), st.integers(0, 99)))
_layers = st.builds(
    Layer, when=st.lists(st.sampled_from(["apache", "mysql", "php"]), unique=True).map(tuple),
    entries=st.lists(entries, max_size=3, unique_by=lambda e: e.path).map(tuple),
    deleted=st.lists(_paths, max_size=3, unique=True).map(tuple),
    rows=st.lists(_rows, max_size=3, unique_by=lambda r: (r.path, r.key)).map(tuple))
_parts = st.lists(_layers, max_size=3, unique_by=lambda layer: frozenset(layer.when)).map(tuple)


@given(_parts)
def test_round_trip(layers: tuple[Layer, ...]) -> None:
    manifest = PartManifest(layers)
    again = PartManifest.decode(manifest.encode())
    assert again.layers == manifest.layers
    assert again.digest == manifest.digest


@given(_parts)
def test_no_order_can_show(layers: tuple[Layer, ...]) -> None:
    backwards = tuple(Layer(when=layer.when[::-1], entries=layer.entries[::-1],
                            deleted=layer.deleted[::-1], rows=layer.rows[::-1])
                      for layer in reversed(layers))
    assert PartManifest(backwards).digest == PartManifest(layers).digest


def test_empty_layers_vanish_and_the_unconditional_comes_first() -> None:
    manifest = PartManifest((Layer(when=("b", "a"), deleted=(b"x",)), Layer(when=("c",)),
                             Layer(entries=(file(b"f"),))))
    assert [layer.when for layer in manifest.layers] == [(), ("a", "b")]


def test_what_it_counts_and_touches() -> None:
    manifest = PartManifest((
        Layer(entries=(file(b"a", b"1234", link=b"a"), file(b"b", b"1234", link=b"a"))),
        Layer(when=("php",), entries=(file(b"a", b"56"),), deleted=(b"gone",),
              rows=(Row(b"etc/passwd", b"www", b"www:x"),))))
    assert (manifest.size, manifest.files) == (6, 3)
    assert manifest.paths() == {b"a", b"b", b"gone", b"etc/passwd"}
    assert [(layer.when, e.path) for layer, e in manifest.entries()] == [
        ((), b"a"), ((), b"b"), (("php",), b"a")]


def test_where_the_blob_holds_a_content() -> None:
    always, sometimes = Layer(), Layer(when=("php",))
    assert part.member(always, file(b"b", link=b"a")) == b"a"
    assert part.member(always, file(b"b")) == b"b"
    entry = FileEntry(b"b", "f", 0o644, sha256=b"\xab" * 32)
    assert part.member(sometimes, entry) == b".splitimage/sha256/" + b"ab" * 32


@pytest.mark.parametrize("data", [
    b"", b"splitimage-manifest-1\n\x90", part.MAGIC, part.MAGIC + b"\x91\xc0",
    PartManifest((Layer(deleted=(b"x",)),)).encode()[:-1],
    part.MAGIC + b"\x91\x91\x91\xa1\xff",  # a name that is no UTF-8
    part.MAGIC + b"\x91\x95\x90\x90\x90\x90" + b"\x91" * 100_000])
def test_what_is_no_part(data: bytes) -> None:
    with pytest.raises(exceptions.BadArchive):
        PartManifest.decode(data)


@pytest.mark.parametrize("name", ["a", "0", "apache2", "libapache2-mod-php8.2", "a_b", "x" * 63])
def test_names(name: str) -> None:
    assert part.check_name("part", name) == name


@pytest.mark.parametrize("name", ["", "A", "-a", ".a", "_a", "a b", "a/b", "a\n", "ä", "x" * 64])
def test_refused_names(name: str) -> None:
    with pytest.raises(exceptions.InvalidInput, match="part name"):
        part.check_name("part", name)
