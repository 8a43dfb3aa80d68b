from __future__ import annotations

import functools
import os
import sqlite3
import threading
import time
from typing import Any

import msgspec
import pytest

from splitimage_driver import exceptions
from splitimage_driver.planning.waiting import PATIENCE
from splitimage_driver.store.records import Need


def _until(condition: Any) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen in 10 s")


class Worker(threading.Thread):
    """Waits for a turn, then for leave to end it."""

    def __init__(self, store: Any, subject: str, log: list[str], need: Need | None = None,
                 way: Any = None) -> None:
        super().__init__(daemon=True)
        self.store, self.subject, self.log = store, subject, log
        self.need, self.way = need, way
        self.end = threading.Event()
        self.error: Exception | None = None
        self.failure: exceptions.SplitImageError | None = None
        self.start()
        _until(lambda: self.item() or not self.is_alive())

    def item(self) -> Any:
        return next((i for i in self.store.queue() if i.subject == self.subject), None)

    def run(self) -> None:
        try:
            with self.store.turn(self.subject, self.need, self.way):
                self.log.append(self.subject)
                self.end.wait(30)
                if self.failure is not None:
                    raise self.failure
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


# -- assemblies -----------------------------------------------------------------------------


def need(name: str, **fields: Any) -> Need:
    """Of parts with names of one letter, which take 10 seconds each."""
    values: dict[str, Any] = {
        "owner": "me", "composite": "lamp", "parts": tuple(name), "kin": "mine",
        "seconds": 4.0 + 10 * len(name), "source": "lamp", "changes": name.encode()}
    return Need(**(values | fields))


def assembly(store: Any, name: str, log: list[str], **fields: Any) -> Worker:
    def way(changes: bytes) -> float:
        other = set(changes.decode())
        return 4.0 + 10 * len(set(name) - other) + len(other - set(name))
    return Worker(store, name, log, need(name, **fields), way)


def _known(store: Any, count: int) -> None:
    """So many ways from one to another have been worked out."""
    _until(lambda: len(store._queue.ways()) == count)


def _shown(store: Any) -> dict[str, tuple[str, str]]:
    return {item.subject: (item.state, item.source) for item in store.queue(forecast=True)}


def test_kin_begin_in_the_order_in_which_they_are_made(store: Any) -> None:
    log: list[str] = []
    blocker = Worker(store, "import", log)
    workers = [assembly(store, name, log) for name in ("abc", "ab", "a")]
    _known(store, 6)
    assert _shown(store) == {"import": ("running", ""), "a": ("waiting", "lamp"),
                             "ab": ("waiting", "a"), "abc": ("waiting", "ab")}
    left = {item.subject: item.left for item in store.queue(forecast=True)}
    assert left == {"import": None, "a": 14.0, "ab": 28.0, "abc": 42.0}
    for worker in (blocker, *workers[::-1]):
        _until(lambda worker=worker: worker.subject in log)
        worker.end.set()
        worker.join()
    assert log == ["import", "a", "ab", "abc"]
    assert store.queue() == [] == list(store._queue.ways())


def test_what_was_made_serves_those_that_wait(store: Any) -> None:
    log: list[str] = []
    first, second = (assembly(store, name, log) for name in ("a", "ab"))
    third = Worker(store, "other", log)
    _known(store, 1)
    first.end.set()
    first.join()
    _until(lambda: log == ["a", "ab"])
    running, waiting = store.queue()
    assert (running.subject, running.source) == ("ab", "a") and 13 < running.left <= 14
    assert (waiting.subject, waiting.need, waiting.left) == ("other", None, None)
    for worker in (second, third):
        worker.end.set()
        worker.join()


def test_one_waits_for_another_although_a_place_is_free(open_local: Any, make: Any) -> None:
    store = open_local(max_parallel=2)
    store._queue.patience = 0.05
    log: list[str] = []
    parent = assembly(store, "a", log)
    _until(lambda: log == ["a"])
    make.sql("UPDATE assemblies SET began = began - 13")
    child = assembly(store, "ab", log)
    stranger = assembly(store, "abc", log, kin="other")
    _until(lambda: log == ["a", "abc"])
    assert _shown(store)["ab"] == ("waiting", "a") and child.is_alive()
    stranger.end.set()
    stranger.join()
    # Until it takes so long that it is faster by itself.
    make.sql("UPDATE assemblies SET began = began - 20 WHERE began IS NOT NULL")
    _until(lambda: log == ["a", "abc", "ab"])
    for worker in (parent, child):
        worker.end.set()
        worker.join()


