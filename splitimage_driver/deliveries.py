"""The use cases of delivering parts to a machine that runs."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.capture import conflicts
from splitimage_driver.delivery import plandisk, streams
from splitimage_driver.delivery.attribution import Attribution
from splitimage_driver.guest import LAYOUT
from splitimage_driver.model import layout
from splitimage_driver.model import part as parts_
from splitimage_driver.model.candidate import BASE
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.delivery import AUTO, INJECT, KEEP, STREAM, BlobDisk, DeliveryPlan
from splitimage_driver.model.layout import Layout, PartDisk
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.plan import Plan, Request, Target, Work
from splitimage_driver.plans import Goal, PlanService
from splitimage_driver.store.base import Store

LOG = logging.getLogger(__name__)


class Delivery:
    """What one machine is given to lay parts itself.

    :ivar layout: the record of it
    :ivar plan: what the guest is to do
    :ivar generated: contents that no blob has, by path
    """

    def __init__(self, plan: DeliveryPlan, generated: Mapping[bytes, bytes], *,
                 parts: tuple[str, ...], filesets: tuple[str, ...]) -> None:
        self.plan, self.generated = plan, generated
        self.layout = Layout(
            id=secrets.token_hex(layout.ID_DIGITS // 2), mode=plan.mode, parts=parts,
            filesets=filesets, size=plan.size,
            disks=tuple(PartDisk(layout.part_serial(disk.blob), disk.blob)
                        for disk in plan.disks))

    def write(self, destination: Path) -> None:
        """Write the plan's disk.

        :raises ToolMissing: :raises ToolFailed: see :func:`plandisk.write`
        """
        plandisk.write(destination, self.layout.id, self.plan, self.generated)

    def another(self) -> Delivery:
        """The same for another machine: every machine has an id of its own."""
        return Delivery(self.plan, self.generated, parts=self.layout.parts,
                        filesets=self.layout.filesets)


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine starts from.

    :ivar disk: sha256 of its disk in the store
    :ivar image: id of the completed image that has it; "": the base
    :ivar delivery: what it lays itself; None: nothing is missing
    """

    plan: Plan
    disk: str
    image: str
    delivery: Delivery | None


