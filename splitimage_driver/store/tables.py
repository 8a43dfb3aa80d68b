"""Composites, parts, images and servers as rows."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple, TypeVar, cast

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.part import Part
from splitimage_driver.model.server import Server
from splitimage_driver.store.database import Database

Record = TypeVar("Record", Composite, Part, Image, Server)
_encode = msgspec.msgpack.Encoder().encode


class _Table(NamedTuple):
    """:ivar key: columns that identify a row
    :ivar columns: fields of the model that have a column of their own
    :ivar order: of listings
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    order: str
    decoder: msgspec.msgpack.Decoder[object]

    @property
    def insert(self) -> str:
        names = (*self.columns, "document")
        changed = ", ".join(f"{name} = excluded.{name}" for name in names
                            if name not in self.key)
        return (f"INSERT INTO {self.name} ({', '.join(names)})"  # noqa: S608 - own names only
                f" VALUES ({', '.join('?' * len(names))})"
                f" ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {changed}")

    @property
    def select(self) -> str:
        return f"SELECT id, document FROM {self.name} WHERE "  # noqa: S608 - own names only


_TABLES: dict[type, _Table] = {
    Composite: _Table("composites", ("id",), ("id", "name", "owner", "created"), "name",
                      msgspec.msgpack.Decoder(Composite)),
    Part: _Table("parts", ("id", "owner"), ("id", "owner", "name", "created"),
                 "name, created, id, owner", msgspec.msgpack.Decoder(Part)),
    Image: _Table("images", ("id",),
                  ("id", "name", "owner", "composite", "recipe", "public", "created",
                   "last_used"), "created, id", msgspec.msgpack.Decoder(Image)),
    Server: _Table("servers", ("id",),
                   ("id", "name", "owner", "composite", "image", "disk", "created"),
                   "created, id", msgspec.msgpack.Decoder(Server)),
}
MODELS: tuple[type, ...] = tuple(_TABLES)


def kind(model: type) -> str:
    """``composite``, ``part``, ``image`` or ``server``."""
    return model.__name__.lower()


