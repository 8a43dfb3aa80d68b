"""Removes what nothing of its owner refers to, see :mod:`.access`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.part import FILESET
from splitimage_driver.store.glance import holdings
from splitimage_driver.store.glance.api import Description, Images
from splitimage_driver.store.glance.holdings import Access

LOG = logging.getLogger(__name__)
#: What changes when somebody reckons with an image.
_TELLING = (holdings.FOR, holdings.TOUCHED, holdings.UNREFERENCED, holdings.UNFINISHED_MARK,
            "splitimage_role", "owner")


class Removed(NamedTuple):
    """:ivar image: id
    :ivar name: of the image
    :ivar role: that it had
    :ivar size: bytes of its data
    :ivar reason: for people
    """

    image: str
    name: str
    role: str
    size: int
    reason: str


def collect(images: Images, owner: str, *, grace: float) -> list[Removed]:
    """Remove what nothing of the owner refers to: parts that no composite has,
    manifests that no image has, records whose publisher died. At once what was
    stored for an image that is gone; all else when nothing referred to it, and
    nobody touched it, for the grace time.

    Never a complete composite, completed image or file set; never anything that
    this project did not make.

    :param owner: project; usually the one that asks
    :param grace: seconds
    :returns: what was removed
    """
    return list(_Collector(images, owner, grace).run())


class _Collector:
    def __init__(self, images: Images, owner: str, grace: float) -> None:
        self.images, self.owner, self.grace = images, owner, grace
        # First what may go, then what may refer to it: a composite that is
        # written meanwhile is seen.
        self.parts = holdings.of_role(images, properties.PART, owner)
        self.manifests = holdings.of_role(images, properties.MANIFEST, owner)
        self.touched = {each["id"]: each for each in self.manifests}
        self.completed = holdings.of_role(images, properties.COMPLETED, owner)
        self.composites = holdings.of_role(images, properties.COMPOSITE, owner)
        self.holders = {each["id"]: each for each in (
            *self.parts, *self.completed, *self.composites)}
        linked = {str(each.get(holdings.FOR)) for each in (*self.parts, *self.manifests)}
        self.holders |= holdings.named(images, {
            name for name in linked - self.holders.keys() if holdings.ID.fullmatch(name)}, owner)

    def run(self) -> Iterator[Removed]:
        yield from self._records((*self.composites, *self.completed))
        composites = [each for each in self.composites if each["id"] in self.holders]
        used = set().union(*map(holdings.refers, composites))
        yield from self._unused(self.parts, used)
        kept = [each for each in (*self.parts, *self.completed, *composites)
                if each["id"] in self.holders]
        used |= {str(each.get("splitimage_manifest")) for each in kept}
        yield from self._unused(self.manifests, used)

    def _records(self, candidates: Iterable[Description]) -> Iterator[Removed]:
        for image in candidates:
            unfinished = (image["status"] in holdings.RECORD
                          or holdings.UNFINISHED_MARK in image)
            if unfinished and self._old(image):
                yield from self._remove(image, "whoever made it has stopped")

    def _unused(self, candidates: Iterable[Description], used: set[str]) -> Iterator[Removed]:
        for image in candidates:
            if image["id"] in used:
                if holdings.UNREFERENCED in image:
                    self._tried(image, functools.partial(
                        self.images.update, image["id"], {holdings.UNREFERENCED: None},
                        known=image))
                continue
            record = image["status"] in holdings.RECORD
            if image["splitimage_role"] == properties.PART and not record and (
                    image.get(holdings.KIND) in (None, FILESET)):
                continue
            holder = image.get(holdings.FOR)
            if holder and holder not in self.holders:
                yield from self._remove(image, f"what it was stored for is gone: {holder}"[:100])
            elif holder and self.holders[holder]["status"] in holdings.UNFINISHED:
                continue
            elif record:
                if self._old(image):
                    yield from self._remove(image, "whoever made it has stopped")
            elif self._due(image):
                yield from self._remove(image, "nothing refers to it")

    def _old(self, image: Description) -> bool:
        """Whoever stores a record touches its manifest, not the record itself."""
        manifest = self.touched.get(str(image.get("splitimage_manifest")), image)
        last = max(map(holdings.moment, (image, manifest)))
        return time.time() - last >= self.grace

    def _due(self, image: Description) -> bool:
        """Whether its time is over; it begins when it is first found unreferenced."""
        try:
            since = float(image[holdings.UNREFERENCED])
        except (KeyError, ValueError):
            mark = properties.used(time.time())
            if not self._tried(image, lambda: list(holdings.admit(
                    self.images, image, Access(), {holdings.UNREFERENCED: mark}))):
                return False
            return self.grace <= 0
        return time.time() - max(since, holdings.moment(image)) >= self.grace

    @staticmethod
    def _tried(image: Description, work: Callable[[], Any]) -> bool:
        try:
            work()
        except exceptions.SplitImageError as error:
            LOG.info("image %s is left as it is: %s", image["id"], error)
            return False
        return True

    def _remove(self, image: Description, reason: str) -> Iterator[Removed]:
        """Unless somebody reckons with it since it was listed."""
        name, role, listed = image["id"], image["splitimage_role"], dict(image)
        try:
            holdings.withdraw(self.images, image)
            found = self.images.get(name)
            if any(found.get(key) != listed.get(key) for key in _TELLING):
                self.images.update(name, {"protected": listed["protected"]}, known=found)
                return
            self.images.delete(name)
        except exceptions.NotFound:
            self.holders.pop(name, None)
            return
        except (exceptions.AlreadyExists, exceptions.NotPermitted,
                exceptions.CloudRefused) as error:
            # Claimed at this very moment, or in use by a transfer.
            LOG.info("%s %s stays: %s", role, name, error)
            return
        self.holders.pop(name, None)
        LOG.info("%s %s of project %s is removed: %s", role, name, self.owner, reason)
        yield Removed(name, str(image.get("name") or ""), role, int(image.get("size") or 0),
                      reason)
