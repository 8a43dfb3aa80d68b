"""Text from elsewhere on a terminal."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver.cli import terminal


@pytest.mark.parametrize(("text", "shown"), [
    ("plain text", "plain text"),
    ("grüße, 世界", "grüße, 世界"),
    ("\x1b[31mred", "\\x1b[31mred"),
    ("two\nlines", "two\nlines"),
    ("bell\x07 back\b tab\t", "bell\\x07 back\\x08 tab\\t"),
    ("right\u202eto left", "right\\u202eto left"),
    ("undecodable \udcff", "undecodable \\udcff"),
])
def test_what_could_play_with_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert terminal.printable(text) == shown


@given(st.text())
def test_a_line_is_one_line_of_printable_characters(text: str) -> None:
    assert "\n" not in terminal.line(text)
    assert terminal.line(text).isprintable()


CONSOLE = (b"\x1b[2J\x1b[1;1H[  \x1b[0;32mOK\x1b[0m  ] Started \xc3\xbcnit.\r\n"
           b"\x1b]0;owned\x07login: \x1b(B\x1b=\x1b[?25h\x00\x08\xff")
CLEANED = "[  OK  ] Started \u00fcnit.\nlogin: \ufffd"


def test_a_console_is_cleaned() -> None:
    assert terminal.ConsoleText().feed(CONSOLE, final=True) == CLEANED


@given(st.lists(st.integers(0, len(CONSOLE)), max_size=8))
def test_a_console_is_the_same_in_whatever_pieces_it_arrives(cuts: list[int]) -> None:
    cleaner = terminal.ConsoleText()
    ends = [0, *sorted(cuts), len(CONSOLE)]
    text = "".join(cleaner.feed(CONSOLE[a:b]) for a, b in itertools.pairwise(ends))
    assert text + cleaner.feed(b"", final=True) == CLEANED


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_nothing_of_a_console_is_a_control_character(pieces: list[bytes]) -> None:
    cleaner = terminal.ConsoleText()
    text = "".join(map(cleaner.feed, pieces)) + cleaner.feed(b"", final=True)
    assert all(c.isprintable() or c in "\n\t" for c in text)


def test_an_endless_control_string_is_not_kept_for_ever() -> None:
    cleaner = terminal.ConsoleText()
    cleaner.feed(b"\x1b]0;")
    for _ in range(10):
        cleaner.feed(b"x" * 5000)
    assert "after" in cleaner.feed(b"\x07after\n")
