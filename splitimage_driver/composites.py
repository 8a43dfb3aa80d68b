"""The use cases around composites: what an administrator changes in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.archive.tree import BlobTree
from splitimage_driver.capture import conflicts, pack
from splitimage_driver.capture.gold import Spool
from splitimage_driver.model import part as parts_
from splitimage_driver.model.composite import (
    ACTIONS,
    MAX_PARTS,
    Answer,
    Composite,
    Conflict,
    PartRef,
)
from splitimage_driver.model.part import PartManifest, check_name
from splitimage_driver.service import ImageService


class CompositeService:
    """Every change makes a new record of the composite in one transaction.
    Completed images and servers made before stay as they are: they are
    candidates still, by their own manifests.
    """

    def __init__(self, images: ImageService) -> None:
        self.images, self.store = images, images.store

    def composite(self, name: str) -> Composite:
        """:raises NotFound: none, or another project's"""
        found = self.store.composite(name)
        if found.owner != self.images.owner:
            raise exceptions.NotFound(kind="composite", name=name, where=self.store.location)
        return found

    def add_part(self, composite: str, part: str, *, name: str | None = None,
                 requires: Sequence[str] = ()) -> Composite:
        """Add a stored part.

        :param part: its name or id
        :param name: in the composite; None: its own
        :param requires: names of parts that come with it
        :raises AlreadyExists: the composite has a part of that name
        :raises AccountClash: its accounts clash with those of other parts
        """
        with self.store.lock(f"composite {composite}"):
            found = self.composite(composite)
            stored = self.store.part(part, owner=self.images.owner)
            name = check_name("part", name or stored.name)
            if name in found.parts:
                raise exceptions.AlreadyExists(kind="part", name=name,
                                               where=f"composite {found.name}")
            if len(found.parts) >= MAX_PARTS:
                raise exceptions.InvalidInput(what=f"composite {found.name}",
                                              reason=f"it has {MAX_PARTS} parts, the most it may")
            ref = PartRef(id=stored.id, kind=parts_.SOFTWARE, requires=tuple(sorted(requires)))
            return self._changed(found, {**found.parts, name: ref})

    def replace_part(self, composite: str, name: str, part: str) -> Composite:
        """Put a stored part in the place of one that the composite has; its
        name and relations stay.

        :raises UnknownPart: the composite has no part ``name``
        """
        with self.store.lock(f"composite {composite}"):
            found = self.composite(composite)
            old = self._ref(found, name)
            stored = self.store.part(part, owner=self.images.owner)
            return self._changed(found, {
                **found.parts, name: msgspec.structs.replace(old, id=stored.id)})

    def remove_part(self, composite: str, name: str) -> Composite:
        """Take a part out, and the dependency parts that nothing requires any
        more.

        :raises UnknownPart: the composite has no part ``name``
        :raises InUse: other parts require it
        """
        with self.store.lock(f"composite {composite}"):
            found = self.composite(composite)
            self._ref(found, name)
            users = [n for n, ref in found.parts.items() if name in ref.requires]
            if users:
                raise exceptions.InUse(kind="part", name=name, users=", ".join(users))
            left = {n: ref for n, ref in found.parts.items() if n != name}
            required = {r for ref in left.values() for r in ref.requires}
            left = {n: msgspec.structs.replace(
                ref, completes=tuple(c for c in ref.completes if c != name))
                for n, ref in left.items() if not ref.hidden or n in required}
            return self._changed(found, left)

    def resolve(self, composite: str, path: str, action: str, *, part: str = "",
                content: bytes = b"") -> Composite:
        """Record the administrator's answer to a conflict; it applies to
        every later launch of the parts concerned. An answer to what is answered
        already takes the place of that.

        What it does not decide stays open as another question: where a part's
        version wins the others may disagree without it, and what was decided may
        be changed differently by a further part.

        :param path: as ``conflict list`` shows it
        :param action: one of :data:`~splitimage_driver.model.composite.ACTIONS`
        :param part: whose version wins, with ``replace``
        :param content: the own file, with ``file``
        :raises NotFound: there is no such conflict
        """
        if action not in ACTIONS:
            raise exceptions.InvalidInput(what=f"answer {action!r}",
                                          reason="it is none of " + ", ".join(ACTIONS))
        with self.store.lock(f"composite {composite}"):
            found = self.composite(composite)
            raw = path.lstrip("/").encode("utf-8", "surrogateescape")
            conflict = _about(found, raw)
            if conflict is None and any(a.path == raw for a in found.answers):
                found = conflicts.found(msgspec.structs.replace(
                    found, answers=tuple(a for a in found.answers if a.path != raw)), self.store)
                conflict = _about(found, raw)
            if conflict is None:
                raise exceptions.NotFound(kind="conflict", name=path,
                                          where=f"composite {found.name}")
            if action == "replace" and part not in conflict.parts:
                raise exceptions.InvalidInput(
                    what=f"conflict {path}",
                    reason=f"--part names whose version wins: {', '.join(conflict.parts)}")
            answer = Answer(path=raw, parts=conflict.parts, action=action, part=part,
                            content=content)
            answers = (*(a for a in found.answers if (a.path, a.parts) != (raw, answer.parts)),
                       answer)
            changed = conflicts.found(msgspec.structs.replace(found, answers=answers), self.store)
            left = _about(changed, raw)
            if left is not None and left.parts == conflict.parts:
                raise exceptions.InvalidInput(what=f"conflict {path}",
                                              reason=f"{action} does not decide it")
            return self.store.save_composite(changed, replace=True)

    # -- internal ---------------------------------------------------------------------

    @staticmethod
    def _ref(composite: Composite, name: str) -> PartRef:
        if name not in composite.parts:
            raise exceptions.UnknownPart(composite=composite.name, part=name,
                                         parts=", ".join(composite.visible()) or "none")
        return composite.parts[name]

    def _changed(self, composite: Composite, refs: Mapping[str, PartRef]) -> Composite:
        """Check the new set of parts as capture does, and save it."""
        changed = msgspec.structs.replace(composite, parts=dict(refs))
        for name in refs:
            changed.closure([name])  # refuses what requires an absent part
        manifests = {name: self.store.part_manifest(ref.id) for name, ref in refs.items()}
        conflicts.settle_accounts(manifests, {}, composite.shared, renumber=False, notes=[])
        changed = msgspec.structs.replace(
            changed, restore=self._restore(composite, manifests))
        return self.store.save_composite(conflicts.found(changed, self.store), replace=True)

    def _restore(self, composite: Composite, manifests: Mapping[str, PartManifest]) -> str:
        """The restore part for a new set of parts: what it lacks is read from
        the base's disk."""
        base = self.store.manifest(composite.base.manifest)
        wanted = pack.restore_manifest(base, manifests.values())
        known = self.store.part_manifest(composite.restore)
        if wanted.paths() <= known.paths():
            return composite.restore
        with self.store.scratch() as scratch:
            spool = Spool(scratch / "contents")
            blob = self.store.part(composite.restore).blob
            if blob:
                for _, content in BlobTree(self.store.path(blob)).contents(known.paths()):
                    spool.put(content.read())
            lacking = [e for _, e in wanted.entries()
                       if e.is_file and e.size and not spool.path(e.sha256).exists()]
            if lacking:
                with self.images.session(self.store.path(composite.base.disk), "qcow2",
                                         composite.base.mounts, readonly=True,
                                         scratch=scratch, shown=composite.name) as session:
                    for e in lacking:
                        session.read_file(e.path, spool.path(e.sha256))
            return pack.store_part(
                self.store, f"{composite.name}.restore"[:63], parts_.RESTORE, wanted, spool,
                scratch, owner=self.images.owner, public=composite.public).id


def _about(composite: Composite, path: bytes) -> Conflict | None:
    return next((c for c in composite.conflicts if c.path == path), None)
