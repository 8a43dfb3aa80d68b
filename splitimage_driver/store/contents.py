"""Objects and the records that use them: nothing used is ever removed.

Two rules make this hold between processes. Whoever stores an object writes
a lease first and looks whether the object is there second. Whoever removes
one does so inside a write transaction in which neither a record nor a live
session's lease speaks for it. A record takes the lease's place in the
transaction that writes it, which also checks that the object is there.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.part import Part
from splitimage_driver.model.server import Server
from splitimage_driver.store import objects
from splitimage_driver.store.database import Database
from splitimage_driver.store.scratch import Scratch
from splitimage_driver.store.session import Session
from splitimage_driver.store.space import Space

LOG = logging.getLogger(__name__)
OBJECT, MANIFEST, PART = "object", "manifest", "part"
ADOPTED, HELD, DROPPED = "adopted", "held", "dropped"
#: What a record needs: (``object``, ``manifest`` or ``part``, digest).
Target = tuple[str, str]


def targets(record: Composite | Part | Image | Server) -> set[Target]:
    """All that a record needs to be there."""
    if isinstance(record, Composite):
        found = {(OBJECT, record.base.disk), (MANIFEST, record.base.manifest),
                 (PART, record.restore), *((PART, ref.id) for ref in record.parts.values())}
    elif isinstance(record, Part):
        found = {(OBJECT, record.blob), (MANIFEST, record.id)}
    elif isinstance(record, Image):
        found = {(OBJECT, record.disk), (MANIFEST, record.manifest),
                 *((PART, digest) for digest in record.filesets)}
    else:
        found = {(OBJECT, record.disk), *((PART, digest) for digest in record.filesets)}
        if record.layout is not None and not record.layout.settled:
            found |= {(OBJECT, disk.blob) for disk in record.layout.disks}
            found |= {(PART, digest) for digest in record.layout.filesets}
    return {(kind, digest) for kind, digest in found if digest}


class Contents:
    """The files of a store: ``objects/`` and ``manifests/``.

    :param remote: kinds of targets that are kept elsewhere: what a record
        here needs of them is noted, and taken to be there
    """

    def __init__(self, path: Path, database: Database, session: Session, scratch: Scratch,
                 space: Space, *, remote: frozenset[str] = frozenset()) -> None:
        self.location, self.database, self.session = str(path), database, session
        self.remote = remote
        self.scratch, self.space = scratch, space
        self.files = {OBJECT: objects.ObjectDirectory(path / "objects", space),
                      MANIFEST: objects.ObjectDirectory(path / "manifests", space)}

    # -- in -------------------------------------------------------------------

    def adopt(self, file: Path, known: str = "") -> str:
        """See :meth:`splitimage_driver.store.base.Store.adopt`.

        :param known: its sha256, where whoever wrote it has that
        """
        with self.space.guard(needed=file.stat().st_size if file.exists() else 0):
            digest = objects.finish(file, known)
        self._lease({(OBJECT, digest)}, ADOPTED)
        self.files[OBJECT].place(file, digest)
        return digest

    def put(self, data: bytes, digest: str) -> None:
        """Store a manifest's canonical bytes."""
        packed = objects.pack(data)
        self._lease({(MANIFEST, digest)}, ADOPTED)
        with contextlib.suppress(exceptions.NotFound, exceptions.DigestMismatch):
            self.read(digest)
            self.files[MANIFEST].touch(digest)
            return
        self.space.require(len(packed))
        with self.space.guard(len(packed)), self.scratch.directory() as folder:
            file = folder / "manifest"
            file.write_bytes(packed)
            objects.finish(file)
            self.files[MANIFEST].place(file, digest, replace=True)

    # -- out ------------------------------------------------------------------

    def path(self, digest: str) -> Path:
        """:raises NotFound: no such object"""
        if not self.files[OBJECT].has(digest):
            raise self._absent(OBJECT, digest)
        return self.files[OBJECT].path(digest)

    def read(self, digest: str) -> bytes:
        """A manifest's canonical bytes. :raises NotFound: :raises DigestMismatch:"""
        if not self.files[MANIFEST].has(digest):
            raise self._absent(MANIFEST, digest)
        return objects.unpack(self.files[MANIFEST].path(digest), digest)

    def verify(self, digest: str) -> None:
        """:raises NotFound: :raises DigestMismatch:"""
        if self.files[MANIFEST].has(digest) and not self.files[OBJECT].has(digest):
            self.read(digest)
            return
        path = self.path(digest)
        found = objects.digest(path)
        if found != digest:
            raise exceptions.DigestMismatch(what=f"object {path}", expected=digest, found=found)

    def _absent(self, kind: str, digest: str) -> exceptions.NotFound:
        return exceptions.NotFound(kind=kind, name=digest, where=self.location)

    # -- leases ---------------------------------------------------------------

    def _lease(self, wanted: Iterable[Target], reason: str) -> list[int]:
        with self.database.writing() as connection:
            return self._note(connection, wanted, reason)

    def _note(self, connection: sqlite3.Connection, wanted: Iterable[Target],
              reason: str) -> list[int]:
        return [connection.execute(
            "INSERT INTO leases (reason, target, digest, session) VALUES (?, ?, ?, ?)"
            " RETURNING id", (reason, *target, self.session.name)).fetchone()[0]
            for target in sorted(wanted)]

    @contextlib.contextmanager
    def hold(self, digests: Iterable[str],
             fetch: Callable[[list[str]], object] = list) -> Iterator[None]:
        """Keep objects for the length of the block, whatever is deleted.

        :param fetch: is told them once nothing can take them away any more, to
            bring those that are not here
        :raises NotFound: one is not there
        """
        wanted = {(OBJECT, digest) for digest in digests if digest}
        leases = self._lease(wanted, HELD)
        try:
            fetch([digest for _, digest in sorted(wanted)])
            for _, digest in wanted:
                self.path(digest)
            yield
        finally:
            with self.database.writing() as connection:
                connection.executemany("DELETE FROM leases WHERE id = ?", [(i,) for i in leases])
                self.doom(connection, wanted)
            self.collect(wanted)

    def settle(self, connection: sqlite3.Connection, done: Iterable[Target]) -> None:
        """End one of this session's adoptions of each target: it has been
        recorded, or is not wanted after all."""
        for target in done:
            connection.execute(
                "DELETE FROM leases WHERE id = (SELECT min(id) FROM leases WHERE reason = ?"
                " AND target = ? AND digest = ? AND session = ?)",
                (ADOPTED, *target, self.session.name))

    def release(self) -> None:
        """At the end of this session: what it stored and did not record goes."""
        self._end([self.session.name])

    def release_dead(self) -> None:
        """What sessions that ended early stored, or began to remove, goes."""
        rows = self.database.query("SELECT DISTINCT session FROM leases")
        self._end([row["session"] for row in rows if not self.session.alive(row["session"])])

    def _end(self, sessions: list[str]) -> None:
        for name in sessions:
            rows = self.database.query("SELECT target, digest FROM leases WHERE session = ?", name)
            if rows:
                # Noted anew, should this be killed, too.
                with self.database.writing() as connection:
                    connection.execute("DELETE FROM leases WHERE session = ?", (name,))
                    gone = {(row["target"], row["digest"]) for row in rows}
                    self._note(connection, gone, DROPPED)
                self.collect(gone)

    # -- uses -----------------------------------------------------------------

    def relate(self, connection: sqlite3.Connection, kind: str, holder: str, owner: str,
               wanted: set[Target]) -> set[Target]:
        """Note what a record needs, in the transaction that writes it.

        Only what it did not need before must be there, so that a damaged
        store can still be mended record by record.

        :returns: what it needed before and does not now, for :meth:`collect`
        :raises NotFound: something is not there
        """
        # Only parts are told apart by their owner, too.
        mine = "kind = ? AND holder = ?"
        key: tuple[str, ...] = (kind, holder)
        if kind == PART:
            mine, key = mine + " AND owner = ?", (*key, owner)
        before = {(row["target"], row["digest"]) for row in connection.execute(
            f"SELECT target, digest FROM uses WHERE {mine}", key)}  # noqa: S608 - as above
        for target, digest in sorted(wanted - before):
            if not self.present(connection, target, digest):
                raise self._absent(target, digest)
        connection.execute(f"DELETE FROM uses WHERE {mine}", key)  # noqa: S608 - as above
        connection.executemany("INSERT INTO uses VALUES (?, ?, ?, ?, ?)",
                               [(kind, holder, owner, *target) for target in sorted(wanted)])
        self.settle(connection, wanted)
        return before - wanted

    def present(self, connection: sqlite3.Connection, target: str, digest: str) -> bool:
        if target in self.remote:
            return True
        if target == PART:
            return connection.execute("SELECT 1 FROM parts WHERE id = ?",
                                      (digest,)).fetchone() is not None
        return self.files[target].has(digest)

    @staticmethod
    def used(connection: sqlite3.Connection, target: str, digest: str) -> bool:
        """Whether a record needs it."""
        return connection.execute("SELECT 1 FROM uses WHERE target = ? AND digest = ?",
                                  (target, digest)).fetchone() is not None

    def leased(self, connection: sqlite3.Connection, target: str, digest: str) -> bool:
        """Whether a live session speaks for it."""
        return any(self.session.alive(row["session"]) for row in connection.execute(
            "SELECT DISTINCT session FROM leases WHERE reason != ? AND target = ?"
            " AND digest = ?", (DROPPED, target, digest)))

    def doom(self, connection: sqlite3.Connection, gone: Iterable[Target]) -> None:
        """In the transaction that ends their use: whoever comes to it calls
        :meth:`collect`, this process or, after a crash, another."""
        self._note(connection, [target for target in gone if target[0] in self.files], DROPPED)

    def collect(self, gone: Iterable[Target], *, grace: float = 0.0) -> set[Target]:
        """Remove those files that nothing speaks for any more; called after
        the transaction that ended their use has committed.

        :param grace: seconds that a file must be old
        :returns: those removed
        """
        todo = sorted(target for target in gone if target[0] in self.files)
        removed = set()
        if todo:
            with self.database.writing() as connection:
                for target, digest in todo:
                    connection.execute(
                        "DELETE FROM leases WHERE reason = ? AND target = ? AND digest = ?",
                        (DROPPED, target, digest))
                    if (self.used(connection, target, digest)
                            or self.leased(connection, target, digest)
                            or (grace and self.young(target, digest, grace))):
                        continue
                    size = self.files[target].remove(digest)
                    LOG.info("removed %s %s, %d bytes: nothing uses it", target, digest, size)
                    removed.add((target, digest))
        return removed

    def young(self, target: str, digest: str, grace: float) -> bool:
        """Whether it was stored, or found stored already, that lately."""
        try:
            return time.time() - self.files[target].path(digest).stat().st_mtime < grace
        except FileNotFoundError:
            return False
