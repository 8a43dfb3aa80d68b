"""The use cases of planning: one request, or several at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions, host
from splitimage_driver.capture import conflicts
from splitimage_driver.capture.identity import Identity
from splitimage_driver.model import part as parts_
from splitimage_driver.model.candidate import BASE, COMPLETED, Candidate, Image
from splitimage_driver.model.composite import Answer, Composite, recipe
from splitimage_driver.model.part import Part
from splitimage_driver.model.plan import BatchStep, Estimate, Plan, Request, Target, Work
from splitimage_driver.planning import explanation, nearest, shortlist, target, weights
from splitimage_driver.planning.adaptive import Load
from splitimage_driver.planning.cost import Amounts, total
from splitimage_driver.planning.graph import Graph, executable
from splitimage_driver.planning.weights import Weighing
from splitimage_driver.store.base import Store
from splitimage_driver.store.records import RUNNING

LOG = logging.getLogger(__name__)

#: Finished assemblies that rates are learnt from.
_REMEMBERED = 200

#: The equation that tells a time where the configured one does not.
_TIME = "remove"

#: Bytes a second that a running machine lays, without and with emulation.
_LAY_RATE = {False: 200e6, True: 12e6}

_Found = tuple[Estimate, Work | None]


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """A request, resolved.

    :ivar parts: the closure: names of all parts to be laid
    :ivar answers: those that apply
    """

    request: Request
    composite: Composite
    parts: tuple[str, ...]
    filesets: tuple[Part, ...]
    answers: tuple[Answer, ...]
    recipe: str


class PlanService:
    """:param conf: all option groups
    :param emulate: tells whether hardware virtualisation does not work here
    :param owner: the project that acts
    """

    def __init__(self, conf: Any, store: Store, *, emulate: Callable[[], bool], owner: str,
                 identity: Identity) -> None:
        self.conf, self.store, self._emulate, self.owner = conf, store, emulate, owner
        self.identity = identity

    # -- one request ------------------------------------------------------------------

    def plan(self, request: Request, *, explain: bool = False, top: int = 5,
             cost: str | None = None, source: str | None = None,
             growing: bool = False) -> Plan:
        """Find the stored image that is cheapest to complete.

        :param explain: look at every candidate even if one matches exactly,
            and tell why the ``top`` best lost
        :param source: id of the only candidate to look at; where it is gone
            all are
        :param growing: only candidates without a part in excess, which can be
            completed while they run
        :raises OpenConflict: something is not decided
        :raises NothingToCompose: no candidate can be completed
        """
        wanted = self.goal(request)
        exact = self._made(wanted)
        common: dict[str, Any] = {
            "request": request, "composite": wanted.composite.id, "parts": wanted.parts,
            "recipe": wanted.recipe, "equation": cost or self.conf.planning.cost}
        if exact is not None and not explain:
            best = _exact(candidate(exact))
            return Plan(**common, estimate=best, considered=(best,), target=None, work=None)
        pricing = self.pricing(cost)
        images = self._images(wanted, exact, pricing)
        if growing:
            images = [image for image in images if _within(image, wanted)]
        goal = self.target(wanted)
        candidates = list(self._candidates(wanted, images))
        if source is not None:
            candidates = [c for c in candidates if c.id == source] or candidates
        found = self._estimates(candidates, goal, exact, pricing)
        best, work = found[0]
        if best.refused:
            raise exceptions.NothingToCompose(reason=best.refused)
        if explain:
            found = explanation.explained(found, top=top)
        return Plan(**common, estimate=best, considered=tuple(e for e, _ in found), target=goal,
                    work=None if best.match == "exact" else work,
                    rates=pricing.weighing.told, basis=_basis(wanted.composite, images))

    def current(self, plan: Plan) -> bool:
        """Whether nothing has come or gone since it was made that could
        change it."""
        wanted = self.goal(plan.request)
        return self._made(wanted) is None and plan.basis == _basis(
            wanted.composite, self._images(wanted, None, self.pricing(plan.equation)))

    def goal(self, request: Request) -> Goal:
        """:raises NotFound: the composite, or a file set
        :raises UnknownPart: :raises RequirementMissing:
        """
        composite = self.store.composite(request.composite)
        if not self.store.usable(composite, self.owner):
            raise exceptions.NotFound(kind="composite", name=request.composite,
                                      where=self.store.location)
        names = composite.closure(request.parts)
        filesets = tuple(self.fileset(name) for name in request.filesets)
        answers = composite.applying(names)
        answers += request.answers
        wanted = recipe(composite.base.disk,
                        [composite.parts[n].id for n in names] + [f.id for f in filesets],
                        answers, self.identity.digest_options())
        return Goal(request=request, composite=composite, parts=tuple(names), filesets=filesets,
                    answers=tuple(answers), recipe=wanted)

    def _made(self, wanted: Goal) -> Image | None:
        """The stored image that is it already."""
        recipes = [booted(wanted.recipe)] if wanted.request.booted else []
        for each in (*recipes, wanted.recipe):
            found = self.store.find_recipe(each, owner=self.owner, composite=wanted.composite)
            if found is not None:
                return found
        return None

    def fileset(self, name: str) -> Part:
        """:raises NotFound: :raises InvalidInput: it is a part of another kind"""
        part = self.store.part(name, owner=self.owner)
        if part.kind != parts_.FILESET:
            raise exceptions.InvalidInput(what=f"part {name}",
                                          reason=f"it is no file set but a {part.kind} part")
        return part

    def laid(self, wanted: Goal) -> list[target.Laid]:
        """All parts that the request consists of."""
        laid = [conflicts.laid(wanted.composite, name, self.store) for name in wanted.parts]
        return laid + [target.Laid(
            name=f.name, kind=f.kind, blob=f.blob,
            manifest=self.store.part_manifest(f.id)) for f in wanted.filesets]

    def target(self, wanted: Goal) -> Target:
        """The tree of a request.

        :raises OpenConflict: something is not decided
        """
        composite = wanted.composite
        goal = target.lay(self.store.manifest(composite.base.manifest), self.laid(wanted),
                          shared=composite.shared,
                          restore=conflicts.restore_of(composite, self.store),
                          answers=wanted.answers, read=conflicts.reader(self.store))
        if goal.conflicts:
            raise conflicts.refusal(composite, goal.conflicts, [f.name for f in wanted.filesets])
        return goal

    # -- candidates -------------------------------------------------------------------

    def _images(self, wanted: Goal, made: Image | None, pricing: Pricing) -> list[Image]:
        """Completed images that this project may build on: its own, and public
        ones of the composite's owner; the nearest, where they are many."""
        composite, limit = wanted.composite, self.conf.planning.shortlist
        images = self.store.near(composite, wanted.parts, [f.id for f in wanted.filesets], limit)
        if images is None:
            images = self.store.images(composite=composite.id)
        # The exact one is not ranked: others may be nearer to this host.
        exact = [] if made is None else [made]
        images = [image for image in images if image.id not in {each.id for each in exact} and (
            image.owner == self.owner or (image.public and image.owner == composite.owner))]
        if len(images) <= limit:
            return images + exact
        known = {name: self.store.part(ref.id, owner=composite.owner)
                 for name, ref in composite.parts.items()}
        known |= {fileset.id: fileset for fileset in wanted.filesets}
        return shortlist.nearest(
            images, {name: known[name] for name in (*wanted.parts,
                                                    *(f.id for f in wanted.filesets))},
            known, cost=pricing.equation, rates=pricing.weighing.rates, limit=limit,
            fetched=lambda image: self.fetched(image.disk, image.disk_size)) + exact

    def _candidates(self, wanted: Goal, images: Sequence[Image]) -> Iterator[Candidate]:
        """The base, and these."""
        composite = wanted.composite
        base = composite.base
        yield Candidate(id=composite.id, name=composite.name, kind=BASE, disk=base.disk,
                        disk_size=base.disk_size, virtual_size=base.virtual_size,
                        manifest=base.manifest, mounts=base.mounts, recipe="",
                        fetch_bytes=self.fetched(base.disk, base.disk_size))
        for image in images:
            yield msgspec.structs.replace(
                candidate(image), mounts=base.mounts,
                fetch_bytes=self.fetched(image.disk, image.disk_size))

    def _estimates(self, candidates: Sequence[Candidate], goal: Target, exact: Image | None,
                   pricing: Pricing) -> list[_Found]:
        """The best first."""
        found: list[_Found] = []
        for each in candidates:
            if exact is not None and each.id == exact.id:
                found.append((_exact(each), None))
                continue
            try:
                tree = self.store.manifest(each.manifest)
            except exceptions.NotFound:
                if self.vanished(each):
                    continue
                raise
            except (exceptions.BadImage, exceptions.BadArchive) as error:
                if each.kind == BASE:
                    raise
                LOG.warning("image %s is no candidate: %s", each.name, error)
                continue
            found.append(pricing.estimate(each, tree, goal, self.fetched))
        found.sort(key=lambda each: nearest.order(each[0]))
        return found

    def fetched(self, digest: str, size: int | None = None) -> int:
        """Bytes of an object that are not on this host.

        :param size: of it, where that is known
        """
        if self.store.is_local(digest):
            return 0
        return self.store.size(digest) if size is None else size

    def vanished(self, candidate: Candidate) -> bool:
        """Whether a completed image was deleted, by a prune in another
        process for instance, since it was listed."""
        if candidate.kind != COMPLETED:
            return False
        try:
            self.store.image(candidate.id)
        except exceptions.NotFound:
            return True
        return False

    # -- what it costs ----------------------------------------------------------------

    @property
    def host_class(self) -> str:
        """Of the hosts that share what is learnt here."""
        return self.conf.planning.host_class or host.kind(emulate=self._emulate())

    def weighing(self, plugin: str | None = None) -> Weighing:
        """:param plugin: of ``splitimage.weights``; None: the configured one
        :raises PluginLoadFailed: there is no such plugin
        """
        return weights.chosen(self.conf.planning, weights.Host(
            emulate=self._emulate(), kind=self.host_class,
            history=lambda: reversed(self.store.history("assembly", limit=_REMEMBERED)),
            load=self.load), plugin)

    def load(self) -> Load:
        """Of this host now, beside what this process does."""
        return host.load(sum(item.state == RUNNING and item.pid != os.getpid()
                             for item in self.store.queue()))

    def pricing(self, cost: str | None) -> Pricing:
        return Pricing(self.weighing(), weights.equation(cost or self.conf.planning.cost))

    def seconds(self, plan: Plan) -> float:
        """That the disk of a plan takes, as predicted."""
        if plan.work is None or plan.target is None:
            return 0.0
        found, _ = self.timing(plan).estimate(plan.estimate.candidate, plan.work.current,
                                              plan.target, self.fetched)
        return found.cost

    def laying_seconds(self, plan: Plan) -> float:
        """That a running machine takes to do what a plan says, as predicted."""
        options = self.conf.planning
        rate: float = options.lay_rate or _LAY_RATE[self._emulate()]
        bandwidth: float = options.bandwidth
        return plan.estimate.fetch_bytes / bandwidth + plan.estimate.inject_bytes / rate

    def timing(self, plan: Plan) -> Pricing:
        """What plans are compared by; or a time, where that is none."""
        pricing = self.pricing(plan.equation)
        return pricing if pricing.equation.unit == "s" else self.pricing(_TIME)

    # -- several requests ---------------------------------------------------------------

    def batch(self, requests: Sequence[Request], *, parents: Sequence[bool] | None = None,
              cost: str | None = None) -> list[BatchStep]:
        """The cheapest order for all of them: each is made from a stored
        image or from another one of the batch, which makes a minimum-cost
        arborescence. Requests for the same image are one step.

        :param parents: which of them are published, so that others can be
            made from them; None: all
        :raises OpenConflict: :raises NothingToCompose: for any of them
        """
        pricing = self.pricing(cost)
        nodes: list[_Node] = []
        graph = Graph()
        known: dict[tuple[str, bool], _Node] = {}
        for number, request in enumerate(requests):
            plan = self.plan(request, cost=cost)
            key = (plan.recipe, request.booted)
            if key not in known:
                known[key] = _Node(plan)
                nodes.append(known[key])
                graph.add(plan.estimate.cost)
            known[key].add(number, published=parents is None or parents[number])
        ways: dict[tuple[int, int], Estimate] = {}
        for source, one in enumerate(nodes, 1):
            made = one.made() if one.parent else None
            for goal, other in enumerate(nodes, 1):
                if made is None or one is other or other.plan.target is None or (
                        one.plan.composite != other.plan.composite):
                    continue
                found, _ = pricing.estimate(made[0], made[1], other.plan.target, self.fetched)
                if not found.refused:
                    ways[source, goal] = found
                    graph.connect(source, goal, found.cost)
        solved = graph.solve()
        return [BatchStep(
            requests=tuple(nodes[node - 1].requests), plan=nodes[node - 1].plan.told(),
            source=nodes[way.source - 1].requests[0] if way.source else None,
            estimate=ways.get((way.source, node), nodes[node - 1].plan.estimate))
            for node in executable(solved) for way in [solved[node]]]


