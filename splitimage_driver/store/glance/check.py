"""``store check`` of copies on this host, and in the image service: is everything
there, readable, needed?

Data are compared with their digests when they are fetched, not here: Glance keeps
a hash of its own, and looks after its stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.part import FILESET
from splitimage_driver.progress import Operation
from splitimage_driver.store import check
from splitimage_driver.store.check import DAMAGED, LEFTOVER, MISSING, UNREFERENCED
from splitimage_driver.store.contents import OBJECT
from splitimage_driver.store.glance import access, api, holdings
from splitimage_driver.store.glance.api import Description
from splitimage_driver.store.glance.cache import CACHE, Cache
from splitimage_driver.store.glance.reader import UNREADABLE, Reader
from splitimage_driver.store.records import ACCESS, Finding


class HostChecker(check.Checker):
    """One inspection of this host, where a copy that is damaged or gone is no
    loss: it is fetched again."""

    def __init__(self, cache: Cache, *about: Any, **options: Any) -> None:
        super().__init__(*about, **options)
        self.cache = cache

    def _damaged(self, target: str, path: Path, digest: str, fault: str, *,
                 repair: bool) -> Finding:
        images = self.cache.copies(digest) if target == OBJECT else []
        if not images:
            return super()._damaged(target, path, digest, fault, repair=repair)
        if repair:
            for image in images:
                self.cache.forget(image)
        return Finding(kind=LEFTOVER, subject=self._shown(path), repaired=repair,
                       detail=f"it is a copy of image {', '.join(images)}, and {fault}")

    def _missing(self, what: str, holder: str, subject: str, target: str, digest: str, *,
                 repair: bool) -> Finding:
        if what != CACHE:
            return super()._missing(what, holder, subject, target, digest, repair=repair)
        if repair:
            self.cache.forget(holder)
        return Finding(kind=LEFTOVER, subject=f"image {holder}", repaired=repair,
                       detail=f"the copy of it on this host, {target} {digest}, is gone")


class Checker:
    """One inspection of what a project has in the image service.

    :param grace: seconds that what nothing refers to is left alone
    """

    def __init__(self, reader: Reader, *, grace: float) -> None:
        self.reader, self.images, self.grace = reader, reader.images, grace
        self.parts, self.manifests, self.completed, self.composites = (
            holdings.of_role(self.images, role, self.images.project) for role in (
                properties.PART, properties.MANIFEST, properties.COMPLETED,
                properties.COMPOSITE))
        self.active = {image["id"]: image for image in (*self.parts, *self.manifests)
                       if image["status"] == api.ACTIVE}

    def run(self, *, repair: bool) -> Iterator[Finding]:
        """Findings as they are met.

        :param repair: bring who sees parts in line with their composites, and
            let the collector remove what its rules let go; what is damaged or
            missing is only told
        """
        yield from self._records()
        if repair:
            try:
                yield from map(put_right, access.reconcile_all(self.images, self.images.project))
            except (exceptions.NotPermitted, exceptions.QuotaExceeded) as error:
                # As of a member whose composite an administrator has published.
                yield Finding(kind=ACCESS, subject=self.images.where, detail=str(error))
            for gone in access.collect(self.images, self.images.project, grace=self.grace):
                yield Finding(kind=UNREFERENCED, repaired=True, detail=gone.reason,
                              subject=f"{gone.role} {gone.name} ({gone.image})")
            return
        yield from self._needless()

    # -- what is referred to ---------------------------------------------------------------

    def _records(self) -> Iterator[Finding]:
        work: list[tuple[Description, Callable[[Description], Iterable[Finding]]]] = [
            *((image, self._composite) for image in self.composites),
            *((image, self._part) for image in self.parts),
            *((image, self._completed) for image in self.completed)]
        done = [one for one in work if one[0]["status"] == api.ACTIVE]
        self.reader.look(image.get("splitimage_manifest") for image, _ in done)
        with Operation("check", len(done), "images", subject=self.images.where) as operation:
            for image, look in done:
                yield from look(image)
                operation.advance(1)

    def _composite(self, image: Description) -> Iterator[Finding]:
        yield from self._readable(image, self.reader.known)
        try:
            links = properties.links(image)
        except exceptions.BadImage:
            return  # told already
        for name, link in (*links.parts.items(), ("restore", links.restore)):
            part = self.active.get(link.image)
            if part is None or part.get("splitimage_digest") != link.digest:
                yield Finding(kind=MISSING, subject=_subject(image),
                              detail=f"part {name}: there is no image {link.image} with it")

    def _part(self, image: Description) -> Iterator[Finding]:
        return self._readable(image, self.reader.part)

    def _completed(self, image: Description) -> Iterator[Finding]:
        yield from self._readable(image, self.reader.image)
        if image.get("splitimage_manifest") not in self.active:
            yield Finding(kind=MISSING, subject=_subject(image),
                          detail="there is no image with its manifest")

    @staticmethod
    def _readable(image: Description,
                  read: Callable[[Description], object]) -> Iterator[Finding]:
        try:
            read(image)
        except UNREADABLE as error:
            yield Finding(kind=DAMAGED, subject=_subject(image), detail=str(error))

    # -- what is not -----------------------------------------------------------------------

    def _needless(self) -> Iterator[Finding]:
        """What the collector would look at; some of it is being made just now."""
        used = set().union(*map(holdings.refers, self.composites))
        for image in (*self.parts, *self.manifests, *self.completed, *self.composites):
            if image["status"] in holdings.RECORD:
                yield Finding(kind=LEFTOVER, subject=_subject(image),
                              detail="it has no data: somebody is at work, or was killed")
        for image in self.parts:
            if self._complete(image) and image["id"] not in used and (
                    image.get(holdings.KIND) not in (None, FILESET)):
                yield self._unreferenced(image)
        used |= {str(image.get("splitimage_manifest"))
                 for image in (*self.parts, *self.completed)}
        for image in self.manifests:
            if self._complete(image) and image["id"] not in used:
                yield self._unreferenced(image)

    @staticmethod
    def _complete(image: Description) -> bool:
        return image["status"] not in holdings.RECORD

    def _unreferenced(self, image: Description) -> Finding:
        return Finding(kind=UNREFERENCED, subject=_subject(image),
                       detail=f"nothing refers to it; it may go after {self.grace:.0f} s")


def _subject(image: Description) -> str:
    return f"{image['splitimage_role']} {image.get('name')} ({image['id']})"


def put_right(change: access.Change) -> Finding:
    return Finding(kind=ACCESS, subject=f"{change.name} ({change.image})", detail=change.what,
                   repaired=True)
