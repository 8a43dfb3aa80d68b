"""Files of stanzas in the manner of RFC 822, as dpkg, apt and debconf write
them: fields at the start of a line, continuation lines indented, an empty
line after each stanza.
"""

from __future__ import annotations

import re

from splitimage_driver import exceptions
from splitimage_driver.merge import base

#: A desktop's var/lib/dpkg/status has about 5 MB.
MAX_BYTES = 64 << 20

_LINE = re.compile(rb"[!-9;-~]+:|[ \t]")


def split(content: bytes, what: str) -> list[bytes]:
    """The stanzas, each without its last newline.

    :param what: the kind of file, for the message
    :raises InvalidInput: a line is neither a field nor a continuation, or the
        file is larger than any real one
    """
    if len(content) > MAX_BYTES:
        raise exceptions.InvalidInput(
            what=what, reason=f"it has {len(content)} bytes, more than {MAX_BYTES}")
    found: list[bytes] = []
    begin: list[bytes] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line:
            if begin:
                found.append(b"\n".join(begin))
                begin = []
            continue
        match = _LINE.match(line)
        if match is None or b"\0" in line or (not begin and line[:1] in b" \t"):
            raise exceptions.InvalidInput(
                what=what, reason=f"line {number} is not a field of a stanza")
        begin.append(line)
    if begin:
        found.append(b"\n".join(begin))
    return found


def join(stanzas: list[bytes]) -> bytes:
    return b"".join(stanza + b"\n\n" for stanza in stanzas)


def field(stanza: bytes, name: bytes) -> bytes | None:
    """The first line of a field's value, stripped; None: no such field.

    :param name: in any case, as field names are
    """
    wanted = name.lower()
    for line in stanza.split(b"\n"):
        found, colon, value = line.partition(b":")
        if colon and found.lower() == wanted:
            return value.strip()
    return None


class StanzaMerger(base.Merger):
    """:cvar what: the kind of file, for messages"""

    what = ""

    def key(self, stanza: bytes) -> bytes:
        """:raises InvalidInput: the stanza does not say what it is about"""
        raise NotImplementedError

    def required(self, stanza: bytes, name: bytes) -> bytes:
        value = field(stanza, name)
        if not value:
            raise exceptions.InvalidInput(
                what=self.what, reason=f"a stanza has no {name.decode()}")
        return value

    def parse(self, content: bytes) -> list[tuple[bytes, bytes]]:
        return [(self.key(stanza), stanza) for stanza in split(content, self.what)]

    def build(self, rows: list[tuple[bytes, bytes]]) -> bytes:
        return join([stanza for _, stanza in rows])


class PackageStanzas(StanzaMerger):
    """One stanza a package and architecture; the key is ``name:arch``."""

    grammar = base.Grammar(base.STANZAS, rb"(?ims)\A(?=.*?^Package:[ \t]*([^\n]*?)[ \t]*$)"
                                         rb"(?=(?:.*?^Architecture:[ \t]*([^\n]*?)[ \t]*$)?)")

    def key(self, stanza: bytes) -> bytes:
        return (self.required(stanza, b"Package") + b":"
                + (field(stanza, b"Architecture") or b""))

    def hint(self, key: bytes, row: bytes) -> tuple[str, bytes]:
        return "package", key.partition(b":")[0]
