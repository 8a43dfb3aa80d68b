"""Completed images: found, published, deleted when they are too many."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import properties
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Composite
from splitimage_driver.store.glance import api, holdings
from splitimage_driver.store.glance.api import Description, Images
from splitimage_driver.store.glance.meeting import Announcement
from splitimage_driver.store.glance.places import Places
from splitimage_driver.store.glance.publish import Publisher
from splitimage_driver.store.glance.reader import Known, Reader
from splitimage_driver.store.glance.users import Users
from splitimage_driver.store.retention import Limits, surplus

LOG = logging.getLogger(__name__)
PLAN = "/splitimage/plan"


class CompletedImages:
    """:param users: tell which servers have an image
    :param ask: whether the image service may be asked what is nearest
    """

    def __init__(self, images: Images, reader: Reader, publisher: Publisher, places: Places, *,
                 users: Users, ask: bool) -> None:
        self.images, self.reader, self.publisher, self.places = images, reader, publisher, places
        self._users, self._ask = users, ask

    @property
    def project(self) -> str:
        return self.images.project

    # -- found --------------------------------------------------------------------------

    def all(self, composite: Composite | None = None, owner: str | None = None) -> list[Image]:
        """Of one owner; None: those that this project may build on, its own
        and public ones of the composite's owner."""
        filters = {} if composite is None else {"splitimage_composite": composite.id}
        found = self.reader.completed(owner or self.project, **filters)
        if owner is None and composite is not None and composite.owner != self.project:
            found += self.reader.completed(composite.owner, visibility=api.PUBLIC, **filters)
        return sorted(self._learned(found), key=lambda image: (image.created, image.id))

    def _learned(self, found: Iterable[tuple[Image, Description]]) -> Iterator[Image]:
        for image, description in found:
            yield self.places.learn_image(image, description)

    def one(self, name_or_id: str) -> Image:
        """An own one; by its id one that this project may build on, too.

        :raises NotFound: :raises InvalidInput: several have the name
        """
        if properties.IMAGE_ID.match(name_or_id):
            found = self._shown([name_or_id], self._trusted)
        else:
            found = list(self._learned(self.reader.completed(self.project, name=name_or_id)))
        if not found:
            raise exceptions.NotFound(kind="image", name=name_or_id, where=self.images.where)
        if len(found) > 1:
            raise exceptions.ambiguous("image", name_or_id, (image.id for image in found))
        return found[0]

    def _trusted(self, image: Image) -> bool:
        """Whether it is an own one, or a public one of its composite's owner."""
        if image.owner == self.project:
            return True
        try:
            return image.public and (
                self.reader.composite(image.composite).composite.owner == image.owner)
        except (exceptions.NotFound, exceptions.BadImage):
            return False

    def _shown(self, ids: Sequence[str], trusted: Callable[[Image], bool]) -> list[Image]:
        """Those of the images that are finished ones and trusted."""
        def shown(name: str) -> tuple[Image, Description] | None:
            try:
                found = self.images.get(name)
                image = self.reader.image(found)
            except (exceptions.NotFound, exceptions.BadImage):
                return None
            good = found["status"] == api.ACTIVE and not holdings.foreign(found) and trusted(image)
            return (image, found) if good else None

        return list(self._learned(each for each in self.reader.map(shown, ids) if each))

    def of_recipe(self, recipe: str, owner: str, composite: Composite) -> Image | None:
        """The oldest of the owner; else a public one of the composite's owner.

        Of this composite only: what merging puts into a file comes from the
        composite's own record, too, and a recipe does not tell whose it was. An
        image that was once made from a stranger's composite is no match.
        """
        wanted = {"splitimage_recipe": recipe, "splitimage_composite": composite.id}
        found = self.reader.completed(owner, **wanted)
        if not found and composite.owner != owner:
            found = self.reader.completed(composite.owner, visibility=api.PUBLIC, **wanted)
        return next(self._learned(found), None)

    def near(self, composite: Composite, parts: Sequence[str], filesets: Sequence[str],
             limit: int) -> list[Image] | None:
        """What the image service's own planning names; None: it does not plan."""
        if not self._ask:
            return None
        try:
            answer: Any = self.images.ask(PLAN, {
                "composite": composite.id, "parts": list(parts), "filesets": list(filesets),
                "limit": limit})
            ids = None if answer is None else [
                each["image"] for each in answer["candidates"]
                if each["image"] != composite.id and properties.IMAGE_ID.match(each["image"])]
        except (exceptions.SplitImageError, KeyError, TypeError) as error:
            LOG.warning("the image service cannot plan, doing so here: %s", error)
            ids = None
        if ids is None:
            self._ask = False
            return None
        return self._shown(ids, lambda image: image.composite == composite.id and (
            image.owner == self.project or (image.public and image.owner == composite.owner)))

    # -- published ------------------------------------------------------------------------

    def add(self, image: Image, tree: bytes, composite: Known, disk: Path, limits: Limits,
            announcement: Announcement | None = None) -> Image:
        """Publish one; returns the one that is there in the end.

        :param tree: canonical bytes of its manifest
        :param composite: that it is made from
        """
        def publish() -> Description:
            return self.publisher.completed(
                image, tree, composite.composite.base.manifest, composite.image, disk,
                announcement)

        try:
            done = publish()
        except exceptions.QuotaExceeded:
            if not self._make_room():
                raise
            done = publish()
        saved = self.places.learn_image(self.reader.image(done), done)
        if saved.disk == image.disk:
            self.places.cache.keep(saved.id, image.disk)
        self.places.used.completed(saved)
        try:
            self.prune(limits, keep=saved.id)
        except exceptions.SplitImageError as error:
            # The image is there; the next one that is published prunes again.
            LOG.warning("cannot look for images over the limits: %s", error)
        return saved

    def touch(self, name: str) -> None:
        """Note that it was used now, if it is an own one; and bring in line with
        its composite what servers go by, should that have changed since.

        :raises NotFound: it is gone
        """
        image = self.images.get(name)
        with contextlib.suppress(exceptions.BadImage):
            self.places.used.completed(self.reader.image(image))
        if image["owner"] != self.project:
            return
        changes: dict[str, str | None] = {"splitimage_used": properties.used(time.time())}
        known = self.reader.composites.get(str(image.get("splitimage_composite")))
        if known is not None:
            changes |= properties.stale(image, known.image)
        try:
            self.images.update(name, changes, known=image)
        except (exceptions.AlreadyExists, exceptions.NotPermitted) as error:
            # Two at once, or one who may only read: no reason not to use it.
            LOG.info("cannot note that image %s was used: %s", name, error)

    # -- deleted ----------------------------------------------------------------------------

    def delete(self, image: Image) -> None:
        """:raises InUse: a server has it
        :raises NotFound: it is no own one
        :raises SplitImageError: it cannot be found out which servers have it
        """
        if image.owner != self.project:
            raise exceptions.NotFound(kind="image", name=image.id, where=self.images.where)
        users = self._users.look().of(image)
        if users:
            shown = ", ".join(users[:10]) + (f" and {len(users) - 10} more"
                                             if len(users) > 10 else "")
            raise exceptions.InUse(kind="image", name=image.name, users=shown)
        self._delete(image)

    def _delete(self, image: Image) -> None:
        self.images.delete(image.id)
        self.places.forget(image.id)
        try:
            # Not by its tree's digest: another image may have the same tree.
            for manifest in holdings.of_role(self.images, properties.MANIFEST, self.project,
                                             splitimage_for=image.id):
                self.images.discard(manifest["id"])
        except exceptions.SplitImageError as error:
            LOG.warning("the manifest of image %s stays until the collector comes: %s",
                        image.name, error)

    def prune(self, limits: Limits, keep: str = "") -> list[Image]:
        """Delete the least recently used ones beyond the limits; returns them.
        Where the servers of the cloud are not known, none."""
        if limits == Limits():
            return []
        found = self._unneeded()
        if found is None:
            return []
        images, unneeded = found
        needed = {image.id for image in images} - unneeded | {keep}
        removed = self._delete_all(
            surplus(images, limits, now=time.time(), protected=needed), "over the limits")
        left = [image for image in images if image not in removed]
        still = limits.full(len(left), sum(image.disk_size for image in left))
        if still:
            LOG.warning("project %s stays over its limit (%s): the rest is in use",
                        self.project, still)
        return removed

    def _unneeded(self) -> tuple[list[Image], set[str]] | None:
        """All own ones; and ids of those that no server has. None: it cannot be
        found out."""
        found = self.reader.completed(self.project)
        if not found:
            return [], set()
        try:
            # After the images: a server that is new may have one of them, not the reverse.
            look = self._users.look()
        except exceptions.SplitImageError as error:
            LOG.warning("no completed image is deleted, because it is not known which ones "
                        "servers have: %s", error)
            return None
        images = sorted(self._learned(found), key=lambda image: (image.created, image.id))
        return images, {image.id for image, shown in found
                        if look.may_go(image, str(shown["visibility"]))}

    def _delete_all(self, images: Iterable[Image], reason: str) -> list[Image]:
        """Returns those that are gone."""
        removed = []
        for image in images:
            try:
                if self._used_since(image):
                    continue
                LOG.info("deleting image %s (%s) of project %s, %s", image.name, image.id,
                         self.project, reason)
                self._delete(image)
                removed.append(image)
            except (exceptions.NotFound, exceptions.NotPermitted, exceptions.BadImage,
                    exceptions.AlreadyExists) as error:
                LOG.warning("image %s stays: %s", image.name, error)
        return removed

    def _used_since(self, image: Image) -> bool:
        """Whether somebody came for it since it was listed: a server may be about to
        have it."""
        return self.reader.image(self.images.get(image.id)).last_used != image.last_used

    def _make_room(self) -> bool:
        """Once, when a quota has no room: the less recently used half goes."""
        found = self._unneeded()
        if found is None:
            return False
        images = sorted((image for image in found[0] if image.id in found[1]),
                        key=lambda image: image.last_used)
        return bool(self._delete_all(images[:(len(images) + 1) // 2], "the quota has no room"))
