"""A store in one directory of this host: SQLite for records, plain files for
their contents, see :mod:`splitimage_driver.store.host`."""

from __future__ import annotations

import functools
import sqlite3
import time
from typing import Self

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import part as parts_
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.part import Part, PartManifest
from splitimage_driver.store import base
from splitimage_driver.store.contents import PART, Target, targets
from splitimage_driver.store.host import HostStore
from splitimage_driver.store.pending import Pending
from splitimage_driver.store.retention import Limits, surplus

LOG = logging.getLogger(__name__)


class LocalStore(HostStore):
    """All of it on this host."""

    @classmethod
    def opened(cls, opening: base.Opening) -> Self:
        return cls(opening.path, opening.options, retention=opening.retention,
                   max_parallel=opening.max_parallel,
                   max_scratch=opening.max_scratch)

    @functools.cached_property
    def _pending(self) -> Pending:
        return Pending(self._database, self._session, self._tables, self._contents)

    def _release(self) -> None:
        self._pending.release()
        super()._release()

    def _release_dead(self) -> None:
        self._pending.release_dead()
        super()._release_dead()

    # -- parts ----------------------------------------------------------------

    def add_part(self, part: Part, manifest: PartManifest, *, pending: bool = False) -> Part:
        if part.id != manifest.digest:
            raise exceptions.DigestMismatch(what=f"manifest of part {part.name}",
                                            expected=part.id, found=manifest.digest)
        self._contents.put(manifest.encode(), part.id)
        with self._change() as (connection, useless):
            there = self._tables.get(connection, Part, part.id, part.owner)
            if pending:
                self._pending.note(connection, part, fresh=there is None)
            else:
                self._pending.settle(connection, part.owner, {(PART, part.id)})
            if there is not None:
                self._contents.settle(connection, targets(part))
                useless |= targets(part)
                return there
            self._contents.relate(connection, "part", part.id, part.owner, targets(part))
            self._tables.put(connection, part)
        return part

    def part(self, name_or_id: str, *, owner: str | None = None) -> Part:
        return self._tables.find(Part, name_or_id, owner)

    def part_manifest(self, part_id: str) -> PartManifest:
        return self._decoded(part_id, PartManifest.decode)

    def parts(self, *, owner: str | None = None) -> list[Part]:
        return self._tables.all(Part, owner=owner)

    def delete_part(self, name_or_id: str, *, owner: str | None = None) -> None:
        part = self._tables.find(Part, name_or_id, owner, single=True)
        with self._change() as (connection, useless):
            users = self._tables.users_of_part(connection, part)
            if users:
                raise self._in_use(part.kind + " part" if part.kind != parts_.FILESET
                                   else "file set", part.name, users)
            useless |= self._drop(connection, part)

    # -- composites -----------------------------------------------------------

    def save_composite(self, composite: Composite, *, replace: bool = False) -> Composite:
        parts_.check_name("composite", composite.name)
        with self._change() as (connection, useless):
            same = self._tables.get(connection, Composite, composite.id)
            named = self._tables.named(connection, Composite, composite.name)
            if named is not None and (not replace or (same and named.id != composite.id)):
                raise exceptions.AlreadyExists(kind="composite", name=composite.name,
                                               where=self.location)
            if same is not None and not replace:
                raise exceptions.AlreadyExists(kind="composite", name=composite.id,
                                               where=self.location)
            if named is not None and same is None:
                useless |= self._drop_composite(connection, named)
            useless |= self._contents.relate(connection, "composite", composite.id,
                                             composite.owner, targets(composite))
            self._pending.settle(connection, composite.owner, targets(composite))
            self._tables.put(connection, composite)
        return composite

    def composite(self, name_or_id: str) -> Composite:
        return self._tables.find(Composite, name_or_id)

    def composites(self) -> list[Composite]:
        return self._tables.all(Composite)

    def delete_composite(self, name_or_id: str, *, parts: bool = False) -> None:
        composite = self._tables.find(Composite, name_or_id)
        with self._change() as (connection, useless):
            useless |= self._drop_composite(connection, composite)
            for target, digest in targets(composite) if parts else ():
                part = (self._tables.get(connection, Part, digest, composite.owner)
                        if target == PART else None)
                if (part and part.kind != parts_.FILESET
                        and not self._tables.users_of_part(connection, part)):
                    useless |= self._drop(connection, part)

    def _drop_composite(self, connection: sqlite3.Connection, composite: Composite) -> set[Target]:
        users = self._tables.users_of_composite(connection, composite)
        if users:
            raise self._in_use("composite", composite.name, users)
        return self._drop(connection, composite)

    # -- completed images -----------------------------------------------------

    def add_image(self, image: Image) -> Image:
        with self._change() as (connection, useless):
            there = self._tables.recipe(connection, image.recipe, image.owner)
            if there is not None:
                self._contents.settle(connection, targets(image))
                useless |= targets(image)
                return there
            if self._tables.get(connection, Composite, image.composite) is None:
                raise exceptions.NotFound(kind="composite", name=image.composite,
                                          where=self.location)
            self._contents.relate(connection, "image", image.id, image.owner, targets(image))
            self._tables.put(connection, image)
            self._prune(connection, useless, image.owner, self._limits, keep=image.id)
        return image

    def image(self, name_or_id: str) -> Image:
        return self._tables.find(Image, name_or_id)

    def images(self, *, composite: str | None = None, owner: str | None = None) -> list[Image]:
        return self._tables.all(Image, composite=composite, owner=owner)

    def find_recipe(self, recipe: str, *, owner: str, composite: Composite) -> Image | None:
        return self._tables.usable(recipe, owner)

    def touch_image(self, image_id: str) -> None:
        with self._database.writing() as connection:
            image = self._tables.get(connection, Image, image_id)
            if image is None:
                raise exceptions.NotFound(kind="image", name=image_id, where=self.location)
            self._tables.put(connection, msgspec.structs.replace(image, last_used=time.time()))

    def delete_image(self, name_or_id: str) -> None:
        image = self._tables.find(Image, name_or_id)
        with self._change() as (connection, useless):
            users = self._tables.users_of_image(connection, image)
            if users:
                raise self._in_use("image", image.name, users)
            useless |= self._drop(connection, image)

    def prune_images(self, *, owner: str | None = None, max_age: float | None = None,
                     max_count: int | None = None, max_bytes: int | None = None) -> list[Image]:
        limits = self._limits.but(max_age=max_age, max_count=max_count, max_bytes=max_bytes)
        owners = {image.owner for image in self.images(owner=owner)}
        removed = []
        for one in sorted(owners):
            with self._change() as (connection, useless):
                removed += self._prune(connection, useless, one, limits)
        return removed

    def _prune(self, connection: sqlite3.Connection, useless: set[Target], owner: str,
               limits: Limits, keep: str = "") -> list[Image]:
        if limits == Limits():
            return []
        images = self._tables.select(connection, Image, owner=owner)
        needed = {image.id for image in images
                  if image.id == keep or self._tables.users_of_image(connection, image)}
        removed = surplus(images, limits, now=time.time(), protected=needed)
        for image in removed:
            LOG.info("deleting image %s (%s), over the limits of project %s",
                     image.name, image.id, owner)
            useless |= self._drop(connection, image)
        left = [image for image in images if image not in removed]
        still = limits.full(len(left), sum(image.disk_size for image in left))
        if still:
            LOG.warning("project %s stays over its limit (%s): the rest is in use", owner, still)
        return removed
