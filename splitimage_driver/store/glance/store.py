"""The store whose records are Glance images."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import part as parts_
from splitimage_driver.model import properties
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import Part, PartManifest
from splitimage_driver.model.properties import Link, Links
from splitimage_driver.store.base import Opening
from splitimage_driver.store.contents import ADOPTED, PART
from splitimage_driver.store.glance import access, holdings
from splitimage_driver.store.glance.api import Description, Images, Transport
from splitimage_driver.store.glance.cache import Cache
from splitimage_driver.store.glance.publish import Publisher
from splitimage_driver.store.glance.reader import Known, Reader
from splitimage_driver.store.host import HostStore, Options
from splitimage_driver.store.retention import Limits, surplus

LOG = logging.getLogger(__name__)


class Own(Protocol):
    """The group ``[glance]``, see :mod:`splitimage_driver.conf.glance`."""

    store: str
    parallel: int
    stall: float
    grace: int
    cache_bytes: int
    filter: bool


class _Place:
    """Where a part is in Glance.

    :ivar image: id of its image
    """

    def __init__(self, part: Part, image: str) -> None:
        self.part, self.image = part, image


class GlanceStore(HostStore):
    """:param own: the group ``[glance]``
    :param transport: logged in as the user who acts
    :param purpose: id of the image that parts are stored for, where it is there
        already (an import)
    """

    remote = frozenset({PART})

    def __init__(self, path: Path, options: Options, *, own: Own, transport: Transport,
                 retention: Any = None, max_parallel: int = 1, purpose: str = "") -> None:
        super().__init__(path, options, retention=retention, max_parallel=max_parallel)
        self.own, self.images_api = own, Images(transport)
        self.location, self.project = transport.where, transport.project
        self.cache = Cache(self.images_api, self._contents, self.lock, limit=own.cache_bytes)
        self.reader = Reader(self.images_api, self.cache, parallel=own.parallel)
        self.publisher = Publisher(self.images_api, self._scratch, store=own.store,
                                   stall=own.stall, purpose=purpose)
        self._pool = concurrent.futures.ThreadPoolExecutor(own.parallel)
        #: Parts on their way up, by id; and those that this session brought
        #: for a composite that is not there yet.
        self._rising: dict[str, concurrent.futures.Future[Description]] = {}
        self._brought: dict[str, Description] = {}
        #: By (owner, id) of a part; by digest: whose data, or manifest, it is.
        self._parts: dict[tuple[str, str], _Place] = {}
        self._data: dict[str, tuple[str, str, str]] = {}
        self._trees: dict[str, tuple[str, str]] = {}
        self._put: set[str] = set()

    @classmethod
    def opened(cls, opening: Opening) -> Self:
        from splitimage_driver.store.glance import http
        own = opening.own
        transport = (http.HttpTransport(opening.connection, own.timeout) if opening.connection
                     else http.connect(opening.cloud or own.cloud, timeout=own.timeout))
        return cls(opening.path, opening.options, own=own, transport=transport,
                   retention=opening.retention, max_parallel=opening.max_parallel)

    def close(self) -> None:
        try:
            self._drop_brought()
        finally:
            self._pool.shutdown()
            super().close()

    def _drop_brought(self) -> None:
        """Parts whose composite did not come about."""
        for future in self._rising.values():
            with contextlib.suppress(exceptions.SplitImageError):
                image = future.result()
                self._brought[image["id"]] = image
        self._rising.clear()
        for image in self._brought.values():
            try:
                self.images_api.discard(image["id"])
                self.images_api.discard(properties.manifest(image))
            except exceptions.SplitImageError as error:
                LOG.warning("a part stays until the collector comes: %s", error)
        self._brought.clear()

    # -- objects ------------------------------------------------------------------------

    def path(self, digest: str) -> Path:
        if digest in self._data:
            image, role, owner = self._data[digest]
            return self.cache.path(self.reader.shown(image, role, owner), sha256=digest)
        if self._ours(digest):
            return super().path(digest)
        raise exceptions.NotFound(kind="object", name=digest, where=self.location)

    def _ours(self, digest: str) -> bool:
        """Whether this session stored it, or a server of this host runs on it:
        that somebody else's copy is here is no reason to give it away."""
        return bool(self._database.query(
            "SELECT 1 FROM leases WHERE session = ? AND reason = ? AND digest = ?"
            " UNION ALL SELECT 1 FROM uses WHERE kind = 'server' AND digest = ?",
            self._session.name, ADOPTED, digest, digest))

    def is_local(self, digest: str) -> bool:
        if digest in self._data:
            return self.cache.digest(self._data[digest][0]) == digest
        return self._ours(digest) and super().is_local(digest)

    def verify(self, digest: str) -> None:
        try:
            super().verify(digest)
        except exceptions.DigestMismatch:
            if digest in self._data:
                self.cache.forget(self._data[digest][0])  # fetched anew the next time
            raise

    def hold(self, digests: Iterable[str]) -> contextlib.AbstractContextManager[None]:
        wanted = [digest for digest in dict.fromkeys(digests) if digest]
        self.reader.map(self.path, wanted)
        return super().hold(wanted)

    def put_manifest(self, manifest: Manifest) -> str:
        self._put.add(super().put_manifest(manifest))
        return manifest.digest

    def manifest(self, digest: str) -> Manifest:
        return Manifest.decode(self._tree(digest))

    def _tree(self, digest: str) -> bytes:
        """Canonical bytes of a tree's or a part's manifest."""
        if digest in self._put:
            return self._contents.read(digest)
        if digest not in self._trees:
            raise exceptions.NotFound(kind="manifest", name=digest, where=self.location)
        image, owner = self._trees[digest]
        found = self.reader.bundle(image, owner).manifest
        if hashlib.sha256(found).hexdigest() != digest:
            raise exceptions.DigestMismatch(what=f"manifest image {image}", expected=digest,
                                            found=hashlib.sha256(found).hexdigest())
        return found

    # -- parts --------------------------------------------------------------------------

    def add_part(self, part: Part, manifest: PartManifest, *, pending: bool = False) -> Part:
        if part.id != manifest.digest:
            raise exceptions.DigestMismatch(what=f"manifest of part {part.name}",
                                            expected=part.id, found=manifest.digest)
        with contextlib.suppress(exceptions.NotFound):
            return self._met_again(self.part(part.id, owner=part.owner))
        self._contents.put(manifest.encode(), part.id)
        self._put.add(part.id)
        self._rising[part.id] = self._pool.submit(self._raise, part, manifest.encode())
        self._parts[part.owner, part.id] = _Place(part, "")
        if not pending:
            self._arrived(part)
            self._brought.clear()
        return part

    def _met_again(self, part: Part) -> Part:
        """One that is stored already: the collector is to know that it is
        wanted. :raises NotFound: it went meanwhile"""
        image = self._parts[part.owner, part.id].image
        if image:  # else it is on its way up
            if self.publisher.purpose:
                holdings.claim(self.images_api, image, self.publisher.purpose)
            else:
                holdings.touch(self.images_api, image)
        return part

    def _raise(self, part: Part, manifest: bytes) -> Description:
        blob = super().path(part.blob) if part.blob else None
        image = self.publisher.part(part, manifest, blob)
        if part.blob:
            self.cache.keep(image["id"], part.blob)
        return image

    def _arrived(self, part: Part) -> str:
        """Id of the image of a part, once that is complete."""
        future = self._rising.pop(part.id, None)
        if future is not None:
            image = future.result()
            self._brought[image["id"]] = image
            self._learn_part(part, image["id"])
        return self._parts[part.owner, part.id].image

    def _learn_part(self, part: Part, image: str) -> None:
        self._parts[part.owner, part.id] = _Place(part, image)
        if part.blob:
            self._data[part.blob] = (image, properties.PART, part.owner)

    def part(self, name_or_id: str, *, owner: str | None = None) -> Part:
        found = [place.part for (whose, digest), place in self._parts.items()
                 if digest == name_or_id and owner in (None, whose)]
        if found:
            return found[0]
        owner = owner or self.project
        images = (self.reader.part_images(owner, splitimage_digest=name_or_id)
                  or self.reader.part_images(owner, name=name_or_id))
        images = [i for i in images if name_or_id in (i["name"], i.get("splitimage_digest"))]
        if len({properties.digest(image) for image in images}) > 1:
            raise exceptions.InvalidInput(
                what=f"part {name_or_id}",
                reason=f"{len(images)} have this name, give an id: "
                + ", ".join(sorted(properties.digest(image)[:12] for image in images)))
        if not images:
            raise exceptions.NotFound(kind="part", name=name_or_id, where=self.location)
        return self._found_part(images[0])

    def _found_part(self, image: Description) -> Part:
        part = self.reader.part(image)
        self._learn_part(part, image["id"])
        self._trees[part.id] = (properties.manifest(image), image["owner"])
        return part

    def part_manifest(self, part_id: str) -> PartManifest:
        if part_id not in self._put and part_id not in self._trees:
            part = self.part(part_id)
            place = self._parts[part.owner, part.id]
            shown = self.reader.shown(place.image, properties.PART, part.owner)
            if properties.digest(shown) != part_id:
                raise properties.bad(shown, "it is not the part that its composite names")
            self._trees[part_id] = (properties.manifest(shown), part.owner)
        return PartManifest.decode(self._tree(part_id))

    def parts(self, *, owner: str | None = None) -> list[Part]:
        found = self.reader.map(self._readable, self.reader.part_images(owner or self.project))
        return sorted((part for part in found if part), key=lambda p: (p.name, p.created, p.id))

    def _readable(self, image: Description) -> Part | None:
        try:
            return self._found_part(image)
        except (exceptions.BadImage, exceptions.DigestMismatch) as error:
            LOG.warning("%s", error)
            return None

    def delete_part(self, name_or_id: str, *, owner: str | None = None) -> None:
        part = self.part(name_or_id, owner=owner or self.project)
        with self._database.reading() as connection:
            users = self._tables.users_of_part(connection, part)
        for image in self.reader.described(owner=self.project):
            links = properties.links(image)
            if part.id in {link.digest for link in (*links.parts.values(), links.restore)}:
                users.append(f"composite {image['name']}")
        users += [f"image {image.name}" for image in self.images(owner=self.project)
                  if part.id in image.filesets]
        if users:
            raise self._in_use(part.kind + " part" if part.kind != parts_.FILESET
                               else "file set", part.name, users)
        place = self._parts.pop((part.owner, part.id))
        shown = self.reader.shown(place.image, properties.PART, part.owner)
        self.images_api.discard(place.image)
        self.images_api.discard(properties.manifest(shown))
        self._forget(place.image)

    def _forget(self, image: str) -> None:
        self.reader.forget(image)
        self.cache.forget(image)
        self._data = {digest: place for digest, place in self._data.items() if place[0] != image}

    # -- composites -----------------------------------------------------------------------

    def save_composite(self, composite: Composite, *, replace: bool = False) -> Composite:
        parts_.check_name("composite", composite.name)
        links, parts = self._links(composite)
        tree = self._tree(composite.base.manifest)
        known = self.reader.composites.get(composite.id)
        if replace and known is not None:
            saved = self._replace(composite, known, tree, links, parts)
        else:
            self._free(composite.name)
            image = self.publisher.composite(composite, tree, links, parts,
                                             super().path(composite.base.disk))
            self.cache.keep(image["id"], composite.base.disk)
            saved = self._learn(self.reader.composite(image["id"]))
        self._brought.clear()
        if composite.public or (known and known.image["visibility"] != "private"):
            self._publish_access(saved, public=composite.public)
        return saved

    def _free(self, name: str) -> None:
        if self.reader.described(name=name, owner=self.project):
            raise exceptions.AlreadyExists(kind="composite", name=name, where=self.location)

    def _replace(self, composite: Composite, known: Known, tree: bytes, links: Links,
                 parts: tuple[Part, ...]) -> Composite:
        now = self.images_api.get(composite.id)
        old = properties.manifest(known.image)
        if properties.manifest(now) != old:
            raise exceptions.ChangedMeanwhile(kind="composite", name=composite.name)
        wanted = self.publisher.describe(composite, tree, links, parts)
        gone = {name: None for name in now
                if name.startswith("splitimage_part_") and name not in wanted}
        self.images_api.update(composite.id, {**wanted, **gone}, known=now)
        self.images_api.discard(old)
        self.reader.forget(composite.id)
        return self._learn(self.reader.composite(composite.id))

    def _publish_access(self, composite: Composite, *, public: bool) -> None:
        if public:
            self.images_api.update(composite.id, {"visibility": "public"})
        access.reconcile(self.images_api, composite.id)

    def describe_composite(self, composite: Composite) -> dict[str, str]:
        """Store all but the composite's own image; returns the properties that
        it needs. What was stored for it stays from then on."""
        links, parts = self._links(composite)
        found = self.publisher.describe(composite, self._tree(composite.base.manifest), links,
                                        parts)
        self._brought.clear()
        return found

    def _links(self, composite: Composite) -> tuple[Links, tuple[Part, ...]]:
        """Where all its parts are, once they are complete; and their records."""
        parts = {name: self.part(ref.id, owner=composite.owner)
                 for name, ref in composite.parts.items()}
        restore = self.part(composite.restore, owner=composite.owner)
        found = {name: Link(self._arrived(part), part.id) for name, part in parts.items()}
        links = Links(found, Link(self._arrived(restore), restore.id))
        # What was there before may have gone.
        self.reader.map(self.images_api.get, {link.image for link in (
            *links.parts.values(), links.restore)} - self._brought.keys())
        return links, tuple({part.id: part for part in (*parts.values(), restore)}.values())

    def _learn(self, known: Known) -> Composite:
        """Note where its parts and its base are."""
        composite = known.composite
        self._data[composite.base.disk] = (composite.id, properties.COMPOSITE, composite.owner)
        self._trees[composite.base.manifest] = (properties.manifest(known.image),
                                                composite.owner)
        for part in known.parts.values():
            link = known.link(part.id)
            if link is not None:
                self._learn_part(msgspec.structs.replace(part, owner=composite.owner),
                                 link.image)
        return composite

    def composite(self, name_or_id: str) -> Composite:
        return self._learn(self.reader.composite(name_or_id))

    def composites(self) -> list[Composite]:
        return sorted((self._learn(known) for known in self.reader.all_composites()),
                      key=lambda composite: composite.name)

    def usable(self, composite: Composite, owner: str) -> bool:
        return True  # only such ones are found

    def delete_composite(self, name_or_id: str, *, parts: bool = False) -> None:
        known = self.reader.composite(name_or_id)
        composite = known.composite
        if composite.owner != self.project:
            raise exceptions.NotFound(kind="composite", name=name_or_id, where=self.location)
        users = [f"image {image.name}" for image in self.images(composite=composite.id)
                 if image.owner == self.project]
        users += [f"server {server.name}" for server in self.servers()
                  if server.composite in (composite.id, composite.name)]
        if users:
            raise self._in_use("composite", composite.name, users)
        self.images_api.delete(composite.id)
        self._forget(composite.id)
        access.reconcile(self.images_api, composite.id, last=known.image)

    # -- completed images -------------------------------------------------------------------

    def add_image(self, image: Image) -> Image:
        composite = self._known_composite(image.composite)
        tree, disk = self._tree(image.manifest), super().path(image.disk)

        def publish() -> Description:
            return self.publisher.completed(image, tree, composite.base.manifest, disk)

        try:
            done = publish()
        except exceptions.QuotaExceeded:
            if not self._make_room():
                raise
            done = publish()
        saved = self.reader.image(done)
        if saved.disk == image.disk:
            self.cache.keep(saved.id, image.disk)
        self._learn_image(saved, done)
        self._prune(self._limits, keep=saved.id)
        return saved

    def _known_composite(self, composite: str) -> Composite:
        known = self.reader.composites.get(composite)
        return known.composite if known else self.composite(composite)

    def _learn_image(self, image: Image, description: Description) -> None:
        self._data[image.disk] = (image.id, properties.COMPLETED, image.owner)
        self._trees[image.manifest] = (properties.manifest(description), image.owner)

    def _learned(self, found: Iterable[tuple[Image, Description]]) -> Iterator[Image]:
        for image, description in found:
            self._learn_image(image, description)
            yield image

    def images(self, *, composite: str | None = None, owner: str | None = None) -> list[Image]:
        filters = {} if composite is None else {"splitimage_composite": composite}
        found = self.reader.completed(owner or self.project, **filters)
        if owner is None and composite is not None:
            whose = self._known_composite(composite).owner
            if whose != self.project:
                found += self.reader.completed(whose, visibility="public", **filters)
        return sorted(self._learned(found), key=lambda image: (image.created, image.id))

    def image(self, name_or_id: str) -> Image:
        found = [i for i in self.images(owner=self.project) if name_or_id in (i.id, i.name)]
        exact = [i for i in found if i.id == name_or_id] or found
        if not exact:
            raise exceptions.NotFound(kind="image", name=name_or_id, where=self.location)
        if len(exact) > 1:
            raise exceptions.InvalidInput(
                what=f"image {name_or_id}", reason=f"{len(exact)} have this name, give an id: "
                + ", ".join(sorted(i.id for i in exact)))
        return exact[0]

    def find_recipe(self, recipe: str, *, owner: str) -> Image | None:
        found = self.reader.completed(owner, splitimage_recipe=recipe)
        if not found:
            owners = {known.composite.owner for known in self.reader.composites.values()}
            for other in sorted(owners - {owner}):
                found += [(image, described) for image, described in self.reader.completed(
                    other, splitimage_recipe=recipe, visibility="public")
                    if self._known_composite(image.composite).owner == other]
        return next(self._learned(found), None)

    def touch_image(self, image_id: str) -> None:
        image = self.images_api.get(image_id)
        if image["owner"] == self.project:
            self.images_api.update(image_id, {"splitimage_used": properties.used(time.time())},
                                   known=image)

    def delete_image(self, name_or_id: str) -> None:
        self._delete_image(self.image(name_or_id))

    def _delete_image(self, image: Image) -> None:
        with self._database.reading() as connection:
            users = self._tables.users_of_image(connection, image)
        if users:
            raise self._in_use("image", image.name, users)
        manifest, _ = self._trees[image.manifest]
        self.images_api.delete(image.id)
        self.images_api.discard(manifest)
        self._forget(image.id)

    def prune_images(self, *, owner: str | None = None, max_age: float | None = None,
                     max_count: int | None = None, max_bytes: int | None = None) -> list[Image]:
        if owner not in (None, self.project):
            return []
        return self._prune(self._limits.but(max_age=max_age, max_count=max_count,
                                            max_bytes=max_bytes))

    def _prune(self, limits: Limits, keep: str = "") -> list[Image]:
        if limits == Limits():
            return []
        images = self.images(owner=self.project)
        removed = []
        for image in surplus(images, limits, now=time.time(), protected=self._needed(images, keep)):
            LOG.info("deleting image %s (%s), over the limits of project %s", image.name,
                     image.id, self.project)
            try:
                self._delete_image(image)
                removed.append(image)
            except (exceptions.NotFound, exceptions.NotPermitted, exceptions.InUse) as error:
                LOG.warning("image %s stays: %s", image.name, error)
        return removed

    def _needed(self, images: Iterable[Image], keep: str) -> set[str]:
        with self._database.reading() as connection:
            return {image.id for image in images
                    if image.id == keep or self._tables.users_of_image(connection, image)}

    def _make_room(self) -> bool:
        """Once, when a quota has no room: the less recently used half goes."""
        images = self.images(owner=self.project)
        return bool(images and self._prune(Limits(max_count=max(1, len(images) // 2))))
