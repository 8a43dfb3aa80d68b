"""Text from elsewhere, made harmless for a terminal."""

from __future__ import annotations

import codecs
import re

#: ECMA-48's control sequences and strings.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]+[0-~]"
    r"|[0-OQ-WYZ\\`-~])")
#: The beginning of one, at the end of what has arrived.
_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)\Z")
#: What a sequence may have before it is taken for garbage.
_LONGEST = 4096


def printable(text: str) -> str:
    """Control characters, and others that could play with a terminal, as
    escapes; lines stay lines."""
    return "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)


def line(text: str) -> str:
    """The same in one line."""
    return printable(" ".join(text.split()))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class ConsoleText:
    """A serial console's bytes as text in lines: without control sequences,
    in whatever pieces they arrive."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """The text of the next piece; the start of a control sequence at its
        end is held back until the rest is there.

        :param final: there is no more
        """
        text = self._held + self._decoder.decode(data, final)
        begun = None if final else _BEGUN.search(text[-_LONGEST:])
        self._held = begun[0] if begun else ""
        if self._held:
            text = text[:-len(self._held)]
        text = _ESCAPES.sub("", text)
        return "".join(c for c in text if c.isprintable() or c in "\n\t")
