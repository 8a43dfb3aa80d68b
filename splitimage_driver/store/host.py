"""The half of a store that is about this host, wherever its records are: work in
progress, contents, locks, the queue, servers, the history.

::

    splitimage.db    records, uses, leases, queue, history
    objects/         disks and part blobs, named by sha256
    manifests/       likewise, zstd, named by the sha256 of what is in them
    tmp/             work in progress
    servers/ID/      overlays, consoles, sockets
    locks/           files to lock
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.server import Server
from splitimage_driver.store import base
from splitimage_driver.store.check import Checker
from splitimage_driver.store.contents import Contents, Target, targets
from splitimage_driver.store.database import Database
from splitimage_driver.store.locks import Locks
from splitimage_driver.store.queue import AssemblyQueue
from splitimage_driver.store.records import Finding, Need, QueueItem
from splitimage_driver.store.retention import Limits
from splitimage_driver.store.scratch import Scratch, remove_tree
from splitimage_driver.store.session import Session
from splitimage_driver.store.space import Space
from splitimage_driver.store.tables import Record, Tables, kind

LOG = logging.getLogger(__name__)
_DIRECTORIES = ("objects", "manifests", "tmp", "servers", "locks")
_SERVER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
#: Events of one kind that the history keeps, the newest.
_REMEMBERED = 10_000
_facts = msgspec.json.Decoder(dict[str, object])
_Result = TypeVar("_Result")


class Options(Protocol):
    """The group ``[store]``, see :mod:`splitimage_driver.conf.store`."""

    lock_timeout: float
    grace: int
    minimum_free: int


class HostStore(base.Store):
    """:param path: the directory, made with mode 0700 if need be
    :param options: the group ``[store]``
    :param retention: the group ``[retention]`` (its three limits); None: no
        limits
    :param max_parallel: assemblies that may run at the same time
    :param max_scratch: bytes that these may need for their work; 0: any
    :raises StoreCorrupt: :raises StoreVersion: :raises StoreFull:
    :raises InvalidInput: the directory cannot be made or written

    May be used by several threads; after a fork by the child, too.

    :cvar remote: kinds of what records need that are kept elsewhere, see
        :class:`splitimage_driver.store.contents.Contents`
    """

    remote: frozenset[str] = frozenset()

    def __init__(self, path: Path, options: Options, *, retention: Any = None,
                 max_parallel: int = 1, max_scratch: int = 0) -> None:
        self._root = Path(path).absolute()
        self.location = str(self._root)
        self._options = options
        self._limits = Limits() if retention is None else Limits(
            max_age=retention.max_age, max_count=retention.max_count,
            max_bytes=retention.max_bytes)
        self._space = Space(self._root, options.minimum_free)
        self._make_directories()
        self._locks = Locks(self._root / "locks", self._space, options.lock_timeout)
        self._scratch = Scratch(self._root / "tmp", self._space)
        self._database = Database(self._root / "splitimage.db", self._space,
                                  max(options.lock_timeout, 1.0))
        self._session = Session(self._root / "locks", self._space)
        self._tables = Tables(self._database, self.location)
        self._contents = Contents(self._root, self._database, self._session, self._scratch,
                                  self._space, remote=self.remote)
        self._queue = AssemblyQueue(self._database, self._session, max_parallel, max_scratch)
        try:
            self._open_database()
            self._release_dead()
            self._scratch.tidy()
        except BaseException:
            self._database.close()
            self._session.close()
            raise

    def _make_directories(self) -> None:
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._space.guard():
                for name in _DIRECTORIES:
                    (self._root / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise exceptions.InvalidInput(what=f"store {self._root}",
                                          reason=error.strerror) from error

    def _open_database(self) -> None:
        if not self._database.path.exists():
            with self.lock("create"), self._scratch.directory(reserve=False) as folder:
                self._database.create(folder)
        self._database.query("SELECT 1 FROM queue")
        self._database.complete()

    def close(self) -> None:
        """What was stored for a record that was not written goes."""
        try:
            if self._session.own:
                self._release()
        except exceptions.SplitImageError as error:
            LOG.warning("cannot tidy up, the next start will: %s", error)
        finally:
            self._database.close()
            self._session.close()

    def _release(self) -> None:
        self._contents.release()

    def _release_dead(self) -> None:
        self._contents.release_dead()

    # -- objects --------------------------------------------------------------

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        return self._scratch.directory()

    def adopt(self, path: Path) -> str:
        return self._contents.adopt(path)

    def path(self, digest: str) -> Path:
        return self._contents.path(digest)

    def is_local(self, digest: str) -> bool:
        with contextlib.suppress(exceptions.NotFound):
            return bool(self._contents.path(digest))
        return False

    def verify(self, digest: str) -> None:
        self._contents.verify(digest)

    def hold(self, digests: Iterable[str]) -> contextlib.AbstractContextManager[None]:
        return self._contents.hold(digests)

    def put_manifest(self, manifest: Manifest) -> str:
        self._contents.put(manifest.encode(), manifest.digest)
        return manifest.digest

    def manifest(self, digest: str) -> Manifest:
        return self._decoded(digest, Manifest.decode)

    def _decoded(self, digest: str, decode: Callable[[bytes], _Result]) -> _Result:
        return decode(self._contents.read(digest))

    # -- transactions ---------------------------------------------------------

    @contextlib.contextmanager
    def _change(self) -> Iterator[tuple[sqlite3.Connection, set[Target]]]:
        """A write transaction, and the set of what it makes useless; that is
        removed once the transaction has committed."""
        useless: set[Target] = set()
        with self._database.writing() as connection:
            yield connection, useless
            self._contents.doom(connection, useless)
        try:
            self._contents.collect(useless)
        except (exceptions.LockTimeout, exceptions.StoreFull) as error:
            # The change itself is made; the next start removes what stays.
            LOG.warning("cannot remove what is not needed any more: %s", error)

    # -- servers --------------------------------------------------------------

    def save_server(self, server: Server) -> None:
        self._server_path(server.id)
        with self._change() as (connection, useless):
            useless |= self._contents.relate(connection, "server", server.id, server.owner,
                                             targets(server))
            self._tables.put(connection, server)

    def server(self, name_or_id: str) -> Server:
        return self._tables.find(Server, name_or_id)

    def servers(self) -> list[Server]:
        return self._tables.all(Server)

    def delete_server(self, server_id: str) -> None:
        server = self._tables.find(Server, server_id)
        with self._change() as (connection, useless):
            useless |= self._drop(connection, server)
        remove_tree(self._server_path(server.id))

    def server_directory(self, server_id: str) -> Path:
        return self._server_path(server_id)

    def _server_path(self, server_id: str) -> Path:
        if not _SERVER_ID.match(server_id):
            raise exceptions.InvalidInput(what=f"server id {server_id!r}",
                                          reason="it cannot be the name of a directory")
        return self._root / "servers" / server_id

    # -- processes ------------------------------------------------------------

    def lock(self, name: str, *,
             timeout: float | None = None) -> contextlib.AbstractContextManager[None]:
        return self._locks.lock(name, timeout)

    def turn(self, subject: str, need: Need | None = None,
             way: Callable[[bytes], float] | None = None,
             ) -> contextlib.AbstractContextManager[None]:
        return self._queue.turn(subject, need, way)

    def queue(self, *, forecast: bool = False) -> list[QueueItem]:
        return self._queue.items(forecast=forecast)

    def cancel(self, item_id: str) -> None:
        self._queue.cancel(item_id, self.location)

    # -- history --------------------------------------------------------------

    def record(self, event: str, facts: dict[str, object]) -> None:
        document = msgspec.json.encode(facts, enc_hook=str).decode()
        with self._database.writing() as connection:
            connection.execute("INSERT INTO history (event, time, facts) VALUES (?, ?, ?)",
                               (event, time.time(), document))
            connection.execute(
                "DELETE FROM history WHERE event = ?1 AND id <= (SELECT id FROM history"
                " WHERE event = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)", (event, _REMEMBERED))

    def history(self, event: str | None = None, *, limit: int = 100) -> list[dict[str, object]]:
        rows = self._database.query(
            "SELECT event, time, facts FROM history WHERE ?1 IS NULL OR event = ?1"
            " ORDER BY id DESC LIMIT ?2", event, limit)
        try:
            return [{**_facts.decode(row["facts"]), "event": row["event"], "time": row["time"]}
                    for row in rows]
        except msgspec.DecodeError as error:
            raise self._database.corrupt(f"its history cannot be read: {error}") from error

    def check(self, *, repair: bool = False) -> Iterator[Finding]:
        return self._checker()(
            self._root, self._database, self._tables, self._contents, self._scratch, self._locks,
            self._release_dead, grace=self._options.grace).run(repair=repair)

    def _checker(self) -> Callable[..., Checker]:
        return Checker

    # -- common ---------------------------------------------------------------

    def _drop(self, connection: sqlite3.Connection, record: Record) -> set[Target]:
        """Delete a record; returns what it needed."""
        useless = self._contents.relate(connection, kind(type(record)), record.id, record.owner,
                                        set())
        self._tables.delete(connection, record)
        return useless

    def _in_use(self, what: str, name: str, users: list[str]) -> exceptions.InUse:
        shown = ", ".join(users[:10]) + (f" and {len(users) - 10} more" if len(users) > 10 else "")
        return exceptions.InUse(kind=what, name=name, users=shown)
