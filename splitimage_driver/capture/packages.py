"""The *packages* splitter: one finished gold disk and its package database.

Each named software gets its packages, with what they need; a file that no
package lists goes to the part that made it, on the evidence of
:mod:`attribution`; what nothing attributes goes to the rest part, never into
the base, which goes to everyone.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence

from splitimage_driver import exceptions
from splitimage_driver.capture.attribution import BASE, Attribution, Group
from splitimage_driver.capture.draft import ALWAYS, Draft
from splitimage_driver.capture.gold import GoldState, Spool
from splitimage_driver.capture.identity import REMOVE, Identity
from splitimage_driver.capture.packagedb import base as packagedb
from splitimage_driver.capture.splitter import Split, Splitter
from splitimage_driver.capture.steps import row_group
from splitimage_driver.merge import registry, rows
from splitimage_driver.merge.base import Merger
from splitimage_driver.model import entry as entries
from splitimage_driver.model.entry import SYMLINK, FileEntry
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.planning.target import derived

#: Files that every installed system has and no package lists: the machine's
#: own settings. Shell patterns over the whole path.
OS_FILES = (
    "", "media", "mnt", "srv", "opt", "home", "root", "root/.bashrc", "root/.profile", "etc/opt",
    "boot*", "efi*", "lib/modules/*", "usr/lib/modules/*", "dev/*", "lost+found",
    "bin", "sbin", "lib", "lib32", "lib64", "libx32", "initrd.img*", "vmlinuz*",
    "etc/fstab", "etc/crypttab", "etc/hostname", "etc/hosts", "etc/hosts.*", "etc/networks",
    "etc/resolv.conf", "etc/nsswitch.conf", "etc/localtime", "etc/timezone", "etc/adjtime",
    "etc/locale.*", "etc/default/locale", "etc/default/keyboard", "etc/default/console-setup",
    "etc/default/grub*", "etc/environment", "etc/papersize", "etc/mtab", "etc/motd", "etc/issue*",
    "etc/network/*", "etc/systemd/*", "etc/netplan/*", "etc/apt/*", "etc/dpkg/*",
    "etc/modules*", "etc/modprobe.d/*", "etc/initramfs-tools/*", "etc/kernel*", "etc/rc?.d/*",
    "etc/ssl/certs/*", "etc/ca-certificates.conf*", "etc/pam.d/*", "etc/profile", "etc/profile.d",
    "etc/ld.so.conf*", "etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "etc/subuid",
    "etc/subgid", "etc/shells", "etc/alternatives/*", "etc/udev/*", "etc/sysctl.*",
    "etc/cloud*", "etc/selinux/*", "etc/inittab", "etc/*release", "etc/extlinux*",
    "usr/lib/locale/*", "usr/share/mime/*", "usr/share/info/dir", "usr/local",
    "usr/lib/udev/hwdb.bin", "etc/udev/hwdb.bin", "usr/share/glib-2.0/schemas/gschemas.compiled",
    "var/lib/private", "var/log/private", "var/lib/dpkg/*", "var/lib/apt/*",
    "var/lib/systemd/*", "var/lib/pam/*",
    "var/lib/initramfs-tools/*", "var/lib/shells.state", "var/lib/misc/*", "var/lib/python/*",
    "var/lib/ca-certificates*", "var/lib/xml-core/*", "var/lib/polkit-1*", "var/lib/dbus*",
    "var/cache/*", "var/lock", "var/run", "var/lib/rpm/*", "usr/lib/sysimage/*",
    "var/spool", "var/mail", "var/local", "var/opt", "usr/share/applications/mimeinfo.cache",
)
#: Where a base package's script or name is no evidence: people's own places.
_PRIVATE = ("root/*", "home/*", "srv/*", "opt/*", "var/www/*", "usr/local/*/*", "usr/src/*")


def _any(patterns: Sequence[str]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(fnmatch.translate(p).encode() for p in patterns), re.DOTALL)


_OS, _OWN = _any(OS_FILES), _any(_PRIVATE)


class Packages(Splitter):
    """One finished machine.

    :raises Unsupported: no package database that can be read
    :raises NotFound: a package is not installed
    """

    def split(self, states: Sequence[GoldState], software: Mapping[str, Sequence[str]], *,
              rest: str, identity: Identity, spool: Spool) -> Split:
        return _split(states[0], software, rest=rest, identity=identity)


def _split(state: GoldState, software: Mapping[str, Sequence[str]], *, rest: str,
           identity: Identity) -> Split:
    db = state.packages
    if db is None:
        raise exceptions.Unsupported(
            what="splitting this disk by packages",
            reason="it has no dpkg or rpm database; capture it step by step")
    wanted = {name: tuple(packages) for name, packages in software.items()}
    for packages in wanted.values():
        db.closure(packages)  # refuses what is not installed
    base = packagedb.expected_base(db, wanted)
    groups = packagedb.groups(db, base, wanted)
    draft = Draft(wanted, rest)
    draft.add_groups(groups.packages, groups.requires)
    for name, packages in wanted.items():
        inside = sorted(key for p in packages for key in db.find(p) if key in base)
        if inside:
            draft.notes.append(f"{name}: {', '.join(inside)} is needed by the system itself "
                               "and stays in the base")
    if db.format == "rpm":
        draft.notes.append("the rpm database stays whole in the base: it names the packages "
                           "of all parts, also of those that are not asked for")
    owner = Attribution(state.manifest, db, base, groups, state.place, state.shared,
                        state.declared)
    return _Packages(state, draft, owner, identity).run()


class _Packages:
    def __init__(self, state: GoldState, draft: Draft, owner: Attribution,
                 identity: Identity) -> None:
        self.state, self.draft, self.owner, self.identity = state, draft, owner, identity
        self.kept: dict[bytes, FileEntry] = {}
        self.generated: dict[bytes, bytes] = {}

    def run(self) -> Split:
        directories: list[FileEntry] = []
        shared: list[FileEntry] = []
        for e in self.state.manifest:
            if not e.path or self.identity.excludes(e):
                self.kept[e.path] = e
            elif e.path in self.state.shared:
                shared.append(e)
            elif e.is_dir and not self.owner.owners(e.path):
                directories.append(e)
            else:
                self._place(e)
        self._place_directories(directories)
        for e in shared:
            self._place_rows(e)
        self._keep_parents()
        return Split(self.draft, Manifest(self.kept.values()), self.generated)

    def _place(self, e: FileEntry) -> None:
        owners = self.owner.owners(e.path)
        if BASE in owners:
            self.kept[e.path] = e
            return
        evidence = self.owner.evidence(e.path, e)
        if owners and e.is_dir:
            for each in owners:
                self.draft.claim(self.draft.name(each), ALWAYS, e.path, e)
            return
        group = evidence.group
        if group == BASE and not owners and not e.is_dir and _OWN.match(e.path):
            group = None
        if group is None and not owners and _OS.match(e.path):
            group = BASE
        if group == BASE:
            self.kept[e.path] = e
            return
        part = self.draft.name(group)
        when = ALWAYS
        if evidence.territory and part != self.draft.rest:
            there = self.draft.name(evidence.territory)
            if there not in self.draft.closure(part):
                when = frozenset((there,))
        self.draft.claim(part, when, e.path, e)

    def _place_directories(self, directories: Sequence[FileEntry]) -> None:
        """Directories of no package: the base's where the base has something
        in them; otherwise they come with what lies in them, as parents."""
        used = entries.directories(self.kept)
        held = entries.directories(
            e.path for part in (*self.draft.software, *self.draft.packages, self.draft.rest)
            for _, e in self.draft.entries(part))
        for e in directories:
            if e.path in used or _OS.match(e.path):
                self.kept[e.path] = e
                for above in entries.parents(e.path):
                    if above in self.state.manifest:
                        self.kept.setdefault(above, self.state.manifest.by_path[above])
            elif e.path not in held:
                self._place(e)

    def _keep_parents(self) -> None:
        """A directory that only packages of parts list, and that the base has
        something in all the same: no log of theirs, which goes."""
        stays = [e.path for e in self.kept.values() if e.is_dir
                 or (rule := self.identity.rule(e.path)) is None or rule.action != REMOVE]
        for above in entries.directories(stays):
            if above in self.state.manifest:
                self.kept.setdefault(above, self.state.manifest.by_path[above])

    # -- shared files ---------------------------------------------------------------

    def _place_rows(self, e: FileEntry) -> None:
        merger = registry.merger_for(e.path)
        assert merger is not None  # noqa: S101 (only such files come here)
        content = self.state.shared[e.path]
        parsed = merger.parse(content)
        hints = {key: merger.hint(key, row) for key, row in parsed}
        groups = {key: self._row(hint) for key, hint in hints.items()}
        named = {g for g in groups.values() if g is not None}
        if BASE in named or not named:
            company: set[Group] = {BASE}
        else:
            company = {g for g in named if g != BASE}
        if company == {BASE} and not any(h[0] for h in hints.values()):
            evidence = self.owner.evidence(e.path, e).group
            company = {BASE if evidence is None else evidence}
        stay, go = [], {}
        for key, row in parsed:
            owners = {groups[key]} if groups[key] is not None else company
            if BASE in owners:
                stay.append((key, row))
            else:
                go[key] = owners
        if not go:
            self.kept[e.path] = e
            return
        before = self._keep_rows(merger, e, stay)
        for change in rows.diff(merger, e.path, before, content):
            for each in go.get(change.key, {frozenset()}):
                part = self.draft.name(each)
                self.draft.claim_row(part, ALWAYS, change)
                if before is None:
                    self.draft.claim(part, ALWAYS, e.path, e)

    def _keep_rows(self, merger: Merger, e: FileEntry,
                   stay: list[tuple[bytes, bytes]]) -> bytes | None:
        """The base's version of a shared file, and the links that follow
        from it."""
        if not stay:
            return None
        before = merger.build(stay)
        self.kept[e.path] = e
        self.generated[e.path] = before
        _, wanted, gone = derived(merger, e.path, before, self.state.manifest.by_path,
                                  self.state.place)
        for link, target in wanted.items():
            there = self.state.manifest.get(link)
            self.kept[link] = FileEntry(path=link, type=SYMLINK, mode=0o777, target=target,
                                        mtime=there.mtime if there else e.mtime)
        for link in gone:
            self.kept.pop(link, None)
        return before

    def _row(self, hint: tuple[str, bytes]) -> Group | None:
        kind, name = hint
        group = row_group(self.owner, hint)
        if kind == "account" and group is None:
            return self._account(name)
        if kind == "path" and group is None:
            path = self.owner.place(name)
            return BASE if path in self.kept or path not in self.state.manifest else None
        return group

    def _account(self, name: bytes) -> Group:
        """An account that no script makes: the system's, or a person's."""
        for path in (b"etc/passwd", b"etc/group"):
            for line in self.state.shared.get(path, b"").splitlines():
                fields = line.split(b":")
                if fields[0] == name and len(fields) > 2 and fields[2].isdigit():
                    return BASE if int(fields[2]) < 1000 or int(fields[2]) >= 60000 else frozenset()
        return BASE
