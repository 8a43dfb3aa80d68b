"""Progress of long work as one stream of events with several readers.

The producer calls :func:`report`; who listens is decided once, by the
command line (a bar on a terminal, JSON lines) or by a service. Without a
listener an event costs one comparison.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One step of an operation.

    :ivar operation: what is going on, e.g. ``"inject"``
    :ivar current: how much is done, in ``unit``
    :ivar total: how much there is to do, 0 if not known
    :ivar unit: ``"bytes"``, ``"files"`` or ``"steps"``
    :ivar subject: the object worked on (a name or an id)
    :ivar seconds: since the operation began
    :ivar done: the operation's last event, however it ended
    """

    operation: str
    current: int
    total: int
    unit: str
    subject: str = ""
    seconds: float = 0.0
    done: bool = False


Listener = Callable[[Event], None]
_listeners: list[Listener] = []


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send every event to ``listener`` for the length of the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def forward(event: Event) -> None:
    """Pass on what was heard elsewhere."""
    for listener in list(_listeners):
        listener(event)


class Operation:
    """A running operation; :meth:`advance` tells the listeners.

    Events are at least ``interval`` seconds apart, except the first and the
    last one, so that a loop over files may call this for each of them.
    """

    interval = 0.1

    def __init__(self, operation: str, total: int = 0, unit: str = "bytes",
                 subject: str = "") -> None:
        self.operation, self.total, self.unit, self.subject = operation, total, unit, subject
        self.current = 0
        self.began = time.monotonic()
        self._last = 0.0

    def advance(self, amount: int = 1) -> None:
        self.current += amount
        if _listeners:
            now = time.monotonic()
            if now - self._last >= self.interval:
                self._last = now
                self._send(now)

    def _send(self, now: float, *, done: bool = False) -> None:
        forward(Event(operation=self.operation, current=self.current, total=self.total,
                      unit=self.unit, subject=self.subject, seconds=now - self.began,
                      done=done))

    def __enter__(self) -> Operation:
        self._send(time.monotonic())
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self.total == 0:
            self.total = self.current
        self._send(time.monotonic(), done=True)
