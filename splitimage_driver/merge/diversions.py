"""var/lib/dpkg/diversions: three lines each: the path, where it is diverted
to, the package that diverts (``:`` for the administrator)."""

from __future__ import annotations

import re

from splitimage_driver import exceptions
from splitimage_driver.merge import base, lines


class Diversions(base.Merger):
    pattern = re.compile(rb"var/lib/dpkg/diversions")
    what = "dpkg diversions"
    grammar = base.Grammar(base.TRIPLES, rb"\A([^\n]*)")

    def parse(self, content: bytes) -> list[tuple[bytes, bytes]]:
        found = lines.split(content, self.what)
        if len(found) % 3:
            raise exceptions.InvalidInput(what=self.what, reason="its last record is incomplete")
        rows = []
        for number in range(0, len(found), 3):
            path, place, package = found[number:number + 3]
            if path[:1] != b"/" or place[:1] != b"/" or not package:
                raise exceptions.InvalidInput(
                    what=self.what, reason=f"line {number + 1} begins no diversion")
            rows.append((path, b"\n".join((path, place, package))))
        return rows

    def build(self, rows: list[tuple[bytes, bytes]]) -> bytes:
        return lines.join([row for _, row in rows])

    def hint(self, key: bytes, row: bytes) -> tuple[str, bytes]:
        package = row.rpartition(b"\n")[2]
        if not package:
            return lines.relative(base.plain(key))
        return ("package", package) if package != b":" else ("", b"")
