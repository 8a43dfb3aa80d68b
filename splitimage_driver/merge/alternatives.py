"""var/lib/dpkg/alternatives/NAME: the choices that update-alternatives knows.

The file is a table: the slave links are its columns, the choices its rows,
an empty line where a choice has no file for a slave. A row of ours says
everything about one choice, its columns' names and links too, so that any
set of choices makes a file: the columns follow from the choices, just as
update-alternatives drops a slave link that no choice has a file for. Manual
mode is a row of its own; automatic mode, the rule, is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.merge import base, lines

STATUS = b"status"
AUTO, MANUAL = b"auto", b"manual"
DIRECTORY = b"/etc/alternatives/"
WHAT = "update-alternatives file"
#: A row repeats its columns' links; real files have a few kilobytes.
MAX_BYTES = 256 << 10

_PRIORITY = re.compile(rb"-?[0-9]{1,10}")


class Choice(msgspec.Struct, frozen=True):
    """:ivar path: absolute, of the file that is chosen
    :ivar link: absolute, the generic name, the same in all choices
    :ivar slaves: name: (generic link, this choice's file)
    """

    path: bytes
    priority: int
    link: bytes
    slaves: dict[bytes, tuple[bytes, bytes]]

    def row(self) -> bytes:
        pieces = [self.path, b"%d" % self.priority, self.link]
        for name in sorted(self.slaves):
            pieces += [name, *self.slaves[name]]
        return b"\n".join(pieces)

    @classmethod
    def from_row(cls, row: bytes) -> Choice:
        """:raises InvalidInput: not the row of a choice"""
        pieces = row.split(b"\n")
        if len(pieces) % 3:
            raise _garbled("a row of it is incomplete")
        slaves = {}
        for at in range(3, len(pieces), 3):
            name, link, path = pieces[at:at + 3]
            slaves[_slave(name)] = (_absolute(link), _absolute(path))
        return cls(_absolute(pieces[0]), _priority(pieces[1]), _absolute(pieces[2]), slaves)


class Alternatives(base.Merger):
    pattern = re.compile(rb"var/lib/dpkg/alternatives/[^/]+")
    vanishes = True
    grammar = base.Grammar(base.ALTERNATIVES)

    def parse(self, content: bytes) -> list[tuple[bytes, bytes]]:
        status, choices = read(content)
        mode = [(STATUS, status)] if status == MANUAL else []
        return mode + [(choice.path, choice.row()) for choice in choices]

    def build(self, rows: list[tuple[bytes, bytes]]) -> bytes:
        """:raises InvalidInput: two choices name different links"""
        status = AUTO
        choices = []
        for key, row in rows:
            if key == STATUS:
                status = row
            else:
                choices.append(Choice.from_row(row))
        return write(status, choices)

    def order(self, key: bytes) -> object:
        return key != STATUS, key

    def hint(self, key: bytes, row: bytes) -> tuple[str, bytes]:
        return ("", b"") if key == STATUS else lines.relative(base.plain(key))

    def derived(self, path: bytes, content: bytes,
                links: Mapping[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        """The links of the best choice. In manual mode only the generic link:
        what it leads to is the administrator's, and stands in the tree."""
        name = _slave(path.rpartition(b"/")[2])
        status, choices = read(content)
        if not choices:
            return {}
        found = {choices[0].link[1:]: DIRECTORY + name}
        if status == AUTO:
            best = _best(name, choices, links or {})
            found[(DIRECTORY + name)[1:]] = best.path
            for slave, (link, file) in best.slaves.items():
                found[(DIRECTORY + slave)[1:]] = file
                found[link[1:]] = DIRECTORY + slave
        return found

    def absent(self, path: bytes, content: bytes,
               links: Mapping[bytes, bytes] | None = None) -> frozenset[bytes]:
        """The slave links that the best choice has no file for."""
        name = _slave(path.rpartition(b"/")[2])
        status, choices = read(content)
        if status != AUTO or not choices:
            return frozenset()
        best = _best(name, choices, links or {})
        return frozenset(
            place[1:] for choice in choices for slave, (link, _) in choice.slaves.items()
            if slave not in best.slaves for place in (link, DIRECTORY + slave))


def read(content: bytes) -> tuple[bytes, list[Choice]]:
    """Status and choices of a file; none for an empty file.

    :raises InvalidInput: not such a file
    """
    if len(content) > MAX_BYTES:
        raise _garbled(f"it has {len(content)} bytes, more than {MAX_BYTES}")
    found = lines.split(content, WHAT)
    if not found:
        return AUTO, []
    rest = iter(found)
    status = _next(rest)
    if status not in (AUTO, MANUAL):
        raise _garbled("its first line is neither auto nor manual")
    master = _absolute(_next(rest))
    slaves: dict[bytes, bytes] = {}
    while name := _next(rest):
        if _slave(name) in slaves:
            raise _garbled("it names a slave link twice")
        slaves[name] = _absolute(_next(rest))
    choices: dict[bytes, Choice] = {}
    while path := _next(rest):
        if _absolute(path) in choices:
            raise _garbled("it names a choice twice")
        priority = _priority(_next(rest))
        files = {}
        for name, link in slaves.items():
            if file := _next(rest):
                files[name] = (link, _absolute(file))
        choices[path] = Choice(path, priority, master, files)
    if next(rest, None) is not None:
        raise _garbled("something follows its last choice")
    return status, list(choices.values())


def write(status: bytes, choices: list[Choice]) -> bytes:
    """The file; empty where there is no choice.

    :raises InvalidInput: two choices name different links
    """
    if status not in (AUTO, MANUAL):
        raise _garbled("its status is neither auto nor manual")
    if not choices:
        return b""
    slaves: dict[bytes, bytes] = {}
    for choice in choices:
        if choice.link != choices[0].link or any(
                slaves.setdefault(name, link) != link
                for name, (link, _) in choice.slaves.items()):
            raise _garbled("its choices name different links")
    names = sorted(slaves)
    out = [status, choices[0].link]
    for name in names:
        out += [name, slaves[name]]
    out.append(b"")
    for choice in choices:
        out += [choice.path, b"%d" % choice.priority,
                *(choice.slaves[name][1] if name in choice.slaves else b"" for name in names)]
    out.append(b"")
    return lines.join(out)


def _best(name: bytes, choices: list[Choice], links: Mapping[bytes, bytes]) -> Choice:
    """As update-alternatives: what is chosen already stays unless another
    choice has a higher priority; of equals the first in the file."""
    current = links.get((DIRECTORY + name)[1:])
    return max(choices, key=lambda c: (c.priority, c.path == current))


def _next(rest: Iterator[bytes]) -> bytes:
    line = next(rest, None)
    if line is None:
        raise _garbled("it ends in the middle")
    return line


def _priority(piece: bytes) -> int:
    if not _PRIORITY.fullmatch(piece):
        raise _garbled("a priority is not a number")
    return int(piece)


def _absolute(path: bytes) -> bytes:
    if path[:1] != b"/" or path == b"/" or b".." in path.split(b"/"):
        raise _garbled("a path is not absolute, or contains ..")
    return path


def _slave(name: bytes) -> bytes:
    if not name or b"/" in name or name in (b".", b".."):
        raise _garbled("a link's name is not a file name")
    return name


def _garbled(reason: str) -> exceptions.InvalidInput:
    return exceptions.InvalidInput(what=WHAT, reason=reason)
