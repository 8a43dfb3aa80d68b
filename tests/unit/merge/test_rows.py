from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.merge import accounts, debconf, lines, rows
from splitimage_driver.model.part import Row

PATH = b"etc/shared"


class Words(lines.LineMerger):
    """``key value`` or a line that is its own key."""

    pattern = re.compile(PATH)
    line = re.compile(rb"(?P<key>[^ ]*)( .*)?")


WORDS = Words()
LINE = st.sampled_from([b"a", b"a 1", b"a 2", b"b", b"b 1", b"c", b"c 7", b"d", b"e 1", b"f", b""])
FILE = st.lists(LINE, max_size=9).map(lines.join)
NAMES = ("apache", "mysql", "php", "redis")


def change(old: bytes | None, new: bytes | None) -> list[Row]:
    return rows.diff(WORDS, PATH, old, new)


def test_diff_shape() -> None:
    assert change(b"a\nb 1\nc\n", b"x\na\nb 2\ny\n") == [
        Row(PATH, b"b", b"b 2", (1, 3)), Row(PATH, b"c", None),
        Row(PATH, b"x", b"x", (0, 1)), Row(PATH, b"y", b"y", (2, 4))]
    assert change(b"a\n", b"a\n") == []
    assert change(None, b"a\n") == [Row(PATH, b"a", b"a", (0, 1))]
    assert change(b"a\n", None) == [Row(PATH, b"a", None)]


@given(old=FILE, new=FILE)
def test_diff_and_apply_give_the_new_file(old: bytes, new: bytes) -> None:
    assert rows.apply(WORDS, PATH, old, {"p": change(old, new)}) == rows.Merged(new)


@given(old=FILE, new=FILE, data=st.data())
def test_a_diff_split_over_parts_gives_the_new_file_in_any_order(
        old: bytes, new: bytes, data: st.DataObject) -> None:
    parts: dict[str, list[Row]] = {}
    for row in change(old, new):
        for name in data.draw(st.sets(st.sampled_from(NAMES), min_size=1)):
            parts.setdefault(name, []).append(row)
    for order in itertools.permutations(parts):
        assert rows.apply(WORDS, PATH, old, {n: parts[n] for n in order}) == rows.Merged(new)


@given(old=FILE, news=st.lists(FILE, min_size=2, max_size=3))
def test_parts_of_several_machines_give_one_result_whatever_their_order_and_names(
        old: bytes, news: list[bytes]) -> None:
    changes = [change(old, new) for new in news]
    first = rows.apply(WORDS, PATH, old, dict(zip(NAMES, changes, strict=False)))
    for order in itertools.permutations(range(len(changes))):
        again = rows.apply(WORDS, PATH, old,
                           {NAMES[n]: changes[at] for n, at in enumerate(order)})
        assert again.content == first.content
        assert [key for key, _ in again.clashes] == [key for key, _ in first.clashes]


@given(states=st.lists(FILE, min_size=2, max_size=4), data=st.data())
def test_steps_that_only_add_end_as_the_last_one(states: list[bytes], data: st.DataObject) -> None:
    """Each step inserts lines of its own; with the places of the last state
    all steps together give it, wherever the lines were put."""
    contents = [lines.split(states[0], "x")]
    for step in range(1, len(states)):
        now = list(contents[-1])
        for number in range(data.draw(st.integers(0, 3))):
            now.insert(data.draw(st.integers(0, len(now))), b"new%d-%d" % (step, number))
        contents.append(now)
    files = [lines.join(content) for content in contents]
    places = rows.places(WORDS, files[0], files[-1])
    parts = {NAMES[n]: rows.diff(WORDS, PATH, old, new, places=places)
             for n, (old, new) in enumerate(itertools.pairwise(files))}
    assert rows.apply(WORDS, PATH, files[0], parts) == rows.Merged(files[-1])


@given(old=st.sets(st.sampled_from([b"a/b", b"c/d", b"e/f", b"g/h"])),
       ones=st.sets(st.sampled_from([b"b/a", b"d/c", b"e/f"])),
       twos=st.sets(st.sampled_from([b"0/1", b"d/c", b"z/z"])))
def test_what_is_always_sorted_stays_sorted(
        old: set[bytes], ones: set[bytes], twos: set[bytes]) -> None:
    merger = debconf.Debconf()

    def write(names: set[bytes]) -> bytes:
        return b"".join(b"Name: %s\n\n" % name for name in sorted(names))

    parts = {"one": rows.diff(merger, PATH, write(old), write(old | ones)),
             "two": rows.diff(merger, PATH, write(old), write(old | twos))}
    assert rows.apply(merger, PATH, write(old), parts).content == write(old | ones | twos)


