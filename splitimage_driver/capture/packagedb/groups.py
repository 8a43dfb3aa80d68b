"""Which packages are the operating system's, and which software needs which
of the others."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from splitimage_driver.capture.packagedb.database import Package, PackageDB

#: Names of software to the packages that were asked for.
Software = Mapping[str, tuple[str, ...]]

#: What makes a machine boot, where priority, ``Essential`` and ownership of
#: /boot do not tell: kernels, their initial file systems, boot loaders, inits.
_BOOT = re.compile(
    r"(linux-(image|base|firmware)|kernel(-core|-modules)?|firmware-linux|initramfs-tools|dracut"
    r"|grub2?|shim|extlinux|syslinux|systemd-boot|efibootmgr|u-boot|zipl|s390-tools"
    r"|systemd-sysv|systemd|sysvinit-core|runit-init|openrc)(-.*)?\Z")
_PRIORITIES = frozenset(("required", "important"))
_BOOT_PLACES = (b"boot/", b"lib/modules/", b"usr/lib/modules/")


class Groups(msgspec.Struct, frozen=True):
    """Who needs the packages that are not in the base.

    :ivar packages: package key to the names of the software that needs it,
        without those that get it through what they require; empty: nobody
        does (the rest). One name: the package is in that software's own
        part; several: in the dependency part of that set
    :ivar requires: software to the other software that comes with it
    """

    packages: dict[str, frozenset[str]]
    requires: dict[str, tuple[str, ...]]

    def by_needers(self) -> dict[frozenset[str], tuple[str, ...]]:
        """The sets of software and the packages of each, both sorted."""
        found: dict[frozenset[str], list[str]] = defaultdict(list)
        for key in sorted(self.packages):
            found[self.packages[key]].append(key)
        return {names: tuple(found[names])
                for names in sorted(found, key=lambda names: (len(names), sorted(names)))}

    @property
    def rest(self) -> tuple[str, ...]:
        return tuple(sorted(key for key, names in self.packages.items() if not names))


def boots(package: Package) -> bool:
    """Whether the machine needs the package to start."""
    return _BOOT.match(package.name) is not None or any(
        path.startswith(_BOOT_PLACES) for path in package.files)


def is_system(package: Package) -> bool:
    """Whether the package belongs to the OS whoever asked for it."""
    return package.essential or package.priority in _PRIORITIES or boots(package)


def expected_base(db: PackageDB, software: Software) -> frozenset[str]:
    """The packages of the operating system itself.

    1. The closure of what is essential, required, important or needed to
       start: this may reach a named package.
    2. The closures of what was installed by hand and is not named as
       software. One of them that needs a named package (which 1 did not
       reach) is an addition to that software, not to the OS, and is left.
    3. What those recommend and no software depends on, with its closure, in
       rounds: the machine has it because of the OS.

    Named packages are never a starting point.

    :raises PackageNotFound: a named package is not installed
    """
    named = {key for names in software.values() for name in names for key in db.find(name)}
    base = db.closure(key for key, package in db.packages.items()
                      if is_system(package) and key not in named)
    additions = db.dependents(named - base)
    base = db.closure([*base, *(key for key, package in db.packages.items()
                                if package.manual and key not in additions)])
    explained = frozenset().union(*(db.closure(names) for names in software.values()))
    fresh = base
    while fresh:
        wanted = {one for key in fresh for one in db.recommendations[key]}
        fresh = db.closure(wanted - explained - additions) - base
        base |= fresh
    return base


def groups(db: PackageDB, base: Iterable[str], software: Software) -> Groups:
    """Assign every package that is not in ``base`` to the set of software
    that needs it.

    Need is, first, the closure of the software's named packages. Packages
    that no closure reaches are then given to the software whose packages
    recommend them, with their own closures, in rounds; a recommendation that
    would bring a named package of another software (which is not required
    anyway) is not followed, so that no software arrives by recommendation.

    A requires B when B's named packages are all in A's closure; A is then
    dropped from the needers of what B needs. Where A and B need each other,
    the packages go to the name that sorts first, and only the other one
    requires it: asking for either brings both, and ``requires`` has no
    circle.

    :param base: keys, closed under dependencies
    :raises PackageNotFound: a named package is not installed
    """
    base = frozenset(base)
    order = sorted(software)
    named = {name: frozenset(key for one in software[name] for key in db.find(one)) - base
             for name in order}
    needs = {name: db.closure(software[name]) - base for name in order}
    requires = {name: _required(name, named, needs) for name in order}
    _follow_recommendations(db, base, named, needs)
    needers = {}
    for key in db.packages:
        if key not in base:
            direct = {name for name in order if key in needs[name]}
            needers[key] = frozenset(name for name in direct if not direct & requires[name])
    return Groups(packages=needers,
                  requires={name: tuple(sorted(requires[name])) for name in order})


def _required(name: str, named: Mapping[str, frozenset[str]],
              needs: Mapping[str, frozenset[str]]) -> frozenset[str]:
    def brings(one: str, other: str) -> bool:
        return bool(named[other]) and named[other] <= needs[one]
    return frozenset(other for other in named
                     if other != name and brings(name, other)
                     and (other < name or not brings(other, name)))


def _follow_recommendations(db: PackageDB, base: frozenset[str],
                            named: Mapping[str, frozenset[str]],
                            needs: dict[str, frozenset[str]]) -> None:
    """Extend ``needs`` in place. Every round looks at the packages that were
    left at its beginning, so the order of the software does not matter."""
    every = frozenset().union(*named.values())
    left = frozenset(db.packages) - base - frozenset().union(*needs.values())
    looked_at: dict[str, frozenset[str]] = {name: frozenset() for name in needs}
    while True:
        added: dict[str, frozenset[str]] = {}
        for name, keys in needs.items():
            foreign = db.dependents(every - keys)
            wanted = {one for key in keys - looked_at[name] for one in db.recommendations[key]}
            looked_at[name] = keys
            found = db.closure((wanted & left) - foreign) - base - keys
            if found:
                added[name] = found
        if not added:
            return
        for name, found in added.items():
            needs[name] |= found
            left -= found
