"""Records into Glance: what refers to others is finished last.

An image is created first, with all its properties and no data; then its
manifest; its data, which make it active, come last. A composite is hidden, and
marked as unfinished, until then. What a crash leaves is a record without data, a
composite with that mark, and manifests without a finished holder: nobody takes
them for anything, and the collector removes them.
"""

from __future__ import annotations

import contextlib
import threading
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
from splitimage_driver.store.glance.transfer import Interrupted
from splitimage_driver.store.scratch import Scratch

LOG = logging.getLogger(__name__)
_ATTEMPTS = 3
#: Data of a part without contents: an image without data is never finished.
EMPTY = bytes(512)
_POLL = 1.0
#: Times of Glance's records are whole seconds.
_SECOND = 1.2
_Result = TypeVar("_Result")


class Publisher:
    """:param store: Glance store for parts and manifests; "": its default one
    :param stall: seconds after which another publisher of the same recipe that
        does nothing is taken for dead
    :param purpose: id of the image that parts are stored for; "" where that is
        not known
    """

    def __init__(self, images: Images, scratch: Scratch, *, store: str = "",
                 stall: float = 60.0, purpose: str = "") -> None:
        self.images, self.scratch = images, scratch
        self.store, self.stall, self.purpose = store, stall, purpose

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
            with self._alive(holder):
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
                with self._alive(holder):
                    transfer.upload(self.images, image, disk)
                return self.images.update(image, {"os_hidden": False,
                                                  holdings.UNFINISHED_MARK: None})

        return self._again(attempt)

    # -- completed images ---------------------------------------------------------------

    def completed(self, image: Image, tree: bytes, system: str, disk: Path) -> Description:
        """Store a completed image, unless somebody else does so already: the
        oldest record of the same owner and recipe leads.

        :returns: the image that is there in the end, own or other
        """
        def attempt() -> Description:
            holder = str(uuid.uuid4())
            with self._undone() as made:
                mine = self._record(
                    made, image.name, properties.of_completed(image, holder, system),
                    disk_format="qcow2", min_disk=gib(image.virtual_size),
                    visibility=api.PRIVATE)
                began = time.monotonic()
                self._manifest(holder, mine, image.name, records.pack(None, tree), made)
                # Until then somebody may still create a record as old as this.
                time.sleep(max(0.0, _SECOND - (time.monotonic() - began)))
                leader = self._leader(mine, image)
                if leader is None:
                    with self._alive(holder):
                        done = transfer.upload(self.images, mine, disk)
                    leader = self._older(done, image)
                if leader is None:
                    return done
            self.discard(*reversed(made))
            return leader

        return self._again(attempt)

    def _same(self, image: Image) -> list[Description]:
        """All records of its recipe and composite that this project has, the
        oldest first."""
        found = [each for each in self.images.list(
            hidden=True, splitimage_role=properties.COMPLETED, owner=self.images.project,
            splitimage_recipe=image.recipe, splitimage_composite=image.composite)
            if self._counts(each, image)]
        return sorted(found, key=lambda each: (each["created_at"], each["id"]))

    def _counts(self, image: Description, wanted: Image) -> bool:
        """Whether it is, or is going to be, what a look-up finds."""
        try:
            known = properties.completed(image, 0.0)
        except exceptions.BadImage:
            return False
        return (known.owner == self.images.project
                and (known.recipe, known.composite) == (wanted.recipe, wanted.composite)
                and not holdings.foreign(image)
                and image["status"] in (api.QUEUED, api.SAVING, api.ACTIVE))

    def _older(self, mine: Description, image: Image) -> Description | None:
        """A finished one that is older; two clocks may disagree who leads."""
        first = next((each for each in self._same(image) if each["status"] == api.ACTIVE), None)
        return first if first is not None and first["id"] != mine["id"] else None

    def _leader(self, mine: str, image: Image) -> Description | None:
        """Wait for whoever publishes the same; None: this one is to do it."""
        seen: tuple[str, ...] = ()
        since = time.monotonic()
        while True:
            first = next(iter(self._same(image)), None)
            if first is None or first["id"] == mine:
                return None
            if first["status"] == api.ACTIVE:
                return first
            now = (first["id"], first["status"], first["updated_at"], self._sign(first))
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > self.stall:
                LOG.warning("image %s of the same recipe is stuck: taking over", first["id"])
                self.discard(first["id"], str(first.get("splitimage_manifest", "")))
            time.sleep(_POLL)

    def _sign(self, image: Description) -> str:
        """Of life: when its publisher last touched its manifest."""
        try:
            return str(self.images.get(properties.manifest(image))["updated_at"])
        except (exceptions.NotFound, exceptions.BadImage):
            return ""

    @contextlib.contextmanager
    def _alive(self, manifest: str) -> Iterator[None]:
        """Touch the manifest now and then for the length of the block; the image
        itself is not touched, because a change could undo what the end of an
        upload notes."""
        ended = threading.Event()

        def touch() -> None:
            while not ended.wait(self.stall / 4):
                try:
                    holdings.touch(self.images, manifest)
                except exceptions.SplitImageError as error:
                    LOG.debug("cannot touch %s: %s", manifest, error)

        thread = threading.Thread(target=touch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    # -- common -----------------------------------------------------------------------

    def _record(self, made: list[str], name: str, known: dict[str, str], *, image: str = "",
                **attributes: Any) -> str:
        """Create a record; it is noted in ``made`` first, because the answer may
        be lost. Returns its id."""
        image = image or str(uuid.uuid4())
        made.append(image)
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

    def discard(self, *images: str) -> None:
        """Delete them, in this order; what cannot be deleted now is left to the
        collector."""
        for image in filter(None, images):
            try:
                self.images.discard(image)
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
