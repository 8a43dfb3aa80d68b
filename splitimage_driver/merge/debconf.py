"""var/cache/debconf/{config,templates,passwords}.dat: debconf's questions."""

from __future__ import annotations

import re

from splitimage_driver.merge import sets
from splitimage_driver.merge.base import STANZAS, Grammar, plain
from splitimage_driver.merge.stanzas import StanzaMerger

_PACKAGE = re.compile(rb"[a-z0-9][a-z0-9+.-]+")
_OWNERS = b"Owners:"


class Debconf(StanzaMerger):
    pattern = re.compile(rb"var/cache/debconf/(config|templates|passwords)\.dat")
    what = "debconf database"
    grammar = Grammar(STANZAS, rb"(?ims)\A(?=.*?^Name:[ \t]*([^\n]*?)[ \t]*$)")

    def key(self, stanza: bytes) -> bytes:
        return self.required(stanza, b"Name")

    def order(self, key: bytes) -> object:
        return key

    def hint(self, key: bytes, row: bytes) -> tuple[str, bytes]:
        package, slash, _ = plain(key).partition(b"/")
        return ("package", package) if slash and _PACKAGE.fullmatch(package) else ("", b"")

    def combine(self, key: bytes, base: bytes | None,
                one: bytes, two: bytes) -> bytes | None:
        """A question that several packages ask belongs to all of them."""
        rest, first = _owners(one)
        other, second = _owners(two)
        if rest != other or first is None or second is None:
            return None
        was = _owners(base)[1] if base is not None else None
        owners = sorted(sets.three_way(was or (), first, second))
        if not owners:
            return None
        return b"\n".join(_OWNERS + b" " + b", ".join(owners) if line.startswith(_OWNERS)
                          else line for line in one.split(b"\n"))


def _owners(stanza: bytes) -> tuple[list[bytes], list[bytes] | None]:
    """The stanza's other lines, and its owners (None: it names none)."""
    rest: list[bytes] = []
    owners: list[bytes] | None = None
    for line in stanza.split(b"\n"):
        if line.startswith(_OWNERS):
            owners = [o.strip() for o in line[len(_OWNERS):].split(b",") if o.strip()]
            rest.append(_OWNERS)
        else:
            rest.append(line)
    return rest, owners
