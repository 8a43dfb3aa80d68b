"""What operating system a tree holds, and which split of it is worth
proposing."""

from __future__ import annotations

import re
import shlex
import struct
from collections.abc import Iterable, Mapping

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.capture.packagedb import base as packagedb
from splitimage_driver.capture.packagedb.base import Package, PackageDB, Read
from splitimage_driver.capture.packagedb.files import Files
from splitimage_driver.capture.packagedb.groups import is_system
from splitimage_driver.model.composite import System
from splitimage_driver.model.entry import SYMLINK
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import NAME

LOG = logging.getLogger(__name__)

#: Software without a service is proposed from this size on.
LARGE = 32 << 20

#: Most packages to look at; the largest ones are.
MAX_CONSIDERED = 500

#: Infrastructure of the OS that is installed by hand or by installers,
#: beside what priority, ``Essential`` and /boot tell: it stays in the base.
_INFRASTRUCTURE = re.compile(
    r"(openssh-(server|client)|ssh|ifupdown(2|-.*)?|isc-dhcp-client|dhcpcd(5|-base)?"
    r"|NetworkManager|network-manager|netplan\.io|cloud-(init|guest-utils|utils-growpart)"
    r"|qemu-guest-agent|open-vm-tools|sudo|cron|cronie|anacron|rsyslog|chrony|ntp|ntpsec"
    r"|systemd-.*|dbus(-.*)?|polkitd?|unattended-upgrades|apparmor|selinux-policy.*"
    r"|firewalld|auditd?|locales(-all)?|glibc-langpack-.*|console-setup|keyboard-configuration"
    r"|ca-certificates|tzdata|dnf(5|-.*)?|yum|zypper)\Z")
_SYSTEM_SECTIONS = frozenset(("kernel", "libs", "oldlibs", "localization", "tasks", "debug"))
_LIBRARY_SECTIONS = frozenset(("libs", "oldlibs", "libdevel", "perl", "python"))

_UNIT_PLACES = (b"usr/lib/systemd/system", b"lib/systemd/system", b"etc/systemd/system")
_INIT_D = b"etc/init.d"
_OS_RELEASE = (b"etc/os-release", b"usr/lib/os-release")
_INIT = (b"sbin/init", b"usr/lib/systemd/systemd", b"bin/sh")

#: dpkg's words to the kernel's, which Glance's hw_architecture has too.
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l", "armel": "armv7l",
                  "i386": "i686", "ppc64el": "ppc64le", "loong64": "loongarch64"}
#: ELF e_machine, word size in bits, byte order.
_MACHINES = {(62, 64, "<"): "x86_64", (183, 64, "<"): "aarch64", (3, 32, "<"): "i686",
             (40, 32, "<"): "armv7l", (21, 64, "<"): "ppc64le", (21, 64, ">"): "ppc64",
             (22, 64, ">"): "s390x", (243, 64, "<"): "riscv64", (258, 64, "<"): "loongarch64"}


class Service(msgspec.Struct, frozen=True):
    """:ivar name: of a systemd unit, or of a script in /etc/init.d
    :ivar package: key of the package that owns it
    :ivar enabled: it starts with the machine
    """

    name: str
    package: str
    enabled: bool


