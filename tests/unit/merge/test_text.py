from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver.merge import text

LINES = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"d\n", b"\n"]), max_size=10)
FILE = LINES.map(b"".join) | LINES.map(lambda x: b"".join(x).rstrip(b"\n"))
BASE = b"".join(b"line %d\n" % n for n in range(12))


def changed(**lines: bytes) -> bytes:
    found = BASE
    for name, new in lines.items():
        found = found.replace(b"line %s\n" % name[1:].encode(), new)
    return found


def test_changes_at_different_places() -> None:
    assert text.three_way(BASE, changed(_2=b"", _9=b"line 9\nadded\n"), changed(_5=b"five\n")) == (
        changed(_2=b"", _9=b"line 9\nadded\n", _5=b"five\n"))


def test_the_same_change_twice() -> None:
    assert text.three_way(BASE, changed(_2=b"x\n", _7=b"y\n"), changed(_2=b"x\n", _9=b"z\n")) == (
        changed(_2=b"x\n", _7=b"y\n", _9=b"z\n"))


@pytest.mark.parametrize(("one", "two"), [
    (changed(_2=b"x\n"), changed(_2=b"y\n")),
    (changed(_2=b"x\n"), changed(_2=b"")),
    (changed(_2=b"x\n"), changed(_3=b"y\n")),
    (BASE + b"x\n", BASE + b"y\n"),
    (changed(_2=b"x\n"), changed(_2=b"y\n") + b"\0"),
])
def test_conflicts(one: bytes, two: bytes) -> None:
    assert text.three_way(BASE, one, two) is None


@given(base=FILE, one=FILE, two=FILE)
def test_commutes_and_invents_nothing(base: bytes, one: bytes, two: bytes) -> None:
    merged = text.three_way(base, one, two)
    assert merged == text.three_way(base, two, one)
    if merged is not None:
        assert set(merged.splitlines()) <= {*one.splitlines(), *two.splitlines()}


@given(base=FILE, one=FILE)
def test_one_change_alone_wins(base: bytes, one: bytes) -> None:
    assert text.three_way(base, one, base) == one == text.three_way(base, base, one)
    assert text.three_way(base, one, one) == one


@given(data=st.data())
def test_edits_apart_from_each_other_all_show(data: st.DataObject) -> None:
    """Lines edited by one or the other, unchanged ones between them."""
    lines = [b"line %d\n" % n for n in range(15)]
    one, two, both = list(lines), list(lines), list(lines)
    for at in range(0, 15, 2):
        new = data.draw(st.sampled_from([lines[at], b"", b"new\n", b"line 3\n", b"x\ny\n"]))
        for edited in (data.draw(st.sampled_from([one, two])), both):
            edited[at] = new
    merged = text.three_way(b"".join(lines), b"".join(one), b"".join(two))
    # a new line like an old one may be taken for it: then it is a question
    assert merged in (None, b"".join(both))
    if all(new in (old, b"") or new not in lines for new, old in zip(both, lines, strict=True)):
        assert merged == b"".join(both)


def test_files_made_to_be_slow_are_done() -> None:
    many = 100_000
    turned = b"b\na\n" * many
    assert text.three_way(b"a\nb\n" * many, turned, b"a\nb\n" * many + b"c\n") is None
    old = b"".join(b"%d\n" % n for n in range(many))
    new = b"".join(b"%d\n" % n for n in reversed(range(many)))
    assert text.three_way(old, new, old + b"x\n") is None


def test_is_text() -> None:
    assert text.is_text(b"")
    assert text.is_text("grüß\n".encode())
    assert not text.is_text(b"a\0b")
    assert not text.is_text("grüß".encode("latin-1"))
    assert text.is_text(b"a" * text.MAX_BYTES)
    assert not text.is_text(b"a" * (text.MAX_BYTES + 1))


def test_concatenate() -> None:
    texts = [("php", b"p\n"), ("apache", b"a"), ("mysql", b"a\n"), ("empty", b"")]
    assert text.concatenate(texts) == b"a\np\n"
    assert text.concatenate(texts[::-1]) == b"a\np\n"
    assert text.concatenate([]) == b""
