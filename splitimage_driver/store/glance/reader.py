"""Records out of Glance: found, judged, verified.

What an image says of itself is its owner's word: visible is not trusted. A
composite is an own one, a public one, or one that was shared with this project
and that it has accepted; its parts and its manifest must have its owner.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import hashlib
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.part import Part
from splitimage_driver.model.properties import Link, Links
from splitimage_driver.store.glance import api, holdings, records
from splitimage_driver.store.glance.api import Description, Images
from splitimage_driver.store.glance.cache import Cache
from splitimage_driver.store.glance.records import Bundle
from splitimage_driver.store.objects import MANIFEST_LIMIT

LOG = logging.getLogger(__name__)
#: Bytes of manifests that are kept in memory, beside the one that was read last.
_KEPT = 2**26
#: What keeps one image from being read, and nothing else.
UNREADABLE = (exceptions.BadImage, exceptions.DigestMismatch, exceptions.TooLarge,
              exceptions.NotFound, exceptions.CloudRefused, exceptions.CloudFailed)
#: Ids in one request.
_CHUNK = 100


class Known(NamedTuple):
    """A composite with what Glance says of it.

    :ivar image: its description
    :ivar parts: records of its parts by id, the restore part included
    """

    composite: Composite
    image: Description
    links: Links
    parts: dict[str, Part]

    def link(self, digest: str) -> Link | None:
        """Where the part of that id is."""
        return next((link for link in (*self.links.parts.values(), self.links.restore)
                     if link.digest == digest), None)


class Reader:
    """:param parallel: requests and transfers at a time

    :ivar composites: that were read in this session, by id
    """

    def __init__(self, images: Images, cache: Cache, *, parallel: int) -> None:
        self.images, self.cache, self.parallel = images, cache, parallel
        self.composites: dict[str, Known] = {}
        self._shown: dict[str, Description] = {}
        self._bundles: dict[str, Bundle] = {}
        self._guard = threading.Lock()

    # -- images -----------------------------------------------------------------------

    def shown(self, image: str, role: str, owner: str) -> Description:
        """An image that another one names, as Glance shows it to this user.

        :raises BadImage: it is of another role, or of somebody else; the same
            words for what is not there, so that nobody learns what is
        """
        known = self._shown.get(image)
        if known is None:
            try:
                known = self.images.get(image)
            except exceptions.NotFound as error:
                raise self._absent(image, role) from error
            if known.get("status") == api.ACTIVE:
                self._shown[image] = known
        if known.get("owner") != owner or properties.role(known) != role:
            raise self._absent(image, role)
        if known.get("status") != api.ACTIVE:
            # Its data may be here; whoever has deactivated it wants no use of them.
            raise exceptions.BadImage(image=image, reason=f"it is {known.get('status')}")
        return known

    @staticmethod
    def _absent(image: str, role: str) -> exceptions.BadImage:
        return exceptions.BadImage(
            image=image, reason=f"there is no such {role} of the owner of what names it")

    def look(self, ids: Iterable[Any]) -> None:
        """Have all of these shown by few requests, where they are going to be
        asked for one by one; what is none, or not visible, is left out."""
        given = {str(each) for each in ids} - self._shown.keys()
        wanted = sorted(filter(properties.IMAGE_ID.match, given))
        for start in range(0, len(wanted), _CHUNK):
            self._shown |= {each["id"]: each for each in self._list(
                True, id="in:" + ",".join(wanted[start:start + _CHUNK]))}

    def forget(self, image: str) -> None:
        """It was changed or deleted."""
        self._shown.pop(image, None)
        self.composites.pop(image, None)

    def bundle(self, manifest: str, owner: str) -> Bundle:
        """What is in a manifest image."""
        shown = self.shown(manifest, properties.MANIFEST, owner)
        with self._guard:
            found = self._bundles.get(manifest)
        if found is None:
            found = records.unpack(self.cache.read(shown, limit=MANIFEST_LIMIT), manifest)
            with self._guard:
                while self._bundles and sum(
                        len(each.manifest) for each in self._bundles.values()) > _KEPT:
                    self._bundles.pop(next(iter(self._bundles)))
                self._bundles[manifest] = found
        return found

    # -- composites -------------------------------------------------------------------

    def composite(self, name_or_id: str) -> Known:
        """:raises NotFound: none that this project may use
        :raises InvalidInput: several have that name
        :raises BadImage: it is not as this project writes it
        """
        return self.known(self.found(name_or_id))

    def found(self, name_or_id: str) -> Description:
        """Its description, whether or not the rest of it can be read."""
        found = self._by_id(name_or_id) if properties.IMAGE_ID.match(name_or_id) else None
        found = found or self._by_name(name_or_id)
        if found is None:
            raise exceptions.NotFound(kind="composite", name=name_or_id,
                                      where=self.images.where)
        return found

    def _by_id(self, image: str) -> Description | None:
        try:
            found = self.images.get(image)
        except exceptions.NotFound:
            return None
        if found.get("splitimage_role") != properties.COMPOSITE or not self.usable(found):
            return None
        return found

    def usable(self, image: Description) -> bool:
        """Whether this project may build on a composite's image."""
        return holdings.usable(self.images, image)

    def _by_name(self, name: str) -> Description | None:
        """An own one before a public one; a shared one has to be named by its
        id, so that nobody is given one by the choice of a name."""
        for found in (self.described(name=name, owner=self.images.project),
                      self.described(name=name, visibility=api.PUBLIC)):
            if len(found) > 1:
                raise exceptions.ambiguous("composite", name, (each["id"] for each in found))
            if found:
                return found[0]
        return None

    def described(self, **filters: str) -> list[Description]:
        """Descriptions of active composites."""
        return self._list(False, splitimage_role=properties.COMPOSITE, **filters)

    def _list(self, hidden: bool, **filters: str) -> list[Description]:
        """Active images. A filter is the server's, and its letters may have no
        case there: what decides is what they say."""
        return [each for each in self.images.list(hidden=hidden, status=api.ACTIVE, **filters)
                if all(each.get(name) == value for name, value in filters.items()
                       if not value.startswith("in:")) and not holdings.foreign(each)]

    def all_composites(self) -> list[Known]:
        """Own and public ones; what cannot be read is left out."""
        found = {each["id"]: each for each in (*self.described(owner=self.images.project),
                                               *self.described(visibility=api.PUBLIC))}
        self.look(each.get("splitimage_manifest") for each in found.values())
        return [known for known in self.map(self._readable, found.values()) if known]

    def _readable(self, image: Description) -> Known | None:
        try:
            return self.known(image)
        except UNREADABLE as error:
            LOG.warning("%s", error)
            return None

    def names(self, ids: Iterable[str]) -> dict[str, str]:
        """Of composites, whoever has them, by id."""
        wanted = sorted({each for each in ids if properties.IMAGE_ID.match(each)})
        return {each["id"]: str(each.get("name") or "")
                for start in range(0, len(wanted), _CHUNK)
                for each in self.images.list(hidden=False, splitimage_role=properties.COMPOSITE,
                                             id="in:" + ",".join(wanted[start:start + _CHUNK]))}

    def known(self, image: Description) -> Known:
        """The composite that an image is. :raises BadImage: it is not as this
        project writes it"""
        known = self.composites.get(image["id"])
        if known is not None and known.image == image:
            return known
        if image.get("status") != api.ACTIVE:
            raise exceptions.BadImage(image=image["id"], reason=f"it is {image.get('status')}")
        links = properties.links(image)
        bundle = self.bundle(properties.manifest(image), image["owner"])
        record: Composite = bundle.of(Composite, image["id"])
        composite = msgspec.structs.replace(
            record, id=image["id"], name=image["name"], owner=image["owner"],
            public=image.get("visibility") == api.PUBLIC)
        parts = {part.id: part for part in bundle.parts}
        if ({n: r.id for n, r in composite.parts.items()}
                != {n: link.digest for n, link in links.parts.items()}
                or composite.restore != links.restore.digest
                or not parts.keys() >= {link.digest for link in (*links.parts.values(),
                                                                 links.restore)}
                or image.get("splitimage_os") != composite.base.manifest
                or hashlib.sha256(bundle.manifest).hexdigest() != composite.base.manifest):
            raise exceptions.BadImage(image=image["id"],
                                      reason="its properties and its manifest do not agree")
        self.composites[image["id"]] = Known(composite, image, links, parts)
        return self.composites[image["id"]]

    # -- parts ------------------------------------------------------------------------

    def part_images(self, owner: str, **filters: str) -> list[Description]:
        """Descriptions of a project's parts, complete ones only."""
        return self._list(True, splitimage_role=properties.PART, owner=owner, **filters)

    def part(self, image: Description) -> Part:
        """The record of a part. :raises BadImage: it does not fit the image"""
        bundle = self.bundle(properties.manifest(image), image["owner"])
        part: Part = bundle.of(Part, image["id"])
        if part.id != properties.digest(image) or part.blob != properties.blob(image):
            raise exceptions.BadImage(image=image["id"],
                                      reason="its properties and its manifest do not agree")
        return msgspec.structs.replace(part, owner=image["owner"], name=image["name"],
                                       public=image.get("visibility") == api.PUBLIC)

    # -- completed images ---------------------------------------------------------------

    def completed(self, owner: str, **filters: str) -> list[tuple[Image, Description]]:
        """Finished images of a project, the oldest first; what is none of
        ours, whatever it says of itself, is left out."""
        found = []
        for each in self._list(True, splitimage_role=properties.COMPLETED, owner=owner, **filters):
            try:
                found.append((self.image(each), each))
            except exceptions.BadImage as error:
                LOG.warning("%s", error)
        return sorted(found, key=lambda one: (one[0].created, one[0].id))

    def image(self, description: Description) -> Image:
        """Its record. :raises BadImage:"""
        image = properties.completed(description, moment(description["created_at"]))
        known = self.composites.get(image.composite)
        if known is None:
            return image
        return msgspec.structs.replace(image, mounts=known.composite.base.mounts)

    # -- side by side -------------------------------------------------------------------

    def map(self, work: Any, items: Iterable[Any]) -> list[Any]:
        """In order, so many at a time. When one fails, those that have not begun
        are left out; when this process is to end, those that have begun, too."""
        with concurrent.futures.ThreadPoolExecutor(self.parallel) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                return [future.result() for future in futures]
            except BaseException as error:
                if not isinstance(error, Exception):
                    self.images.stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def moment(text: str) -> float:
    """Seconds since the epoch of a time as Glance tells it."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
