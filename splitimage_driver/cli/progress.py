"""Readers of the stream of progress events: a bar, JSON lines."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import msgspec

from splitimage_driver.progress import Event, Listener, listening

AUTO, BAR, JSON, NONE = "auto", "bar", "json", "none"
WAYS = (AUTO, BAR, JSON, NONE)


@contextlib.contextmanager
def shown(way: str, stream: TextIO | None = None) -> Iterator[None]:
    """Show the progress of the block.

    :param way: one of :data:`WAYS`
    :param stream: None: standard error
    """
    stream = stream or sys.stderr
    if way == AUTO:
        way = BAR if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" else NONE
    if way == NONE:
        yield
    elif way == JSON:
        with listening(_lines(stream)):
            yield
    else:
        with _bar(stream) as listener, listening(listener):
            yield


def _lines(stream: TextIO) -> Listener:
    encoder = msgspec.json.Encoder()

    def tell(event: Event) -> None:
        # One write a line: lines of several threads do not mix.
        stream.write(encoder.encode(event).decode("ascii", "backslashreplace") + "\n")
        stream.flush()

    return tell


@contextlib.contextmanager
def _bar(stream: TextIO) -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24),
               TextColumn("{task.fields[amount]}", markup=False, justify="right"),
               TimeElapsedColumn())
    with Progress(*columns, console=Console(file=stream), transient=True,
                  refresh_per_second=8) as bars:
        yield Bars(bars)


class Bars:
    """One bar for each operation that runs; those that are done go.

    :param bars: a :class:`rich.progress.Progress`
    """

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._tasks: dict[tuple[str, str], Any] = {}

    def __call__(self, event: Event) -> None:
        key = (event.operation, event.subject)
        total = event.total or None
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = self._bars.add_task(
                _title(event), total=total, amount=_amount(event))
        self._bars.update(task, completed=event.current, total=total, amount=_amount(event))
        if total is not None and event.current >= total:
            self._bars.remove_task(self._tasks.pop(key))


def _title(event: Event) -> str:
    from splitimage_driver.cli import terminal
    subject = terminal.line(event.subject)
    if len(subject) > 28:
        subject = "…" + subject[-27:]
    return f"{event.operation} {subject}".rstrip()


def _amount(event: Event) -> str:
    from splitimage_driver.cli import columns
    if event.unit == "bytes":
        done, total = columns.size(event.current), columns.size(event.total)
    else:
        done, total = str(event.current), str(event.total)
    if not event.total:
        return done if event.current else ""
    return f"{done} of {total}" if event.unit == "bytes" else f"{done} of {total} {event.unit}"
