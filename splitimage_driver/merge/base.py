"""The contract of a merger: one kind of shared file, as rows.

Mergers work on rows so that the same change can be applied to a disk and,
under the file's own lock, inside a running guest. They are pure: bytes in,
bytes out.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping

import msgspec

LINES, STANZAS, TRIPLES, ALTERNATIVES = "lines", "stanzas", "triples", "alternatives"


def plain(key: bytes) -> bytes:
    """A row's key as its merger gave it: the second and later rows of one key
    carry their number behind a NUL, which no key holds."""
    return key.partition(b"\0")[0]


class Grammar(msgspec.Struct, frozen=True):
    """A kind of file as a running guest, which has no merger, can take it
    apart.

    :ivar records: ``lines``; ``stanzas``, separated by empty lines;
        ``triples`` of lines; or ``alternatives``, whose rows only
        update-alternatives can change
    :ivar key: regular expression, for Perl and Python alike, whose groups,
        joined by colons, are a record's key (:meth:`Merger.parse`)
    """

    records: str = LINES
    key: bytes = rb"\A(.*)"


class Merger(abc.ABC):
    """A kind of file. Found by stevedore in ``splitimage.mergers``.

    :cvar pattern: full match of the paths (relative, as in manifests) of
        its files
    :cvar vanishes: the software that owns the file removes it rather than
        leave it without rows
    :cvar grammar: of its files
    """

    pattern: re.Pattern[bytes]
    vanishes: bool = False
    grammar: Grammar = Grammar()

    @abc.abstractmethod
    def parse(self, content: bytes) -> list[tuple[bytes, bytes]]:
        """(key, row) in the file's order; ``build(parse(x))`` is ``x`` for
        every file that the software owning it would write.

        :raises InvalidInput: not such a file"""

    @abc.abstractmethod
    def build(self, rows: list[tuple[bytes, bytes]]) -> bytes:
        """The file's content from its rows."""

    def order(self, key: bytes) -> object | None:
        """Sort key where the format is always written sorted; None: rows keep
        their ranks."""
        return None

    def combine(self, key: bytes, base: bytes | None,
                one: bytes, two: bytes) -> bytes | None:
        """One row from two parts' different versions of it, commutative and
        associative; None: no rule, it is a question."""
        return None

    def hint(self, key: bytes, row: bytes) -> tuple[str, bytes]:
        """Who owns the row (empty: a removed one): ``("package", name)``, ``("path", path)``,
        ``("account", name)`` or ``("", b"")`` where only the step that added
        it tells."""
        return "", b""

    def derived(self, path: bytes, content: bytes,
                links: Mapping[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        """Symbolic links (path: target) that follow from the merged file.

        :param links: links that the tree has already (path: target), which
            decide between equals
        :returns: paths as the file names them: the caller resolves them
            through the tree's directory links, leaves out those whose target
            the tree lacks, and never replaces a file by a link
        """
        return {}

    def absent(self, path: bytes, content: bytes,
               links: Mapping[bytes, bytes] | None = None) -> frozenset[bytes]:
        """Paths of links that the merged file says must not be there."""
        return frozenset()
