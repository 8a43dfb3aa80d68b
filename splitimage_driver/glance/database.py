"""What has changed in Glance's database, asked in as few words as possible.

``image_get_all`` with ``changes-since`` answers the same question with all
properties, locations and members of every image that anybody has touched; here
it is asked several times a second. So ids and times are read first, and then
only what is ours and is new.

Some other process may write with a time that lies back: its clock may differ,
and the time is taken before the transaction ends. So each question overlaps with
the one before, and what was changed a moment ago is read once more, for times
are whole seconds here.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from glance.db.sqlalchemy import api, models

from splitimage_driver.glance.index import Head
from splitimage_driver.store.glance.api import Description

#: Ids in one question.
_CHUNK = 500
_ROLE = "splitimage_role"
_FOREIGN = ("image_type", "base_image_ref")
_COLUMNS = ("id", "name", "owner", "status", "visibility", "os_hidden", "protected", "size",
            "created_at")


class Database:
    """Glance's own, as it has configured it."""

    def heads(self, since: datetime.datetime | None) -> list[Head]:
        """Of the images changed since then, in UTC; None: of all of ours."""
        image, role = models.Image, models.ImageProperty
        with api.session_for_read() as session:
            asked = session.query(image.id, image.updated_at, image.deleted, role.value)
            ours = ((role.image_id == image.id) & (role.name == _ROLE)
                    & (role.deleted == False))  # noqa: E712 - an expression in SQL
            if since is None:
                asked = asked.join(role, ours)
            else:
                asked = asked.outerjoin(role, ours).filter(image.updated_at >= since)
            return [Head(*found) for found in asked.all()]

    def read(self, ids: Iterable[str]) -> Iterator[Description]:
        """Descriptions with the properties that matter here; without what is
        gone."""
        wanted = sorted(ids)
        for start in range(0, len(wanted), _CHUNK):
            yield from self._read(wanted[start:start + _CHUNK])

    def is_gone(self, image: str) -> bool:
        """Whether it is deleted, its data in all places included; not where that
        is put off (``delayed_delete``)."""
        record, place = models.Image, models.ImageLocation
        with api.session_for_read() as session:
            records = session.query(record.deleted, record.status).filter(
                record.id == image).all()
            places = session.query(place.deleted, place.status).filter(
                place.image_id == image).all()
        return bool(records) and all(deleted and status == "deleted"
                                     for deleted, status in (*records, *places))

    def _read(self, ids: Sequence[str]) -> Iterator[Description]:
        image, prop = models.Image, models.ImageProperty
        with api.session_for_read() as session:
            rows = session.query(*(getattr(image, name) for name in _COLUMNS)).filter(
                image.id.in_(ids), image.deleted == False).all()  # noqa: E712
            properties = session.query(prop.image_id, prop.name, prop.value).filter(
                prop.image_id.in_(ids), prop.deleted == False,  # noqa: E712
                prop.name.startswith("splitimage_", autoescape=True)
                | prop.name.in_(_FOREIGN)).all()
        found: dict[str, dict[str, Any]] = {row[0]: {} for row in rows}
        for name, key, value in properties:
            if name in found:
                found[name][key] = value
        for row in rows:
            # A property never hides an attribute.
            yield found[row[0]] | dict(zip(_COLUMNS, row, strict=True))
