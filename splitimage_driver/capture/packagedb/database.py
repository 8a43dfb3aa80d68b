"""What a package database says, whatever its format.

A reader (:mod:`.dpkg`, :mod:`.rpm`) makes :class:`Package` objects; the
questions about dependencies are answered here, over installed packages only:
versions do not matter, because what is installed together was accepted
together by the package manager.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

import msgspec

from splitimage_driver import exceptions

#: Most packages, and most paths of all packages together, of one machine.
MAX_PACKAGES = 50_000
MAX_PATHS = 10_000_000

_RANKS = {"required": 0, "important": 1, "standard": 2}


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """An installed package.

    :ivar essential: the package manager refuses to remove it, or warns
    :ivar priority: dpkg's; "" where the format has none
    :ivar manual: somebody asked for it; False: it came as a dependency
    :ivar section: dpkg's section, rpm's group
    :ivar source: name of the source package it was built from
    :ivar installed_size: bytes
    :ivar installed: when it was installed last, seconds since the epoch
    :ivar depends: conjunction of alternatives, names only (a name that begins
        with ``/`` is a path that some package owns): what it needs to be
        installed and to run
    :ivar recommends: likewise, what it is normally installed with
    :ivar provides: names it stands for, besides its own
    :ivar files: real places in the tree, directories included, sorted
    :ivar conffiles: those of them that are configuration files
    :ivar scripts: its maintainer scripts, one after the other
    :ivar state: its own files in the database's directory
    """

    name: str
    architecture: str
    version: str
    essential: bool = False
    priority: str = ""
    manual: bool = True
    section: str = ""
    source: str = ""
    installed_size: int = 0
    installed: int = 0
    depends: tuple[tuple[str, ...], ...] = ()
    recommends: tuple[tuple[str, ...], ...] = ()
    provides: tuple[str, ...] = ()
    files: tuple[bytes, ...] = ()
    conffiles: tuple[bytes, ...] = ()
    scripts: bytes = b""
    state: tuple[bytes, ...] = ()


class PackageDB:
    """All installed packages of a tree.

    :ivar packages: by key: the name, or ``name:arch`` where several
        architectures of it are installed, or ``name-version:arch`` where
        several versions are (kernels of rpm systems)
    :ivar format: ``dpkg`` or ``rpm``
    :ivar architecture: the machine's own, in the format's word for it
    :ivar paths: the database's own files, which belong to no package alone
    :ivar unfinished: key to state, of packages that are not wholly installed
    """

    def __init__(self, packages: Iterable[Package], *, format: str, architecture: str = "",
                 paths: Iterable[bytes] = (), unfinished: Mapping[str, str] | None = None,
                 place: Callable[[bytes], bytes] | None = None) -> None:
        """:param place: the real place of a path, for dependencies on paths
        :raises InvalidInput: the same package twice
        """
        self.packages: dict[str, Package] = _keyed(packages)
        self.format = format
        self.architecture = architecture
        self.paths = tuple(sorted(paths))
        self.unfinished = dict(unfinished or {})
        self._place = place or (lambda path: path.strip(b"/"))

    # -- look-ups -------------------------------------------------------------

    @functools.cached_property
    def _named(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = defaultdict(list)
        for key, package in self.packages.items():
            found[package.name].append(key)
        return {name: tuple(sorted(keys)) for name, keys in found.items()}

    @functools.cached_property
    def _providers(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, set[str]] = defaultdict(set)
        for key, package in self.packages.items():
            for name in package.provides:
                found[name].add(key)
        return {name: tuple(sorted(keys)) for name, keys in found.items()}

    @functools.cached_property
    def _owners(self) -> dict[bytes, tuple[str, ...]]:
        found: dict[bytes, list[str]] = defaultdict(list)
        for key, package in self.packages.items():
            for path in package.files:
                found[path].append(key)
        return {path: tuple(sorted(set(keys))) for path, keys in found.items()}

    def owners(self, path: bytes) -> tuple[str, ...]:
        """Keys of the packages that have ``path`` (its real place) in their
        lists, sorted; most directories have many."""
        return self._owners.get(path, ())

    def find(self, name: str) -> tuple[str, ...]:
        """The keys that a user's ``name`` or ``name:arch`` means.

        :raises PackageNotFound: not installed
        """
        if name in self.packages:
            return (name,)
        keys = self._named.get(name)
        if keys is None:
            plain, _, architecture = name.partition(":")
            keys = tuple(key for key in self._named.get(plain, ())
                         if architecture and self.packages[key].architecture == architecture)
        if not keys:
            raise exceptions.PackageNotFound(
                kind="package", name=name, where=f"the machine's {self.format} database")
        return keys

    # -- dependencies ---------------------------------------------------------

    def satisfier(self, alternatives: tuple[str, ...], architecture: str = "") -> str | None:
        """The one installed package that counts as satisfying a dependency:
        the first alternative that is installed under its real name; else the
        best provider of the first alternative that is provided (or, a path,
        owned). None: nothing does.

        Best is: of ``architecture``; of the machine's architecture; what is
        there in any case (essential, required, important); what somebody
        asked for; the lowest key. So mawk, which is required, stands for awk
        though gawk came with some software."""
        for name in alternatives:
            if name in self._named:
                return self._preferred(self._named[name], architecture)
        for name in alternatives:
            keys = self._providers.get(name)
            if not keys and name.startswith("/"):
                keys = self.owners(self._place(name.encode("utf-8", "surrogateescape")))
            if keys:
                return self._preferred(keys, architecture)
        return None

    def _preferred(self, keys: tuple[str, ...], architecture: str) -> str:
        if len(keys) == 1:
            return keys[0]

        def distance(key: str) -> tuple[bool, bool, bool, int, bool, str]:
            package = self.packages[key]
            return (package.architecture != architecture,
                    package.architecture != self.architecture,
                    not package.essential, _RANKS.get(package.priority, len(_RANKS)),
                    not package.manual, key)
        return min(keys, key=distance)

    @functools.cached_property
    def requirements(self) -> dict[str, frozenset[str]]:
        """Key to keys: what each package depends on directly, as installed."""
        return {key: self._satisfiers(key, package.depends)
                for key, package in self.packages.items()}

    @functools.cached_property
    def recommendations(self) -> dict[str, frozenset[str]]:
        """Key to keys: which installed packages each one recommends."""
        return {key: self._satisfiers(key, package.recommends)
                for key, package in self.packages.items()}

    def _satisfiers(self, key: str, relation: tuple[tuple[str, ...], ...]) -> frozenset[str]:
        architecture = self.packages[key].architecture
        if architecture in ("all", "noarch"):
            architecture = self.architecture
        found = {self.satisfier(alternatives, architecture) for alternatives in relation}
        return frozenset(one for one in found if one is not None and one != key)

    @functools.cached_property
    def _requirers(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = defaultdict(list)
        for key, needed in self.requirements.items():
            for one in needed:
                found[one].append(key)
        return {key: tuple(sorted(keys)) for key, keys in found.items()}

    def requirers(self, name: str) -> tuple[str, ...]:
        """Keys of the packages that depend directly on ``name``, sorted.

        :raises PackageNotFound: not installed
        """
        found = {one for key in self.find(name) for one in self._requirers.get(key, ())}
        return tuple(sorted(found))

    def closure(self, names: Iterable[str], *, recommends: bool = False) -> frozenset[str]:
        """The keys of ``names`` and of all they need, through installed
        packages (see :meth:`satisfier`).

        :param recommends: follow recommendations too
        :raises PackageNotFound: one of the names is not installed
        """
        todo = [key for name in names for key in self.find(name)]
        done: set[str] = set()
        while todo:
            key = todo.pop()
            if key in done:
                continue
            done.add(key)
            todo.extend(self.requirements[key])
            if recommends:
                todo.extend(self.recommendations[key])
        return frozenset(done)

    def dependents(self, keys: Iterable[str]) -> frozenset[str]:
        """``keys`` and everything whose closure has one of them."""
        todo = list(keys)
        done: set[str] = set()
        while todo:
            key = todo.pop()
            if key not in done:
                done.add(key)
                todo.extend(self._requirers.get(key, ()))
        return frozenset(done)

    def size(self, keys: Iterable[str]) -> int:
        """Installed bytes of several packages."""
        return sum(self.packages[key].installed_size for key in keys)


def leaves(packages: Iterable[Package], format: str, architecture: str = "",
           place: Callable[[bytes], bytes] | None = None) -> tuple[Package, ...]:
    """``packages`` with ``manual`` set for those that no other one depends
    on or recommends: the best guess where the format does not record who
    asked. Of packages that only need each other, none is a leaf."""
    database = PackageDB(packages, format=format, architecture=architecture, place=place)
    wanted = {one for relation in (database.requirements, database.recommendations)
              for keys in relation.values() for one in keys}
    return tuple(msgspec.structs.replace(package, manual=key not in wanted)
                 for key, package in database.packages.items())


def _keyed(packages: Iterable[Package]) -> dict[str, Package]:
    named: dict[str, list[Package]] = defaultdict(list)
    paths = 0
    for count, package in enumerate(packages, 1):
        named[package.name].append(package)
        paths += len(package.files)
        if count > MAX_PACKAGES or paths > MAX_PATHS:
            raise exceptions.InvalidInput(
                what="package database",
                reason=f"more than {MAX_PACKAGES} packages or {MAX_PATHS} paths")
    found: dict[str, Package] = {}
    for name, group in sorted(named.items()):
        architectures = Counter(package.architecture for package in group)
        for package in group:
            if len(group) == 1:
                key = name
            elif architectures[package.architecture] == 1:
                key = f"{name}:{package.architecture}"
            else:
                key = f"{name}-{package.version}:{package.architecture}"
            if key in found:
                raise exceptions.InvalidInput(what="package database",
                                              reason=f"package {key} is there twice")
            found[key] = package
    return found