class Tables:
    """What takes a connection works in the caller's transaction.

    :param location: of the store, for messages
    """

    def __init__(self, database: Database, location: str) -> None:
        self.database, self.location = database, location

    # -- rows -----------------------------------------------------------------

    def put(self, connection: sqlite3.Connection, record: Record) -> None:
        """Insert, or replace the one of the same key."""
        table: _Table = _TABLES[type(record)]
        connection.execute(table.insert, [*(getattr(record, name) for name in table.columns),
                                          _encode(record)])

    def delete(self, connection: sqlite3.Connection, record: Record) -> None:
        table: _Table = _TABLES[type(record)]
        where = " AND ".join(f"{name} = ?" for name in table.key)
        connection.execute(f"DELETE FROM {table.name} WHERE {where}",  # noqa: S608 - own names
                           [getattr(record, name) for name in table.key])

    def get(self, connection: sqlite3.Connection, model: type[Record], record_id: str,
            owner: str | None = None) -> Record | None:
        found = self.select(connection, model, id=record_id, owner=owner)
        return found[0] if found else None

    def named(self, connection: sqlite3.Connection, model: type[Record],
              name: str) -> Record | None:
        found = self.select(connection, model, name=name)
        return found[0] if found else None

    def select(self, connection: sqlite3.Connection, model: type[Record],
               **wanted: str | None) -> list[Record]:
        """Records whose columns have the values given; None: any value."""
        given = {name: value for name, value in wanted.items() if value is not None}
        table = _TABLES[model]
        where = " AND ".join(f"{name} = ?" for name in given) or "1"
        rows = connection.execute(f"{table.select}{where} ORDER BY {table.order}",
                                  list(given.values()))
        return [self.decode(model, row) for row in rows]

    def decode(self, model: type[Record], row: sqlite3.Row) -> Record:
        """:raises StoreCorrupt: not a record of this model"""
        try:
            return cast(Record, _TABLES[model].decoder.decode(row["document"]))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self.database.corrupt(
                f"the record of {kind(model)} {row['id']} cannot be read: {error}") from error

    def raw(self, connection: sqlite3.Connection, model: type) -> list[sqlite3.Row]:
        return connection.execute(f"{_TABLES[model].select}1").fetchall()

    # -- look-ups -------------------------------------------------------------

    def all(self, model: type[Record], **wanted: str | None) -> list[Record]:
        with self.database.reading() as connection:
            return self.select(connection, model, **wanted)

    def find(self, model: type[Record], name_or_id: str, owner: str | None = None, *,
             single: bool = False) -> Record:
        """The record of that id, or else of that name.

        :param single: refuse also when several projects have that id
        :raises NotFound:
        :raises InvalidInput: several have that name
        """
        wanted = {} if owner is None else {"owner": owner}
        with self.database.reading() as connection:
            found = (self.select(connection, model, id=name_or_id, **wanted)
                     or self.select(connection, model, name=name_or_id, **wanted))
        if not found:
            raise exceptions.NotFound(kind=kind(model), name=name_or_id, where=self.location)
        ids = {record.id for record in found}
        if len(ids) > 1:
            raise exceptions.ambiguous(kind(model), name_or_id, ids)
        if single and len(found) > 1:
            raise exceptions.InvalidInput(
                what=f"{kind(model)} {name_or_id}", reason="several projects have it, name one: "
                + ", ".join(record.owner for record in found))
        return found[0]

    def recipe(self, connection: sqlite3.Connection, recipe: str, owner: str) -> Image | None:
        found = self.select(connection, Image, recipe=recipe, owner=owner)
        return found[0] if found else None

    def usable(self, recipe: str, owner: str) -> Image | None:
        """The oldest image of that recipe that ``owner`` may use: visible is
        not trusted, so a public one counts only from the composite's owner."""
        rows = self.database.query(
            "SELECT images.id, images.document FROM images"
            " JOIN composites ON composites.id = images.composite"
            " WHERE recipe = ?1 AND (images.owner = ?2"
            " OR (public AND images.owner = composites.owner))"
            " ORDER BY images.created, images.id LIMIT 1", recipe, owner)
        return self.decode(Image, rows[0]) if rows else None

    # -- users, as "kind name" ------------------------------------------------

    def users_of_part(self, connection: sqlite3.Connection, part: Part) -> list[str]:
        """Records of the part's owner that need it, and others' that have no
        part record of their own for it."""
        rows = connection.execute(
            "SELECT kind, holder FROM uses WHERE target = 'part' AND digest = ?1"
            " AND (owner = ?2 OR NOT EXISTS"
            "  (SELECT 1 FROM parts WHERE parts.id = ?1 AND parts.owner = uses.owner))"
            " ORDER BY kind, holder", (part.id, part.owner)).fetchall()
        return [f"{row['kind']} {self.name(connection, row['kind'], row['holder'])}"
                for row in rows]

    def users_of_composite(self, connection: sqlite3.Connection,
                           composite: Composite) -> list[str]:
        rows = connection.execute(
            "SELECT 'image ' || name FROM images WHERE composite = ?1"
            " UNION ALL SELECT 'server ' || name FROM servers WHERE composite IN (?1, ?2)",
            (composite.id, composite.name)).fetchall()
        return [row[0] for row in rows]

    def users_of_image(self, connection: sqlite3.Connection, image: Image) -> list[str]:
        rows = connection.execute(
            "SELECT 'server ' || name FROM servers WHERE image = ? OR disk = ? ORDER BY created",
            (image.id, image.disk)).fetchall()
        return [row[0] for row in rows]

    def name(self, connection: sqlite3.Connection, what: str, record_id: str) -> str:
        """A record's name for messages; its id when it is gone."""
        for model, table in _TABLES.items():
            if kind(model) == what:
                row = connection.execute(
                    f"SELECT name FROM {table.name} WHERE id = ?",  # noqa: S608 - own names only
                    (record_id,)).fetchone()
                return str(row["name"]) if row else record_id
        return record_id