def test_where_the_parent_fails_others_go_on_by_themselves(store: Any) -> None:
    log: list[str] = []
    first, second, third = (assembly(store, name, log) for name in ("a", "abc", "ab"))
    _known(store, 4)
    first.failure = exceptions.ApplianceFailed(step="injection", reason="no")
    first.end.set()
    first.join()
    _until(lambda: log == ["a", "ab"])
    assert _shown(store) == {"ab": ("running", "lamp"), "abc": ("waiting", "ab")}
    store.cancel(second.item().id)
    second.join()
    assert isinstance(second.error, exceptions.Cancelled)
    third.end.set()
    third.join()


def test_a_cancelled_parent_is_waited_for_no_more(store: Any) -> None:
    log: list[str] = []
    blocker = Worker(store, "import", log)
    child, parent = (assembly(store, name, log) for name in ("ab", "a"))
    _known(store, 2)
    assert _shown(store)["ab"] == ("waiting", "a")
    store.cancel(parent.item().id)
    parent.join()
    assert _shown(store)["ab"] == ("waiting", "lamp")
    for worker in (blocker, child):
        worker.end.set()
        worker.join()
    assert log == ["import", "ab"]


def test_nothing_is_made_from_what_is_not_published_or_of_others(store: Any) -> None:
    log: list[str] = []
    blocker = Worker(store, "import", log)
    workers = [assembly(store, "ab", log), assembly(store, "a", log, changes=b""),
               assembly(store, "b", log, kin="another project's")]
    _known(store, 1)
    assert _shown(store) == {"import": ("running", ""), "ab": ("waiting", "lamp"),
                             "a": ("waiting", "ab"), "b": ("waiting", "lamp")}
    for worker in (blocker, *workers):
        worker.end.set()
        worker.join()
    assert log == ["import", "ab", "a", "b"]


def test_who_was_overtaken_too_often_goes_next(store: Any, make: Any) -> None:
    log: list[str] = []
    blocker = Worker(store, "import", log)
    child = assembly(store, "ab", log)
    make.sql("UPDATE assemblies SET overtaken = ?", PATIENCE - 1)
    parents = [assembly(store, name, log) for name in "ab"]
    _known(store, 6)
    blocker.end.set()
    _until(lambda: len(log) == 2)
    assert log[1] in ("a", "b")
    for worker in parents:
        worker.end.set()
    _until(lambda: len(log) == 3)
    assert log[2] == "ab"
    child.end.set()
    for worker in (blocker, child, *parents):
        worker.join()


def test_who_does_not_fit_waits_and_who_never_will_is_told(open_local: Any) -> None:
    store = open_local(max_parallel=3, max_scratch=100)
    log: list[str] = []
    first = assembly(store, "a", log, room=60, kin="1")
    second = assembly(store, "b", log, room=60, kin="2")
    third = assembly(store, "c", log, room=40, kin="3")
    _until(lambda: sorted(log) == ["a", "c"])
    with (pytest.raises(exceptions.TooLarge, match="101 > 100 bytes"),
          store.turn("x", need("x", room=101))):
        pass
    first.end.set()
    _until(lambda: sorted(log) == ["a", "b", "c"])
    for worker in (second, third):
        worker.end.set()
    for worker in (first, second, third):
        worker.join()


def test_ways_are_worked_out_once(store: Any) -> None:
    log: list[str] = []
    asked: list[tuple[str, bytes]] = []
    blocker = Worker(store, "import", log)
    names = "a", "b", "ab", "abc"

    def never(name: str, changes: bytes) -> float:
        asked.append((name, changes))
        return float("inf")

    workers = [Worker(store, name, log, need(name), functools.partial(never, name))
               for name in names]
    _until(lambda: len(asked) == 12)
    for worker in (blocker, *workers):
        worker.end.set()
    for worker in (blocker, *workers):
        worker.join()
    assert len(asked) == len(set(asked)) == 12 and log == ["import", *names]


def test_a_store_of_an_earlier_release_gets_what_it_lacks(store: Any, make: Any,
                                                          open_local: Any) -> None:
    for table in "ways", "assemblies":
        make.sql(f"DROP TABLE {table}")
    store.close()
    again = open_local()
    log: list[str] = []
    with sqlite3.connect(make.root / "splitimage.db") as connection:
        assert connection.execute("SELECT count(*) FROM assemblies").fetchone() == (0,)
    worker = assembly(again, "a", log)
    _until(lambda: log == ["a"])
    (item,) = again.queue()
    assert item.need == msgspec.structs.replace(need("a"), changes=b"")
    worker.end.set()
    worker.join()
