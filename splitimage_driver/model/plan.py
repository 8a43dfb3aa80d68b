"""What is asked for, and what to do about it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import msgspec

from splitimage_driver.model import entry as entries
from splitimage_driver.model.candidate import Candidate
from splitimage_driver.model.composite import Answer, Conflict
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.manifest import Manifest


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar composite: name or id
    :ivar parts: names of the composite's parts, as the user gave them
    :ivar filesets: ids of stored file sets
    :ivar answers: the tenant's own, for clashes of a file set
    :ivar booted: an image of this request that was taken from a running
        server is an exact match, too; nobody gets one without asking
    """

    composite: str
    parts: tuple[str, ...] = ()
    filesets: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    booted: bool = False


class Source(msgspec.Struct, frozen=True, array_like=True):
    """Where the content of a file comes from.

    :ivar blob: sha256 of a part's squashfs
    :ivar member: path in it
    """

    blob: str
    member: bytes


class Target(msgspec.Struct, frozen=True):
    """The tree a request describes, independent of any candidate.

    :ivar sources: of files that come out of parts
    :ivar generated: contents that were made by merging
    :ivar conflicts: what no rule decided; such a target is not assembled
    """

    manifest: Manifest
    sources: dict[bytes, Source]
    generated: dict[bytes, bytes]
    conflicts: tuple[Conflict, ...] = ()


class Work:
    """What turns one tree into another.

    :param current: the tree on the disk
    :param target: the tree it shall become
    :param sources: where contents of files of ``target`` can be had
    :param generated: contents made on the way
    """

    def __init__(self, current: Manifest, target: Manifest,
                 sources: Mapping[bytes, Source], generated: Mapping[bytes, bytes]) -> None:
        self.current, self.target = current, target
        self.sources, self.generated = sources, generated

    @functools.cached_property
    def missing(self) -> tuple[FileEntry, ...]:
        """Entries to write, sorted by path."""
        return tuple(e for e in self.target.missing_from(self.current)
                     if e.path not in self._relabelled)

    @functools.cached_property
    def _relabelled(self) -> frozenset[bytes]:
        """Names of hard-linked files that only get another leader, because
        other names come or go: nothing is to be done about them."""
        now = self.current.by_path
        changed = set()
        kept: dict[bytes, list[FileEntry]] = {}  # by the file on the disk
        for e in self.target:
            there = now.get(e.path)
            if there is not None and e.is_file and (e.link or there.link):
                if there != e:
                    if msgspec.structs.replace(there, link=e.link) != e:
                        continue
                    changed.add(e.path)
                kept.setdefault(there.link or there.path, []).append(e)
        stays: dict[bytes, bytes] = {}  # file of the target: file on the disk
        for inode, names in sorted(kept.items()):
            files = {e.link or e.path for e in names}
            exact = {e.link or e.path for e in names if e.path not in changed}
            # One file cannot become two; of two that become one, one stays.
            mine = min(exact or files)
            if mine not in stays or exact:
                stays[mine] = inode
        return frozenset(e.path for inode, names in kept.items() for e in names
                         if e.path in changed and stays.get(e.link or e.path) == inode)

    @functools.cached_property
    def excess(self) -> tuple[FileEntry, ...]:
        """Entries to remove, sorted by path."""
        return self.current.excess_over(self.target)

    @functools.cached_property
    def replaced(self) -> tuple[FileEntry, ...]:
        """Entries that must go first because another type takes their place."""
        now = self.current.by_path
        return tuple(now[e.path] for e in self.missing
                     if e.path in now and now[e.path].type != e.type)

    @functools.cached_property
    def contents(self) -> tuple[FileEntry, ...]:
        """Missing files whose bytes have to travel: a further name of a file
        that is there, or travels already, is only linked."""
        missing = {e.path for e in self.missing}
        seen: set[bytes] = set()
        travelling = []
        for entry in self.missing:
            if not entry.is_file or entry.size == 0:
                continue
            if entry.link:
                if entry.link in seen or self.linkable(entry, missing):
                    continue
                seen.add(entry.link)
            travelling.append(entry)
        return tuple(travelling)

    def linkable(self, entry: FileEntry, missing: set[bytes]) -> bytes | None:
        """A name of the same hard-linked file that stays on the disk."""
        for other in self._groups.get(entry.link, ()):
            if other not in missing:
                return other
        return None

    @functools.cached_property
    def _groups(self) -> dict[bytes, list[bytes]]:
        groups: dict[bytes, list[bytes]] = {}
        for e in self.target:
            if e.link:
                groups.setdefault(e.link, []).append(e.path)
        return groups

    @functools.cached_property
    def unobtainable(self) -> tuple[bytes, ...]:
        """Files whose content is nowhere to be had; empty if the work can be
        done."""
        return tuple(e.path for e in self.contents
                     if e.path not in self.sources and e.path not in self.generated)

    @property
    def inject_bytes(self) -> int:
        return sum(e.size for e in self.contents)

    @functools.cached_property
    def directories(self) -> tuple[FileEntry, ...]:
        """Directories of the target whose times the work disturbs, with the
        derived time: the newest of the files in it (else of the tree)."""
        touched = {entries.parent(e.path) for e in (*self.missing, *self.excess)}
        touched |= {e.path for e in self.missing if e.is_dir}
        newest: dict[bytes, int] = {}
        top = 0
        for e in self.target:
            if not e.is_dir:
                above = entries.parent(e.path)
                if above in touched:
                    newest[above] = max(newest.get(above, 0), e.mtime)
                top = max(top, e.mtime)
        there = self.target.by_path
        return tuple(msgspec.structs.replace(there[p], mtime=newest.get(p, top))
                     for p in sorted(touched) if p in there and there[p].is_dir)


