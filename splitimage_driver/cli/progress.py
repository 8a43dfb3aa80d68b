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
def shown(way: str, title: str = "", stream: TextIO | None = None) -> Iterator[None]:
    """Show the progress of the block.

    :param way: one of :data:`WAYS`
    :param title: what the block is; stands above the bars of its operations
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
        bars = Bars(_rich(stream), title)
        try:
            with listening(bars):
                yield
        finally:
            bars.stop()


def _lines(stream: TextIO) -> Listener:
    encoder = msgspec.json.Encoder()

    def tell(event: Event) -> None:
        # One write a line: lines of several threads do not mix.
        stream.write(encoder.encode(event).decode("ascii", "backslashreplace") + "\n")
        stream.flush()

    return tell


def _rich(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24),
               TextColumn("{task.fields[amount]}", markup=False, justify="right"),
               TimeElapsedColumn())
    return Progress(*columns, console=Console(file=stream), transient=True,
                    refresh_per_second=8)


class Bars:
    """One bar for each operation that runs; those that are done go, and all
    at the end. Nothing is drawn before the first event: a quick command
    leaves the terminal alone.

    :param bars: a :class:`rich.progress.Progress`, not started
    """

    def __init__(self, bars: Any, title: str = "") -> None:
        self._bars, self._title, self._started = bars, title, False
        self._tasks: dict[tuple[str, str], Any] = {}

    def __call__(self, event: Event) -> None:
        if not self._started:
            self._started = True
            # Its clock tells that something goes on between two operations.
            self._bars.add_task(self._title, total=None, amount="")
            self._bars.start()
        key = (event.operation, event.subject)
        total = event.total or None
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = self._bars.add_task(
                _title(event), total=total, amount=_amount(event))
        self._bars.update(task, completed=event.current, total=total, amount=_amount(event))
        if event.done:
            self._bars.remove_task(self._tasks.pop(key))

    def stop(self) -> None:
        if self._started:
            self._bars.stop()


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
