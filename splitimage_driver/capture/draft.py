"""A composite in the making: which part says what under which condition."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping

import msgspec

from splitimage_driver.capture.attribution import Group, part_name
from splitimage_driver.model import entry as entries
from splitimage_driver.model import part as parts_
from splitimage_driver.model.entry import SYMLINK, FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import Layer, PartManifest, Row

When = frozenset[str]
ALWAYS: When = frozenset()


class _Layer:
    def __init__(self) -> None:
        self.entries: dict[bytes, FileEntry] = {}
        self.deleted: set[bytes] = set()
        self.rows: dict[tuple[bytes, bytes], Row] = {}


class Draft:
    """Parts and their relations, before contents are packed.

    :param rest: name of the part for what no rule attributes
    :ivar requires: part: names of the parts it needs
    :ivar packages: part: packages it brings
    :ivar notes: for the administrator
    """

    def __init__(self, software: Iterable[str], rest: str) -> None:
        self.software, self.rest = tuple(software), rest
        self.requires: dict[str, set[str]] = {name: set() for name in self.software}
        self.packages: dict[str, set[str]] = collections.defaultdict(set)
        self.notes: list[str] = []
        self._layers: dict[str, dict[When, _Layer]] = collections.defaultdict(
            lambda: collections.defaultdict(_Layer))

    # -- parts --------------------------------------------------------------------

    def name(self, group: Group | None) -> str:
        """The part of a group."""
        return part_name(group) if group else self.rest

    def kind(self, part: str) -> str:
        if part == self.rest:
            return parts_.REST
        return parts_.SOFTWARE if part in self.software else parts_.DEPENDENCY

    def add_groups(self, groups: Mapping[str, Group],
                   requires: Mapping[str, tuple[str, ...]]) -> None:
        """Make the dependency parts: each group of several software is
        required by all of them."""
        for package, group in groups.items():
            part = self.name(group)
            self.packages[part].add(package)
            if len(group) > 1:
                for software in group:
                    self.requires[software].add(part)
        for software, needed in requires.items():
            self.requires[software].update(needed)

    def closure(self, part: str) -> frozenset[str]:
        """The parts that are there whenever ``part`` is."""
        found: set[str] = set()
        todo = [part]
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += self.requires.get(name, ())
        if self.kind(part) == parts_.DEPENDENCY:
            # Whoever pulls it in pulls in what all of them need.
            users = [s for s in self.software if part in self.closure(s)]
            if users:
                found |= frozenset.intersection(*(self.closure(s) - {s} for s in users))
        return frozenset(found)

    # -- claims --------------------------------------------------------------------

    def claim(self, part: str, when: When, path: bytes, entry: FileEntry | None) -> None:
        """``part`` brings ``entry``, or removes the path."""
        layer = self._layers[part][when - {part}]
        if entry is None:
            layer.deleted.add(path)
        else:
            layer.entries[path] = entry

    def claim_row(self, part: str, when: When, row: Row) -> None:
        self._layers[part][when - {part}].rows[row.path, row.key] = row

    def entries(self, part: str) -> Iterable[tuple[When, FileEntry]]:
        for when, layer in self._layers[part].items():
            for entry in layer.entries.values():
                yield when, entry

    def manifests(self, base: Manifest, trees: Iterable[Manifest]) -> dict[str, PartManifest]:
        """Finished parts: each layer has the directories its paths lie in,
        with the metadata of the newest of ``trees`` that has them."""
        newest = [tree.by_path for tree in trees]
        found = {}
        for part in sorted({*self._layers, *self.software}):
            layers = []
            for when, layer in self._layers[part].items():
                held = layer.entries
                for path in list(held):
                    for above in entries.parents(path):
                        if above not in base and above not in held:
                            known = next((t[above] for t in reversed(newest) if above in t), None)
                            if known is not None and known.is_dir:
                                held[above] = known
                # Told as a deletion too, or laying would follow the link.
                instead = {path for path, e in held.items() if e.is_dir and path in base
                           and base.by_path[path].type == SYMLINK}
                layers.append(Layer(when=tuple(when), entries=tuple(relinked(held.values())),
                                    deleted=tuple(layer.deleted | instead),
                                    rows=tuple(layer.rows.values())))
            found[part] = PartManifest(tuple(layers))
        return found


def relinked(found: Iterable[FileEntry]) -> list[FileEntry]:
    """Hard-link groups as far as the entries go.

    A group keeps the name of its leader also where that is another part's or
    the base's: laying makes one file of all names that it finds. Only where
    the leader's path holds another file here, the lowest name leads."""
    found = list(found)
    there = {e.path: e for e in found}
    groups: dict[tuple[bytes, bytes], list[FileEntry]] = collections.defaultdict(list)
    for e in found:
        if e.link:
            groups[e.link, e.sha256].append(e)
    leaders = {}
    for (link, sha256), members in groups.items():
        leader = there.get(link)
        fits = leader is None or (leader.link, leader.sha256) == (link, sha256)
        leaders[link, sha256] = link if fits else min(e.path for e in members)
    return [msgspec.structs.replace(e, link=leaders[e.link, e.sha256]) if e.link else e
            for e in found]
