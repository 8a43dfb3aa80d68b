from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from splitimage_driver import exceptions


def _until(condition: Any) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen in 10 s")


class Worker(threading.Thread):
    """Waits for a turn, then for leave to end it."""

    def __init__(self, store: Any, subject: str, log: list[str]) -> None:
        super().__init__(daemon=True)
        self.store, self.subject, self.log = store, subject, log
        self.end = threading.Event()
        self.error: Exception | None = None
        self.start()
        _until(lambda: self.item() or not self.is_alive())

    def item(self) -> Any:
        return next((i for i in self.store.queue() if i.subject == self.subject), None)

    def run(self) -> None:
        try:
            with self.store.turn(self.subject):
                self.log.append(self.subject)
                self.end.wait(30)
        except exceptions.SplitImageError as error:
            self.error = error


def test_turns_come_in_order_of_arrival(store: Any) -> None:
    log: list[str] = []
    workers = [Worker(store, str(number), log) for number in range(4)]
    for number, worker in enumerate(workers):
        _until(lambda worker=worker: worker.item().state == "running")
        assert [item.state for item in store.queue()] == ["running"] + ["waiting"] * (3 - number)
        assert log == [str(n) for n in range(number + 1)]
        worker.end.set()
        worker.join()
    assert store.queue() == [] and log == ["0", "1", "2", "3"]


def test_as_many_run_as_there_are_places(open_local: Any) -> None:
    store = open_local(max_parallel=2)
    log: list[str] = []
    workers = [Worker(store, str(number), log) for number in range(3)]
    _until(lambda: len(log) == 2)
    assert [item.state for item in store.queue()] == ["running", "running", "waiting"]
    workers[1].end.set()
    _until(lambda: log == ["0", "1", "2"] or log == ["1", "0", "2"])
    assert [item.subject for item in store.queue()] == ["0", "2"]
    assert all(item.pid == os.getpid() and item.since <= time.time() for item in store.queue())
    for worker in workers:
        worker.end.set()
        worker.join()


def test_who_waits_can_be_cancelled(store: Any) -> None:
    log: list[str] = []
    first, second, third = (Worker(store, name, log) for name in ("one", "two", "three"))
    _until(lambda: log == ["one"])
    store.cancel(second.item().id)
    second.join(10)
    assert isinstance(second.error, exceptions.Cancelled) and "two" in str(second.error)
    with pytest.raises(exceptions.InUse, match=str(os.getpid())):
        store.cancel(first.item().id)
    with pytest.raises(exceptions.NotFound):
        store.cancel("ghost")
    for worker in (first, third):
        worker.end.set()
        worker.join()
    assert log == ["one", "three"] and store.queue() == []


def test_the_dead_lose_their_places(store: Any, make: Any) -> None:
    for number, state in enumerate(("running", "waiting")):
        make.sql("INSERT INTO queue (id, subject, state, pid, session, since)"
                 " VALUES (?, 'dead', ?, ?, 'dead', 1.0)", str(number), state, os.getpid())
    with store.turn("alive"):
        assert [item.subject for item in store.queue()] == ["alive"]
    with pytest.raises(exceptions.NotFound):
        store.cancel("1")


def test_an_error_in_the_block_gives_the_place_back(store: Any) -> None:
    with pytest.raises(ZeroDivisionError), store.turn("x"):
        raise ZeroDivisionError
    assert store.queue() == []


def test_who_looks_more_often_is_not_served_earlier(open_local: Any) -> None:
    stores = [open_local() for _ in range(3)]
    for store, interval in zip(stores, (0.01, 0.3, 0.01), strict=True):
        store._queue.interval = interval
    log: list[str] = []
    workers = [Worker(store, str(number), log) for number, store in enumerate(stores)]
    _until(lambda: log == ["0"])
    for worker in workers:
        worker.end.set()
    for worker in workers:
        worker.join()
    assert log == ["0", "1", "2"]
