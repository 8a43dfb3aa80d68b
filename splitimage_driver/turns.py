"""What the queue of assemblies is told of a plan, and what it asks about it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from splitimage_driver.model.candidate import BASE
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.plan import Plan, Target
from splitimage_driver.plans import PlanService, made
from splitimage_driver.store.records import Need


class Changes(msgspec.Struct, frozen=True, array_like=True):
    """What makes a tree out of the base's. Trees of one composite are compared
    by that alone: all else is the same in both.

    :ivar entries: added, or put in place of their paths
    :ivar gone: paths
    """

    entries: tuple[FileEntry, ...]
    gone: tuple[bytes, ...]

    @classmethod
    def of(cls, tree: Manifest, base: Manifest) -> Changes:
        return cls(tree.missing_from(base), tuple(e.path for e in base.excess_over(tree)))

    def by_path(self) -> dict[bytes, FileEntry | None]:
        found: dict[bytes, FileEntry | None] = {e.path: e for e in self.entries}
        return found | dict.fromkeys(self.gone)


_decoder = msgspec.msgpack.Decoder(Changes)


class Turn:
    """Of a plan that is to be carried out.

    :param publish: whether others will find its image
    :param fixed: it is to be made from the planned candidate, whatever comes
    """

    def __init__(self, plans: PlanService, plan: Plan, *, publish: bool,
                 fixed: bool = False) -> None:
        assert plan.target is not None and plan.work is not None  # noqa: S101 (not exact)
        self._plans, self._plan, self._fixed = plans, plan, fixed
        composite = plans.store.composite(plan.composite)
        candidate, target = plan.estimate.candidate, plan.target
        self._base = (plan.work.current if candidate.kind == BASE
                      else plans.store.manifest(composite.base.manifest))
        self._changes = Changes.of(target.manifest, self._base)
        kin = " ".join((plans.owner, composite.id, composite.base.manifest))
        self.need = Need(
            owner=plans.owner, composite=plan.request.composite, parts=plan.request.parts,
            filesets=plan.request.filesets, recipe=plan.recipe, source=candidate.name,
            kin=hashlib.sha256(kin.encode()).hexdigest(),
            seconds=plans.seconds(plan, candidate, plan.work.current, target),
            room=candidate.disk_size + plan.estimate.inject_bytes,
            changes=msgspec.msgpack.encode(self._changes) if publish else b"")

    @property
    def way(self) -> Callable[[bytes], float] | None:
        """Tells the seconds to make it from an image with such changes;
        infinite: it cannot be made from that."""
        return None if self._fixed else self._way

    def _way(self, changes: bytes) -> float:
        theirs, mine = _decoder.decode(changes).by_path(), self._changes.by_path()
        paths, base = theirs.keys() | mine.keys(), self._base.by_path
        before, after = (Manifest(entry for path in paths
                                  for entry in [change.get(path, base.get(path))] if entry)
                         for change in (theirs, mine))
        assert self._plan.target is not None  # noqa: S101 (see above)
        target = Target(after, self._plan.target.sources, self._plan.target.generated)
        return self._plans.seconds(self._plan, made(self._plan, ""), before, target)
