"""The SQLite file of a local store: schema, connections, transactions.

A record is a MessagePack ``document`` beside the few columns that queries
need, so that a field added to a model later needs no migration.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from splitimage_driver import exceptions
from splitimage_driver.store.space import OVERHEAD, Space

#: Raised when a store made by an older release cannot be read any more.
SCHEMA = 1
#: "spli", in SQLite's own header: tells a store's database from any other.
APPLICATION = 0x73706C69

_TABLES = """
CREATE TABLE composites (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    created REAL NOT NULL,
    document BLOB NOT NULL
) STRICT;

CREATE TABLE parts (
    id TEXT NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    created REAL NOT NULL,
    document BLOB NOT NULL,
    PRIMARY KEY (id, owner)
) STRICT;
CREATE INDEX parts_name ON parts (name);

CREATE TABLE images (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    owner TEXT NOT NULL,
    composite TEXT NOT NULL REFERENCES composites (id),
    recipe TEXT NOT NULL,
    public INTEGER NOT NULL,
    created REAL NOT NULL,
    last_used REAL NOT NULL,
    document BLOB NOT NULL,
    UNIQUE (owner, recipe)
) STRICT;
CREATE INDEX images_recipe ON images (recipe);
CREATE INDEX images_name ON images (name);
CREATE INDEX images_composite ON images (composite);

CREATE TABLE servers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    owner TEXT NOT NULL,
    composite TEXT NOT NULL,
    image TEXT NOT NULL,
    disk TEXT NOT NULL,
    created REAL NOT NULL,
    document BLOB NOT NULL
) STRICT;

