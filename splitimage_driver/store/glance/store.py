"""The store whose records are Glance images."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import part as parts_
from splitimage_driver.model import properties
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import Part, PartManifest
from splitimage_driver.model.properties import Link, Links
from splitimage_driver.store.base import Opening, Servers
from splitimage_driver.store.contents import ADOPTED, PART
from splitimage_driver.store.glance import access, holdings, leftovers
from splitimage_driver.store.glance.api import Description, Images, Transport
from splitimage_driver.store.glance.cache import Cache
from splitimage_driver.store.glance.check import Checker, HostChecker, put_right
from splitimage_driver.store.glance.completed import CompletedImages
from splitimage_driver.store.glance.journal import IMAGE, Journal
from splitimage_driver.store.glance.meeting import Announcement
from splitimage_driver.store.glance.places import Places
from splitimage_driver.store.glance.publish import Publisher
from splitimage_driver.store.glance.reader import UNREADABLE, Known, Reader
from splitimage_driver.store.glance.rising import Rising
from splitimage_driver.store.glance.users import Users
from splitimage_driver.store.host import HostStore, Options
from splitimage_driver.store.records import Finding

LOG = logging.getLogger(__name__)
#: Event of the history: leftovers were looked for.
_COLLECTED = "collected"


class Own(Protocol):
    """The group ``[glance]``, see :mod:`splitimage_driver.conf.glance`."""

    store: str
    parallel: int
    stall: float
    grace: int
    cache_bytes: int
    filter: bool


class GlanceStore(HostStore):
    """:param own: the group ``[glance]``
    :param transport: logged in as the user who acts
    :param purpose: id of the image that parts are stored for, where it is there
        already (an import)
    :param servers: of the project in the cloud
    """

    remote = frozenset({PART, IMAGE})

    def __init__(self, path: Path, options: Options, *, own: Own, transport: Transport,
                 retention: Any = None, max_parallel: int = 1, max_scratch: int = 0,
                 purpose: str = "", servers: Servers | None = None) -> None:
        super().__init__(path, options, retention=retention, max_parallel=max_parallel,
                         max_scratch=max_scratch)
        self.own, self.images_api = own, Images(transport)
        self.location, self.project = transport.where, transport.project
        self.cache = Cache(self.images_api, self._contents, self.lock, limit=own.cache_bytes)
        self.reader = Reader(self.images_api, self.cache, parallel=own.parallel)
        self.places = Places(self.reader, self.cache)
        self.journal = Journal(self._database, self._session, self.project)
        self.publisher = Publisher(self.images_api, self._scratch, store=own.store,
                                   stall=own.stall, purpose=purpose, journal=self.journal)
        self.completed = CompletedImages(self.images_api, self.reader, self.publisher,
                                         self.places, ask=own.filter,
                                         users=Users(self.images_api, self._users, servers))
        self.rising = Rising(self.publisher, self.places, self.cache, parallel=own.parallel)
        #: Of completed images that are being made here, by the id that they have
        #: until their own is told.
        self._announcements: dict[str, Announcement] = {}
        #: Digests of manifests that this session has stored on this host.
        self._put: set[str] = set()
        leftovers.discard(self.images_api, self.journal, self.project)

    @classmethod
    def opened(cls, opening: Opening) -> Self:
        from splitimage_driver.store.glance import http
        own = opening.own
        transport = (http.HttpTransport(opening.connection, own.timeout) if opening.connection
                     else http.connect(opening.cloud or own.cloud, timeout=own.timeout))
        return cls(opening.path, opening.options, own=own, transport=transport,
                   retention=opening.retention, max_parallel=opening.max_parallel,
                   max_scratch=opening.max_scratch, servers=opening.servers or transport.servers)

    def greet(self) -> str:
        next(self.images_api.list(limit="1"), None)
        return f"project {self.project} of {self.location}"

    def close(self) -> None:
        # What is still on its way is wanted no more: somebody may be waiting
        # for a command to end that he has interrupted.
        self.images_api.stopping.set()
        try:
            self.rising.close()
        finally:
            super().close()

    # -- objects ------------------------------------------------------------------------

    def path(self, digest: str) -> Path:
        # First: what is on its way up is not in the image service yet.
        if self._ours(digest):
            with contextlib.suppress(exceptions.NotFound):
                return super().path(digest)
        if self.places.has_data(digest):
            return self.places.path(digest)
        raise exceptions.NotFound(kind="object", name=digest, where=self.location)

    def size(self, digest: str) -> int:
        if self.places.has_data(digest):
            return self.places.size(digest)
        return super().size(digest)

    def _ours(self, digest: str) -> bool:
        """Whether this session stored it, or a server of this project on this
        host runs on it: that somebody else's copy is here is no reason to give
        it away."""
        return bool(self._database.query(
            "SELECT 1 FROM leases WHERE session = ? AND reason = ? AND digest = ?"
            " UNION ALL SELECT 1 FROM uses WHERE kind = 'server' AND owner = ? AND digest = ?",
            self._session.name, ADOPTED, digest, self.project, digest))

    def is_local(self, digest: str) -> bool:
        return (self._ours(digest) and super().is_local(digest)) or (
            self.places.has_data(digest) and self.places.is_here(digest))

    def verify(self, digest: str) -> None:
        try:
            super().verify(digest)
        except exceptions.DigestMismatch:
            self.places.damaged(digest)
            raise

    def hold(self, digests: Iterable[str]) -> contextlib.AbstractContextManager[None]:
        return self._contents.hold(digests, lambda wanted: self.reader.map(self.path, wanted))

    def put_manifest(self, manifest: Manifest) -> str:
        self._put.add(super().put_manifest(manifest))
        return manifest.digest

    def manifest(self, digest: str) -> Manifest:
        return Manifest.decode(self._tree(digest))

    def _tree(self, digest: str) -> bytes:
        """Canonical bytes of a tree's or a part's manifest."""
        found = (self._contents.read(digest) if digest in self._put
                 else self.places.tree(digest))
        if found is None:
            raise exceptions.NotFound(kind="manifest", name=digest, where=self.location)
        return found

    # -- parts --------------------------------------------------------------------------

    def add_part(self, part: Part, manifest: PartManifest, *, pending: bool = False) -> Part:
        if part.id != manifest.digest:
            raise exceptions.DigestMismatch(what=f"manifest of part {part.name}",
                                            expected=part.id, found=manifest.digest)
        with contextlib.suppress(*UNREADABLE):
            return self._met_again(self.part(part.id, owner=part.owner))
        self._contents.put(manifest.encode(), part.id)
        self._put.add(part.id)
        self.rising.start(part, manifest.encode(), super().path(part.blob) if part.blob else None)
        if not pending:
            self.rising.settle(self.rising.arrived(part))
        return part

    def _met_again(self, part: Part) -> Part:
        """One that is stored already: the collector is to know that it is
        wanted. :raises NotFound: it went meanwhile"""
        place = self.places.part(part.id, part.owner)
        image = place.image if place else ""
        if image:  # else it is on its way up
            if self.publisher.purpose:
                holdings.claim(self.images_api, image, self.publisher.purpose)
            else:
                holdings.touch(self.images_api, image)
        return part

    def part(self, name_or_id: str, *, owner: str | None = None) -> Part:
        place = self.places.part(name_or_id, owner)
        if place:
            return place.part
        images = self._part_images(name_or_id, owner or self.project)
        # One that cannot be read any more does not stand for its likes.
        found = next(filter(None, map(self._readable, images)), None)
        return self.places.use_part(found or self.places.learn_part_image(images[0]))

    def _part_images(self, name_or_id: str, owner: str) -> list[Description]:
        """All that have one content, the oldest first."""
        for key in ("splitimage_digest", "name"):
            found = [image for image in self.reader.part_images(owner, **{key: name_or_id})
                     if image.get(key) == name_or_id]
            digests = {properties.digest(image) for image in found}
            if len(digests) > 1:
                raise exceptions.ambiguous("part", name_or_id,
                                           (digest[:12] for digest in digests))
            if found:
                return found
        raise exceptions.NotFound(kind="part", name=name_or_id, where=self.location)

    def part_manifest(self, part_id: str) -> PartManifest:
        if part_id not in self._put:
            self.part(part_id)  # where it is
        return PartManifest.decode(self._tree(part_id))

    def parts(self, *, owner: str | None = None) -> list[Part]:
        images = self.reader.part_images(owner or self.project)
        self.reader.look(image.get("splitimage_manifest") for image in images)
        found = self.reader.map(self._readable, images)
        return sorted((part for part in found if part), key=lambda p: (p.name, p.created, p.id))

    def _readable(self, image: Description) -> Part | None:
        try:
            return self.places.learn_part_image(image)
        except UNREADABLE as error:
            LOG.warning("%s", error)
            return None

    def delete_part(self, name_or_id: str, *, owner: str | None = None) -> None:
        images = self._part_images(name_or_id, owner or self.project)
        part = next(filter(None, map(self._readable, images)), None) or _described(images[0])
        with self._database.reading() as connection:
            users = self._tables.users_of_part(connection, part)
        names = {image["id"] for image in images}
        # Also of those that are hidden, or deactivated for now.
        users += [f"composite {each['name']}" for each in holdings.of_role(
            self.images_api, properties.COMPOSITE, self.project)
            if names & holdings.parts_of(each)]
        users += [f"image {each.name}" for each in self.images(owner=self.project)
                  if part.id in each.filesets]
        if users:
            raise self._in_use(part.kind + " part" if part.kind != parts_.FILESET
                               else "file set", part.name, users)
        for image in images:
            self.images_api.discard(image["id"])
            self.images_api.discard(properties.manifest(image))
            self.places.forget(image["id"])

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
            saved = self.places.learn_composite(self.reader.composite(image["id"]))
        self.rising.settle_links(links)
        if composite.public or (known and known.image["visibility"] != "private"):
            self._publish_access(saved, public=composite.public,
                                 last=known.image if known else None)
        self._tidy()
        return saved

    def taken(self, name: str) -> bool:
        return bool(self.reader.described(name=name, owner=self.project))

    def _free(self, name: str) -> None:
        if self.taken(name):
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
        self.publisher.discard(old)
        self.reader.forget(composite.id)
        return self.places.learn_composite(self.reader.composite(composite.id))

    def _publish_access(self, composite: Composite, *, public: bool,
                        last: Description | None) -> None:
        """:param last: the composite before a change, whose parts may not be its
        parts any more"""
        if public:
            self.images_api.update(composite.id, {"visibility": "public"})
        access.reconcile(self.images_api, composite.id, last=last)

    def describe_composite(self, composite: Composite) -> dict[str, str]:
        """Store all but the composite's own image; returns the properties that
        it needs. What was stored for it stays from then on."""
        links, parts = self._links(composite)
        found = self.publisher.describe(composite, self._tree(composite.base.manifest), links,
                                        parts)
        self.rising.settle_links(links)
        return found

    def _links(self, composite: Composite) -> tuple[Links, tuple[Part, ...]]:
        """Where all its parts are, once they are complete; and their records."""
        parts = {name: self.part(ref.id, owner=composite.owner)
                 for name, ref in composite.parts.items()}
        restore = self.part(composite.restore, owner=composite.owner)
        found = {name: Link(self.rising.arrived(part), part.id) for name, part in parts.items()}
        links = Links(found, Link(self.rising.arrived(restore), restore.id))
        # A collector may have taken what was there before, or was long on its way.
        wanted = {link.image for link in (*links.parts.values(), links.restore)}
        gone = wanted - holdings.named(self.images_api, wanted, self.project).keys()
        if gone:
            raise exceptions.NotFound(kind="part", name=", ".join(sorted(gone)),
                                      where=self.location)
        return links, tuple({part.id: part for part in (*parts.values(), restore)}.values())

    def composite(self, name_or_id: str) -> Composite:
        return self.places.use_composite(self.reader.composite(name_or_id))

    def composites(self) -> list[Composite]:
        found = map(self.places.learn_composite, self.reader.all_composites())
        return sorted(found, key=lambda composite: composite.name)

    def composite_names(self, ids: Iterable[str]) -> dict[str, str]:
        return self.reader.names(ids)

    def default_parts(self, composite: str) -> tuple[str, ...]:
        return properties.default_parts(self.images_api.get(composite))

    def reconcile(self, composite: str | None = None) -> list[Finding]:
        changes = (access.reconcile_all(self.images_api, self.project) if composite is None
                   else access.reconcile(self.images_api, composite))
        return [put_right(change) for change in changes]

    def usable(self, composite: Composite, owner: str) -> bool:
        return True  # only such ones are found

    def delete_composite(self, name_or_id: str, *, parts: bool = False) -> None:
        composite = self.reader.found(name_or_id)  # a damaged one can be deleted, too
        name, image = str(composite["name"]), composite["id"]
        if composite["owner"] != self.project:
            raise exceptions.NotFound(kind="composite", name=name_or_id, where=self.location)
        users = [f"image {each.name}" for each, _ in self.reader.completed(
            self.project, splitimage_composite=image)]
        users += [f"server {server.name}" for server in self.servers()
                  if server.composite in (image, name)]
        if users:
            raise self._in_use("composite", name, users)
        self.images_api.delete(image)
        self.places.forget(image)
        access.reconcile(self.images_api, image, last=composite)
        self._tidy()

    # -- completed images -------------------------------------------------------------------

    @contextlib.contextmanager
    def announced(self, image: Image) -> Iterator[Announcement]:
        known = self._known(image.composite)
        with self.publisher.announced(image, known.composite.base.manifest,
                                      known.image) as announcement:
            self._announcements[image.id] = announcement
            try:
                yield announcement
            finally:
                del self._announcements[image.id]

    def add_image(self, image: Image) -> Image:
        return self.completed.add(
            image, self._tree(image.manifest), self._known(image.composite),
            super().path(image.disk), self._limits, self._announcements.get(image.id))

    def _known(self, composite: str) -> Known:
        if composite not in self.reader.composites:
            self.composite(composite)
        return self.reader.composites[composite]

    def images(self, *, composite: str | None = None, owner: str | None = None) -> list[Image]:
        return self.completed.all(
            None if composite is None else self._known(composite).composite, owner)

    def image(self, name_or_id: str) -> Image:
        return self.completed.one(name_or_id)

    def near(self, composite: Composite, parts: Sequence[str], filesets: Sequence[str],
             limit: int) -> list[Image] | None:
        return self.completed.near(composite, parts, filesets, limit)

    def find_recipe(self, recipe: str, *, owner: str, composite: Composite) -> Image | None:
        return self.completed.of_recipe(recipe, owner, composite)

    def touch_image(self, image_id: str) -> None:
        self.completed.touch(image_id)

    def delete_image(self, name_or_id: str) -> None:
        self.completed.delete(self.image(name_or_id))

    def prune_images(self, *, owner: str | None = None, max_age: float | None = None,
                     max_count: int | None = None, max_bytes: int | None = None) -> list[Image]:
        if owner not in (None, self.project):
            return []
        removed = self.completed.prune(self._limits.but(max_age=max_age, max_count=max_count,
                                                        max_bytes=max_bytes))
        self._tidy()
        return removed

    def _users(self, image: Image) -> list[str]:
        """Servers of this host."""
        with self._database.reading() as connection:
            return self._tables.users_of_image(connection, image)

    # -- leftovers ------------------------------------------------------------------------

    def discard_leftovers(self) -> list[str]:
        return leftovers.discard(self.images_api, self.journal, None)

    def _tidy(self) -> None:
        """What commands that were killed have left in the image service goes, as
        far as it is due. Nothing more is due before the grace time is over once
        more; listing all that a project has takes time."""
        last = self.history(_COLLECTED, limit=1)
        if last and 0 <= time.time() - float(str(last[0]["time"])) < self.own.grace:
            return
        try:
            removed = access.collect(self.images_api, self.project, grace=self.own.grace)
            self.record(_COLLECTED, {"removed": len(removed)})
        except exceptions.SplitImageError as error:
            LOG.warning("cannot look for leftovers: %s", error)

    # -- both places --------------------------------------------------------------------

    def _checker(self) -> Callable[..., HostChecker]:
        return functools.partial(HostChecker, self.cache)

    def check(self, *, repair: bool = False) -> Iterator[Finding]:
        yield from super().check(repair=repair)
        yield from Checker(self.reader, grace=self.own.grace).run(repair=repair)


def _described(image: Description) -> Part:
    """A part as far as its image says, its manifest being lost."""
    return Part(id=properties.digest(image), name=str(image["name"]), owner=image["owner"],
                kind=str(image.get(holdings.KIND)), blob="", blob_size=0, size=0, files=0,
                created=0)
