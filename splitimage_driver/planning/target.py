"""The tree that a request describes: base and parts laid over each other.

Laying is a pure function of sets: no order of parts goes in, so none can
show. For each path the layers that speak about it are its *claims*; a claim
made under a larger condition dominates those under a part of it; claims that
remain and differ are merged, or are a conflict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.merge import registry, rows
from splitimage_driver.merge.base import Merger, plain
from splitimage_driver.model import entry as entries
from splitimage_driver.model import part as parts_
from splitimage_driver.model.composite import Answer, Conflict
from splitimage_driver.model.entry import DIRECTORY, SYMLINK, FileEntry, parent
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import PartManifest, Row
from splitimage_driver.model.paths import Resolver, join
from splitimage_driver.model.plan import Source, Target
from splitimage_driver.planning.claims import Claim, Decision, Read, unchanged, undominated


class Laid(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the request.

    :ivar blob: of its contents; "" where it has none
    """

    name: str
    kind: str
    blob: str
    manifest: PartManifest


def lay(base: Manifest, parts: Iterable[Laid], *, shared: Mapping[bytes, bytes],
        restore: Laid | None = None, answers: Sequence[Answer] = (),
        read: Read | None = None) -> Target:
    """Lay ``parts`` over ``base``.

    :param shared: the base's contents of the files that are merged by rows
    :param restore: the part with the base's versions of what parts change
    :param answers: decisions about conflicts, the tenant's own included
    :param read: content of a small file, needed only to merge text
    """
    laying = _Laying(base, sorted(parts, key=lambda p: (p.name, p.manifest.digest)),
                     shared, restore, answers, read)
    return laying.run()


