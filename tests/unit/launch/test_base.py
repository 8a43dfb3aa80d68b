from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver.launch import base


def test_a_console_is_shown_without_what_plays_with_terminals() -> None:
    console = (b"\x1b[2J\x1b[01;01H\x1b[=3hBoot\r\n\r\n"
               b"\x1b]0;title\x07  [ \x1b[32mOK\x1b[0m ] net\n"
               b"\x1b(Bna\xc3\xafve \xff\x00\n")
    assert base.printable(console) == ["Boot", "[ OK ] net", "naïve \ufffd"]


@given(st.binary(max_size=400))
def test_nothing_but_printable_characters_comes_through(console: bytes) -> None:
    for line in base.printable(console):
        assert line.isprintable() and line.strip() == line != "" and len(line) <= 200


words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)


@given(st.lists(words))
def test_plain_lines_come_through_unchanged(lines: list[str]) -> None:
    assert base.printable("\r\n".join(lines).encode()) == lines


