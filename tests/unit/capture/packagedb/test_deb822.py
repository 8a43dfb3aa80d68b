from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.capture.packagedb import deb822


def test_stanzas_with_folded_values_and_lines() -> None:
    data = (b"Package: a\nConffiles:\n /etc/a 00\n /etc/b 11\n\n\n"
            b"Package: b\nDescription: one\n two\n .\n three")
    assert list(deb822.stanzas(data, "status")) == [
        (1, {"package": "a", "conffiles": "\n /etc/a 00\n /etc/b 11"}),
        (7, {"package": "b", "description": "one\n two\n .\n three"})]


def test_bytes_that_are_not_utf8_survive() -> None:
    [(_, fields)] = deb822.stanzas(b"Maintainer: J\xf6rg\n", "status")
    assert fields["maintainer"].encode("utf-8", "surrogateescape") == b"J\xf6rg"


@pytest.mark.parametrize("data, line", [
    (b"Package: a\nno field here\n", 2),
    (b" folded\n", 1),
    (b"\n\n folded\n", 3),
    (b"Package: a\nPACKAGE: b\n", 2),
    (b"Package: a\n \n", 2),
    (b"Package: a\0\n", 1),
    (b"# comment\n", 1),
    (b"-x: a\n", 1),
])
def test_refuses_with_the_line(data: bytes, line: int) -> None:
    with pytest.raises(exceptions.InvalidInput, match=f"status line {line}:"):
        list(deb822.stanzas(data, "status"))


def test_relation_drops_versions_architectures_and_profiles() -> None:
    found = deb822.relation(
        "libc6 (>= 2.36), perl:any | perl5:amd64 , debconf (>= 0.5)  | debconf-2.0,"
        " x [amd64 i386] <!nocheck> <cross>, libc6,\n g++", "status")
    assert found == (("libc6",), ("perl", "perl5"), ("debconf", "debconf-2.0"), ("x",), ("g++",))
    assert deb822.relation("", "status") == ()


@pytest.mark.parametrize("value", ["a b", "a |", "(>= 1)", "-a", "a (1", "a/b", "a" * 300])
def test_relation_refuses(value: str) -> None:
    with pytest.raises(exceptions.InvalidInput, match="is not a relation"):
        deb822.relation(value, "status")


def test_relation_of_blanks_is_decided_at_once() -> None:
    with pytest.raises(exceptions.InvalidInput):
        deb822.relation("a" + " " * 200_000 + "!", "status")
    with pytest.raises(exceptions.InvalidInput, match="over 1 MiB"):
        deb822.relation("a, " * 500_000, "status")


@given(st.binary(max_size=200))
def test_nonsense_is_refused_or_read(data: bytes) -> None:
    try:
        for _, fields in deb822.stanzas(data, "x"):
            assert fields and all(isinstance(value, str) for value in fields.values())
    except exceptions.InvalidInput as error:
        assert "x line" in str(error)


_names = st.from_regex(r"[a-z0-9][a-z0-9+.-]{0,8}", fullmatch=True)


@given(st.lists(st.lists(_names, min_size=1, max_size=3, unique=True).map(tuple),
                max_size=4, unique=True))
def test_relation_reads_what_is_written(clauses: list[tuple[str, ...]]) -> None:
    text = ", ".join(" | ".join(f"{name} (>= 1)" for name in clause) for clause in clauses)
    assert deb822.relation(text, "x") == tuple(clauses)
