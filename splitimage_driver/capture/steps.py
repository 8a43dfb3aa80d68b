"""The *steps* splitter: a gold machine's state after each install step.

A part is what its step added, changed and deleted, except what packages
brought that other software needs too (dependency parts), and what the step
did in another part's territory: that is kept under the condition that the
other part is present.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import msgspec

from splitimage_driver.capture.attribution import BASE, Attribution, Group
from splitimage_driver.capture.draft import ALWAYS, Draft, When
from splitimage_driver.capture.gold import GoldState, Spool
from splitimage_driver.capture.identity import Identity
from splitimage_driver.capture.packagedb import base as packagedb
from splitimage_driver.capture.splitter import Split, Splitter
from splitimage_driver.merge import registry, rows, text
from splitimage_driver.model.entry import FileEntry


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
        were asked for by name, else those that nothing else it installed
        needs."""
        found = {}
        for before, state in zip(self.states, self.states[1:], strict=False):
            assert state.packages is not None  # noqa: S101 (checked by the caller)
            old = before.packages.packages if before.packages is not None else {}
            new = {k: p for k, p in state.packages.packages.items() if k not in old}
            roots = [k for k, p in new.items() if p.manual]
            if not roots:
                needed: set[str] = set()
                for key in new:
                    needed |= state.packages.closure([key]) - {key}
                roots = [k for k in new if k not in needed]
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
        condition: frozenset[str] = frozenset()
        first: Version | None = None
        for version in versions:
            software = self.states[version.step].name
            if first is None:
                if version.entry is not None and version.entry.is_dir:
                    for group in self.owner.owners(path) or {evidence.group or frozenset()}:
                        part, when = self._owner(group or None, software, None)
                        self.draft.claim(part, when, path, version.entry)
                part, when = self._owner(evidence.group, software, evidence.territory)
                self.draft.claim(part, when, path, version.entry)
                condition, first = when | {part}, version
                continue
            self.draft.claim(software, condition - {software}, path, version.entry)
            self._variants(path, version, first, condition, software)
            condition |= {software}

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

    def _variants(self, path: bytes, version: Version, first: Version,
                  condition: frozenset[str], software: str) -> None:
        """What a later step's change of a text looks like where only some of
        the earlier steps are present: the change is applied to their text."""
        origin = first.before
        if origin is not None and not condition <= {software}:
            merged = self._patched(version, origin, first.step - 1)
            if merged is not None:
                self.draft.claim(software, ALWAYS, path, merged)

    def _patched(self, version: Version, onto: FileEntry, onto_step: int) -> FileEntry | None:
        triple = []
        for entry, step in ((version.before, version.step - 1), (version.entry, version.step),
                            (onto, onto_step)):
            if entry is None or not entry.is_file or entry.size > text.MAX_BYTES:
                return None
            state = self.states[step]
            self.spool.take(state, [entry.path])
            content = self.spool.get(entry.sha256)
            if not text.is_text(content):
                return None
            triple.append(content)
        merged = text.three_way(*triple)
        if merged is None:
            self.draft.notes.append(
                f"/{version.entry.path.decode(errors='replace')}: the change by "  # type: ignore[union-attr]
                f"{self.states[version.step].name} cannot be told from the earlier ones")
            return None
        assert version.entry is not None  # noqa: S101 (it is one of the three)
        self.spool.put(merged)
        return version.entry.with_content(merged)

    # -- rows ---------------------------------------------------------------------------

    def _place_rows(self, path: bytes) -> None:
        merger = registry.merger_for(path)
        assert merger is not None  # noqa: S101 (only such paths come here)
        texts = [state.shared.get(path) for state in self.states]
        places = rows.places(merger, texts[0], texts[-1])
        conditions: dict[bytes, frozenset[str]] = {}
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
            for row in changes:
                if row.key in conditions:
                    when = conditions[row.key] - {software}
                    self.draft.claim_row(software, when, row)
                    conditions[row.key] |= {software}
                    continue
                group = owners[row.key]
                # A row that names nobody came with those beside it.
                groups: set[Group | None] = {group} if group is not None or not company else {
                    *company}
                for each in groups:
                    part, when = self._owner(each, software, None)
                    self.draft.claim_row(part, when, row)
                    conditions[row.key] = conditions.get(row.key, frozenset()) | when | {part}


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


