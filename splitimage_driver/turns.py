"""What the queue of assemblies is told of a plan, and what it asks about it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import msgspec

from splitimage_driver.model.candidate import BASE
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.plan import Plan
from splitimage_driver.planning.cost import Amounts
from splitimage_driver.plans import PlanService
from splitimage_driver.store.records import Need


class Mark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What two entries are compared by.

    :ivar key: equal for equal entries
    :ivar size: bytes that travel with it: of a file's further names none do
    """

    key: bytes
    size: int

    @classmethod
    def of(cls, entry: FileEntry) -> Mark:
        further = entry.link and entry.link != entry.path
        return cls(hashlib.blake2b(_encode(entry), digest_size=12).digest(),
                   entry.size if entry.is_file and not further else 0)


#: What makes a tree out of the base's, by path; None: what is gone. Trees of one
#: composite are compared by that alone: all else is the same in both.
Changes = dict[bytes, Mark | None]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Changes).decode


def changes(tree: Manifest, base: Manifest) -> Changes:
    found: Changes = {e.path: Mark.of(e) for e in tree.missing_from(base)}
    return found | dict.fromkeys(e.path for e in base.excess_over(tree))


class Turn:
    """Of a plan that is to be carried out.

    :param publish: whether others will find its image
    :param fixed: it is to be made from the planned candidate, whatever comes
    """

    def __init__(self, plans: PlanService, plan: Plan, *, publish: bool,
                 fixed: bool = False) -> None:
        assert plan.target is not None and plan.work is not None  # noqa: S101 (not exact)
        self._target, self._fixed = plan.target, fixed
        self._pricing, self._fetched = plans.timing(plan), plans.fetched
        composite = plans.store.composite(plan.composite)
        candidate = plan.estimate.candidate
        self._base = (plan.work.current if candidate.kind == BASE
                      else plans.store.manifest(composite.base.manifest))
        self._changes = changes(plan.target.manifest, self._base)
        kin = " ".join((plans.owner, composite.id, composite.base.manifest))
        alone = self._pricing.cost(msgspec.structs.replace(
            Amounts.of(plan.work.missing, plan.work.excess),
            missing_bytes=plan.work.inject_bytes), plan.estimate.fetch_bytes)
        self.need = Need(
            owner=plans.owner, composite=plan.request.composite, parts=plan.request.parts,
            filesets=plan.request.filesets, recipe=plan.recipe, source=candidate.name,
            kin=hashlib.sha256(kin.encode()).hexdigest(), seconds=alone,
            room=candidate.disk_size + plan.estimate.inject_bytes,
            changes=_encode(self._changes) if publish else b"")

    @property
    def way(self) -> Callable[[bytes], float] | None:
        """Tells the seconds to make it from an image with such changes;
        infinite: it cannot be made from that."""
        return None if self._fixed else self._way

    def _way(self, packed: bytes) -> float:
        theirs, mine, base = _decode(packed), self._changes, self._base.by_path
        lacking, excess = list[tuple[bytes, int]](), list[int]()
        for path, mark in mine.items():
            if mark is None:
                there = theirs[path] if path in theirs else Mark.of(base[path])
                if there is not None:
                    excess.append(there.size)
            elif theirs.get(path) != mark:
                lacking.append((path, mark.size))
        for path in theirs.keys() - mine.keys():
            mark = theirs[path]
            if path in base:
                lacking.append((path, Mark.of(base[path]).size))
            elif mark is not None:
                excess.append(mark.size)
        sources, blobs = self._target.sources, set[str]()
        for path, size in lacking:
            if size and path in sources:
                blobs.add(sources[path].blob)
            elif size and path not in self._target.generated:
                return math.inf
        amounts = Amounts(missing=len(lacking), missing_bytes=sum(size for _, size in lacking),
                          excess=len(excess), excess_bytes=sum(excess))
        return self._pricing.cost(amounts, sum(map(self._fetched, blobs)))
