"""Rich dependencies of rpm: ``(a or b)``, ``(a if (b and c) else d)``...

What is installed is known, so conditions are decided here and a rich
dependency becomes a conjunction of alternatives like any other.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from splitimage_driver import exceptions

_CHAINS = frozenset(("and", "or", "with"))
_CONDITIONS = frozenset(("if", "unless"))
_OPERATORS = _CHAINS | _CONDITIONS | {"without", "else"}
_COMPARISONS = frozenset(("<", "<=", "=", "==", ">=", ">"))
_DEPTH = 30
_LENGTH = 1 << 16

Clauses = list[tuple[str, ...]]


class Node(msgspec.Struct, frozen=True):
    """:ivar operator: "" for a plain capability, which is ``name``"""

    operator: str = ""
    name: str = ""
    operands: tuple[Node, ...] = ()


def clauses(dependency: str, installed: Callable[[str], bool]) -> Clauses:
    """A rich dependency as a conjunction of alternatives.

    ``(a if b)`` counts only where b is installed, ``(a unless b)`` where it
    is not; of ``(a without b)`` a counts. Alternatives that are themselves
    composed are decided: the first that is satisfied, else the first.

    :raises InvalidInput: not such a dependency
    """
    if len(dependency) > _LENGTH:
        raise _bad(dependency)
    node, rest = _parse(dependency, 0, 0)
    if dependency[rest:].strip():
        raise _bad(dependency)
    return _decide(node, installed)


def _decide(node: Node, installed: Callable[[str], bool]) -> Clauses:
    if not node.operator:
        return [(node.name,)]
    if node.operator in _CONDITIONS:
        then, condition, *otherwise = node.operands
        holds = _satisfied(_decide(condition, installed), installed)
        if holds == (node.operator == "if"):
            return _decide(then, installed)
        return _decide(otherwise[0], installed) if otherwise else []
    if node.operator == "without":
        return _decide(node.operands[0], installed)
    parts = [_decide(one, installed) for one in node.operands]
    if node.operator != "or":
        return [clause for part in parts for clause in part]
    if all(len(part) == 1 for part in parts):
        return [tuple(dict.fromkeys(name for part in parts for name in part[0]))]
    return next((part for part in parts if _satisfied(part, installed)), parts[0])


def _satisfied(found: Clauses, installed: Callable[[str], bool]) -> bool:
    return all(any(installed(name) for name in clause) for clause in found)


def _parse(text: str, at: int, depth: int) -> tuple[Node, int]:
    """The parenthesis that opens at ``at``, and where it ends."""
    if depth > _DEPTH or text[at:at + 1] != "(":
        raise _bad(text)
    at += 1
    operands: list[Node] = []
    operators: list[str] = []
    while True:
        at = _blank(text, at)
        if text[at:at + 1] == "(":
            node, at = _parse(text, at, depth + 1)
        else:
            word, at = _word(text, at)
            node = Node(name=word)
            after, end = _word(text, _blank(text, at))
            if after in _COMPARISONS:
                _, at = _word(text, _blank(text, end))
        if not node.operator and not node.name:
            raise _bad(text)
        operands.append(node)
        at = _blank(text, at)
        if text[at:at + 1] == ")":
            return _node(text, operands, operators), at + 1
        operator, at = _word(text, at)
        if operator not in _OPERATORS:
            raise _bad(text)
        operators.append(operator)


def _node(text: str, operands: list[Node], operators: list[str]) -> Node:
    if not operators:
        return operands[0]
    first = operators[0]
    chain = first in _CHAINS and set(operators) == {first}
    condition = first in _CONDITIONS and operators[1:] in ([], ["else"])
    if not (chain or condition or operators == ["without"]):
        raise _bad(text)
    return Node(operator=first, operands=tuple(operands))


def _word(text: str, at: int) -> tuple[str, int]:
    """Up to a blank or the closing parenthesis; names have balanced ones of
    their own: ``perl(Foo)``, ``libc.so.6()(64bit)``."""
    begin, opened = at, 0
    while at < len(text) and not text[at].isspace():
        if text[at] == "(":
            opened += 1
        elif text[at] == ")":
            if not opened:
                break
            opened -= 1
        at += 1
    return text[begin:at], at


def _blank(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _bad(text: str) -> exceptions.InvalidInput:
    return exceptions.InvalidInput(what="rpm database",
                                   reason=f"{text[:80]!r} is not a rich dependency")
