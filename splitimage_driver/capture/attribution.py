"""Whose file is it? From evidence in the tree to the group that made it.

A *group* is the set of named software that needs a package: ``{apache}`` for
apache2 itself, ``{apache, mysql}`` for a library both need. Its part is the
software's own, or a dependency part. Evidence, the strongest first: the
package database; what a symbolic link points at; the unit file a state file
is named after; a path literal in a package's maintainer scripts; a package's
name in the path; the directory it lies in.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping

import msgspec

from splitimage_driver.capture.packagedb.base import Groups, PackageDB
from splitimage_driver.model import entry as entries
from splitimage_driver.model.entry import SYMLINK, FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.paths import Resolver

Group = frozenset[str]
#: The operating system's own.
BASE: Group = frozenset(("",))
#: Nobody's: found no rule.
REST: Group = frozenset()

_DEPTH = 4
_UCF = b"var/lib/ucf/cache/"
_USERS, _NOBODY = 100, (65534, 65535)
_UNIT = re.compile(rb"\.(service|socket|timer|path|target|mount|slice)\Z")


def part_name(group: Group) -> str:
    """The part of a group: the software itself, or ``dep.A.B``."""
    if len(group) == 1:
        return next(iter(group))
    name = "dep." + ".".join(sorted(group))
    if len(name) > 63:
        name = "dep." + hashlib.sha256(name.encode()).hexdigest()[:16]
    return name


class Evidence(msgspec.Struct, frozen=True):
    """:ivar group: who made it; None: nothing points anywhere
    :ivar territory: the group whose directory it lies in, where that is
        another's
    :ivar rule: which evidence decided, for reports
    """

    group: Group | None
    territory: Group | None
    rule: str


class Attribution:
    """Answers for one tree.

    :param tree: the gold machine's final tree
    :param db: its packages; None: no package database, no evidence at all
    :param base: names of the packages of the operating system
    :param groups: the groups of all others
    :param shared: contents of its files of accounts
    :param declared: accounts of sysusers.d, by name: the file that tells it
    """

    def __init__(self, tree: Manifest, db: PackageDB | None, base: frozenset[str],
                 groups: Groups | None, place: Resolver, shared: Mapping[bytes, bytes],
                 declared: Mapping[str, bytes]) -> None:
        self.shared, self.declared = shared, declared
        self.tree, self.db, self.base, self.groups, self.place = tree, db, base, groups, place
        self._found: dict[bytes, Evidence] = {}
        self._created: dict[str, Group | None] = {}

    def package(self, name: str) -> Group | None:
        """The group of a package (by name, with or without architecture)."""
        if self.db is None or self.groups is None:
            return None
        for key in (name, name.partition(":")[0]):
            if key in self.base:
                return BASE
            if key in self.groups.packages:
                return self.groups.packages[key]
        return None

    def owners(self, path: bytes) -> set[Group]:
        """Groups of the packages that list ``path``."""
        if self.db is None:
            return set()
        found = {self.package(name) for name in self.db.owners(path)}
        return {group for group in found if group is not None}

    def evidence(self, path: bytes, entry: FileEntry | None = None, depth: int = 0) -> Evidence:
        """Who made ``path`` (a real place)."""
        known = self._found.get(path)
        if known is not None:
            return known
        entry = entry or self.tree.get(path)
        group, rule = self._decide(path, entry, depth)
        # What a package lists is there wherever the package is.
        territory = None if rule == "package" else self._territory(path, group)
        evidence = Evidence(group, territory, rule)
        if depth == 0:
            self._found[path] = evidence
        return evidence

    def _decide(self, path: bytes, entry: FileEntry | None, depth: int) -> tuple[Group | None, str]:
        owners = self.owners(path)
        if owners:
            return (BASE if BASE in owners else _single(owners)), "package"
        if path.startswith(b"var/lib/dpkg/info/"):
            group = self.package(entries.name(path).decode("utf-8", "replace").rpartition(".")[0])
            if group is not None:
                return group, "package"
        if entry is not None and entry.type == SYMLINK and depth < _DEPTH:
            target = self.place.target(entry)
            if target in self.tree and target != path:
                found = self.evidence(target, depth=depth + 1).group
                if found is not None:
                    return found, "link"
        above, name = entries.parent(path), entries.name(path)
        if entries.name(above) == b"__pycache__":
            source = entries.parent(above) + b"/" + name.partition(b".")[0] + b".py"
            owners = self.owners(source)
            if owners:
                return _single(owners), "compiled"
        if path.startswith(_UCF):
            # ucf keeps the packaged version of /etc/a/b as :etc:a:b
            origin = self.place(path.removeprefix(_UCF).replace(b":", b"/"))
            if origin != path and (found := self.evidence(origin, depth=depth + 1).group):
                return found, "original"
        if entry is not None and (group := self._holder(entry)) is not None:
            return group, "account"
        unit = name.removesuffix(b".dsh-also")
        if _UNIT.search(unit) and unit in self._units:
            return self._units[unit], "unit"
        for rule in (self._mentioned, self._named):
            found = rule(path)
            if found is not None:
                return found, rule.__name__.strip("_")
        # What lies in a directory that one group made is that group's.
        if above:
            found = self.evidence(above).group
            if found not in (None, BASE):
                return found, "directory"
        return None, "none"

    def _territory(self, path: bytes, group: Group | None) -> Group | None:
        above = entries.parent(path)
        while above:
            owners = self.owners(above)
            if owners:
                owner = _single(owners) if BASE not in owners else BASE
                return None if owner in (BASE, group) else owner
            maker = self.evidence(above).group
            if maker == BASE:
                return None
            if maker not in (None, group):
                return maker
            above = entries.parent(above)
        return None

    @functools.cached_property
    def _accounts(self) -> tuple[dict[int, str], dict[int, str]]:
        """Names of the system's users and groups by number, without root."""
        users, groups = ({number: name for number, name in table if 0 < number < 1000}
                         for table in self._numbers)
        return users, groups

    @functools.cached_property
    def _numbers(self) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
        """(number, name) of all users and of all groups."""
        found = []
        for path in (b"etc/passwd", b"etc/group"):
            fields = [line.split(b":") for line in self.shared.get(path, b"").splitlines()]
            found.append([(int(f[2]), f[0].decode("utf-8", "replace")) for f in fields
                          if len(f) > 2 and f[2].isdigit()])
        return found[0], found[1]

    @functools.cached_property
    def _fixed(self) -> frozenset[str]:
        """Accounts that every system of the kind has, whoever mentions them:
        root; with dpkg all numbers that Debian gives out for all systems
        alike (policy, 9.2.2)."""
        highest = 0
        if self.db is not None and self.db.format == "dpkg":
            highest = 99
        _, groups = self._numbers
        found = {name for table in self._numbers for number, name in table
                 if number <= highest or number in _NOBODY}
        if highest:
            found |= {name for number, name in groups if number == _USERS}
        return frozenset(found)

    @functools.cached_property
    def _units(self) -> Mapping[bytes, Group]:
        found: dict[bytes, Group] = {}
        for path in self.tree.by_path:
            if b"/systemd/system/" in path and not path.startswith(b"etc/"):
                owners = self.owners(path)
                if owners:
                    found.setdefault(entries.name(path), _single(owners))
        return found

    @functools.cached_property
    def _scripts(self) -> list[tuple[Group, bytes]]:
        """Maintainer scripts, optional software's first."""
        if self.db is None:
            return []
        found = [(group, package.scripts) for key, package in sorted(self.db.packages.items())
                 if package.scripts and (group := self.package(key)) is not None]
        return sorted(found, key=lambda pair: pair[0] == BASE)

    def _holder(self, entry: FileEntry) -> Group | None:
        """The optional group whose account owns the file: a service's data
        belongs to the service."""
        for number, accounts in ((entry.uid, self._accounts[0]), (entry.gid, self._accounts[1])):
            name = accounts.get(number)
            group = self.account(name) if name else None
            if group and group != BASE:
                return group
        return None

    def _mentioned(self, path: bytes) -> Group | None:
        pattern = re.compile(b"/" + re.escape(path) + rb"(?![\w.-])")
        literal = b"/" + path
        for group, scripts in self._scripts:
            if literal in scripts and pattern.search(scripts):
                return group
        return None

    def account(self, name: str) -> Group | None:
        """The group that creates an account: by number, by sysusers.d, by
        the packages' scripts."""
        if name not in self._created:
            self._created[name] = self._creator(name)
        return self._created[name]

    def _creator(self, name: str) -> Group | None:
        if name in self._fixed:
            return BASE
        if name in self.declared:
            owners = self.owners(self.declared[name])
            if owners:
                return BASE if BASE in owners else _single(owners)
        pattern = re.compile(rb"(adduser|addgroup|useradd|groupadd|sysusers)[^\n]*"
                             rb"(?<![\w-])" + re.escape(name.encode()) + rb"(?![\w-])")
        # The system's first: optional software adds its users to the
        # system's groups with the same commands.
        for group, scripts in reversed(self._scripts):
            if pattern.search(scripts):
                return group
        word = re.compile(rb"(?<![\w-])" + re.escape(name.encode()) + rb"(?![\w-])")
        for group, scripts in self._scripts:
            if group != BASE and (b"adduser" in scripts or b"useradd" in scripts
                                  or b"addgroup" in scripts) and word.search(scripts):
                return group
        return None

    @functools.cached_property
    def _names(self) -> Mapping[bytes, Group]:
        """Names of optional packages that are long enough to mean something."""
        if self.db is None or self.groups is None:
            return {}
        found: dict[bytes, Group] = {}
        for key in sorted(self.groups.packages):
            name = self.db.packages[key].name.encode()
            if len(name) > 2:
                found.setdefault(name, self.groups.packages[key])
        return found

    def _named(self, path: bytes) -> Group | None:
        for piece in reversed(path.split(b"/")):
            for name in (piece, piece.rpartition(b".")[0], piece.partition(b".")[0],
                         piece.rpartition(b"-")[0]):
                if name in self._names:
                    return self._names[name]
        return None


def _single(owners: set[Group]) -> Group:
    """One group of several: the one most software needs."""
    return min(owners, key=lambda group: (-len(group), sorted(group)))
