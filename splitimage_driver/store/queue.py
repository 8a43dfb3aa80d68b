"""The queue of assemblies: places on this host, given in order of arrival."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.store.database import Database
from splitimage_driver.store.records import RUNNING, WAITING, QueueItem
from splitimage_driver.store.session import Session

LOG = logging.getLogger(__name__)
_ALL = "SELECT id, subject, state, pid, session, since FROM queue ORDER BY place"


class AssemblyQueue:
    """:param places: how many may run at the same time"""

    #: Seconds between two looks at the queue: one small read each.
    interval = 0.05

    def __init__(self, database: Database, session: Session, places: int) -> None:
        self.database, self.session, self.places = database, session, places

    @contextlib.contextmanager
    def turn(self, subject: str) -> Iterator[None]:
        """Wait for a place and run the block in it. Not to be entered twice
        by one thread: it would wait for its own place.

        :raises Cancelled: somebody took it out of the queue meanwhile
        """
        item = self._enter(subject)
        try:
            self._wait(item, subject)
            yield
        finally:
            self._leave(item)

    def items(self) -> list[QueueItem]:
        """Those that run, then those that wait, in order of arrival."""
        rows = self._alive(self.database.query(_ALL))
        found = [QueueItem(id=row["id"], subject=row["subject"], state=row["state"],
                           pid=row["pid"], since=row["since"]) for row in rows]
        return sorted(found, key=lambda item: item.state != RUNNING)

    def cancel(self, item_id: str, where: str) -> None:
        """:raises NotFound: :raises InUse: it runs already"""
        self._alive(self.database.query(_ALL))
        with self.database.writing() as connection:
            row = connection.execute("SELECT state, pid FROM queue WHERE id = ?",
                                     (item_id,)).fetchone()
            if row is None:
                raise exceptions.NotFound(kind="queue", name=item_id, where=where)
            if row["state"] == RUNNING:
                raise exceptions.InUse(kind="queue item", name=item_id,
                                       users=f"process {row['pid']}, which assembles it already")
            connection.execute("DELETE FROM queue WHERE id = ?", (item_id,))

    def _enter(self, subject: str) -> str:
        item = secrets.token_hex(4)
        with self.database.writing() as connection:
            connection.execute(
                "INSERT INTO queue (id, subject, state, pid, session, since)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (item, subject, WAITING, os.getpid(), self.session.name, time.time()))
        return item

    def _wait(self, item: str, subject: str) -> None:
        told = False
        # Looking costs no lock; only who seems to be next takes it, to look
        # again and move up in one transaction.
        while not (self._is_next(self._alive(self.database.query(_ALL)), item, subject)
                   and self._start(item, subject)):
            if not told:
                LOG.info("%s waits in the queue as %s", subject, item)
                told = True
            time.sleep(self.interval)

    def _start(self, item: str, subject: str) -> bool:
        with self.database.writing() as connection:
            if not self._is_next(connection.execute(_ALL).fetchall(), item, subject):
                return False
            connection.execute("UPDATE queue SET state = ? WHERE id = ?", (RUNNING, item))
            return True

    def _is_next(self, rows: Sequence[sqlite3.Row], item: str, subject: str) -> bool:
        running = sum(row["state"] == RUNNING for row in rows)
        first = next((row["id"] for row in rows if row["state"] == WAITING), None)
        if first != item and all(row["id"] != item for row in rows):
            raise exceptions.Cancelled(what=subject)
        return first == item and running < self.places

    def _alive(self, rows: Sequence[sqlite3.Row]) -> list[sqlite3.Row]:
        """Without those of dead processes, which are dropped for all."""
        gone = {name for name in {row["session"] for row in rows} if not self.session.alive(name)}
        dead = {row["id"] for row in rows if row["session"] in gone}
        if dead:
            with self.database.writing() as connection:
                connection.executemany("DELETE FROM queue WHERE id = ?", [(i,) for i in dead])
        return [row for row in rows if row["id"] not in dead]

    def _leave(self, item: str) -> None:
        """Errors here must not hide the block's: the row goes with the process."""
        try:
            with self.database.writing() as connection:
                connection.execute("DELETE FROM queue WHERE id = ?", (item,))
        except exceptions.SplitImageError as error:
            LOG.warning("cannot leave the queue: %s", error)