-- What a record needs: target is 'object', 'manifest' or 'part'.
CREATE TABLE uses (
    kind TEXT NOT NULL,
    holder TEXT NOT NULL,
    owner TEXT NOT NULL,
    target TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (kind, holder, owner, target, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX uses_digest ON uses (target, digest);

-- Objects that a session has stored and not yet recorded ('adopted'), reads
-- for a while ('held'), or is about to remove ('dropped').
CREATE TABLE leases (
    id INTEGER PRIMARY KEY,
    reason TEXT NOT NULL,
    target TEXT NOT NULL,
    digest TEXT NOT NULL,
    session TEXT NOT NULL
) STRICT;
CREATE INDEX leases_digest ON leases (target, digest);

CREATE TABLE queue (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    subject TEXT NOT NULL,
    state TEXT NOT NULL,
    pid INTEGER NOT NULL,
    session TEXT NOT NULL,
    since REAL NOT NULL
) STRICT;

CREATE TABLE history (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    event TEXT NOT NULL,
    time REAL NOT NULL,
    facts TEXT NOT NULL
) STRICT;
CREATE INDEX history_event ON history (event);
"""

#: What came later: a store made before has it from when it is opened.
_LATER = """
-- What images are that were used here, see store/glance/used.py.
CREATE TABLE IF NOT EXISTS used (
    image TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    time REAL NOT NULL,
    document BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS used_time ON used (kind, time);

-- What an assembly in the queue needs: seconds to make it from a stored image
-- (source is its name), and room. From its image, which is the base's tree with
-- its changes, those of the same kin can be made.
CREATE TABLE IF NOT EXISTS assemblies (
    item TEXT PRIMARY KEY REFERENCES queue (id) ON DELETE CASCADE,
    kin TEXT NOT NULL,
    seconds REAL NOT NULL,
    source TEXT NOT NULL,
    room INTEGER NOT NULL,
    began REAL,
    overtaken INTEGER NOT NULL DEFAULT 0,
    document BLOB NOT NULL,
    changes BLOB
) STRICT;
-- Seconds to make one item of the queue from the image of another.
CREATE TABLE IF NOT EXISTS ways (
    source TEXT NOT NULL REFERENCES queue (id) ON DELETE CASCADE,
    goal TEXT NOT NULL REFERENCES queue (id) ON DELETE CASCADE,
    seconds REAL NOT NULL,
    PRIMARY KEY (source, goal)
) STRICT, WITHOUT ROWID;
"""
#: The last of each that is in there.
_ADDED = frozenset({"used_time", "ways"})


class _Connection(sqlite3.Connection):
    """Closed with the thread that opened it."""


class Database:
    """One connection for each thread and process, opened when needed.

    :param path: of the database file
    :param space: of the file system it is on
    :param timeout: seconds to wait for another process's transaction
    """

    def __init__(self, path: Path, space: Space, timeout: float) -> None:
        self.path, self.space, self.timeout = path, space, timeout
        self._pid = os.getpid()
        self._local = threading.local()
        self._opened: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._inherited: list[_Connection] = []

    # -- opening --------------------------------------------------------------

    def create(self, scratch: Path) -> None:
        """Make an empty database in ``scratch``, then rename it to its place,
        so that a database that is there is whole. One that is there is left
        alone; the caller holds a lock."""
        if self.path.exists():
            return
        with self._errors():
            fresh = scratch / "new.db"
            with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                connection.executescript(
                    f"BEGIN; {_TABLES} {_LATER} PRAGMA application_id = {APPLICATION};"
                    f" PRAGMA user_version = {SCHEMA}; COMMIT;")
                # Last: tables written in this mode would reach the file when
                # it is closed, which does not tell when the disk is full.
                connection.execute("PRAGMA journal_mode = WAL")
            fresh.chmod(0o600)
            # The log of a database that was moved away would damage this one,
            # and may be wanted to mend that one.
            log = self.path.with_name(self.path.name + "-wal")
            if log.exists():
                log.rename(log.with_name(f"{log.name}.{time.time_ns()}"))
            self.path.with_name(self.path.name + "-shm").unlink(missing_ok=True)
            os.rename(fresh, self.path)
            sync_directory(self.path.parent)

    def complete(self) -> None:
        """Add what came later to a database that was made before."""
        there = self.query("SELECT name FROM sqlite_master")
        if {row["name"] for row in there} >= _ADDED:
            return
        with self.writing() as connection:
            for statement in _LATER.split(";"):
                connection.execute(statement)

    def _connect(self) -> _Connection:
        if not self.path.is_file():
            raise self.corrupt("the file is not there")
        if self.path.stat().st_size == 0:
            # SQLite would take an empty file for a new database.
            raise self.corrupt("the file is empty")
        connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=rw", uri=True,
                                     timeout=self.timeout, isolation_level=None,
                                     check_same_thread=False, factory=_Connection)
        try:
            found = connection.execute("PRAGMA application_id").fetchone()[0]
            if found != APPLICATION:
                raise self.corrupt("it is not the database of a store")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != SCHEMA:
                raise exceptions.StoreVersion(path=str(self.path.parent), found=version,
                                              expected=SCHEMA)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        connection.row_factory = sqlite3.Row
        return connection

    def _connection(self) -> _Connection:
        if self._pid != os.getpid():
            # After a fork SQLite's connections must be neither used nor closed.
            self._inherited += self._opened
            self._opened, self._local = weakref.WeakSet(), threading.local()
            self._pid = os.getpid()
        mine: _Connection | None = getattr(self._local, "connection", None)
        if mine is None:
            mine = self._local.connection = self._connect()
            self._opened.add(mine)
        return mine

    def close(self) -> None:
        """Close the connections of all threads of this process."""
        if self._pid == os.getpid():
            for connection in list(self._opened):
                connection.close()
            self._opened, self._local = weakref.WeakSet(), threading.local()

    # -- work -----------------------------------------------------------------

    def query(self, statement: str, *parameters: Any) -> list[sqlite3.Row]:
        """All rows of one reading statement."""
        with self._errors():
            return self._connection().execute(statement, parameters).fetchall()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A consistent view over several statements; writers go on."""
        with self._errors():
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction with the write lock from its start, so that what it
        reads stays true until it commits; undone by any exception.

        Not to be entered twice by one thread.
        """
        with self._errors():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._translate(error) from error
        except UnicodeDecodeError as error:  # SQLite's own message quotes the damage
            raise self.corrupt("it holds text that is none") from error

    def corrupt(self, reason: str) -> exceptions.StoreCorrupt:
        """One line, whatever the damaged file has put into ``reason``."""
        shown = "".join(c if c.isprintable() else "?" for c in reason)
        return exceptions.StoreCorrupt(path=str(self.path), reason=shown)

    def _translate(self, error: sqlite3.Error) -> Exception:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_FULL or (
                code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
                and self.path.parent.is_dir() and self.space.exhausted()):
            return self.space.full(OVERHEAD)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return exceptions.LockTimeout(what=f"the database {self.path}", seconds=self.timeout)
        if code in (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
                    sqlite3.SQLITE_AUTH):
            return exceptions.InvalidInput(what=f"store {self.path.parent}", reason=str(error))
        if isinstance(error, sqlite3.ProgrammingError):
            return error  # a mistake of ours, not of the file
        return self.corrupt(str(error))


def sync_directory(path: Path) -> None:
    """Make the names in a directory last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
