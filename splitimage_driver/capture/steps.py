"""The *steps* splitter: a gold machine's state after each install step.

A part is what its step added, changed and deleted, except what packages
brought that other software needs too (dependency parts), and what the step
did in another part's territory: that is kept under the condition that the
other part is present.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Mapping, Sequence

import msgspec

from splitimage_driver.capture.attribution import BASE, Attribution, Group
from splitimage_driver.capture.draft import ALWAYS, Draft, When
from splitimage_driver.capture.gold import GoldState, Spool
from splitimage_driver.capture.identity import Identity
from splitimage_driver.capture.packagedb import base as packagedb
from splitimage_driver.capture.splitter import Split, Splitter
from splitimage_driver.capture.variants import Variants
from splitimage_driver.merge import registry, rows, text
from splitimage_driver.merge.base import Merger, plain
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.entry import text as shown


class Version(msgspec.Struct, frozen=True):
    """What a step made of a path: ``entry`` None where it removed it."""

    step: int
    before: FileEntry | None
    entry: FileEntry | None


class Steps(Splitter):
    """States of one machine, cumulative: one for each piece of software."""

    def split(self, states: Sequence[GoldState], software: Mapping[str, Sequence[str]], *,
              rest: str, identity: Identity, spool: Spool) -> Split:
        draft = _Steps(states, rest, identity, spool).run()
        return Split(draft, states[0].manifest, {})


class _Steps:
    def __init__(self, states: Sequence[GoldState], rest: str, identity: Identity,
                 spool: Spool) -> None:
        self.states, self.identity, self.spool = states, identity, spool
        self.draft = Draft([s.name for s in states[1:]], rest)
        final = states[-1]
        groups = None
        base: frozenset[str] = frozenset()
        if final.packages is not None and states[0].packages is not None:
            base = frozenset(states[0].packages.packages)
            groups = packagedb.groups(final.packages, base, self._roots())
            self.draft.add_groups(groups.packages, groups.requires)
        else:
            for n, state in enumerate(states[2:], 2):
                self.draft.requires[state.name].update(s.name for s in states[1:n])
            self.draft.notes.append(
                "no package database: parts are files only, each requires the steps before it")
        self._order = {state.name: n for n, state in enumerate(states)}
        self.owner = Attribution(final.manifest, final.packages, base, groups, final.place,
                                 final.shared, final.declared)

    def _roots(self) -> dict[str, tuple[str, ...]]:
        """For each step the packages it was made for: those it installed that
        were asked for by name, and of what they do not need (recommended
        packages) those that nothing else of it needs."""
        final = self.states[-1].packages
        assert final is not None  # noqa: S101 (checked by the caller)
        found = {}
        seen = set(self.states[0].packages.packages if self.states[0].packages else ())
        for state in self.states[1:]:
            here = state.packages.packages if state.packages is not None else {}
            # What a later step removed again is nobody's.
            new = {k for k in here if k not in seen and k in final.packages}
            seen |= here.keys()
            roots = {k for k in new if final.packages[k].manual}
            left = new - final.closure(roots)
            needed = set().union(*(final.closure([key]) - {key} for key in left))
            roots |= left - needed
            # A circle that nothing leads into.
            roots |= left - final.closure(roots)
            found[state.name] = tuple(sorted(roots))
        return found

    def run(self) -> Draft:
        versions, touched_rows = self._versions()
        for path in sorted(versions):
            self._place(path, versions[path])
        for path in sorted(touched_rows):
            self._place_rows(path)
        return self.draft

    # -- differences ----------------------------------------------------------------

    def _versions(self) -> tuple[dict[bytes, list[Version]], set[bytes]]:
        versions: dict[bytes, list[Version]] = collections.defaultdict(list)
        touched: set[bytes] = set()
        for step in range(1, len(self.states)):
            old = self.states[step - 1].manifest.by_path
            new = self.states[step].manifest.by_path
            for path in {*old, *new}:
                before, after = old.get(path), new.get(path)
                if before is after or (before is not None and before.same(after)):
                    continue
                if self.identity.excludes(after or before):  # type: ignore[arg-type]
                    continue
                if not path:
                    continue
                if self._by_rows(path):
                    touched.add(path)
                    if before is not None and after is not None:
                        continue
                versions[path].append(Version(step, before, after))
        return versions, touched

    def _by_rows(self, path: bytes) -> bool:
        return any(path in state.shared for state in self.states) and all(
            path in state.shared or path not in state.manifest for state in self.states)

    # -- paths ------------------------------------------------------------------------

    def _place(self, path: bytes, versions: Sequence[Version]) -> None:
        evidence = self.owner.evidence(path, versions[-1].entry or versions[-1].before)
        first = versions[0]
        software = self.states[first.step].name
        if first.entry is not None and first.entry.is_dir:
            for group in self.owner.owners(path) or {evidence.group or frozenset()}:
                part, when = self._owner(group or None, software, None)
                self.draft.claim(part, when, path, first.entry)
        part, when = self._owner(evidence.group, software, evidence.territory)
        self.draft.claim(part, when, path, first.entry)
        variants = Variants(first.before, when | {part}, first.entry)
        for version in versions[1:]:
            software = self.states[version.step].name
            for when, entry in variants.add(software, version.before, version.entry,
                                            functools.partial(self._patched, software)):
                self.draft.claim(software, when, path, entry)

    def _owner(self, group: Group | None, software: str,
               territory: Group | None) -> tuple[str, When]:
        """The part that speaks, and under which condition."""
        if group and all(self._order.get(s, 0) > self._order[software] for s in group):
            group = None  # evidence of what was not installed yet proves nothing
        if group is None or group == BASE or not group:
            part, when = software, ALWAYS
        elif software in group or self.draft.name(group) == software:
            part, when = self.draft.name(group), ALWAYS
        else:
            part, when = software, frozenset((self.draft.name(group),))
        if territory:
            there = self.draft.name(territory)
            if there not in self.draft.closure(part):
                when |= {there}
        return part, when - {part}

    def _patched(self, software: str, before: FileEntry | None, after: FileEntry | None,
                 onto: FileEntry | None) -> FileEntry | None:
        """A step's change made to another version of the file: of a text its
        lines, of all else the whole."""
        if after is None or before is None or onto is None or before.same(onto):
            return after
        triple = []
        for entry in (before, after, onto):
            content = self._text(entry)
            if content is None:
                return after
            triple.append(content)
        merged = text.three_way(*triple)
        if merged is None:
            self.draft.notes.append(
                f"{shown(after.path)}: the change by {software} cannot be told from those by "
                "earlier steps; it is taken over whole")
            return after
        self.spool.put(merged)
        return after.with_content(merged)

    def _text(self, entry: FileEntry) -> bytes | None:
        if not entry.is_file or entry.size > text.MAX_BYTES:
            return None
        if not self.spool.path(entry.sha256).exists():
            for state in self.states:
                there = state.manifest.get(entry.path)
                if there is not None and there.sha256 == entry.sha256:
                    self.spool.take(state, [entry.path])
                    break
        content = self.spool.get(entry.sha256)
        return content if text.is_text(content) else None

    # -- rows ---------------------------------------------------------------------------

    def _place_rows(self, path: bytes) -> None:
        merger = registry.merger_for(path)
        assert merger is not None  # noqa: S101 (only such paths come here)
        texts = [state.shared.get(path) for state in self.states]
        places = rows.places(merger, texts[0], texts[-1])
        variants: dict[bytes, Variants[bytes]] = {}
        for step in range(1, len(self.states)):
            software = self.states[step].name
            changes = rows.diff(merger, path, texts[step - 1], texts[step], places=places)
            owners = {}
            for row in changes:
                hint = merger.hint(row.key, row.value if row.value is not None else b"")
                group = row_group(self.owner, hint)
                if hint[0] == "account" and group and software not in group:
                    group = None  # the step is better evidence than a name in a script
                owners[row.key] = group
            company = {g for g in owners.values() if g is not None and g != BASE}
            before = rows.keyed(merger, texts[step - 1])
            for row in changes:
                if row.key in variants:
                    for when, value in variants[row.key].add(
                            software, before.get(row.key), row.value,
                            functools.partial(_patched_row, merger, row.key)):
                        self.draft.claim_row(software, when,
                                             msgspec.structs.replace(row, value=value))
                    continue
                group = owners[row.key]
                # A row that names nobody came with those beside it.
                groups: set[Group | None] = {group} if group is not None or not company else {
                    *company}
                condition: frozenset[str] = frozenset()
                for each in groups:
                    part, when = self._owner(each, software, None)
                    self.draft.claim_row(part, when, row)
                    condition |= when | {part}
                variants[row.key] = Variants(before.get(row.key), condition, row.value)


def _patched_row(merger: Merger, key: bytes, before: bytes | None, after: bytes | None,
                 onto: bytes | None) -> bytes | None:
    """A step's change made to another version of the row; whole where the
    row is of one piece."""
    if after is None or before is None or onto is None or before == onto:
        return after
    merged = merger.combine(plain(key), before, after, onto)
    return after if merged is None else merged


def row_group(owner: Attribution, hint: tuple[str, bytes]) -> Group | None:
    """The group that a merger's hint about a row points at."""
    kind, name = hint
    if kind == "package":
        return owner.package(name.decode("utf-8", "replace"))
    if kind == "path":
        return owner.evidence(owner.place(name)).group
    if kind == "account":
        return owner.account(name.decode("utf-8", "replace"))
    return None


