"""What turns one tree into another, tried on a file system in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings

from splitimage_driver.assembly import assembler
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.plan import Work
from tests.unit import making
from tests.unit.making import directory, file, symlink, tree


def work(current: Manifest, target: Manifest) -> Work:
    return Work(current, target, making.sources(target), {})


def paths(entries: object) -> list[str]:
    return [e.path.decode() for e in entries]  # type: ignore[attr-defined]


@settings(max_examples=4000)
@given(making.trees(), making.trees())
def test_carried_out_it_gives_the_target(current: Manifest, target: Manifest) -> None:
    todo = work(current, target)
    with tempfile.TemporaryDirectory() as place:
        disk = making.Memory(current, Path(place))
        assembler.validate(disk, todo)
        facts = assembler.assemble(disk, todo, making.read)
    assert disk.manifest() == target
    assert facts["injected_bytes"] == todo.inject_bytes
    again = Work(disk.manifest(), target, {}, {})
    assert (again.missing, again.excess, again.unobtainable) == ((), (), ())


@settings(max_examples=4000)
@given(making.trees(), making.trees())
def test_its_sets_are_those_of_the_definition(current: Manifest, target: Manifest) -> None:
    todo = work(current, target)
    now, then = current.by_path, target.by_path
    assert {e.path for e in todo.excess} == now.keys() - then.keys()
    for e in todo.missing:
        assert then[e.path] == e != now.get(e.path)
    # What is not missing is as it shall be, but for the names it shares its
    # content with.
    for path in then.keys() - {e.path for e in todo.missing}:
        assert then[path].link == now[path].link or (now[path].link or then[path].link)
        assert then[path].same(now[path]) or then[path].link != now[path].link
    for e in todo.replaced:
        assert now[e.path] == e and then[e.path].type != e.type
    assert {e.path for e in todo.contents} <= {e.path for e in todo.missing if e.size}


LINKED = (file("a", b"one", link="a"), file("b", b"one", link="a"))


def test_a_further_name_of_a_file_that_is_there_does_not_travel() -> None:
    three = [file(name, b"one", link="a") for name in "abc"]
    todo = work(tree(*LINKED), tree(*three))
    assert paths(todo.missing) == ["c"]
    assert (todo.contents, todo.inject_bytes) == ((), 0)


def test_of_a_new_file_with_several_names_one_travels() -> None:
    todo = work(tree(), tree(*LINKED))
    assert paths(todo.missing) == ["a", "b"]
    assert (paths(todo.contents), todo.inject_bytes) == (["a"], 3)


def test_a_name_that_is_left_over_is_not_written_again() -> None:
    """The other one is replaced or removed; its content may not even be had."""
    alone = file("b", b"one")
    for target in (tree(alone), tree(file("a", b"two"), alone)):
        sources = making.sources(target)
        del sources[b"b"]
        todo = Work(tree(*LINKED), target, sources, {})
        assert "b" not in paths(todo.missing)
        assert todo.unobtainable == ()


def test_one_file_cannot_become_two_without_its_content() -> None:
    apart = tree(file("a", b"one"), file("b", b"one"))
    todo = Work(tree(*LINKED), apart, {}, {})
    assert (paths(todo.missing), todo.unobtainable) == (["b"], (b"b",))


def test_two_files_become_one_of_the_two() -> None:
    todo = work(tree(file("a", b"one"), file("b", b"one")), tree(*LINKED))
    assert (paths(todo.missing), todo.contents) == (["b"], ())


def test_a_file_of_another_time_or_owner_travels_again() -> None:
    old = tree(file("a", b"one"), file("b", b"one"))
    new = tree(file("a", b"one", mtime=6), file("b", b"one", uid=3))
    assert paths(work(old, new).contents) == ["a", "b"]


def test_nothing_can_be_had_of_what_no_source_has() -> None:
    target = tree(file("a", b"one"), file("b", b"two"), file("c"), symlink("d", "a"))
    todo = Work(tree(), target, {b"a": making.sources(target)[b"a"]}, {})
    assert todo.unobtainable == (b"b",)
    assert Work(tree(), target, {b"a": making.sources(target)[b"a"]},
                {b"b": b"two"}).unobtainable == ()


def test_types_change() -> None:
    old = tree(directory("a"), file("a/x", b"one"), symlink("b", "a"), file("c"))
    new = tree(symlink("a", "c"), directory("b", 0o700), file("b/y", b"two"), directory("c"))
    todo = work(old, new)
    assert paths(todo.replaced) == ["a", "b", "c"]
    assert paths(todo.excess) == ["a/x"]


@pytest.mark.parametrize(("current", "touched"), [
    (tree(file("d/a", b"one", mtime=3), file("e/f", mtime=4)), {"d": 9}),
    (tree(file("d/a", b"one", mtime=3), file("d/b", b"two", mtime=9), file("e/f", mtime=4)), {}),
    (tree(file("d/a", b"one", mtime=3), file("d/b", b"two", mtime=9)), {"": 9, "e": 4}),
    (tree(file("d/a", b"one", mtime=3), file("d/b", b"two", mtime=9), file("e/f", mtime=4),
          file("e/g")), {"e": 4}),
    (tree(file("d/a", b"one", mtime=3), file("d/b", b"two", mtime=9), directory("e", 0o700),
          file("e/f", mtime=4)), {"": 9, "e": 4}),
])
def test_times_of_directories_follow_from_what_is_in_them(
        current: Manifest, touched: dict[str, int]) -> None:
    target = tree(file("d/a", b"one", mtime=3), file("d/b", b"two", mtime=9),
                  file("e/f", mtime=4))
    assert {e.path.decode(): e.mtime for e in work(current, target).directories} == touched
