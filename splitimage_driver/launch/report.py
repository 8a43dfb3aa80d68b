"""What a guest reports of the plan that it carries out.

It writes lines of JSON on its console, where anybody in the guest can write
too, and the kernel in the middle of a line: so all is bounded, what cannot be
read is skipped, and nothing but the plan's own record can come of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from splitimage_driver.model.layout import COMPLETE, FAILED, LAYING, Layout

#: Bytes that a line of a report can have, and that are read of a console at once:
#: what is older is skipped, because a report that matters is repeated.
_LONGEST, _MOST = 4096, 16 << 20
_START = b'{"splitimage":'
_NAME, _REASON, _PATH = 100, 500, 1000
_FAILURES, _KEPT = 100, 20
_COUNT = 10**9


class _Event(msgspec.Struct):
    """One line; what it does not know is ignored."""

    splitimage: str
    event: str
    bytes: int = 0
    part: str = ""
    unit: str = ""
    state: str = ""
    reason: str = ""
    failed: dict[str, str] = {}
    kept: list[str] = []
    kept_count: int = 0


_decode = msgspec.json.Decoder(_Event).decode


def read(layout: Layout, console: Path) -> Layout:
    """The record, with what the guest has told since it was read last."""
    try:
        with console.open("rb") as log:
            size = log.seek(0, 2)
            start = layout.heard if layout.heard <= size else 0  # it is another file
            start = max(start, size - _MOST)
            log.seek(start)
            text = log.read(_MOST)
    except FileNotFoundError:
        return layout
    return heard(msgspec.structs.replace(layout, heard=start), text)


def size(console: Path) -> int:
    """Bytes of a console, which may not be there yet."""
    try:
        return console.stat().st_size
    except FileNotFoundError:
        return 0


def heard(layout: Layout, text: bytes) -> Layout:
    """The record after ``text``, which follows what was heard before. A last line
    without its end is left to be heard again."""
    whole = text.rfind(b"\n") + 1
    if len(text) - whole > _LONGEST:  # no line of ours
        whole = len(text)
    for event in _events(text[:whole]):
        if event.splitimage == layout.id and layout.state == LAYING:
            layout = _after(layout, event)
    return msgspec.structs.replace(layout, heard=layout.heard + whole)


def _events(text: bytes) -> Iterator[_Event]:
    for line in text.split(b"\n"):
        place = line.find(_START)
        if place < 0 or len(line) - place > _LONGEST:
            continue
        try:
            yield _decode(line[place:])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue


def _after(layout: Layout, event: _Event) -> Layout:
    if event.event == "end":
        return _ended(layout, event) if layout.begun else layout
    if event.event == "begin":
        return msgspec.structs.replace(layout, begun=True, done=0)
    if event.event == "progress":
        return msgspec.structs.replace(layout, begun=True,
                                       done=min(max(event.bytes, 0), layout.size))
    if event.event in ("part", "unit"):
        name = _plain(event.part if event.event == "part" else event.unit, _NAME)
        failed = {key: reason for key, reason in layout.failed.items() if key != name}
        if event.state == "failed" and name and len(failed) < _FAILURES:
            failed[name] = _plain(event.reason, _REASON)
        return msgspec.structs.replace(layout, begun=True, failed=failed)
    return layout


def _ended(layout: Layout, event: _Event) -> Layout:
    if event.state not in (COMPLETE, FAILED):
        return layout
    failed = {_plain(name, _NAME): _plain(reason, _REASON)
              for name, reason in list(event.failed.items())[:_FAILURES]}
    kept = tuple(_plain(path, _PATH) for path in event.kept[:_KEPT])
    complete = event.state == COMPLETE
    return msgspec.structs.replace(
        layout, state=event.state, done=layout.size if complete else layout.done,
        failed={} if complete else failed or layout.failed, kept=kept,
        kept_count=min(max(event.kept_count, len(kept)), _COUNT))


def _plain(text: str, most: int) -> str:
    """Without what could play with a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text[:most])