class Software(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of software worth a part of its own.

    :ivar name: of the part
    :ivar packages: to name for it
    :ivar services: of its own packages: services, and enabled sockets and
        timers
    :ivar exclusive: keys of the packages that nothing else needs
    :ivar exclusive_bytes: their installed size
    :ivar shared_bytes: of the dependency packages it shares with others
    :ivar requires: other proposed software that comes with it
    """

    name: str
    packages: tuple[str, ...]
    services: tuple[Service, ...]
    exclusive: tuple[str, ...]
    exclusive_bytes: int
    shared_bytes: int
    requires: tuple[str, ...]


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar base_packages: number of packages that would stay in the base
    :ivar base_bytes: their installed size
    :ivar rest: packages that no proposed software needs
    :ivar arguments: words for ``splitimage capture``
    """

    system: System
    software: tuple[Software, ...]
    base_packages: int
    base_bytes: int
    rest: tuple[str, ...]
    arguments: tuple[str, ...]
    notes: tuple[str, ...] = ()


def propose(db: PackageDB | None, manifest: Manifest, read: Read) -> Proposal:
    """The split that this machine suggests.

    Considered is what somebody asked for and the OS does not need anyway
    (see :data:`_INFRASTRUCTURE`), where it or what it needs beyond the OS
    has a service, or is at least :data:`LARGE`.

    Two of them become one piece of software where they were built from the
    same source package (mariadb-server and mariadb-client), or where more
    than half of the packages that one needs beyond the OS, libraries not
    counted, are needed by the other too (php-xdebug and php). What one needs
    only because it needs another considered package as a whole does not
    count: phpmyadmin stays apart from php and requires it.

    :raises NoOperatingSystem: the tree has none
    """
    files = Files(manifest, read)
    described = _system(files, db)
    if db is None:
        return Proposal(system=described, software=(), base_packages=0, base_bytes=0, rest=(),
                        arguments=(), notes=(
                            "no package database is known here: capture it step by step "
                            "(--step), from one disk or root file system for each step",))
    services = _services(files, db)
    named: dict[str, tuple[str, ...]] = {}
    for group in _alike(db, _considered(db, {one.package for one in services})):
        named[_short(group, named)] = group
    base = packagedb.expected_base(db, named)
    groups = packagedb.groups(db, base, named)
    by_needers = groups.by_needers()
    software = []
    for name in sorted(named):
        own = by_needers.get(frozenset((name,)), ())
        software.append(Software(
            name=name, packages=named[name], exclusive=own, exclusive_bytes=db.size(own),
            services=tuple(one for one in services if one.package in own),
            shared_bytes=sum(db.size(keys) for names, keys in by_needers.items()
                             if name in names and len(names) > 1),
            requires=groups.requires[name]))
    notes = tuple(f"package {key} is not wholly installed: {state}"
                  for key, state in sorted(db.unfinished.items()))
    LOG.info("%s: %d pieces of software, %d packages in the base", described.name,
             len(software), len(base))
    return Proposal(
        system=described, software=tuple(software), base_packages=len(base),
        base_bytes=db.size(base), rest=groups.rest, notes=notes,
        arguments=tuple(word for one in software
                        for word in ("--software", f"{one.name}={','.join(one.packages)}")))


# -- the operating system -------------------------------------------------------

def system(manifest: Manifest, read: Read) -> System:
    """What etc/os-release says, and the architecture of its programs.

    :raises NoOperatingSystem: there is no os-release, so no Linux system of
        this century
    """
    return _system(Files(manifest, read), None)


def _system(files: Files, db: PackageDB | None) -> System:
    content = None
    for path in _OS_RELEASE:
        if content is None:
            content = files.content(path, limit=1 << 16)
    if content is None:
        raise exceptions.NoOperatingSystem(path="the file tree (it has no etc/os-release)")
    fields = _os_release(content)
    packaging = db.format if db is not None else packagedb.kind(files)
    architecture = db.architecture if db is not None else ""
    return System(
        id=fields.get("ID", "linux"),
        version=fields.get("VERSION_ID", "") or fields.get("BUILD_ID", ""),
        name=fields.get("PRETTY_NAME") or fields.get("NAME") or "Linux",
        architecture=_ARCHITECTURES.get(architecture, architecture) or _machine(files),
        packaging=packaging)


def _os_release(content: bytes) -> dict[str, str]:
    """os-release(5): assignments as a shell would read them; other lines are
    passed over, as everybody does. Values are cut at 200 characters."""
    found = {}
    for line in content.decode("utf-8", "replace").splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            continue
        try:
            text = "".join(shlex.split(value))
        except ValueError:
            continue
        found[name] = "".join(c for c in text if c.isprintable())[:200]
    return found


def _machine(files: Files) -> str:
    """The architecture in the ELF header of init, or of the shell; "" where
    neither is a program."""
    for path in _INIT:
        entry = files.find(path)
        if entry is None or not 20 <= entry.size <= 64 << 20:
            continue
        start = files.contents([entry])[entry.path][:20]
        if start[:4] == b"\x7fELF" and start[4] in (1, 2) and start[5] in (1, 2):
            order = "<" if start[5] == 1 else ">"
            machine = struct.unpack_from(f"{order}H", start, 18)[0]
            return _MACHINES.get((machine, start[4] * 32, order), "")
    return ""


# -- services -------------------------------------------------------------------

def _services(files: Files, db: PackageDB) -> tuple[Service, ...]:
    """Of all packages, sorted by name; templates and aliases left out."""
    places = {files.place.directory(place) for place in _UNIT_PLACES}
    started = {files.place.target(entry) for place in places for entry in files.below(place)
               if entry.type == SYMLINK}
    found: dict[str, Service] = {}
    scripts: dict[str, Service] = {}
    for key, package in db.packages.items():
        for path in package.files:
            directory, _, last = path.rpartition(b"/")
            entry = files.manifest.get(path)
            if entry is None or not entry.is_file:
                continue
            name = last.decode("utf-8", "backslashreplace")
            if directory in places and b"@." not in last:
                enabled = path in started
                if last.endswith(b".service") or (
                        enabled and last.endswith((b".socket", b".timer"))):
                    found[name] = Service(name, key, enabled)
            elif directory == _INIT_D and entry.mode & 0o111:
                scripts[name] = Service(name, key, _started_by_rc(files, last))
    found |= {name: one for name, one in scripts.items() if f"{name}.service" not in found}
    return tuple(found[name] for name in sorted(found))


def _started_by_rc(files: Files, script: bytes) -> bool:
    wanted = re.compile(rb"etc/rc[2-5]\.d/S[0-9][0-9]" + re.escape(script) + rb"\Z")
    return any(wanted.match(entry.path) for level in b"2345"
               for entry in files.below(b"etc/rc%c.d" % level))


# -- which packages ---------------------------------------------------------------

def _considered(db: PackageDB, serving: set[str]) -> dict[str, frozenset[str]]:
    """Packages worth proposing, with what each needs beyond the OS.

    :param serving: keys of packages with a service
    """
    os = db.closure(key for key, package in db.packages.items()
                    if is_system(package) or (package.manual and _stays(package)))
    found = {}
    for key, package in sorted(db.packages.items()):
        if package.manual and key not in os:
            needed = db.closure([key]) - os
            if needed & serving or db.size(needed) >= LARGE:
                found[key] = needed
    if len(found) > MAX_CONSIDERED:
        largest = sorted(found, key=lambda key: (-db.size(found[key]), key))[:MAX_CONSIDERED]
        LOG.warning("%d packages are worth considering: the %d largest are", len(found),
                    MAX_CONSIDERED)
        found = {key: found[key] for key in sorted(largest)}
    return found


def _stays(package: Package) -> bool:
    return (package.priority == "standard" or package.section in _SYSTEM_SECTIONS
            or _INFRASTRUCTURE.match(package.name) is not None)


def _alike(db: PackageDB, considered: Mapping[str, frozenset[str]]) -> list[tuple[str, ...]]:
    """The considered packages in groups that are one piece of software."""
    own = {key: frozenset(one for one in needed
                          if one == key or not _library(db.packages[one]))
           - frozenset().union(*(considered[other] for other in needed
                                 if other in considered and key not in considered[other]))
           for key, needed in considered.items()}
    group = {key: {key} for key in considered}
    order = sorted(considered)
    for index, one in enumerate(order):
        for two in order[index + 1:]:
            shared = len(own[one] & own[two])
            if (db.packages[one].source == db.packages[two].source
                    or 2 * shared > min(len(own[one]), len(own[two]))):
                group[one] |= group[two]
                for key in group[one]:
                    group[key] = group[one]
    return sorted({tuple(sorted(members)) for members in group.values()})


def _library(package: Package) -> bool:
    if package.section and package.priority:
        return package.section in _LIBRARY_SECTIONS
    return package.name.startswith("lib") or package.name.endswith("-libs")


def _short(packages: tuple[str, ...], taken: Iterable[str]) -> str:
    """A name for the part: the shortest package name without architecture,
    version and words that say nothing; the whole name where that is taken."""
    shortest = min(packages, key=lambda one: (len(one), one)).partition(":")[0].lower()
    plain = re.sub(r"(-(server|daemon|client|common|core|bin|ce|all))+\Z", "", shortest)
    plain = re.sub(r"-?[0-9][0-9.]*\Z", "", plain)
    for name in (plain, shortest, *(f"{shortest[:50]}-{number}" for number in range(2, 1000))):
        name = re.sub(r"[^a-z0-9._-]+", "-", name).strip("-._")[:63]
        if NAME.match(name) and name not in taken:
            return name
    raise exceptions.InvalidInput(what=f"package {shortest}", reason="no name left for its part")
