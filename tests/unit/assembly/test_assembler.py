"""Room, order and content of an assembly, on a file system in memory.

That the result is the target is tried on random trees in
``tests/unit/planning/test_work.py``.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest

from splitimage_driver import exceptions, progress
from splitimage_driver.assembly import assembler
from splitimage_driver.assembly.base import Space
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.plan import Source, Work
from tests.unit import making
from tests.unit.making import Memory, directory, file, symlink, tree

BLOCK = 4096


def work(current: Manifest, target: Manifest, **generated: bytes) -> Work:
    made = {path.encode(): content for path, content in generated.items()}
    return Work(current, target, {p: s for p, s in making.sources(target).items()
                                  if p not in made}, made)


def big(path: str, blocks: int, link: str = "", **fields: object) -> FileEntry:
    return msgspec.structs.replace(file(path, b"one", link=link), size=blocks * BLOCK, **fields)


# -- room ----------------------------------------------------------------------------


def needed(current: Manifest, target: Manifest, where: str = "/") -> int:
    """The fewest free blocks with which the work is let through."""
    spaces = [Space("/", BLOCK, 0, -1), Space("/boot", BLOCK, 0, -1)]

    class Disk(Memory):
        def space(self) -> list[Space]:
            return [msgspec.structs.replace(s, blocks=free if s.mountpoint == where else 10**6)
                    for s in spaces]

    for free in range(10**4):
        try:
            assembler.validate(Disk(current, Path()), work(current, target))
            return free
        except exceptions.NoSpaceInImage as error:
            assert error.fields["mountpoint"] == where
    raise AssertionError


@pytest.mark.parametrize(("current", "target", "blocks"), [
    (tree(), tree(big("a", 3), big("b", 4)), 7),
    (tree(), tree(file("a", b"one")), 1), (tree(), tree(file("a")), 0),
    (tree(), tree(directory("d"), directory("e")), 2), (tree(), tree(symlink("l", "a")), 0),
    # a hundredth more for what the file system keeps beside it
    (tree(), tree(big("a", 300)), 303),
    # What goes first makes room; what is overwritten does not yet.
    (tree(big("old", 5)), tree(big("a", 7)), 2), (tree(big("old", 9)), tree(big("a", 7)), 0),
    (tree(big("a", 9, mtime=1)), tree(big("a", 9)), 9),
    (tree(big("a", 9)), tree(symlink("a", "b"), big("b", 9)), 0),
    # A linked file takes its room once, and gives it with its last name.
    (tree(), tree(big("a", 3, "a"), big("b", 3, "a")), 3),
    (tree(big("a", 3, "a"), big("b", 3, "a")), tree(big("a", 3, "a"), big("b", 3, "a"),
                                                    big("c", 3, "a")), 0),
    (tree(big("a", 3, "a"), big("b", 3, "a")), tree(big("new", 4)), 1),
    (tree(big("a", 3, "a"), big("b", 3, "a")), tree(big("b", 3), big("new", 4)), 4),
    # Holes take none.
    (tree(), tree(big("a", 1000, sparse=((0, BLOCK),))), 2),
    (tree(big("a", 1000, sparse=((0, BLOCK),))), tree(big("b", 4)), 3),
])
def test_blocks(current: Manifest, target: Manifest, blocks: int) -> None:
    assert needed(current, target) == blocks


def test_room_is_counted_on_each_file_system() -> None:
    target = tree(big("boot/kernel", 3), big("bootx", 5), directory("boot"))
    base = tree(directory("boot"))
    assert needed(base, target, "/boot") == 3
    assert needed(base, target, "/") == 5


@pytest.mark.parametrize(("inodes", "fits"), [(2, False), (3, True)])
def test_inodes(inodes: int, fits: bool, tmp_path: Path) -> None:
    """Four new names and one that goes."""
    current = tree(file("old"), file("kept"))
    target = tree(file("kept", b"one"), *(file(name) for name in "abcd"))
    disk = Memory(current, tmp_path, inodes=inodes)
    if fits:
        assembler.validate(disk, work(current, target))
    else:
        with pytest.raises(exceptions.NoSpaceInImage, match="inodes"):
            assembler.validate(disk, work(current, target))
    assert disk.log == []


def test_a_disk_that_does_not_count_inodes(tmp_path: Path) -> None:
    assembler.validate(Memory(tree(), tmp_path, inodes=-1), work(tree(), tree(file("a"))))


def test_what_cannot_be_had_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    disk = Memory(tree(), tmp_path)
    with pytest.raises(exceptions.NothingToCompose):
        assembler.validate(disk, Work(tree(), tree(file("a", b"one")), {}, {}))
    assert disk.log == []


# -- carrying out -----------------------------------------------------------------------


def test_first_removed_then_written_then_trimmed(tmp_path: Path) -> None:
    current, target = tree(file("old", b"one")), tree(file("new", b"one"))
    disk = Memory(current, tmp_path)
    facts = assembler.assemble(disk, work(current, target), making.read)
    assert disk.log == ["remove", "write", "trim"]
    assert disk.manifest() == target
    assert facts["injected_bytes"] == 3
    assert {name for name in facts if name.endswith("_seconds")} == {
        "remove_seconds", "inject_seconds", "trim_seconds"}


def test_contents_made_by_merging(tmp_path: Path) -> None:
    target = tree(file("etc/passwd", b"merged"), file("usr/x", b"one"))
    disk = Memory(tree(), tmp_path)
    todo = work(tree(), target, **{"etc/passwd": b"merged"})
    assert assembler.assemble(disk, todo, making.read)["injected_bytes"] == 9
    assert disk.manifest() == target


@pytest.mark.parametrize("content", [b"", b"one"])
def test_all_names_of_a_new_file(tmp_path: Path, content: bytes) -> None:
    target = tree(*(file(f"d/{name}", content, link="d/a") for name in "abc"))
    disk = Memory(tree(), tmp_path)
    assembler.assemble(disk, work(tree(), target), making.read)
    assert disk.manifest() == target


def test_one_member_for_several_files(tmp_path: Path) -> None:
    """A part keeps what it brings under conditions once per content."""
    target = tree(file("a", b"two"), file("b", b"two"), file("c", b"two", mode=0o600))
    asked: list[frozenset[bytes]] = []

    def read(blob: str, members: frozenset[bytes]) -> Iterable[tuple[bytes, BinaryIO]]:
        asked.append(members)
        yield from making.read(blob, members)

    disk = Memory(tree(), tmp_path)
    assembler.assemble(disk, work(tree(), target), read)
    assert disk.manifest() == target
    assert [len(members) for members in asked] == [1]


def test_each_blob_is_read_once_whatever_its_order(tmp_path: Path) -> None:
    target = tree(*(file(f"{name}", content) for name, content in zip(
        "abcd", (b"one", b"two", b"three", b"one"), strict=True)))
    sources = {f"{n}".encode(): Source("first" if n in "ad" else "second", n.encode())
               for n in "abcd"}
    contents = {b"a": b"one", b"b": b"two", b"c": b"three", b"d": b"one", b"e": b"not asked"}
    read_from: list[str] = []

    def read(blob: str, members: frozenset[bytes]) -> Iterable[tuple[bytes, BinaryIO]]:
        read_from.append(blob)
        for member in sorted(contents, reverse=True):
            yield member, io.BytesIO(contents[member])

    disk = Memory(tree(), tmp_path)
    assembler.assemble(disk, Work(tree(), target, sources, {}), read)
    assert disk.manifest() == target
    assert read_from == ["first", "second"]


def test_a_member_that_the_blob_lacks(tmp_path: Path) -> None:
    disk = Memory(tree(), tmp_path)
    with pytest.raises(exceptions.DigestMismatch, match="blob"):
        assembler.assemble(disk, work(tree(), tree(file("a", b"one"))), lambda *_: ())


def test_content_that_is_not_what_the_manifest_says(tmp_path: Path) -> None:
    def read(blob: str, members: frozenset[bytes]) -> Iterable[tuple[bytes, BinaryIO]]:
        for member in members:
            yield member, io.BytesIO(b"eno")

    disk = Memory(tree(), tmp_path)
    with pytest.raises(exceptions.DigestMismatch, match="/a"):
        assembler.assemble(disk, work(tree(), tree(file("a", b"one"))), read)
    assert "trim" not in disk.log


def test_labels_are_asked_for_where_there_are_some(tmp_path: Path) -> None:
    seen: list[bool] = []

    class Disk(Memory):
        def write(self, fill, *, selinux=False):  # type: ignore[no-untyped-def]
            seen.append(selinux)
            super().write(fill, selinux=selinux)

    for xattrs in (), ((b"security.selinux", b"label\0"),), ((b"user.x", b"y"),):
        target = tree(file("a", b"one", xattrs=xattrs))
        disk = Disk(tree(), tmp_path)
        assembler.assemble(disk, work(tree(), target), making.read)
        assert disk.manifest() == target
    assert seen == [False, True, False]


def test_nothing_to_write_still_trims(tmp_path: Path) -> None:
    disk = Memory(tree(file("a")), tmp_path)
    assembler.assemble(disk, work(tree(file("a")), tree(file("a"))), making.read)
    assert disk.log == ["remove", "trim"]


def test_progress_counts_the_bytes_that_travel(tmp_path: Path) -> None:
    target = tree(file("a", b"one", link="a"), file("b", b"one", link="a"), file("c", b"three"))
    events: list[progress.Event] = []
    with progress.listening(events.append):
        assembler.assemble(Memory(tree(), tmp_path), work(tree(), target), making.read)
    injected = [e for e in events if e.operation == "inject"]
    assert (injected[-1].current, injected[-1].total, injected[-1].unit) == (8, 8, "bytes")
