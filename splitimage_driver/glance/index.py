"""All composites and completed images of a cloud, in memory.

Ids, owners, roles, visibility, and what they are made of: enough to say which
few images deserve a look. It knows of everybody's images, so nothing of it is
told before Glance itself has shown the caller the image in question.

It is brought up to date when it is asked, by what has changed in the database
since. So several API processes agree, however the others came to know.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.store.glance import api, holdings
from splitimage_driver.store.glance.api import Description

LOG = logging.getLogger(__name__)
#: Seconds by which one question overlaps with the one before: more than the
#: clocks of the API hosts differ, and than a transaction takes.
_OVERLAP = 60
#: Seconds in which another change may bear the same time.
_UNSETTLED = 3
#: Roles that are of use: there are as many manifests as all of these.
_KEPT = (properties.COMPOSITE, properties.COMPLETED, properties.PART)


class Head(NamedTuple):
    """:ivar updated: in UTC, whole seconds
    :ivar role: None: it has none of ours
    """

    id: str
    updated: datetime.datetime
    deleted: bool
    role: str | None


class Source(Protocol):
    """See :class:`splitimage_driver.glance.database.Database`."""

    def heads(self, since: datetime.datetime | None) -> list[Head]: ...

    def read(self, ids: Iterable[str]) -> Iterator[Description]: ...


class Composite(NamedTuple):
    """:ivar shown: not hidden, so that its name leads to it"""

    id: str
    name: str
    owner: str
    visibility: str
    shown: bool


class Completed(NamedTuple):
    """:ivar elements: names of its parts, digests of its file sets
    :ivar system: digest of the manifest of the base that it is made from
    :ivar size: bytes of its disk
    """

    id: str
    owner: str
    public: bool
    hidden: bool
    composite: str
    system: str
    elements: frozenset[str]
    recipe: str
    size: int


class FileSet(NamedTuple):
    id: str
    owner: str
    digest: str


Record = Composite | Completed | FileSet


def record(image: Description) -> Record | None:
    """What is kept of an image; None: it is of no use in a plan.

    :raises BadImage: a property is not as this project writes it
    """
    if image["status"] != api.ACTIVE or not image["owner"]:
        return None
    role, owner = properties.role(image), image["owner"]
    if holdings.foreign(image):
        return None
    if role == properties.COMPOSITE:
        return Composite(image["id"], str(image["name"] or ""), owner, image["visibility"],
                         not image["os_hidden"])
    if role == properties.COMPLETED:
        found = properties.completed(image, 0)
        return Completed(found.id, owner, found.public, bool(image["os_hidden"]),
                         found.composite, properties.digest(image, "splitimage_os"),
                         frozenset((*found.parts, *found.filesets)), found.recipe,
                         found.disk_size)
    if role == properties.PART and "splitimage_os" not in image:
        return FileSet(image["id"], owner, properties.digest(image))
    return None


class Index:
    """:param source: the database"""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._asked: float | None = None
        self._since: datetime.datetime | None = None
        self._stamps: dict[str, datetime.datetime] = {}
        self._records: dict[str, Record] = {}
        self._completed: dict[str, dict[str, Completed]] = {}
        self._names: dict[str, dict[str, Composite]] = {}
        self._filesets: dict[tuple[str, str], dict[str, FileSet]] = {}

    def __len__(self) -> int:
        return len(self._records)

    # -- what is there ------------------------------------------------------------------

    def named(self, name: str) -> list[Composite]:
        """Composites of a name, anybody's."""
        with self._lock:
            return sorted(self._names.get(name, {}).values())

    def completed(self, composite: str, system: str, *, project: str, owner: str,
                  ) -> list[Completed]:
        """The images that a project may complete: its own, and public ones of
        the composite's owner.

        :param composite: id
        :param system: digest of the manifest of its base
        """
        with self._lock:
            found = list(self._completed.get(composite, {}).values())
        return [image for image in found if image.system == system and (
            image.owner == project or (image.public and image.owner == owner))]

    def filesets(self, digest: str, owner: str) -> list[FileSet]:
        with self._lock:
            return sorted(self._filesets.get((owner, digest), {}).values())

    # -- keeping it current -------------------------------------------------------------

    def refresh(self) -> None:
        """Learn of all that was changed before this call."""
        called = time.monotonic()
        with self._lock:
            # Whoever waited for another's question has its answer, if it was
            # asked late enough.
            if self._asked is None or self._asked < called:
                asked = time.monotonic()
                self._update(datetime.datetime.now(datetime.UTC).replace(tzinfo=None))
                self._asked = asked

    def _update(self, now: datetime.datetime) -> None:
        heads = self._source.heads(self._since)
        changed, gone = set(), set()
        unsettled = now - datetime.timedelta(seconds=_UNSETTLED)
        for head in heads:
            if head.deleted or head.role not in _KEPT:
                if head.id in self._stamps:
                    gone.add(head.id)
            elif head.updated >= unsettled or self._stamps.get(head.id) != head.updated:
                changed.add(head.id)
        stamps = {head.id: head.updated for head in heads}
        for image in self._source.read(frozenset(changed)):
            changed.discard(image["id"])
            self._stamps[image["id"]] = stamps[image["id"]]
            self._learn(image)
        for name in gone | changed:  # or deleted between the two questions
            self._stamps.pop(name, None)
            self._forget(name)
        # Only now: what failed is asked for again.
        self._since = now - datetime.timedelta(seconds=_OVERLAP)

    def _learn(self, image: Description) -> None:
        try:
            found = record(image)
        except exceptions.BadImage as error:
            LOG.debug("left out: %s", error)
            found = None
        if found != self._records.get(image["id"]):
            self._forget(image["id"])
            if found is not None:
                self._records[found.id] = found
                shelf, key = self._place(found)
                shelf.setdefault(key, {})[found.id] = found

    def _forget(self, image: str) -> None:
        found = self._records.pop(image, None)
        if found is not None:
            shelf, key = self._place(found)
            shelf[key].pop(image)
            if not shelf[key]:
                del shelf[key]

    def _place(self, found: Record) -> tuple[dict[Any, dict[str, Any]], Any]:
        match found:
            case Completed():
                return self._completed, found.composite
            case Composite():
                return self._names, found.name
            case FileSet():
                return self._filesets, (found.owner, found.digest)
