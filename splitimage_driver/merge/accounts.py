"""etc/{passwd,group,shadow,gshadow,subuid,subgid}: one account a line."""

from __future__ import annotations

import re

from splitimage_driver import exceptions
from splitimage_driver.merge import base, lines, sets


def is_account(row: bytes) -> bool:
    """Not a comment, an empty line, or a reference to NIS."""
    return bool(row) and row[:1] not in b"#+-"


class Accounts(base.Merger):
    """One file of the family.

    The subclasses differ in their path, the least number of fields, the
    fields that are numbers, and those that are lists of members.
    """

    what = ""
    # a comment, or a reference to NIS, is its own key
    grammar = base.Grammar(key=rb"\A([#+-].*|[^:]*)")
    fields = 1
    numbers: tuple[int, ...] = ()
    lists: tuple[int, ...] = ()

    def parse(self, content: bytes) -> list[tuple[bytes, bytes]]:
        rows = []
        for number, row in enumerate(lines.split(content, self.what), 1):
            if not is_account(row):
                rows.append((row, row))
                continue
            fields = row.split(b":")
            if (not fields[0] or len(fields) < self.fields
                    or not all(_is_id(fields[n]) for n in self.numbers)):
                raise exceptions.InvalidInput(
                    what=self.what, reason=f"line {number} is not an account")
            rows.append((fields[0], row))
        return rows

    def build(self, rows: list[tuple[bytes, bytes]]) -> bytes:
        return lines.join([row for _, row in rows])

    def hint(self, key: bytes, row: bytes) -> tuple[str, bytes]:
        name = base.plain(key)
        return ("account", name) if is_account(name) else ("", b"")

    def combine(self, key: bytes, base: bytes | None,
                one: bytes, two: bytes) -> bytes | None:
        """Members that either adds; all other fields must agree."""
        if not self.lists or not is_account(one) or not is_account(two):
            return None
        width = max(self.lists) + 1
        was, first, second = (_padded(row, width) for row in (base or b"", one, two))
        if len(first) != len(second):
            return None
        merged = list(first)
        for number in range(len(first)):
            if number in self.lists:
                merged[number] = b",".join(sets.three_way(
                    *(_members(row[number]) for row in (was, first, second))))
            elif first[number] != second[number]:
                return None
        return b":".join(merged)


class Passwd(Accounts):
    pattern = re.compile(rb"etc/passwd")
    what = "etc/passwd"
    fields = 7
    numbers = (2, 3)


class Group(Accounts):
    pattern = re.compile(rb"etc/group")
    what = "etc/group"
    fields = 3
    numbers = (2,)
    lists = (3,)


class Shadow(Accounts):
    pattern = re.compile(rb"etc/shadow")
    what = "etc/shadow"
    fields = 2


class GShadow(Accounts):
    pattern = re.compile(rb"etc/gshadow")
    what = "etc/gshadow"
    fields = 4
    lists = (2, 3)


class SubIds(Accounts):
    pattern = re.compile(rb"etc/sub[ug]id")
    what = "etc/subuid or etc/subgid"
    fields = 3
    numbers = (1, 2)


def _is_id(field: bytes) -> bool:
    return bool(re.fullmatch(rb"[0-9]{1,10}", field)) and int(field) < 1 << 32


def _padded(row: bytes, width: int) -> list[bytes]:
    fields = row.split(b":")
    return fields + [b""] * (width - len(fields))


def _members(field: bytes) -> list[bytes]:
    return [member for member in field.split(b",") if member]
