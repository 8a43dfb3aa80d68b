"""Records into Glance: what refers to others is finished last.

An image is created first, with all its properties and no data; then its
manifest; its data, which make it active, come last. A composite is hidden, and
marked as unfinished, until then. What a crash leaves is a record without data, a
composite with that mark, and manifests without a finished holder: nobody takes
them for anything, and the collector removes them.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.part import Part
from splitimage_driver.model.properties import Links
from splitimage_driver.store.glance import api, holdings, records, transfer
from splitimage_driver.store.glance.api import Description, Images
from splitimage_driver.store.glance.journal import Journal
from splitimage_driver.store.glance.meeting import Announcement, Meeting, pause
from splitimage_driver.store.glance.transfer import Interrupted
from splitimage_driver.store.scratch import Scratch

LOG = logging.getLogger(__name__)
_ATTEMPTS = 3
#: Data of a part without contents: an image without data is never finished.
EMPTY = bytes(512)
_Result = TypeVar("_Result")


class Publisher:
    """:param store: Glance store for parts and manifests; "": its default one
    :param stall: seconds after which another publisher of the same recipe that
        does nothing is taken for dead
    :param purpose: id of the image that parts are stored for; "" where that is
        not known
    :param journal: is told what is begun and finished
    """

    def __init__(self, images: Images, scratch: Scratch, *, store: str = "",
                 stall: float = 60.0, purpose: str = "",
                 journal: Journal | None = None) -> None:
        self.images, self.scratch = images, scratch
        self.store, self.purpose, self.journal = store, purpose, journal
        self.meeting = Meeting(images, stall=stall)

    # -- parts ------------------------------------------------------------------------

    def part(self, part: Part, manifest: bytes, blob: Path | None) -> Description:
        """Store a part; returns its image.

        :param manifest: its canonical bytes
        :param blob: its squashfs; None: it has no contents
        """
        return self._again(lambda: self._part(part, manifest, blob))

    def _part(self, part: Part, manifest: bytes, blob: Path | None) -> Description:
        holder = str(uuid.uuid4())
        known = properties.of_part(part, holder)
        if self.purpose:
            known["splitimage_for"] = self.purpose
        with self._undone() as made:
            image = self._record(made, part.name, known, protected=True,
                                 visibility=api.PRIVATE)
            self._manifest(holder, image, part.name, records.pack(part, manifest), made)
            if blob is None:
                with self._file(EMPTY) as path:
                    return transfer.upload(self.images, image, path, store=self.store)
            with self.meeting.alive(holder):
                return transfer.upload(self.images, image, blob, store=self.store)

    # -- composites -------------------------------------------------------------------

    def describe(self, composite: Composite, tree: bytes, links: Links,
                 parts: tuple[Part, ...]) -> dict[str, str]:
        """Store a composite's manifest; returns the composite's properties.

        :param tree: canonical bytes of its base's manifest
        :param parts: records of its parts, the restore part included
        """
        holder = str(uuid.uuid4())
        with self._undone() as made:
            self._manifest(holder, composite.id, composite.name,
                           records.pack(composite, tree, parts), made)
        return properties.of_composite(composite, holder, links)

    def composite(self, composite: Composite, tree: bytes, links: Links,
                  parts: tuple[Part, ...], disk: Path) -> Description:
        """Store a new composite; its id is another one where an attempt
        failed."""
        def attempt() -> Description:
            fresh = msgspec.structs.replace(composite, id=str(uuid.uuid4()))
            holder = str(uuid.uuid4())
            with self._undone() as made:
                image = self._record(
                    made, fresh.name, {**properties.of_composite(fresh, holder, links),
                                       holdings.UNFINISHED_MARK: holdings.now()},
                    image=fresh.id, disk_format="qcow2", min_disk=gib(fresh.base.virtual_size))
                self._manifest(holder, image, fresh.name, records.pack(fresh, tree, parts), made)
                with self.meeting.alive(holder):
                    transfer.upload(self.images, image, disk)
                return self.images.update(image, {"os_hidden": False,
                                                  holdings.UNFINISHED_MARK: None})

        return self._again(attempt)

    # -- completed images ---------------------------------------------------------------

    @contextlib.contextmanager
    def announced(self, image: Image, system: str,
                  composite: Description) -> Iterator[Announcement]:
        """Tell for the length of the block that somebody is going to make a
        completed image, see :meth:`splitimage_driver.store.base.Store.announced`.

        :param image: of which the disk need not be known
        :param system: digest of the base's manifest
        :param composite: that it is made from
        """
        announcement = Announcement(self.meeting, image)
        made: list[str] = []
        try:
            self._completed_record(made, image, system, composite, announcement.holder,
                                   announcement.record)
            announcement.enter()
            yield announcement
        finally:
            announcement.leave()
            if not announcement.kept:
                self.discard(*made)

    def _completed_record(self, made: list[str], image: Image, system: str,
                          composite: Description, holder: str, record: str = "") -> str:
        return self._record(
            made, image.name, {**properties.inherited(composite),
                               **properties.of_completed(image, holder, system)},
            image=record, disk_format="qcow2", visibility=api.PRIVATE,
            min_disk=max(gib(image.virtual_size), int(composite.get("min_disk") or 0)),
            min_ram=int(composite.get("min_ram") or 0))

    def completed(self, image: Image, tree: bytes, system: str, composite: Description,
                  disk: Path, announcement: Announcement | None = None) -> Description:
        """Store a completed image, unless somebody else does so already: the
        oldest record of the same owner and recipe leads.

        :param announcement: of it. Then nobody is waited for any more: the disk is
            made, and others wait for it
        :returns: the image that is there in the end, own or other
        """
        def attempt() -> Description:
            if announcement is not None and announcement.take():
                return self._announced(image, tree, system, disk, announcement)
            return self._completed(image, tree, system, composite, disk, announcement)

        return self._again(attempt)

    def _announced(self, image: Image, tree: bytes, system: str, disk: Path,
                   announcement: Announcement) -> Description:
        """With its record, which stays to be discarded at the end of the
        announcement where this fails."""
        mine, holder = announcement.record, announcement.holder
        with self._undone() as made:
            there = self.meeting.finished(image)
            if there is not None:
                return there
            self._manifest(holder, mine, image.name, records.pack(None, tree), made)
            self._complete(mine, properties.of_completed(image, holder, system))
            with self.meeting.alive(holder):
                done = transfer.upload(self.images, mine, disk)
            there = self.meeting.older(done, image)
            if there is None:
                announcement.kept = True
                self._finished(mine)
                return done
            self._drop(made)
            return there

    def _complete(self, record: str, wanted: dict[str, str]) -> None:
        """What is known at the end only."""
        try:
            known = self.images.get(record)
            gone = {name: None for name in known
                    if name.startswith(properties.PREFIX) and name not in wanted}
            self.images.update(record, {**wanted, **gone}, known=known, insist=True)
        except exceptions.NotFound as error:  # taken for dead
            raise Interrupted(str(error)) from error

    def _completed(self, image: Image, tree: bytes, system: str, composite: Description,
                   disk: Path, announcement: Announcement | None) -> Description:
        """With a record of its own."""
        holder = str(uuid.uuid4())
        with self._undone() as made:
            mine = self._completed_record(made, image, system, composite, holder)
            began = time.monotonic()
            self._manifest(holder, mine, image.name, records.pack(None, tree), made)
            if announcement is None:
                pause(began)
                there = self.meeting.leader(mine, image)
            else:
                there = self.meeting.finished(image)
            if there is None:
                # Others look at the announcement as long as it is there.
                more = [] if announcement is None else [announcement.record]
                with self.meeting.alive(holder, *more):
                    done = transfer.upload(self.images, mine, disk)
                there = self.meeting.older(done, image)
            if there is None:
                return done
            self._drop(made)
            return there

    # -- common -----------------------------------------------------------------------

    def _record(self, made: list[str], name: str, known: dict[str, str], *, image: str = "",
                **attributes: Any) -> str:
        """Create a record; it is noted in ``made`` first, because the answer may
        be lost. Returns its id."""
        image = image or str(uuid.uuid4())
        made.append(image)
        if self.journal is not None:
            self.journal.begin(image)
        self.images.create(name, known, image=image, **attributes)
        return image

    def _manifest(self, image: str, holder: str, name: str, data: bytes,
                  made: list[str]) -> None:
        self._record(made, f"{name}.manifest", properties.of_manifest(holder), image=image,
                     protected=True, visibility=api.PRIVATE)
        with self._file(data) as path:
            transfer.upload(self.images, image, path, store=self.store)

    @contextlib.contextmanager
    def _file(self, data: bytes) -> Iterator[Path]:
        with self.scratch.directory() as scratch:
            path = scratch / "data"
            path.write_bytes(data)
            yield path

    @contextlib.contextmanager
    def _undone(self) -> Iterator[list[str]]:
        """What was made in a block that fails goes again."""
        made: list[str] = []
        try:
            yield made
        except BaseException:
            self.discard(*reversed(made))
            raise
        self._finished(*made)

    def _finished(self, *images: str) -> None:
        if self.journal is not None:
            self.journal.end(*images)

    def _drop(self, made: list[str]) -> None:
        """What was made is not wanted after all."""
        self.discard(*reversed(made))
        made.clear()

    def discard(self, *images: str) -> None:
        """Delete them, in this order; what cannot be deleted now is left to the
        collector."""
        for image in filter(None, images):
            try:
                self.images.discard(image)
                self._finished(image)
            except exceptions.CloudUnreachable as error:
                LOG.warning("images stay until the collector comes: %s", error)
                return  # the others would take as long
            except exceptions.SplitImageError as error:
                LOG.warning("image %s stays until the collector comes: %s", image, error)

    def _again(self, attempt: Callable[[], _Result]) -> _Result:
        """With new records, where Glance does not let go of the old ones."""
        for left in reversed(range(_ATTEMPTS)):
            try:
                return attempt()
            except Interrupted as error:
                if not left:
                    raise exceptions.CloudFailed(where=self.images.where, what="store an image",
                                                 reason=str(error)) from error
                LOG.info("beginning again: %s", error)
        raise AssertionError


def gib(size: int) -> int:
    """``min_disk`` for a disk of so many bytes."""
    return -(-size // 2**30)
