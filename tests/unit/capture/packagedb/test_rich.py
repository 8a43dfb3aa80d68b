from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.capture.packagedb import rich


@pytest.mark.parametrize("dependency, expected", [
    ("(a or b)", [("a", "b")]),
    ("(a or b >= 2 or c)", [("a", "b", "c")]),
    ("(a and b < 1:3-4)", [("a",), ("b",)]),
    ("(a with b)", [("a",), ("b",)]),
    ("(a without b)", [("a",)]),
    ("(a if here)", [("a",)]),
    ("(a if gone)", []),
    ("(a if gone else b)", [("b",)]),
    ("(a unless here)", []),
    ("(a unless gone)", [("a",)]),
    ("(a unless here else b)", [("b",)]),
    ("(a if (here and gone))", []),
    ("((a or b) if (gone or here))", [("a", "b")]),
    ("((a and b) or (here and here))", [("here",), ("here",)]),
    ("((a and b) or (c and d))", [("a",), ("b",)]),
    ("(perl(Foo::Bar) >= 1 or libc.so.6()(64bit))", [("perl(Foo::Bar)", "libc.so.6()(64bit)")]),
    ("( a  or  /usr/bin/b )", [("a", "/usr/bin/b")]),
    ("(a)", [("a",)]),
])
def test_conjunctions_of_alternatives(dependency: str, expected: list[tuple[str, ...]]) -> None:
    assert rich.clauses(dependency, lambda name: name == "here") == expected


@pytest.mark.parametrize("dependency", [
    "", "a", "(", "()", "(a", "(a or)", "(or)x", "(a or b", "(a or b and c)", "(a if b if c)",
    "(a nor b)", "(a or b) c", "(a b)", "(" * 500 + "a" + ")" * 500, "(" + "a" * 70_000 + ")",
])
def test_nonsense_is_refused(dependency: str) -> None:
    with pytest.raises(exceptions.InvalidInput, match="is not a rich dependency"):
        rich.clauses(dependency, lambda name: True)


@given(st.lists(st.sampled_from(["(", ")", " ", "a", "or", "if", "else", "and", ">=", "b"]),
                max_size=25))
def test_words_in_any_order_end_in_an_answer(words: list[str]) -> None:
    try:
        found = rich.clauses("".join(words), lambda name: name == "a")
    except exceptions.InvalidInput:
        return
    assert all(clause and all(clause) for clause in found)
