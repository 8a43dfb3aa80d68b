"""The use cases: the one place where the pieces meet."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from oslo_log import log as logging

from splitimage_driver import deliveries, exceptions, plans, plugins
from splitimage_driver.archive import fileset
from splitimage_driver.archive.tree import BlobTree, Limits, TarTree, open_tree
from splitimage_driver.assembly import assembler, disks
from splitimage_driver.assembly.base import NAMESPACE, Opener
from splitimage_driver.capture import clean, inspect, pack
from splitimage_driver.capture.gold import GoldState, Spool
from splitimage_driver.capture.identity import Identity
from splitimage_driver.capture.machine import Capture, Gold
from splitimage_driver.model import part as parts_
from splitimage_driver.model.candidate import BASE, Image
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.part import Layer, Part, PartManifest, check_name
from splitimage_driver.model.plan import Plan, Request, Work
from splitimage_driver.progress import Operation
from splitimage_driver.store.base import Announced, Overtaken, Store
from splitimage_driver.turns import Turn

LOG = logging.getLogger(__name__)


class Assembled(msgspec.Struct, frozen=True, kw_only=True):
    """A disk that is ready to boot.

    :ivar image: the completed image; None where nothing was published
    :ivar disk: sha256 of the disk in the store
    :ivar facts: what was measured: seconds by step, bytes
    """

    image: Image | None
    disk: str
    facts: dict[str, float]


class ImageService:
    """:param conf: all option groups
    :param emulate: tells whether hardware virtualisation does not work here;
        asked only when that matters, because finding out takes time
    :param owner: the project that acts
    """

    def __init__(self, conf: Any, store: Store, *, emulate: Callable[[], bool],
                 owner: str) -> None:
        self.conf, self.store, self.owner = conf, store, owner
        self.identity = Identity(conf.capture.exclude)
        self.plans = plans.PlanService(conf, store, emulate=emulate, owner=owner,
                                       identity=self.identity)
        self.deliveries = deliveries.DeliveryService(store, self.plans)
        self.session: Opener = plugins.load(NAMESPACE, conf.assembly.driver)(conf.assembly,
                                                                             emulate)

    # -- capture --------------------------------------------------------------------

    def inspect(self, disk: Path) -> inspect.Proposal:
        """Name the operating system of a disk and propose how to split it.

        :raises NoOperatingSystem: :raises BadDisk: :raises UnsafeDisk:
        """
        info = disks.inspect(disk)
        with self.store.scratch() as scratch:
            with self.session(disk, info.format, None, readonly=True,
                              scratch=scratch) as session:
                session.read_tree(scratch / "root.tar")
            state = GoldState("disk", TarTree(scratch / "root.tar"))
            return inspect.propose(state.packages, state.manifest, state.read)

    def capture(self, name: str, gold: Gold, *, onto: str | None = None,
                renumber: bool = False, public: bool = False) -> Composite:
        """Turn a gold machine into a composite image."""
        if onto is None:
            self._not_yet(name)
        with self.store.lock(f"composite {onto or name}"):
            composite = self.store.composite(onto) if onto else None
            if composite is not None and composite.owner != self.owner:
                raise exceptions.NotFound(kind="composite", name=onto,
                                          where=self.store.location)
            if onto is None:
                self._not_yet(name)  # another capture may have finished just now
            capture = Capture(self.store, self.session, exclude=self.conf.capture.exclude,
                              owner=self.owner, public=public)
            return capture.run(name, gold, onto=composite, renumber=renumber)

    def _not_yet(self, name: str) -> None:
        if self.store.taken(name):
            raise exceptions.AlreadyExists(kind="composite", name=name,
                                           where=self.store.location)

    def create_part(self, name: str, source: Path, *, allow_setuid: bool = False) -> Part:
        """Make a tenant's file set into a part.

        :param source: a directory (its files become root's) or an archive
        :raises UnsafePath: :raises UnsafeMode: :raises TooLarge: :raises BadArchive:
        """
        check_name("part", name)
        options = self.conf.capture
        limits = Limits(entries=options.max_fileset_entries, bytes=options.max_fileset_bytes)
        tree = open_tree(source, owner=(0, 0))
        manifest = tree.manifest(limits=limits)
        fileset.check(str(source), manifest, allow_setuid=allow_setuid, limits=limits)
        kept = [e for e in manifest if e.path]
        part = PartManifest((Layer(entries=tuple(kept)),))
        with self.store.scratch() as scratch:
            spool = Spool(scratch / "contents")
            for path, content in tree.contents({e.path for e in kept if e.is_file and e.size}):
                with spool.path(manifest.by_path[path].sha256).open("wb") as out:
                    while piece := content.read(1 << 20):
                        out.write(piece)
            return pack.store_part(self.store, name, parts_.FILESET, part, spool, scratch,
                                   owner=self.owner)

    # -- planning -------------------------------------------------------------------

    def plan(self, request: Request, **options: Any) -> Plan:
        """See :meth:`splitimage_driver.plans.PlanService.plan`."""
        return self.plans.plan(request, **options)

    # -- assembly -------------------------------------------------------------------

    def assemble(self, request: Request, *, publish: bool = True) -> tuple[Plan, Assembled]:
        """See :meth:`assembled`; for who does not need the disk itself."""
        with self.assembled(request, publish=publish) as done:
            return done

    @contextlib.contextmanager
    def assembled(self, request: Request, *, publish: bool = True, source: str | None = None,
                  fetch: bool = True, largest: int = 0) -> Iterator[tuple[Plan, Assembled]]:
        """Plan and carry out; the same request in two processes is assembled
        once. For the length of the block nothing takes the disk away, even
        where the image is pruned.

        :param source: id of the image to make it from, if that is still there
        :param fetch: bring the disk of an exact match here; without, it is here
            only where it was before
        :param largest: bytes that the disk may have, as the guest sees it, if it has
            to be made; 0: any
        :raises TooLarge: it would have more
        :raises Cancelled: taken out of the queue meanwhile
        :raises NoSpaceInImage: nothing was written then
        """
        with contextlib.ExitStack() as held:
            yield self._assembled(request, held, publish=publish, source=source, fetch=fetch,
                                  largest=largest)

    def _assembled(self, request: Request, held: contextlib.ExitStack, *, publish: bool,
                   source: str | None, fetch: bool, largest: int) -> tuple[Plan, Assembled]:
        while True:
            plan = self.plan(request, source=source)
            try:
                if plan.exact:
                    return plan, self._match(plan, held, fetch=fetch)
                size = plan.estimate.candidate.virtual_size
                if 0 < largest < size:
                    raise exceptions.TooLarge(
                        what=f"the disk of {_title(plan)}", size=size >> 20, limit=largest >> 20,
                        unit="MiB", option="the disk of the flavor")
                with self.store.lock(f"recipe {self.owner} {plan.recipe}"):
                    # Another process may have published it while this one waited.
                    plan = self._current(plan, source)
                    if plan.exact:
                        return plan, self._match(plan, held, fetch=fetch)
                    draft = self._draft(plan)
                    # Before a place is waited for: who holds a place waits for no
                    # other host, and who waits for another host takes none.
                    with (self.store.announced(draft) if publish
                          else contextlib.nullcontext(Announced())) as announced:
                        if announced.there:
                            plan = self._current(plan, source)
                        if plan.exact:
                            return plan, self._match(plan, held, fetch=fetch)
                        began = time.monotonic()
                        with self._turn(plan, draft.name, publish=publish, source=source):
                            waited = time.monotonic() - began
                            # So may an image that is nearer than the one planned with.
                            plan = self._current(plan, source)
                            if plan.exact:
                                return plan, self._match(plan, held, fetch=fetch)
                            load = self.plans.load()
                            done = self._carry_out(plan, held, announced,
                                                   draft.id if publish else "")
                    done.facts["queue_seconds"] = waited
                    self.store.record("assembly", {
                        **plan.summary(), "measured": done.facts,
                        "host_class": self.plans.host_class, "host_left": load.host,
                        "network_left": load.network})
                    return plan, done
            except Overtaken:
                LOG.info("%s is being made elsewhere", _title(plan))
            except (exceptions.NotFound, exceptions.BadImage):
                if not self.plans.vanished(plan.estimate.candidate):
                    raise
                LOG.info("%s was deleted meanwhile: planning again",
                         plan.estimate.candidate.name)

    def _turn(self, plan: Plan, title: str, *, publish: bool,
              source: str | None) -> contextlib.AbstractContextManager[None]:
        turn = Turn(self.plans, plan, publish=publish,
                    fixed=source is not None and plan.estimate.candidate.id == source)
        return self.store.turn(title, turn.need, turn.way)

    def _current(self, plan: Plan, source: str | None) -> Plan:
        return plan if self.plans.current(plan) else self.plan(plan.request, source=source)

    def _match(self, plan: Plan, held: contextlib.ExitStack, *, fetch: bool) -> Assembled:
        candidate = plan.estimate.candidate
        if fetch or self.store.is_local(candidate.disk):
            held.enter_context(self.store.hold([candidate.disk]))
        if candidate.kind == BASE:  # nothing but the system was asked for
            return Assembled(image=None, disk=candidate.disk, facts={"assembly_seconds": 0.0})
        image = self.store.image(candidate.id)
        self.store.touch_image(image.id)
        return Assembled(image=image, disk=image.disk, facts={"assembly_seconds": 0.0})

    def _carry_out(self, plan: Plan, held: contextlib.ExitStack, announced: Announced,
                   image_id: str) -> Assembled:
        """:param image_id: of the image to publish; "": none"""
        assert plan.work is not None and plan.target is not None  # noqa: S101 (not exact)
        candidate, began = plan.estimate.candidate, time.monotonic()
        blobs = {source.blob for source in plan.work.sources.values()}
        # Held, so that a prune in between takes nothing away.
        with self.store.hold([candidate.disk, *blobs]), self.store.scratch() as scratch:
            disk = scratch / "disk.qcow2"
            with Operation("copy", subject=candidate.name):
                disks.copy(self.store.path(candidate.disk), disk, expected=candidate.disk)
            copied = time.monotonic()
            with self.session(disk, "qcow2", candidate.mounts, scratch=scratch,
                              shown=candidate.name) as session:
                launched = time.monotonic()
                assembler.validate(session, plan.work)
                announced.check()
                facts = assembler.assemble(session, plan.work, self._read)
            with Operation("publish", subject=_title(plan)):
                finished = time.monotonic()
                digest = self.store.adopt(disk)
                # Once its image is recorded, somebody else may prune it.
                held.enter_context(self.store.hold([digest]))
                image = None
                if image_id:
                    image = self._publish(plan, digest, id=image_id)
            now = time.monotonic()
        facts.update(copy_seconds=copied - began, launch_seconds=launched - copied,
                     publish_seconds=now - finished, assembly_seconds=now - began,
                     predicted_seconds=plan.estimate.cost,
                     fetched_bytes=float(plan.estimate.fetch_bytes))
        return Assembled(image=image, disk=digest, facts=facts)

    def _read(self, blob: str, members: frozenset[bytes]) -> Iterable[tuple[bytes, BinaryIO]]:
        try:
            yield from BlobTree(self.store.path(blob)).contents(members)
        except exceptions.SplitImageError:
            self.store.verify(blob)  # a damaged one can look like anything
            raise

    def _draft(self, plan: Plan) -> Image:
        """The image of a plan, its disk not being made."""
        assert plan.target is not None  # noqa: S101 (it is no exact match)
        composite = self.store.composite(plan.composite)
        now = time.time()
        filesets = tuple(self.plans.fileset(name).id for name in plan.request.filesets)
        return Image(
            id=str(uuid.uuid4()), name=_title(plan, composite.name), composite=composite.id,
            parts=plan.parts,
            filesets=filesets, recipe=plan.recipe, disk="", disk_size=0,
            virtual_size=plan.estimate.candidate.virtual_size,
            manifest=plan.target.manifest.digest, mounts=plan.estimate.candidate.mounts,
            owner=self.owner, created=now, last_used=now)

    def _publish(self, plan: Plan, digest: str, **changes: Any) -> Image:
        assert plan.target is not None  # noqa: S101 (it was assembled)
        self.store.put_manifest(plan.target.manifest)
        return self.store.add_image(msgspec.structs.replace(
            self._draft(plan), disk=digest, **changes,
            disk_size=disks.allocated(self.store.path(digest))))

    def publish_booted(self, request: Request, snapshot: Path) -> tuple[Image, list[str]]:
        """Publish a snapshot of a machine that had run: identity is cleaned,
        what the plan does not know is kept and told.

        :param snapshot: a standalone qcow2 in a scratch directory; taken over
        :returns: the image, and the paths that nobody vouches for
        :raises AlreadyExists: such an image of this request is there
        """
        plan = self.plan(msgspec.structs.replace(request, booted=False), explain=True)
        assert plan.target is not None  # noqa: S101 (explain makes it)
        wanted = plans.booted(plan.recipe)
        composite = self.store.composite(plan.composite)
        there = self.store.find_recipe(wanted, owner=self.owner, composite=composite)
        if there is not None:
            raise exceptions.AlreadyExists(kind="image", name=there.name,
                                           where=self.store.location)
        candidate, known = plan.estimate.candidate, plan.target.manifest
        with self.session(snapshot, "qcow2", candidate.mounts, scratch=snapshot.parent,
                          shown=_title(plan)) as session:
            tar = snapshot.with_name("booted.tar")
            session.read_tree(tar)
            state = GoldState("booted", TarTree(tar), sparse=session.sparse_files())
            cleaned = clean.clean(state.manifest, self.identity, generated={})
            tree = clean.without_own_directories(cleaned.manifest, known, self.identity)
            work = Work(state.manifest, tree, {}, cleaned.generated)
            assembler.validate(session, work)
            assembler.assemble(session, work, self._read)
        unknown = ["/" + e.path.decode(errors="replace") for e in tree
                   if not e.is_dir and not e.same(known.get(e.path))]
        booted = msgspec.structs.replace(plan, target=msgspec.structs.replace(
            plan.target, manifest=tree))
        digest = self.store.adopt(snapshot)
        image = self._publish(booted, digest, booted=True, recipe=wanted,
                              name=_title(plan, composite.name) + "+booted")
        return image, unknown


def _title(plan: Plan, composite: str = "") -> str:
    """COMPOSITE+PARTS, as the user asked.

    :param composite: its name, where that is known; a request may have its id
    """
    return "+".join((composite or plan.request.composite, *sorted(plan.request.parts),
                     *sorted(f[:12] for f in plan.request.filesets)))
