"""The queue of assemblies: places on this host.

Every process that waits looks at the rows and finds the same one to be next,
see :mod:`splitimage_driver.planning.waiting`; nobody rules. What it costs to
make one from another is worked out once, by the one that would be made, and
kept in the rows until one of the two leaves.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import zstandard
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.planning import waiting
from splitimage_driver.planning.waiting import Choice, Item, Limits
from splitimage_driver.store.database import Database
from splitimage_driver.store.records import RUNNING, WAITING, Need, QueueItem
from splitimage_driver.store.session import Session

LOG = logging.getLogger(__name__)
_ALL = ("SELECT id, subject, state, pid, session, since, kin, seconds, source, room, began,"
        " overtaken, document, changes IS NOT NULL AS gives"
        " FROM queue LEFT JOIN assemblies ON item = id ORDER BY place")
_WAYS = "SELECT source, goal, seconds FROM ways"
_need = msgspec.msgpack.Decoder(Need)

#: Tells the seconds to make the caller's image from one with such changes.
Way = Callable[[bytes], float]


class AssemblyQueue:
    """:param places: how many may run at the same time
    :param room: bytes of scratch space that they may need together; 0: any
    """

    #: Seconds between two looks at the queue: one small read each.
    interval = 0.05
    #: Seconds after which who could begin is asked again, though nobody came or
    #: went: with the time, what one waits for may cease to be worth it.
    patience = 1.0

    def __init__(self, database: Database, session: Session, places: int, room: int = 0) -> None:
        self.database, self.session, self.places = database, session, places
        self.room = room

    @contextlib.contextmanager
    def turn(self, subject: str, need: Need | None = None, way: Way | None = None,
             ) -> Iterator[None]:
        """See :meth:`splitimage_driver.store.base.Store.turn`. Not to be
        entered twice by one thread: it would wait for its own place."""
        if need is not None and 0 < self.room < need.room:
            raise exceptions.TooLarge(what=f"the scratch space for {subject}", size=need.room,
                                      limit=self.room, unit="bytes",
                                      option="[assembly] max_scratch_bytes")
        item = self._enter(subject, need)
        stored = False
        try:
            _Wait(self, item, subject, need, way).run()
            yield
            stored = True
        finally:
            self._leave(item, subject, stored=stored)

    def items(self, *, forecast: bool = False) -> list[QueueItem]:
        """Those that run, then those that wait, in order of arrival."""
        rows = self.alive(self.database.query(_ALL))
        found = sorted((self._told(row) for row in rows), key=lambda item: item.state != RUNNING)
        if not forecast:
            return found
        told = waiting.forecast(_items(rows), self.ways(), Limits(self.places, self.room))
        subjects = {row["id"]: row["subject"] for row in rows}
        return [item if item.need is None or item.id not in told else msgspec.structs.replace(
            item, left=told[item.id].seconds,
            source=subjects.get(told[item.id].source, item.source)) for item in found]

    def _told(self, row: sqlite3.Row) -> QueueItem:
        need = None if row["document"] is None else _need.decode(row["document"])
        left = None if row["began"] is None else _seconds(row)
        return QueueItem(id=row["id"], subject=row["subject"], state=row["state"],
                         pid=row["pid"], since=row["since"], need=need, left=left,
                         source=row["source"] or "")

    def cancel(self, item_id: str, where: str) -> None:
        """:raises NotFound: :raises InUse: it runs already"""
        self.alive(self.database.query(_ALL))
        with self.database.writing() as connection:
            row = connection.execute("SELECT state, pid FROM queue WHERE id = ?",
                                     (item_id,)).fetchone()
            if row is None:
                raise exceptions.NotFound(kind="queue", name=item_id, where=where)
            if row["state"] == RUNNING:
                raise exceptions.InUse(kind="queue item", name=item_id,
                                       users=f"process {row['pid']}, which assembles it already")
            connection.execute("DELETE FROM queue WHERE id = ?", (item_id,))

    # -- coming and going ---------------------------------------------------------------

    def _enter(self, subject: str, need: Need | None) -> str:
        item = secrets.token_hex(4)
        with self.database.writing() as connection:
            connection.execute(
                "INSERT INTO queue (id, subject, state, pid, session, since)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (item, subject, WAITING, os.getpid(), self.session.name, time.time()))
            if need is not None:
                connection.execute(
                    "INSERT INTO assemblies (item, kin, seconds, source, room, document, changes)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (item, need.kin, need.seconds, need.source, need.room,
                     msgspec.msgpack.encode(msgspec.structs.replace(need, changes=b"")),
                     zstandard.compress(need.changes) if need.changes else None))
        return item

    def start(self, item: str, subject: str) -> bool:
        """Take a place, if it is still this one that is next."""
        with self.database.writing() as connection:
            rows = connection.execute(_ALL).fetchall()
            choice = self.next(rows, _ways(connection.execute(_WAYS)), item, subject)
            if choice is None or choice.item != item:
                return False
            connection.execute("UPDATE queue SET state = ? WHERE id = ?", (RUNNING, item))
            connection.execute("UPDATE assemblies SET began = ? WHERE item = ?",
                               (time.time(), item))
            connection.executemany(
                "UPDATE assemblies SET overtaken = overtaken + 1 WHERE item = ?",
                [(each,) for each in choice.passed])
            return True

    def next(self, rows: Sequence[sqlite3.Row], ways: waiting.Ways, item: str,
             subject: str) -> Choice | None:
        """:raises Cancelled: ``item`` is not in the queue any more"""
        if all(row["id"] != item for row in rows):
            raise exceptions.Cancelled(what=subject)
        return waiting.choose(_items(rows), ways, Limits(self.places, self.room))

    def _leave(self, item: str, subject: str, *, stored: bool) -> None:
        """Errors here must not hide the block's: the row goes with the process.

        :param stored: whether others find its image there now
        """
        try:
            with self.database.writing() as connection:
                if stored:
                    connection.execute(
                        "UPDATE assemblies SET seconds = ways.seconds, source = ?1 FROM ways"
                        " WHERE ways.source = ?2 AND goal = item AND began IS NULL"
                        " AND ways.seconds < assemblies.seconds", (subject, item))
                connection.execute("DELETE FROM queue WHERE id = ?", (item,))
        except exceptions.SplitImageError as error:
            LOG.warning("cannot leave the queue: %s", error)

    # -- reading ------------------------------------------------------------------------

    def rows(self) -> list[sqlite3.Row]:
        return self.alive(self.database.query(_ALL))

    def ways(self) -> waiting.Ways:
        return _ways(self.database.query(_WAYS))

    def alive(self, rows: Sequence[sqlite3.Row]) -> list[sqlite3.Row]:
        """Without those of dead processes, which are dropped for all."""
        gone = {name for name in {row["session"] for row in rows} if not self.session.alive(name)}
        dead = {row["id"] for row in rows if row["session"] in gone}
        if dead:
            with self.database.writing() as connection:
                connection.executemany("DELETE FROM queue WHERE id = ?", [(i,) for i in dead])
        return [row for row in rows if row["id"] not in dead]


class _Wait:
    """Of one item, until it has its place."""

    def __init__(self, queue: AssemblyQueue, item: str, subject: str, need: Need | None,
                 way: Way | None) -> None:
        self.queue, self.item, self.subject, self.need = queue, item, subject, need
        self._way = way
        self._met: set[str] = {item}
        self._seen: tuple[float, list[Any]] = (-math.inf, [])

    def run(self) -> None:
        """:raises Cancelled:"""
        told = False
        # Looking costs no lock; only who seems to be next takes it, to look
        # again and move up in one transaction.
        while not (self._is_next() and self.queue.start(self.item, self.subject)):
            if not told:
                LOG.info("%s waits in the queue as %s", self.subject, self.item)
                told = True
            time.sleep(self.queue.interval)

    def _is_next(self) -> bool:
        rows = self.queue.rows()
        if self._meet(rows):
            self._seen = (-math.inf, [])
        running = sum(row["state"] == RUNNING for row in rows)
        if running >= self.queue.places and any(row["id"] == self.item for row in rows):
            return False
        now, seen = time.monotonic(), [tuple(row) for row in rows]
        if now - self._seen[0] < self.queue.patience and seen == self._seen[1]:
            return False
        self._seen = (now, seen)
        choice = self.queue.next(rows, self.queue.ways(), self.item, self.subject)
        return choice is not None and choice.item == self.item

    def _meet(self, rows: Sequence[sqlite3.Row]) -> bool:
        """Work out what it costs to be made from those that came since."""
        if self._way is None or self.need is None:
            return False
        came = [row["id"] for row in rows if row["kin"] == self.need.kin and row["gives"]
                and row["id"] not in self._met]
        self._met.update(came)
        found = []
        for other in came:
            for row in self.queue.database.query("SELECT changes FROM assemblies WHERE item = ?",
                                                 other):
                seconds = self._way(zstandard.decompress(row["changes"]))
                if math.isfinite(seconds):
                    found.append((other, self.item, seconds))
        if found:
            with self.queue.database.writing() as connection:
                # One of the two may have left meanwhile.
                connection.executemany(
                    "INSERT OR IGNORE INTO ways SELECT ?1, ?2, ?3 WHERE"
                    " (SELECT count(*) FROM queue WHERE id IN (?1, ?2)) = 2", found)
        return bool(found)


def _ways(rows: Any) -> dict[tuple[str, str], float]:
    return {(row["source"], row["goal"]): row["seconds"] for row in rows}


def _items(rows: Sequence[sqlite3.Row]) -> list[Item]:
    """What is no assembly has no kin."""
    return [Item(id=row["id"], kin=row["kin"] or row["id"], running=row["state"] == RUNNING,
                 seconds=_seconds(row), room=row["room"] or 0, overtaken=row["overtaken"] or 0)
            for row in rows]


def _seconds(row: sqlite3.Row) -> float:
    if row["began"] is None:
        return row["seconds"] or 0.0
    return waiting.remaining(row["seconds"], time.time() - row["began"])
