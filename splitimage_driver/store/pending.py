"""Parts whose composite is not recorded yet.

A capture stores its parts one by one and the composite that refers to them
last. Until then each of them is used by the capture's session: nobody can
delete it. When the session ends first, by whatever cause, the parts that it
brought go with it; those that were there before stay.

Kept as rows of ``uses`` with the session as holder: ``capture`` for a part
that this or another unfinished capture brought, ``session`` for any other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from splitimage_driver.model.part import Part
from splitimage_driver.store.contents import PART, Contents, Target
from splitimage_driver.store.database import Database
from splitimage_driver.store.session import Session
from splitimage_driver.store.tables import Tables, kind

CAPTURE, SESSION = "capture", "session"
_OURS = f"target = '{PART}' AND kind IN ('{CAPTURE}', '{SESSION}')"


class Pending:
    """What takes a connection works in the caller's transaction."""

    def __init__(self, database: Database, session: Session, tables: Tables,
                 contents: Contents) -> None:
        self.database, self.session = database, session
        self.tables, self.contents = tables, contents

    def note(self, connection: sqlite3.Connection, part: Part, *, fresh: bool) -> None:
        """This session needs the part; ``fresh``: and has just stored it."""
        brought = fresh or connection.execute(
            "SELECT 1 FROM uses WHERE target = ? AND kind = ? AND owner = ? AND digest = ?",
            (PART, CAPTURE, part.owner, part.id)).fetchone() is not None
        connection.execute(
            "INSERT OR IGNORE INTO uses VALUES (?, ?, ?, ?, ?)",
            (CAPTURE if brought else SESSION, self.session.name, part.owner, PART, part.id))

    def settle(self, connection: sqlite3.Connection, owner: str, done: Iterable[Target]) -> None:
        """These are to stay: a composite of ``owner`` refers to them, or
        they were stored for their own sake."""
        for target, digest in done:
            if target != PART:
                continue
            where = f"{_OURS} AND owner = ? AND digest = ?"
            connection.execute(f"DELETE FROM uses WHERE {where} AND holder = ?",  # noqa: S608
                               (owner, digest, self.session.name))  # (own words only)
            # Another capture that meets it still needs it, yet did not bring it.
            connection.execute(f"UPDATE OR REPLACE uses SET kind = ? WHERE {where}",  # noqa: S608
                               (SESSION, owner, digest))

    def release(self) -> None:
        """At the end of this session."""
        self._end(self.session.name)

    def release_dead(self) -> None:
        """Of sessions that ended early."""
        for row in self.database.query(
                f"SELECT DISTINCT holder FROM uses WHERE {_OURS}"):  # noqa: S608 - as above
            if not self.session.alive(row["holder"]):
                self._end(row["holder"])

    def _end(self, session: str) -> None:
        useless: set[Target] = set()
        mine = f"{_OURS} AND holder = ?"
        if not self.database.query(f"SELECT 1 FROM uses WHERE {mine}", session):  # noqa: S608
            return
        with self.database.writing() as connection:
            rows = connection.execute(
                f"DELETE FROM uses WHERE {mine} RETURNING kind, owner, digest",  # noqa: S608
                (session,)).fetchall()
            for row in rows:
                part = self.tables.get(connection, Part, row["digest"], row["owner"])
                if (part is None or row["kind"] != CAPTURE
                        or self.tables.users_of_part(connection, part)):
                    continue
                useless |= self.contents.relate(connection, kind(Part), part.id, part.owner, set())
                self.tables.delete(connection, part)
            self.contents.doom(connection, useless)
        self.contents.collect(useless)