class Term(msgspec.Struct, frozen=True):
    """One summand of a cost.

    :ivar value: in ``unit``, weight included
    """

    name: str
    value: float
    unit: str = "s"


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """Why a candidate was not taken.

    :ivar term: that differs most from the winner's, to the loser's
        disadvantage; ``fetch`` where the image itself has to come from
        elsewhere; ``order`` where costs are equal and a tie was broken
    :ivar seconds: by which it differs, or in ``unit``
    :ivar files: that the loser has to write or remove for it and the winner
        has not, the largest first
    :ivar more: how many further ones there are
    :ivar reason: of a broken tie
    """

    term: str
    seconds: float = 0.0
    files: tuple[str, ...] = ()
    more: int = 0
    reason: str = ""
    unit: str = "s"

    def told(self) -> dict[str, Any]:
        return {name: value for name, value in msgspec.structs.asdict(self).items()
                if (value != "" or name == "term") and (name, value) != ("unit", "s")}


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate as the planner saw it.

    :ivar match: ``exact``, ``base``, ``subset``, ``superset`` or ``partial``
    :ivar cost: sum of the terms; infinite where ``refused`` says why not
    :ivar inject_bytes: bytes of file content that are injected
    :ivar fetch_bytes: bytes of whole blobs and disks that are not local
    :ivar lost: why it was not taken, where that was asked for
    """

    candidate: Candidate
    match: str
    cost: float
    terms: tuple[Term, ...]
    missing: int
    missing_bytes: int
    excess: int
    excess_bytes: int = 0
    inject_bytes: int
    fetch_bytes: int
    refused: str = ""
    lost: Lost | None = None


class Quantity(msgspec.Struct, frozen=True, kw_only=True):
    """A rate that costs are computed with, and where it comes from.

    :ivar configured: in ``unit``
    :ivar learnt: factor of the seconds that finished assemblies took to
        those that the configured rate predicts; within ``bounds``
    :ivar count: of the measurements behind that
    :ivar time: of the last of them, seconds since the epoch
    :ivar load: share of the speed that this host has left now; None: it is
        not taken into account
    :ivar value: in ``unit``, as plans use it
    """

    name: str
    unit: str
    configured: float
    learnt: float = 1.0
    bounds: tuple[float, float] = (1.0, 1.0)
    count: int = 0
    time: float = 0.0
    load: float | None = None
    value: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar parts: the request's closure: names of all parts laid
    :ivar estimate: of the chosen candidate
    :ivar considered: every candidate, the best first
    :ivar work: what to do; None for an exact match
    :ivar rates: that the costs were computed with
    :ivar basis: digest of what was stored when it was made
    """

    request: Request
    composite: str
    parts: tuple[str, ...]
    recipe: str
    equation: str
    estimate: Estimate
    considered: tuple[Estimate, ...]
    target: Target | None = None
    work: Work | None = None
    rates: tuple[Quantity, ...] = ()
    basis: str = ""

    @property
    def exact(self) -> bool:
        return self.estimate.match == "exact"

    def told(self) -> Plan:
        """Without what only an assembly needs."""
        return msgspec.structs.replace(self, target=None, work=None)

    def summary(self) -> dict[str, Any]:
        """A serialisable account of the plan."""
        return {
            "composite": self.request.composite, "request": list(self.request.parts),
            "filesets": list(self.request.filesets), "parts": list(self.parts),
            "recipe": self.recipe, "equation": self.equation,
            "match": self.estimate.match, "candidate": self.estimate.candidate.id,
            "candidate_name": self.estimate.candidate.name, "cost": self.estimate.cost,
            "terms": {t.name: t.value for t in self.estimate.terms},
            "missing": self.estimate.missing, "missing_bytes": self.estimate.missing_bytes,
            "excess": self.estimate.excess, "fetch_bytes": self.estimate.fetch_bytes,
            "inject_bytes": self.estimate.inject_bytes,
        }


class BatchStep(msgspec.Struct, frozen=True, kw_only=True):
    """One image of a batch.

    :ivar requests: the numbers of those that it fulfils; the first makes it
    :ivar source: number of the request whose image it is made from; None: a
        stored one, the estimate's candidate
    :ivar plan: by itself, with the store as it is
    :ivar estimate: of making it so
    """

    requests: tuple[int, ...]
    source: int | None
    plan: Plan
    estimate: Estimate