class _Laying:
    def __init__(self, base: Manifest, parts: Sequence[Laid], shared: Mapping[bytes, bytes],
                 restore: Laid | None, answers: Sequence[Answer], read: Read | None) -> None:
        self.base, self.parts, self.shared = base, parts, shared
        self.answers = answers
        self.tree: dict[bytes, FileEntry] = dict(base.by_path)
        self.sources: dict[bytes, Source] = {}
        self.generated: dict[bytes, bytes] = {}
        self.conflicts: list[Conflict] = []
        #: Contents of the files merged by rows.
        self.merged: dict[bytes, bytes] = {}
        self.originals: dict[bytes, Source] = {}
        if restore is not None:
            for layer, e in restore.manifest.entries():
                if e.is_file:
                    self.originals[e.path] = Source(restore.blob, parts_.member(layer, e))
        self.decision = Decision(base, self.originals, answers, read)

    def run(self) -> Target:
        claims, row_claims = collect(self.base, self.parts)
        for path in sorted(claims):
            if path not in row_claims:
                self._settle(path, undominated(claims[path]))
        for path in sorted(row_claims):
            self._settle_rows(path, row_claims[path], claims.get(path, []))
        self._derive()
        self._drop_orphans(claims)
        self._add_parents(claims)
        self._relink()
        for path, source in self.originals.items():
            there, before = self.tree.get(path), self.base.get(path)
            if (path not in self.sources and path not in self.generated and there is not None
                    and before is not None and there.sha256 == before.sha256):
                self.sources[path] = source
        for path, content in self.shared.items():
            if path in self.tree and path not in self.sources:
                self.generated.setdefault(path, content)
        return Target(manifest=Manifest(self.tree.values()), sources=self.sources,
                      generated=self.generated, conflicts=tuple(self.conflicts))

    # -- one path ---------------------------------------------------------------

    def _settle(self, path: bytes, claims: list[Claim]) -> None:
        before = self.base.get(path)
        # A file set brings directories only to have a place for its files:
        # it never changes one that is there.
        firm = [c for c in claims if not (c.fileset and c.entry is not None and c.entry.is_dir)]
        if firm != claims:
            if firm or (before is not None and before.is_dir):
                claims = firm
            if not claims:
                return
        claims = [c for c in claims if not unchanged(c, before)] or claims
        chosen = self.decision.of(path, claims)
        if chosen is not None:
            if chosen.entry is None or not chosen.entry.same(before):
                self._put(path, chosen.entry, chosen.source, chosen.content)
            return
        self._ask(path, claims)

    def _ask(self, path: bytes, claims: Sequence[Claim]) -> None:
        if any(c.fileset for c in claims):
            reason = "a file set brings its own version of it"
        elif any(c.entry is None for c in claims):
            reason = "one deletes what the other changes"
        else:
            reason = "they differ and no rule merges them"
        unfit = self.decision.unfit(path, claims)
        if unfit:
            reason += f"; the answer {unfit} does not decide it"
        self.conflicts.append(Conflict(path, tuple(sorted({c.part for c in claims})), reason))

    def _put(self, path: bytes, entry: FileEntry | None, source: Source | None,
             content: bytes | None = None) -> None:
        self.sources.pop(path, None)
        self.generated.pop(path, None)
        if entry is None:
            self.tree.pop(path, None)
            return
        self.tree[path] = entry
        if content is not None:
            self.generated[path] = content
        elif source is not None:
            self.sources[path] = source

    # -- rows -----------------------------------------------------------------------

    def _settle_rows(self, path: bytes, keyed: Mapping[bytes, list[Claim]],
                     claims: Sequence[Claim]) -> None:
        merger = registry.merger_for(path)
        if merger is None:
            self.conflicts.append(Conflict(
                path, tuple(sorted({c.part for cs in keyed.values() for c in cs})),
                "no merger for its rows is installed"))
            return
        whole = undominated(claims) if claims else []
        # Whoever replaces the file as a whole under every condition of its
        # rows (a correction for all parts together) has the last word.
        speaking = frozenset().union(*(c.condition for cs in keyed.values() for c in cs))
        final = [c for c in whole if c.condition >= speaking and len(c.condition) > 1]
        if len(final) == 1:
            self._put(path, final[0].entry, final[0].source)
            return
        filesets = [c for c in whole if c.fileset]
        if filesets:
            mine = tuple(sorted({c.part for cs in keyed.values() for c in cs}))
            answer = next((a for a in self.answers if a.path == path and not a.parts), None)
            if answer is not None and answer.action == "replace":
                self._put(path, filesets[0].entry, filesets[0].source)
                return
            if answer is None or answer.action != "keep":
                self.conflicts.append(Conflict(
                    path, tuple(sorted((*mine, *(c.part for c in filesets)))),
                    "a file set replaces a file that parts change by rows"))
                return
            whole = [c for c in whole if not c.fileset]
        by_part: dict[str, list[Row]] = {}
        for row_claims in keyed.values():
            for claim in undominated(row_claims):
                if claim.row is not None:
                    by_part.setdefault(claim.part, []).append(claim.row)
        merged = self._merged(merger, path, by_part)
        for key, names in merged.clashes:
            shown = plain(key).decode("utf-8", "backslashreplace")
            self.conflicts.append(Conflict(
                path, tuple(sorted(names)), f"they differ about its row {shown}" if shown
                else "their rows make no file together"))
        if merged.content is None or (not merged.content and any(c.entry is None for c in whole)):
            self._put(path, None, None)
            return
        model = self.base.get(path) or next((c.entry for c in whole if c.entry is not None), None)
        model = model or FileEntry(path=path, type=entries.FILE, mode=0o644)
        if model.is_file:
            self._put(path, model.with_content(merged.content), None, merged.content)
        self.merged[path] = merged.content

    def _merged(self, merger: Merger, path: bytes,
                by_part: dict[str, list[Row]]) -> rows.Merged:
        """The file of all rows; answers decide about those that clash."""
        base = self.shared.get(path)
        merged = rows.apply(merger, path, base, by_part)
        for answer in self.answers:
            about = {key: set(names).intersection(answer.parts) for key, names in merged.clashes}
            about = {key: names for key, names in about.items() if len(names) > 1}
            if answer.path != path or not about:
                continue
            if answer.action == "file":
                # The others' rows meet it as they would the base's file.
                base, lost = answer.content, {b"": set(answer.parts)}
            elif answer.action == "keep":
                lost = about
            elif answer.action == "replace":
                lost = {key: names - {answer.part} for key, names in about.items()
                        if answer.part in names}
            else:
                continue
            left = {part: [row for row in found if not any(
                part in names and key in (b"", row.key) for key, names in lost.items())]
                for part, found in by_part.items()}
            try:
                merged = rows.apply(merger, path, base, left)
            except exceptions.InvalidInput:  # the own file is none of its kind
                base = self.shared.get(path)
                continue
            by_part = left
        return merged

    def _derive(self) -> None:
        """Links that follow from merged files, once all files are settled."""
        place = Resolver(self.base)
        for path, content in self.merged.items():
            merger = registry.merger_for(path)
            if merger is None:
                continue
            links, wanted, unwanted = derived(merger, path, content, self.tree, place)
            for link, target in wanted.items():
                if links.get(link) != target:
                    there = self.tree.get(link)
                    self._put(link, FileEntry(path=link, type=SYMLINK, mode=0o777, target=target,
                                              mtime=there.mtime if there else 0), None)
            for link in unwanted:
                self._put(link, None, None)

    # -- the tree as a whole ----------------------------------------------------------

    def _drop_orphans(self, claims: Mapping[bytes, Sequence[Claim]]) -> None:
        """A deleted directory takes nothing of others with it: it stays as
        long as something lies in it."""
        occupied = entries.directories(self.tree)
        for path in claims:
            before = self.base.get(path)
            if path not in self.tree and before is not None and before.is_dir and path in occupied:
                self.tree[path] = before

    def _add_parents(self, claims: Mapping[bytes, Sequence[Claim]]) -> None:
        """Every path has its directories: as somebody has brought them, if
        only somebody whose word did not count."""
        sound: set[bytes] = set()  # these, and all above them, are directories
        for path in list(self.tree):
            if entries.parent(path) in sound:
                continue
            for above in entries.parents(path):
                there = self.tree.get(above)
                if there is None:
                    brought = [c for c in claims.get(above, ())
                               if c.entry is not None and c.entry.is_dir]
                    best = max(brought, default=None, key=lambda c: (
                        not c.fileset, len(c.condition), c.part))
                    self.tree[above] = (best and best.entry) or FileEntry(
                        path=above, type=DIRECTORY, mode=0o755)
                elif not there.is_dir:
                    self.conflicts.append(Conflict(
                        path, (), f"{entries.text(above)} above it is not a directory"))
                    self.tree.pop(path, None)
                    break
            else:
                sound.add(entries.parent(path))

    def _relink(self) -> None:
        """Hard-link groups by what is left of them: a name that a part
        replaced is out, and the lowest remaining name leads."""
        groups: dict[tuple[object, ...], list[FileEntry]] = {}
        for e in self.tree.values():
            if e.link:
                groups.setdefault((e.link, e.sha256, e.mode, e.uid, e.gid, e.xattrs), []).append(e)
        for members in groups.values():
            leader = min(e.path for e in members) if len(members) > 1 else b""
            newest = max(e.mtime for e in members)
            source = next((self.sources[e.path] for e in members if e.path in self.sources), None)
            for e in members:
                if e.link != leader or e.mtime != newest:
                    self.tree[e.path] = msgspec.structs.replace(e, link=leader, mtime=newest)
                if source is not None and e.path not in self.generated:
                    self.sources.setdefault(e.path, source)


