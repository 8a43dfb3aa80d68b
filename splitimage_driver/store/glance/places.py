"""Where what a digest names is in Glance.

Records name contents by their digests. Which image has them is known from the
records that this session has read, and only from these: that something of that
digest is somewhere, or on this host, is no reason to give it to whoever asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.assembly import disks
from splitimage_driver.model import properties
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.part import FILESET, Part
from splitimage_driver.store.glance.api import Description
from splitimage_driver.store.glance.cache import Cache
from splitimage_driver.store.glance.reader import Known, Reader
from splitimage_driver.store.glance.used import Used

LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class _Holder(NamedTuple):
    """An image that must be of this role and owner."""

    image: str
    role: str
    owner: str


class PartPlace(NamedTuple):
    """:ivar image: id of the part's image; "": it is on its way up"""

    part: Part
    image: str


class Places:
    """:ivar used: where it is noted what is used, and not only learnt of"""

    def __init__(self, reader: Reader, cache: Cache) -> None:
        self.reader, self.cache = reader, cache
        self.used = Used(cache.contents.database)
        self._parts: dict[tuple[str, str], PartPlace] = {}
        # Several may have the same: by digest, then by image.
        self._data: dict[str, dict[str, _Holder]] = {}
        self._trees: dict[str, dict[str, _Holder]] = {}
        #: Of parts' blobs, by digest.
        self._sizes: dict[str, int] = {}

    # -- learnt from records ------------------------------------------------------------

    def learn_composite(self, known: Known) -> Composite:
        composite = known.composite
        owner = composite.owner
        self._learn_data(composite.base.disk,
                         _Holder(composite.id, properties.COMPOSITE, owner))
        self._learn_tree(composite.base.manifest, known.image)
        for part in known.parts.values():
            link = known.link(part.id)
            if link is not None:
                self.learn_part(msgspec.structs.replace(part, owner=owner), link.image)
        return composite

    def use_composite(self, known: Known) -> Composite:
        self.used.composite(known)
        return self.learn_composite(known)

    def learn_part(self, part: Part, image: str) -> None:
        """:param image: "": there is none yet"""
        self._parts[part.owner, part.id] = PartPlace(part, image)
        self._sizes[part.blob] = part.blob_size
        if part.blob and image:
            self._learn_data(part.blob, _Holder(image, properties.PART, part.owner))

    def learn_part_image(self, image: Description) -> Part:
        part = self.reader.part(image)
        self.learn_part(part, image["id"])
        self._learn_tree(part.id, image)
        return part

    def use_part(self, part: Part) -> Part:
        if part.kind == FILESET:
            self.used.fileset(part, self._parts[part.owner, part.id].image)
        return part

    def learn_image(self, image: Image, description: Description) -> Image:
        self._learn_data(image.disk, _Holder(image.id, properties.COMPLETED, image.owner))
        self._learn_tree(image.manifest, description)
        return image

    def _learn_data(self, digest: str, holder: _Holder) -> None:
        self._data.setdefault(digest, {})[holder.image] = holder

    def _learn_tree(self, digest: str, holder: Description) -> None:
        self._trees.setdefault(digest, {})[holder["id"]] = _Holder(
            properties.manifest(holder), properties.MANIFEST, holder["owner"])

    def forget(self, image: str) -> None:
        """It was deleted, or is another one now."""
        self.reader.forget(image)
        self.cache.forget(image)
        self.used.forget(image)
        for places in (self._data, self._trees):
            for digest in [digest for digest, holders in places.items() if image in holders]:
                del places[digest][image]
                if not places[digest]:
                    del places[digest]
        self._parts = {key: place for key, place in self._parts.items() if place.image != image}

    def forget_part(self, part: Part) -> None:
        """It did not come about."""
        self._parts.pop((part.owner, part.id), None)

    # -- asked for ------------------------------------------------------------------------

    def part(self, digest: str, owner: str | None = None) -> PartPlace | None:
        return next((place for (whose, each), place in self._parts.items()
                     if each == digest and owner in (None, whose)), None)

    def has_data(self, digest: str) -> bool:
        return digest in self._data

    def is_here(self, digest: str) -> bool:
        """Whether its data are on this host."""
        return any(self.cache.digest(image) == digest for image in self._data[digest])

    def size(self, digest: str) -> int:
        """Bytes of the data, as far as the records say."""
        if digest in self._sizes:
            return self._sizes[digest]
        return _first(list(self._data[digest].values()),
                      lambda holder: int(self.reader.shown(*holder).get("size") or 0))

    def path(self, digest: str) -> Path:
        """Of the data, fetched if need be.

        :raises UnsafeDisk: :raises BadDisk: what should be a disk is none, or
            refers to other files
        """
        def rank(holder: _Holder) -> tuple[bool, bool]:
            return (self.cache.digest(holder.image) != digest,
                    holder.owner != self.reader.images.project)

        holders = sorted(self._data[digest].values(), key=rank)
        is_disk = any(holder.role != properties.PART for holder in holders)

        def found(holder: _Holder) -> Path:
            path = self.cache.path(self.reader.shown(*holder), sha256=digest,
                                   check=_check_disk if is_disk else None)
            if is_disk and holder.role == properties.PART:
                _check_disk(path)  # what came as a part's contents was not looked into then
            return path

        return _first(holders, found)

    def damaged(self, digest: str) -> None:
        """The copy here is: it is fetched anew the next time."""
        for image in self._data.get(digest, ()):
            self.cache.forget(image)

    def tree(self, digest: str) -> bytes | None:
        """Canonical bytes of a tree's or a part's manifest; None: it is not
        known where they are.

        :raises DigestMismatch:
        """
        if digest not in self._trees:
            place = self.part(digest)
            if place is None or not place.image:
                return None
            shown = self.reader.shown(place.image, properties.PART, place.part.owner)
            if properties.digest(shown) != digest:
                raise properties.bad(shown, "it is not the part that its composite names")
            self._learn_tree(digest, shown)
        return _first(list(self._trees[digest].values()),
                      lambda holder: self._verified(holder, digest))

    def _verified(self, holder: _Holder, digest: str) -> bytes:
        manifest = self.reader.bundle(holder.image, holder.owner).manifest
        found = hashlib.sha256(manifest).hexdigest()
        if found != digest:
            raise exceptions.DigestMismatch(what=f"manifest image {holder.image}",
                                            expected=digest, found=found)
        return manifest


def _check_disk(path: Path) -> None:
    """Glance does not look into every image, and its owner says what it is."""
    found = disks.inspect(path)
    if found.format != disks.QCOW2:
        raise exceptions.BadDisk(path=path, reason=f"it is {found.format}, not {disks.QCOW2}")


def _first(holders: Sequence[_Holder], work: Callable[[_Holder], _Result]) -> _Result:
    """From the first of several that does have what all of them claim to have:
    any may be gone, damaged, or a lie."""
    for left, holder in zip(reversed(range(len(holders))), holders, strict=True):
        try:
            return work(holder)
        except (exceptions.BadImage, exceptions.DigestMismatch, exceptions.NotFound,
                exceptions.NotPermitted) as error:
            if not left:
                raise
            LOG.warning("%s; trying another image", error)
    raise AssertionError  # of none it is not asked for
