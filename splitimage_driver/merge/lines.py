"""Files that are sets of lines, one row a line."""

from __future__ import annotations

import re

from splitimage_driver import exceptions
from splitimage_driver.merge import base, sets

#: No file of these kinds comes near it.
MAX_BYTES = 16 << 20


def split(content: bytes, what: str) -> list[bytes]:
    """The lines without their newlines.

    :param what: the kind of file, for the message
    :raises InvalidInput: not text, or larger than any real one
    """
    if len(content) > MAX_BYTES:
        raise exceptions.InvalidInput(
            what=what, reason=f"it has {len(content)} bytes, more than {MAX_BYTES}")
    if b"\0" in content:
        raise exceptions.InvalidInput(what=what, reason="it holds a NUL byte")
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def join(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def relative(path: bytes) -> tuple[str, bytes]:
    """The hint for an absolute path; none for anything else."""
    return ("path", path.lstrip(b"/")) if path.startswith(b"/") else ("", b"")


class LineMerger(base.Merger):
    """Keyed by the whole line unless a subclass knows better.

    :cvar what: the kind of file, for messages
    :cvar line: full match of every line
    """

    what = ""
    line: re.Pattern[bytes] = re.compile(rb".*", re.DOTALL)

    def parse(self, content: bytes) -> list[tuple[bytes, bytes]]:
        rows = []
        for number, line in enumerate(split(content, self.what), 1):
            match = self.line.fullmatch(line)
            if match is None:
                raise exceptions.InvalidInput(
                    what=self.what, reason=f"line {number} has not the format of such a file")
            rows.append((match["key"] if "key" in match.re.groupindex else line, line))
        return rows

    def build(self, rows: list[tuple[bytes, bytes]]) -> bytes:
        return join([line for _, line in rows])

    def piece(self, row: bytes, name: str) -> bytes:
        """A named group of the line's pattern, empty where there is none."""
        match = self.line.fullmatch(row)
        return (match[name] or b"") if match else b""


class Shells(LineMerger):
    """etc/shells: the login shells."""

    pattern = re.compile(rb"etc/shells")
    what = "list of shells"

    def hint(self, key: bytes, row: bytes) -> tuple[str, bytes]:
        return relative(base.plain(key))


class StatOverride(LineMerger):
    """var/lib/dpkg/statoverride: ``owner group mode path``."""

    pattern = re.compile(rb"var/lib/dpkg/statoverride")
    what = "dpkg statoverride"
    line = re.compile(rb"[^ ]+ [^ ]+ [0-7]+ (?P<key>.+)")
    grammar = base.Grammar(key=rb"\A[^ ]+ [^ ]+ [0-7]+ (.+)")

    def hint(self, key: bytes, row: bytes) -> tuple[str, bytes]:
        return relative(base.plain(key))


class FileTriggers(LineMerger):
    """var/lib/dpkg/triggers/File: ``path package[:arch][/noawait]``."""

    pattern = re.compile(rb"var/lib/dpkg/triggers/File")
    what = "dpkg file triggers"
    line = re.compile(rb"/.* (?P<package>[^ :/]+)(:[^ /]+)?(/(no)?await)?")
    vanishes = True

    def hint(self, key: bytes, row: bytes) -> tuple[str, bytes]:
        return "package", self.piece(base.plain(key), "package")


class Triggers(LineMerger):
    """var/lib/dpkg/triggers/NAME: the packages interested in a trigger."""

    pattern = re.compile(rb"var/lib/dpkg/triggers/(?!(?:File|Unincorp|Lock)\Z)[^/]+")
    what = "dpkg trigger"
    line = re.compile(rb"(?P<package>[^ :/]+)(:[^ /]+)?(/(no)?await)?")
    vanishes = True

    def hint(self, key: bytes, row: bytes) -> tuple[str, bytes]:
        return "package", self.piece(base.plain(key), "package")


class PendingTriggers(LineMerger):
    """var/lib/dpkg/triggers/Unincorp: ``trigger package...``, activated and
    not yet told to the interested packages."""

    pattern = re.compile(rb"var/lib/dpkg/triggers/Unincorp")
    what = "dpkg pending triggers"
    line = re.compile(rb"(?P<key>[^ ]+)(?P<packages>( [^ ]+)+)")
    grammar = base.Grammar(key=rb"\A([^ ]+)")

    def combine(self, key: bytes, base: bytes | None,
                one: bytes, two: bytes) -> bytes | None:
        waiting = sets.three_way(*(self.piece(row or b"", "packages").split(b" ")[1:]
                                   for row in (base, one, two)))
        return b" ".join([key, *waiting]) if waiting else None

    def hint(self, key: bytes, row: bytes) -> tuple[str, bytes]:
        return relative(base.plain(key))


class UcfHashes(LineMerger):
    """var/lib/ucf/hashfile: ``md5  path`` of each configuration file."""

    pattern = re.compile(rb"var/lib/ucf/hashfile")
    what = "ucf hash file"
    line = re.compile(rb"[0-9a-f]{32}\s+(?P<key>/.*)")
    grammar = base.Grammar(key=rb"\A[0-9a-f]{32}\s+(/.*)")

    def hint(self, key: bytes, row: bytes) -> tuple[str, bytes]:
        return relative(base.plain(key))


class UcfRegistry(LineMerger):
    """var/lib/ucf/registry: ``package path`` of each configuration file."""

    pattern = re.compile(rb"var/lib/ucf/registry")
    what = "ucf registry"
    line = re.compile(rb"(?P<package>[^\s]+)\s+(?P<key>/.*)")
    grammar = base.Grammar(key=rb"\A[^\s]+\s+(/.*)")

    def hint(self, key: bytes, row: bytes) -> tuple[str, bytes]:
        package = self.piece(row, "package").partition(b":")[0]
        return ("package", package) if package else relative(base.plain(key))


class Architectures(LineMerger):
    """var/lib/dpkg/arch: the native architecture, then the foreign ones."""

    pattern = re.compile(rb"var/lib/dpkg/arch")
    what = "dpkg architectures"
    line = re.compile(rb"[a-z0-9][a-z0-9-]*")
