from __future__ import annotations

from collections.abc import Callable

import pytest

from splitimage_driver import exceptions
from splitimage_driver.merge import rows
from splitimage_driver.merge.alternatives import Alternatives

MERGER = Alternatives()
PATH = b"var/lib/dpkg/alternatives/awk"
MAWK = b"""auto
/usr/bin/awk
awk.1.gz
/usr/share/man/man1/awk.1.gz

/usr/bin/mawk
5
/usr/share/man/man1/mawk.1.gz

"""
WITH_NAWK = b"""auto
/usr/bin/awk
awk.1.gz
/usr/share/man/man1/awk.1.gz
nawk
/usr/bin/nawk

/usr/bin/gawk
10

/usr/bin/gawk
/usr/bin/mawk
5
/usr/share/man/man1/mawk.1.gz


"""
GOAWK = b"""auto
/usr/bin/awk
awk.1.gz
/usr/share/man/man1/awk.1.gz

/usr/bin/goawk
1

/usr/bin/mawk
5
/usr/share/man/man1/mawk.1.gz

"""
States = Callable[[str], list[bytes | None]]


def test_a_new_slave_widens_the_other_choices() -> None:
    changes = rows.diff(MERGER, PATH, MAWK, WITH_NAWK)
    assert [row.key for row in changes] == [b"/usr/bin/gawk"]
    assert rows.apply(MERGER, PATH, MAWK, {"p": changes}) == rows.Merged(WITH_NAWK)


def test_two_parts_choices_stand_together() -> None:
    parts = {"one": rows.diff(MERGER, PATH, MAWK, WITH_NAWK),
             "two": rows.diff(MERGER, PATH, MAWK, GOAWK)}
    merged = rows.apply(MERGER, PATH, MAWK, parts)
    assert merged.clashes == ()
    assert merged.content == WITH_NAWK.replace(
        b"/usr/bin/mawk\n5\n", b"/usr/bin/goawk\n1\n\n\n/usr/bin/mawk\n5\n")


def test_a_slave_that_no_choice_has_goes() -> None:
    changes = rows.diff(MERGER, PATH, WITH_NAWK, MAWK)
    assert rows.apply(MERGER, PATH, WITH_NAWK, {"p": changes}) == rows.Merged(MAWK)


def test_without_choices_there_is_no_file() -> None:
    gone = rows.diff(MERGER, PATH, MAWK, None)
    assert rows.apply(MERGER, PATH, MAWK, {"p": gone}) == rows.Merged(None)


def test_manual_mode_is_a_row() -> None:
    manual = MAWK.replace(b"auto", b"manual")
    (row,) = rows.diff(MERGER, PATH, MAWK, manual)
    assert (row.key, row.value) == (b"status", b"manual")
    assert MERGER.hint(row.key, b"manual") == ("", b"")
    assert rows.apply(MERGER, PATH, MAWK, {"p": [row]}) == rows.Merged(manual)
    back = rows.diff(MERGER, PATH, manual, MAWK)
    assert rows.apply(MERGER, PATH, manual, {"p": back}) == rows.Merged(MAWK)


def test_choices_that_name_different_links_clash() -> None:
    moved = MAWK.replace(b"/usr/bin/awk\n", b"/opt/awk\n").replace(b"mawk", b"xawk")
    changes = rows.diff(MERGER, PATH, None, moved)
    assert rows.apply(MERGER, PATH, MAWK, {"p": changes}) == rows.Merged(MAWK, ((b"", ("p",)),))


def test_derived_links_of_the_best_choice() -> None:
    assert MERGER.derived(PATH, WITH_NAWK) == {
        b"etc/alternatives/awk": b"/usr/bin/gawk",
        b"usr/bin/awk": b"/etc/alternatives/awk",
        b"etc/alternatives/nawk": b"/usr/bin/gawk",
        b"usr/bin/nawk": b"/etc/alternatives/nawk"}
    assert MERGER.absent(PATH, WITH_NAWK) == {
        b"etc/alternatives/awk.1.gz", b"usr/share/man/man1/awk.1.gz"}


@pytest.mark.parametrize(("step", "best"), [(0, b"mawk"), (2, b"gawk")])
def test_derived_links_of_a_real_file(states: States, step: int, best: bytes) -> None:
    content = states(PATH.decode())[step]
    assert content is not None
    assert MERGER.derived(PATH, content) == {
        b"usr/bin/awk": b"/etc/alternatives/awk",
        b"usr/bin/nawk": b"/etc/alternatives/nawk",
        b"usr/share/man/man1/awk.1.gz": b"/etc/alternatives/awk.1.gz",
        b"usr/share/man/man1/nawk.1.gz": b"/etc/alternatives/nawk.1.gz",
        b"etc/alternatives/awk": b"/usr/bin/" + best,
        b"etc/alternatives/nawk": b"/usr/bin/" + best,
        b"etc/alternatives/awk.1.gz": b"/usr/share/man/man1/" + best + b".1.gz",
        b"etc/alternatives/nawk.1.gz": b"/usr/share/man/man1/" + best + b".1.gz"}
    assert MERGER.absent(PATH, content) == frozenset()


def test_manual_mode_leaves_the_choice_alone() -> None:
    manual = WITH_NAWK.replace(b"auto", b"manual")
    assert MERGER.derived(PATH, manual) == {b"usr/bin/awk": b"/etc/alternatives/awk"}
    assert MERGER.absent(PATH, manual) == frozenset()


@pytest.mark.parametrize(("links", "best"), [
    ({}, b"/a"),
    ({b"etc/alternatives/awk": b"/b"}, b"/b"),
    ({b"etc/alternatives/awk": b"/low"}, b"/a"),
    ({b"etc/alternatives/awk": b"/gone"}, b"/a"),
])
def test_of_equals_the_present_choice_stays(links: dict[bytes, bytes], best: bytes) -> None:
    content = b"auto\n/l\n\n/a\n5\n/b\n5\n/low\n-5\n\n"
    assert MERGER.derived(PATH, content, links)[b"etc/alternatives/awk"] == best


@pytest.mark.parametrize("content", [
    b"\n", b"auto\n", b"auto\n/l\n", b"auto\n/l\n\n", b"yes\n/l\n\n\n", b"auto\nl\n\n\n",
    b"auto\n/l\n\n/a\nhigh\n\n", b"auto\n/l\n\n/a\n1\n/a\n2\n\n", b"auto\n/l\n\n/a\n1\n\nmore\n",
    b"auto\n/l\ns\n/s\ns\n/t\n\n/a\n1\n\n\n\n", b"auto\n/l\n../x\n/s\n\n/a\n1\n/f\n\n",
    b"auto\n/../l\n\n/a\n1\n\n", b"auto\n/l\ns\n/s\n\n/a\n1\nf\n\n",
    b"auto\n/l\n\n/a\n99999999999\n\n", b"auto\n/" + b"l" * (256 << 10) + b"\n\n/a\n1\n\n",
])
def test_garbled_files_are_refused(content: bytes) -> None:
    with pytest.raises(exceptions.InvalidInput):
        MERGER.parse(content)


@pytest.mark.parametrize(("key", "row"), [
    (b"/a", b"/a\n1"), (b"/a", b"/a\n1\n/l\ns\n/s"), (b"/a", b"a\n1\n/l"), (b"status", b"maybe")])
def test_garbled_rows_are_refused(key: bytes, row: bytes) -> None:
    with pytest.raises(exceptions.InvalidInput):
        MERGER.build([(key, row)])