def apply(base: bytes | None, **parts: Sequence[Row]) -> rows.Merged:
    return rows.apply(WORDS, PATH, base, parts)


def test_identical_rows_are_no_conflict() -> None:
    row = Row(PATH, b"b", b"b 1", (1, 2))
    assert apply(b"a\n", one=[row], two=[row]) == rows.Merged(b"a\nb 1\n")


def test_what_the_base_has_is_no_change() -> None:
    base = b"a\nb 1"  # as it is, even without its last newline
    assert apply(base, one=[Row(PATH, b"b", b"b 1")]) == rows.Merged(base)
    assert apply(base, one=[Row(PATH, b"z", None)]) == rows.Merged(base)
    assert apply(base, one=[Row(PATH, b"b", b"b 1")], two=[Row(PATH, b"b", b"b 2")]) == (
        rows.Merged(b"a\nb 2\n"))


def test_two_removals_are_one() -> None:
    gone = [Row(PATH, b"a", None)]
    assert apply(b"a\nb\n", one=gone, two=gone) == rows.Merged(b"b\n")


def test_clashes_name_the_parts_and_keep_the_base() -> None:
    merged = apply(b"a\nb 1\n", one=[Row(PATH, b"b", b"b 2")], two=[Row(PATH, b"b", None)],
                   three=[Row(PATH, b"b", b"b 1")], four=[Row(PATH, b"c", b"c", (2, 3))])
    assert merged == rows.Merged(b"a\nb 1\nc\n", ((b"b", ("one", "two")),))
    merged = apply(None, one=[Row(PATH, b"b", b"b 2")], two=[Row(PATH, b"b", b"b 3")])
    assert merged == rows.Merged(None, ((b"b", ("one", "two")),))


def test_no_file_comes_of_nothing() -> None:
    assert apply(None) == rows.Merged(None)
    assert apply(None, one=[Row(PATH, b"a", None)]) == rows.Merged(None)
    assert apply(b"a\n", one=[Row(PATH, b"a", None)]) == rows.Merged(b"")
    trigger = lines.Triggers()
    assert rows.apply(trigger, PATH, b"man-db\n", {"p": [Row(PATH, b"man-db", None)]}) == (
        rows.Merged(None))


def test_a_row_that_moved_moves() -> None:
    """ucf writes a file it looked at again to the end."""
    old, new = b"a 1\nb 1\nc 1\n", b"b 1\nc 1\na 1\n"
    changes = change(old, new)
    assert [row.key for row in changes] == [b"a"]
    assert apply(old, one=changes, two=change(old, b"a 1\nb 1\nx\nc 1\n")) == (
        rows.Merged(b"b 1\nx\nc 1\na 1\n"))


def test_a_changed_row_without_rank_keeps_its_place() -> None:
    assert apply(b"a\nb\nc\n", one=[Row(PATH, b"b", b"b 9")]) == rows.Merged(b"a\nb 9\nc\n")


def test_repeated_keys_are_told_apart() -> None:
    old, new = b"a 1\na 2\n", b"a 1\na 2\na 3\n"
    changes = change(old, new)
    (row,) = changes
    assert rows.plain(row.key) == b"a" != row.key
    assert apply(old, one=changes) == rows.Merged(new)


def test_the_way_a_machine_with_all_parts_wrote_it_wins() -> None:
    merger = accounts.Group()
    parts = {"one": [Row(PATH, b"g", b"g:x:4:z")], "two": [Row(PATH, b"g", b"g:x:4:z,b")]}
    merged = rows.apply(merger, PATH, b"g:x:4:\n", parts)
    assert merged == rows.Merged(b"g:x:4:z,b\n")
    parts["two"] = [Row(PATH, b"g", b"g:x:4:b")]
    assert rows.apply(merger, PATH, b"g:x:4:\n", parts) == rows.Merged(b"g:x:4:b,z\n")


def test_faithful() -> None:
    assert rows.faithful(WORDS, b"a\n")
    assert not rows.faithful(WORDS, b"a")
    merger = debconf.Debconf()
    assert rows.faithful(merger, b"Name: a/a\n\nName: b/b\n\n")
    assert not rows.faithful(merger, b"Name: b/b\n\nName: a/a\n\n")


def test_a_base_of_another_kind_is_refused() -> None:
    with pytest.raises(exceptions.InvalidInput):
        rows.apply(accounts.Passwd(), PATH, b"not accounts\n", {})
    with pytest.raises(exceptions.InvalidInput):
        rows.diff(accounts.Passwd(), PATH, None, b"not accounts\n")