class Pricing(msgspec.Struct, frozen=True):
    weighing: Weighing
    equation: Any

    def estimate(self, candidate: Candidate, tree: Any, goal: Target,
                 fetched: Callable[[str], int]) -> tuple[Estimate, Work]:
        return nearest.estimate(candidate, tree, goal, cost=self.equation,
                                rates=self.weighing.rates, prepare=self.weighing.prepare,
                                fetched=fetched)

    def cost(self, amounts: Amounts, fetch: int) -> float:
        """:param fetch: bytes"""
        return total(nearest.terms(amounts, fetch, cost=self.equation, rates=self.weighing.rates,
                                   prepare=self.weighing.prepare))


class _Node:
    """Of a batch.

    :ivar requests: their numbers; if one of them publishes its image, such a
        one is the first
    :ivar parent: whether an image of it is published
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.requests, self.parent = plan, list[int](), False

    def add(self, number: int, *, published: bool) -> None:
        self.requests.insert(0 if published and not self.parent else len(self.requests), number)
        self.parent |= published

    def made(self) -> tuple[Candidate, Any] | None:
        """The image that will be there; None: it is stored already, so it is
        among the candidates anyway."""
        if self.plan.exact or self.plan.target is None:
            return None
        start, estimate = self.plan.estimate.candidate, self.plan.estimate
        return msgspec.structs.replace(
            start, id=f"request:{self.requests[0]}", name="", kind=COMPLETED,
            recipe=self.plan.recipe, fetch_bytes=0,
            disk_size=start.disk_size + estimate.inject_bytes), self.plan.target.manifest


def _within(image: Image, wanted: Goal) -> bool:
    return (not image.booted and set(image.parts) <= set(wanted.parts)
            and set(image.filesets) <= {fileset.id for fileset in wanted.filesets})


def _basis(composite: Composite, images: Sequence[Image]) -> str:
    """Names what a plan was made from."""
    ids = sorted(image.id for image in images)
    return hashlib.sha256(msgspec.msgpack.encode((composite, ids))).hexdigest()


def candidate(image: Image) -> Candidate:
    return Candidate(id=image.id, name=image.name, kind=COMPLETED, disk=image.disk,
                     disk_size=image.disk_size, virtual_size=image.virtual_size,
                     manifest=image.manifest, mounts=image.mounts, recipe=image.recipe)


def booted(wanted: str) -> str:
    """The recipe of what was taken from a running server of a request."""
    return recipe(wanted, (), options=["booted"])


def _exact(found: Candidate) -> Estimate:
    return Estimate(candidate=found, match="exact", cost=0.0, terms=(), missing=0,
                    missing_bytes=0, excess=0, inject_bytes=0, fetch_bytes=found.fetch_bytes)
