"""Readers of progress."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from splitimage_driver.cli import progress
from splitimage_driver.progress import Event, Operation


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Rich:
    """What :class:`Bars` uses of rich's progress display."""

    def __init__(self) -> None:
        self.started, self.tasks, self.texts = 0, {}, []  # type: ignore[var-annotated]

    def start(self) -> None:
        self.started += 1

    def stop(self) -> None:
        self.started -= 1

    def add_task(self, title: str, *, total: float | None, amount: str) -> int:
        self.tasks[len(self.texts)] = title
        self.texts.append((title, amount))
        return len(self.texts) - 1

    def update(self, task: int, *, completed: float, total: float | None, amount: str) -> None:
        assert task in self.tasks
        self.texts.append((self.tasks[task], amount))

    def remove_task(self, task: int) -> None:
        del self.tasks[task]


def work() -> None:
    with Operation("inject", 4096, "bytes", "lamp") as operation:
        operation.interval = 0
        operation.advance(1024)
        operation.advance(3072)


def test_json_is_a_line_for_each_event() -> None:
    stream = io.StringIO()
    with progress.shown("json", stream=stream):
        work()
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [e["current"] for e in events] == [0, 1024, 4096, 4096]
    assert {e["operation"] for e in events} == {"inject"}
    assert {e["unit"] for e in events} == {"bytes"}
    assert [e["done"] for e in events] == [False, False, False, True]


@pytest.mark.parametrize(("way", "stream", "term"), [
    ("none", Terminal(), "xterm"), ("auto", io.StringIO(), "xterm"), ("auto", Terminal(), "dumb"),
])
def test_nothing_is_said_where_nobody_looks(way: str, stream: io.StringIO, term: str,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    with progress.shown(way, stream=stream):
        work()
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with progress.shown("auto", "assemble", stream=stream):
        work()
    assert "inject" in stream.getvalue()


def test_a_command_without_progress_leaves_the_terminal_alone(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with progress.shown("auto", "image list", stream=stream):
        pass
    assert stream.getvalue() == ""


def event(operation: str, **fields: Any) -> Event:
    return Event(**{"operation": operation, "current": 0, "total": 0, "unit": "bytes", **fields})


def test_each_operation_has_a_bar_as_long_as_it_runs() -> None:
    rich = Rich()
    bars = progress.Bars(rich, "capture")
    bars(event("capture", total=5, unit="steps"))
    bars(event("read", subject="disk"))
    assert sorted(rich.tasks.values()) == ["capture", "capture", "read disk"]
    bars(event("read", subject="disk", current=2 << 20))
    bars(event("read", subject="disk", current=2 << 20, total=2 << 20, done=True))
    bars(event("capture", current=2, total=5, unit="steps"))
    assert sorted(rich.tasks.values()) == ["capture", "capture"]
    assert ("read disk", "2.0 MiB") in rich.texts
    assert rich.texts[-1] == ("capture", "2 of 5 steps")
    bars.stop()
    assert rich.started == 0


def test_a_subject_is_short_and_harmless() -> None:
    rich = Rich()
    progress.Bars(rich)(event("copy", subject="/a/very/long/path/to/some/gold\x1b[1m.qcow2"))
    title = rich.texts[1][0]
    assert title.isprintable()
    assert title.endswith(".qcow2")
    assert len(title) < 40
