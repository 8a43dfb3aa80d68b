"""Packing without a process: what goes into a blob, a record, a restore part."""

from __future__ import annotations

import io
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from splitimage_driver.archive.tree import TarTree
from splitimage_driver.archive.writer import TarWriter
from splitimage_driver.capture import pack
from splitimage_driver.capture.draft import ALWAYS, Draft
from splitimage_driver.capture.gold import Spool
from splitimage_driver.capture.identity import Identity
from splitimage_driver.model import part as parts_
from splitimage_driver.model.part import CONTENT, Layer, PartManifest, Row
from splitimage_driver.store.local import LocalStore
from tests.unit import machines
from tests.unit.making import directory, file, layer, symlink, tree

Fill = Callable[[TarWriter], None]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    found = Spool(tmp_path / "contents")
    for content in (b"", b"one", b"two", b"three"):
        found.put(content)
    return found


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Blobs are tar files here, to look into; squashfs needs a process."""
    made: list[Path] = []

    def build(destination: Path, fill: Fill, *, newest: int) -> None:
        assert newest >= 0
        with destination.open("wb") as out:
            tar = TarWriter(out)
            fill(tar)
            tar.close()
        made.append(destination)

    monkeypatch.setattr(pack.blob, "build", build)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    options = types.SimpleNamespace(lock_timeout=5.0, grace=3600, minimum_free=0)
    found = LocalStore(tmp_path / "store", options)
    yield found
    found.close()


def members(path: Path) -> dict[str, bytes | str]:
    return {m.entry.path.decode(): m.content.read() if m.content is not None
            else m.hardlink.decode() if m.hardlink is not None else m.entry.type
            for m in TarTree(path).members()}


LAYERS = (
    layer(directory("etc"), file("etc/a", b"one"), file("etc/b", b"two", link="etc/b"),
          file("etc/c", b"two", link="etc/b"), file("etc/d", b"three", link="base/leader"),
          file("etc/empty"), symlink("etc/l", "a")),
    layer(file("etc/a", b"two"), file("etc/other", b"three"), symlink("etc/m", "a"),
          when=["php"], deleted=["etc/b"]),
    layer(file("etc/again", b"two"), when=["mysql"]),
)


def test_a_blob_has_every_content_once_a_place(built: list[Path], spool: Spool,
                                               tmp_path: Path) -> None:
    manifest = PartManifest(LAYERS)
    assert pack.build_blob(manifest, spool, tmp_path / "blob")
    assert built == [tmp_path / "blob"]
    place = CONTENT.decode() + "/"
    two, three = (file("x", content).sha256.hex() for content in (b"two", b"three"))
    assert members(built[0]) == {
        "etc": "d", "etc/a": b"one", "etc/b": b"two", "base/leader": b"three",
        "etc/empty": b"", "etc/l": "l", place + two: b"two", place + three: b"three"}


def test_every_entry_finds_its_content(built: list[Path], spool: Spool, tmp_path: Path) -> None:
    manifest = PartManifest(LAYERS)
    pack.build_blob(manifest, spool, tmp_path / "blob")
    found = members(built[0])
    for one, e in manifest.entries():
        if e.is_file:
            content = found[parts_.member(one, e).decode()]
            assert isinstance(content, bytes) and file("x", content).sha256 == e.sha256


@pytest.mark.parametrize("layers", [
    (), (layer(directory("etc"), symlink("etc/l", "a")),), (layer(file("empty")),),
    (Layer(rows=(Row(b"etc/passwd", b"k", b"v"),), deleted=(b"x",)),)])
def test_a_part_without_content_has_no_blob(built: list[Path], spool: Spool, tmp_path: Path,
                                            layers: tuple[Layer, ...]) -> None:
    assert not pack.build_blob(PartManifest(layers), spool, tmp_path / "blob")
    assert built == []


def test_equal_parts_are_stored_once(built: list[Path], spool: Spool, tmp_path: Path,
                                     store: LocalStore) -> None:
    manifest = PartManifest(LAYERS)
    first = pack.store_part(store, "a", parts_.FILESET, manifest, spool, tmp_path, owner="me",
                            packages=["z=1", "a=2"])
    again = pack.store_part(store, "b", parts_.FILESET, manifest, spool, tmp_path, owner="me")
    assert again == first and len(built) == 1
    assert (first.id, first.packages, first.files) == (manifest.digest, ("a=2", "z=1"), 11)
    # one, two, three; under conditions two, three; two
    assert first.size == 3 + 3 + 5 + 3 + 5 + 3
    assert store.part(first.id).blob_size == store.path(first.blob).stat().st_size
    # Another project's are its own.
    assert pack.store_part(store, "c", parts_.FILESET, manifest, spool, tmp_path,
                           owner="you").owner == "you"
    assert len(built) == 2


def test_a_part_without_content_is_stored_without_a_blob(spool: Spool, tmp_path: Path,
                                                         store: LocalStore) -> None:
    found = pack.store_part(store, "a", parts_.FILESET, PartManifest((layer(directory("d")),)),
                            spool, tmp_path, owner="me")
    assert (found.blob, found.blob_size) == ("", 0)


def test_the_restore_part_has_all_that_any_part_touches() -> None:
    base = tree(file("f", b"one", link="f"), file("g", b"one", link="f"), file("gone", b"two"),
                file("etc/passwd", b"three"), file("free"), directory("d", 0o700))
    parts = [PartManifest((layer(file("f", b"x"), directory("d")),)),
             PartManifest((layer(when=["a"], deleted=["gone"],
                                 rows=[Row(b"etc/passwd", b"k", None)]),
                           layer(file("new"))))]
    found = pack.restore_manifest(base, parts)
    assert {(e.path, e.link) for _, e in found.entries()} == {
        (b"f", b""), (b"gone", b""), (b"etc/passwd", b""), (b"d", b"")}


def test_contents_come_from_whatever_state_has_them(spool: Spool) -> None:
    first = machines.state("base", {"a": b"in the base", "b": b"same"})
    second = machines.state("x", {"a": b"later", "c": b"same"}, place=first.place)
    wanted = [e for s in (first, second) for e in s.manifest if e.is_file]
    pack.take_contents([first, second], wanted, spool)
    assert {spool.get(e.sha256) for e in wanted} == {b"in the base", b"same", b"later"}


def test_corrections_are_for_all_parts_together() -> None:
    draft = Draft(["a", "b"], "x-rest")
    for part in "ab":
        e = file(f"{part}/f", b"one")
        draft.claim(part, ALWAYS, e.path, e)
    base = tree(file("old", b"one"), file("same"), directory("var/log"))
    gold = tree(file("a/f", b"one"), file("b/f", b"two"), file("new", b"one"), file("same"),
                file("var/log/x", b"log"), file("ours", b"x"))
    count = pack.correct(draft, base, gold, [gold], shared={}, identity=Identity(),
                         ignore=frozenset((b"ours",)))
    assert count == 3
    [one] = draft.manifests(base, [gold])["x-rest"].layers
    assert one.when == ("a", "b")
    assert ({e.path.decode() for e in one.entries if not e.is_dir}, one.deleted) == (
        {"b/f", "new"}, (b"old",))


def test_what_a_composite_records_of_its_parts() -> None:
    draft = Draft(["a", "b"], "x-rest")
    draft.add_groups({"one": frozenset("ab")}, {"b": ("a",)})
    ids = {"a": "1", "b": "2", "dep.a.b": "3", "x-rest": "4"}
    refs = pack.references(draft, ids)
    assert {name: (r.id, r.kind, r.requires, r.hidden, r.completes)
            for name, r in refs.items()} == {
        "a": ("1", "software", ("dep.a.b",), False, ()),
        "b": ("2", "software", ("a", "dep.a.b"), False, ()),
        "dep.a.b": ("3", "dependency", (), True, ()),
        "x-rest": ("4", "rest", (), False, ("a", "b"))}


def test_a_spool_keeps_each_content_once(tmp_path: Path) -> None:
    found = Spool(tmp_path / "s")
    state = machines.state("base", {"a": b"x", "b": b"x", "c": b"y"})
    found.take(state, [b"a", b"b"])
    assert len(list((tmp_path / "s").iterdir())) == 1
    assert found.get(state.manifest.by_path[b"b"].sha256) == b"x"
    assert found.put(b"x") == state.manifest.by_path[b"a"].sha256
    assert not found.path(state.manifest.by_path[b"c"].sha256).exists()
    assert io.BytesIO(found.get(found.put(b"y"))).read() == b"y"