class DeliveryService:
    """:param plans: of the project that acts"""

    def __init__(self, store: Store, plans: PlanService) -> None:
        self.store, self.plans = store, plans

    @contextlib.contextmanager
    def streamed(self, request: Request, *, fetch: bool = True) -> Iterator[Streamed]:
        """Find the nearest image that has nothing in excess, and what is to
        be laid over it. For the length of the block nothing takes its disk or
        the parts' blobs away.

        :param fetch: bring its disk here, too
        :raises OpenConflict: :raises NothingToCompose: as planning does
        :raises Unsupported: the base does not know how to lay parts
        """
        with contextlib.ExitStack() as held:
            yield self._streamed(request, held, fetch=fetch)

    def _streamed(self, request: Request, held: contextlib.ExitStack, *,
                  fetch: bool) -> Streamed:
        while True:
            plan = self.plans.plan(request, growing=True)
            candidate = plan.estimate.candidate
            try:
                delivery = None if plan.exact else self._growth(plan)
                disk = [candidate.disk] if fetch else []
                held.enter_context(self.store.hold([*disk, *_blobs(delivery)]))
                if candidate.kind != BASE:
                    self.store.touch_image(candidate.id)
            except exceptions.NotFound:
                if not self.plans.vanished(candidate):
                    raise
                LOG.info("%s was deleted meanwhile: planning again", candidate.name)
                continue
            return Streamed(plan=plan, disk=candidate.disk, delivery=delivery,
                            image="" if candidate.kind == BASE else candidate.id)

    def _growth(self, plan: Plan) -> Delivery:
        goal = self.plans.goal(plan.request)
        candidate, work, target = plan.estimate.candidate, plan.work, plan.target
        assert work is not None and target is not None  # noqa: S101 (it is no exact match)
        old: Target | None = None
        if candidate.kind == BASE:
            start = msgspec.structs.replace(goal, parts=(), filesets=())
        else:
            image = self.store.image(candidate.id)
            start = self.plans.goal(Request(composite=goal.composite.id, parts=image.parts,
                                            filesets=image.filesets))
            # File sets have no say about shared files.
            old = self.plans.target(msgspec.structs.replace(start, filesets=()))
        return self._delivery(start, goal, work, old, target, mode=layout.ADD, policy=KEEP)

    @contextlib.contextmanager
    def change(self, now: Request, wanted: Request, *, policy: str = KEEP) -> Iterator[Delivery]:
        """What turns a running machine's parts into others: more, or fewer.

        :param now: what it has
        :param policy: see :mod:`splitimage_driver.model.delivery`
        :raises InvalidInput: parts come and go at once, or nothing changes
        :raises OpenConflict: as planning does
        :raises Unsupported: see :meth:`streamed`
        """
        start, goal = self.plans.goal(now), self.plans.goal(wanted)
        had = {*start.parts, *(f.id for f in start.filesets)}
        have = {*goal.parts, *(f.id for f in goal.filesets)}
        if had == have or (had - have and have - had):
            raise exceptions.InvalidInput(
                what="the change of a server's parts",
                reason="parts come and go at once; do one after the other" if had != have
                else "it has these parts already" if have else "there is nothing to change")
        old, new = self.plans.target(start), self.plans.target(goal)
        work = Work(old.manifest, new.manifest, new.sources, new.generated)
        if work.unobtainable:
            raise exceptions.NothingToCompose(
                reason=f"the content of {len(work.unobtainable)} files cannot be had")
        delivery = self._delivery(start, goal, work, old, new, policy=policy,
                                  mode=layout.REMOVE if had - have else layout.ADD)
        with self.store.hold(_blobs(delivery)):
            yield delivery

    def _delivery(self, start: Goal, goal: Goal, work: Work, old: Target | None, new: Target, *,
                  mode: str, policy: str) -> Delivery:
        """:param old: tree of ``start``; None: it is the base"""
        composite = goal.composite
        base = self.store.manifest(composite.base.manifest)
        if LAYOUT not in base:
            raise exceptions.Unsupported(
                what=f"laying parts of {composite.name} in a running machine",
                reason="its base does not know how; capture it again, from a system that has "
                       "systemd, udev and perl")
        laid = {parts_.speaker(p.kind, p.name): p
                for each in (start, goal) for p in self.plans.laid(each)}
        owners = Attribution(base, list(laid.values()), [t for t in (old, new) if t is not None])
        names = {p.blob: p.name for p in laid.values()}
        read = conflicts.reader(self.store)
        plan = streams.plan(
            work, owners, streams.Contents(_content(old, work.current, composite, read),
                                           _content(new, work.target, composite, read)),
            closures=_closures(start) | _closures(goal),
            disks=lambda blob: BlobDisk(blob, self.store.size(blob), names.get(blob, "base")),
            mode=mode, policy=policy)
        changed, other = (start, goal) if mode == layout.REMOVE else (goal, start)
        return Delivery(
            plan, work.generated,
            parts=tuple(sorted(set(changed.parts) - set(other.parts))),
            filesets=tuple(f.id for f in changed.filesets
                           if f.id not in {o.id for o in other.filesets}))

    # -- which way --------------------------------------------------------------------

    def way(self, request: Request, wish: str) -> str:
        """``inject`` or ``stream``: for ``auto`` what is predicted to bring
        the services up earlier.

        :param wish: one of :data:`~splitimage_driver.model.delivery.WAYS`
        """
        if wish != AUTO:
            return wish
        inject = self.plans.plan(request)
        if inject.exact:
            return INJECT
        composite = self.store.composite(request.composite)
        if LAYOUT not in self.store.manifest(composite.base.manifest):
            return INJECT
        stream = self.plans.plan(request, growing=True)
        injected, laid = self.plans.seconds(inject), self.plans.laying_seconds(stream)
        LOG.info("predicted: %.1f s to inject, %.1f s to lay while it runs", injected, laid)
        return STREAM if laid < injected else INJECT


def _blobs(delivery: Delivery | None) -> list[str]:
    return [] if delivery is None else [disk.blob for disk in delivery.layout.disks]


def _closures(goal: Goal) -> dict[str, tuple[str, ...]]:
    composite = goal.composite
    found = {name: composite.closure([name]) for name in goal.parts
             if not composite.parts[name].hidden}
    names = [parts_.speaker(f.kind, f.name) for f in goal.filesets]
    return found | {name: (name,) for name in names}


def _content(target: Target | None, tree: Manifest, composite: Composite,
             read: Any) -> Callable[[bytes], bytes]:
    """Reads a shared file of a tree.

    :param target: how the tree was made; None: it is the base
    """
    def content(path: bytes) -> bytes:
        if target is None:
            found = composite.shared.get(path, b"")
        elif path in target.sources:
            found = read(target.sources[path])
        else:
            found = target.generated.get(path, b"")
        entry = tree.by_path[path]
        if hashlib.sha256(found).digest() != entry.sha256:
            raise exceptions.DigestMismatch(
                what=f"the shared file /{path.decode(errors='replace')}",
                expected=entry.sha256.hex(), found=hashlib.sha256(found).hexdigest())
        return found

    return content
