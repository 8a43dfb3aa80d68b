"""The control file syntax of Debian's databases (deb822(5)), strictly.

python-debian reads it too, but passes over lines that it does not
understand, and is under the GPL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from splitimage_driver import exceptions

_FIELD = re.compile(r"([!\"$-,.-9;-~][!-9;-~]*):[ \t]*(.*)\Z")
_NAME = r"[A-Za-z0-9][A-Za-z0-9+._-]{0,199}"
_PACKAGE = re.compile(_NAME + r"\Z")
_WORD = re.compile(r"[!-~]{0,256}\Z")
# On single spaces, so that there is one way only to match.
_RELATION = re.compile(
    rf"({_NAME})(?::[A-Za-z0-9-]{{1,40}})?"           # name:any
    r" ?(?:\([^()]*\))?"                              # (>= 1.2)
    r" ?(?:\[[^][]*\])?(?: ?<[^<>]*>)*\Z")           # [arch] <profile>


def stanzas(data: bytes, where: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The paragraphs of a control file with the line that each begins at.

    Field names are in lower case; the lines of a folded value are joined by
    newlines and keep their first blank. Bytes that are not UTF-8 become
    surrogates, as in file names.

    :raises InvalidInput: a line is none of field, continuation, empty; a
        field occurs twice; ``where`` and the line are named
    """
    fields: dict[str, list[str]] = {}
    last: list[str] | None = None
    began = 1
    for number, raw in enumerate(data.split(b"\n"), 1):
        line = raw.decode("utf-8", "surrogateescape")
        if "\0" in line:
            raise _bad(where, number, "it has a NUL byte")
        if not line:
            if fields:
                yield began, {name: "\n".join(lines) for name, lines in fields.items()}
            fields, last = {}, None
        elif line.isspace():
            raise _bad(where, number, "only blanks")
        elif line[0] in " \t":
            if last is None:
                raise _bad(where, number, "a continuation of nothing")
            last.append(line)
        else:
            match = _FIELD.match(line)
            if match is None:
                raise _bad(where, number, "neither a field nor a continuation")
            name = match[1].lower()
            if name in fields:
                raise _bad(where, number, f"field {match[1]} occurs twice")
            if not fields:
                began = number
            last = fields[name] = [match[2]]
    if fields:
        yield began, {name: "\n".join(lines) for name, lines in fields.items()}


def relation(value: str, where: str) -> tuple[tuple[str, ...], ...]:
    """A Depends-like field: conjunction of alternatives, names only;
    versions, architectures and profiles are dropped.

    :raises InvalidInput: not such a field
    """
    if len(value) > 1 << 20:
        raise exceptions.InvalidInput(what=where, reason="a relation of over 1 MiB")
    found = []
    for clause in value.split(","):
        if not clause.strip():
            continue
        names = []
        for alternative in clause.split("|"):
            match = _RELATION.match(" ".join(alternative.split()))
            if match is None:
                raise exceptions.InvalidInput(
                    what=where, reason=f"{alternative.strip()[:80]!r} is not a relation")
            names.append(match[1])
        found.append(tuple(dict.fromkeys(names)))
    return tuple(dict.fromkeys(found))


def package_name(value: str, where: str) -> str:
    """:raises InvalidInput: not a name that dpkg would accept"""
    if not _PACKAGE.match(value):
        raise exceptions.InvalidInput(what=where, reason=f"{value[:80]!r} is not a package name")
    return value


def word(value: str, where: str, field: str) -> str:
    """A value without blanks: a version, an architecture, a section.

    :raises InvalidInput: anything else, or over 256 characters
    """
    if not _WORD.match(value):
        raise exceptions.InvalidInput(what=where, reason=f"{field} is {value[:80]!r}")
    return value


def _bad(where: str, number: int, reason: str) -> exceptions.InvalidInput:
    return exceptions.InvalidInput(what=f"{where} line {number}", reason=reason)
