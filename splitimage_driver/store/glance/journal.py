"""Images of the image service that a session of this host has begun and not
finished.

Whoever is killed leaves them behind, and who finds them later cannot tell them from
what somebody is at work on. So they are noted here, before they are made: what a
session noted that is dead now, nobody is at work on.

Kept as rows of ``uses``: the session is the holder, the project the owner.
"""

from __future__ import annotations

from typing import NamedTuple

from splitimage_driver.store.database import Database
from splitimage_driver.store.session import Session

UNFINISHED, IMAGE = "unfinished", "image"


class Begun(NamedTuple):
    """:ivar image: id"""

    session: str
    project: str
    image: str


class Journal:
    """:param project: whose images this session makes"""

    def __init__(self, database: Database, session: Session, project: str) -> None:
        self.database, self.session, self.project = database, session, project

    def begin(self, image: str) -> None:
        with self.database.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO uses VALUES (?, ?, ?, ?, ?)",
                               (UNFINISHED, self.session.name, self.project, IMAGE, image))

    def end(self, *images: str) -> None:
        """They are finished, or gone."""
        if images:
            with self.database.writing() as connection:
                connection.executemany(
                    "DELETE FROM uses WHERE kind = ? AND target = ? AND digest = ?",
                    [(UNFINISHED, IMAGE, image) for image in images])

    def dead(self, project: str | None = None) -> list[Begun]:
        """What dead sessions have left. :param project: None: of all projects"""
        rows = self.database.query(
            "SELECT holder, owner, digest FROM uses WHERE kind = ? AND target = ?"
            " AND (?3 IS NULL OR owner = ?3) ORDER BY holder, digest",
            UNFINISHED, IMAGE, project)
        gone = {name for name in {row["holder"] for row in rows} if not self.session.alive(name)}
        return [Begun(row["holder"], row["owner"], row["digest"]) for row in rows
                if row["holder"] in gone]