def collect(base: Manifest, parts: Sequence[Laid]) -> tuple[
        dict[bytes, list[Claim]], dict[bytes, dict[bytes, list[Claim]]]]:
    """Who speaks about which path, and about which row (by path and key) of
    a shared file.

    :param base: paths are resolved through its links
    """
    # Conditions are about the composite's parts: a file set that happens
    # to have the name of one must not stand in for it.
    names = {p.name for p in parts if p.kind != parts_.FILESET}
    links = Resolver(base)
    claims: dict[bytes, list[Claim]] = {}
    row_claims: dict[bytes, dict[bytes, list[Claim]]] = {}
    for part in parts:
        fileset = part.kind == parts_.FILESET
        for layer in part.manifest.layers:
            if not names.issuperset(layer.when):
                continue
            condition = frozenset((*layer.when, parts_.speaker(part.kind, part.name)))
            held = {e.path for e in layer.entries}
            # A directory of its own in the place of a link of the base.
            place = links.without(held.intersection(layer.deleted))
            for e in layer.entries:
                # Parts captured with this base name real places; others
                # meet this base's links only now.
                path = place.directory(e.path) if e.is_dir else place(e.path)
                placed = e if path == e.path else msgspec.structs.replace(
                    e, path=path, link=place(e.link) if e.link else b"")
                source = (Source(part.blob, parts_.member(layer, e))
                          if e.is_file and part.blob else None)
                claims.setdefault(path, []).append(Claim(
                    part=part.name, condition=condition, fileset=fileset,
                    entry=placed, source=source))
            for path in layer.deleted:
                if path in held:
                    continue
                claims.setdefault(path, []).append(Claim(
                    part=part.name, condition=condition, fileset=fileset))
            for row in layer.rows:
                row_claims.setdefault(row.path, {}).setdefault(row.key, []).append(Claim(
                    part=part.name, condition=condition, row=row))
    return claims, row_claims


def derived(merger: Merger, path: bytes, content: bytes, tree: Mapping[bytes, FileEntry],
            place: Resolver) -> tuple[dict[bytes, bytes], dict[bytes, bytes], list[bytes]]:
    """The links that a merged file asks for, fitted to a tree.

    A link is never put in the place of a file, and not made where what it
    leads to is not there (a machine without manual pages).

    :returns: the tree's links (path: target), those wanted, those to remove
    """
    links = {e.path: e.target for e in tree.values() if e.type == SYMLINK}
    named = merger.derived(path, content, links)
    leads = {place(link): target for link, target in named.items()}
    wanted = {}
    for link, target in leads.items():
        there = tree.get(link)
        if there is not None and there.type != SYMLINK:
            continue
        end = place(join(parent(link), target))
        if end in tree or (end in leads and place(join(parent(end), leads[end])) in tree):
            wanted[link] = target
    gone = [link for link in map(place, merger.absent(path, content, links))
            if link in links and link not in wanted]
    return links, wanted, gone
