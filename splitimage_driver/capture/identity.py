"""Identity rules: what belongs to one machine and to no image.

Each rule says what a path is and what is done about it in the base. No part
ever holds such a path; a completed image has what the base has, which is
nothing: the first boot makes it anew (see ``splitimage_driver/guest``).
"""

from __future__ import annotations

import fnmatch
import functools
import glob
import re
from collections.abc import Container, Iterable, Sequence

import msgspec

from splitimage_driver.model.composite import Mount
from splitimage_driver.model.entry import FileEntry

REMOVE, EMPTY, KEEP = "remove", "empty", "keep"
#: The kind of what belongs to the disk, not to the tree on it: boot loader,
#: file systems. A root tar of a later step need not have it.
DISK = "disk"


class Rule(msgspec.Struct, frozen=True):
    """:ivar pattern: shell pattern over the whole path; ``*`` crosses slashes
    :ivar kind: ``identity``, ``secret``, ``log``, ``cache``, ``backup``,
        ``volatile``, ``regenerated`` or ``disk``
    :ivar action: what is done with a file of it in the base
    :ivar maker: what makes it again, and when
    """

    pattern: str
    kind: str
    action: str = REMOVE
    maker: str = ""


#: The first rule that matches decides. Directories are part of the image
#: whatever it says, but for those of the disk's own.
RULES = (
    Rule("etc/machine-id", "identity", EMPTY, "systemd, at first boot"),
    Rule("var/lib/dbus/machine-id", "identity", REMOVE, "dbus, a link to /etc/machine-id"),
    Rule("etc/ssh/ssh_host_*_key*", "identity", REMOVE, "ssh-keygen -A, at first boot"),
    Rule("var/lib/systemd/random-seed", "identity"),
    Rule("var/lib/systemd/credential.secret", "identity"),
    Rule("var/lib/urandom/random-seed", "identity"),
    Rule("var/lib/mysql/auto.cnf", "identity", REMOVE, "mysqld, at its first start"),
    Rule("etc/iscsi/initiatorname.iscsi", "identity"),
    Rule("etc/nvme/host*", "identity"),
    Rule("etc/ssl/certs/ssl-cert-snakeoil.pem", "identity", REMOVE,
         "make-ssl-cert, at first boot"),
    Rule("etc/ssl/private/ssl-cert-snakeoil.key", "identity", REMOVE,
         "make-ssl-cert, at first boot"),
    Rule("etc/udev/rules.d/70-persistent-*", "identity"),
    Rule("var/lib/dhcp/*", "identity"),
    Rule("var/lib/NetworkManager/*", "identity"),
    Rule("var/lib/systemd/network/*", "identity"),
    Rule("var/lib/cloud/*", "identity"),
    Rule("var/lib/splitimage/*", "identity"),
    Rule("root/.bash_history", "secret"),
    Rule("home/*/.bash_history", "secret"),
    Rule("etc/ld.so.cache", "regenerated", REMOVE, "ldconfig, at first boot"),
    Rule("boot/initrd*", "regenerated", KEEP, "the base's own"),
    Rule("boot/initramfs*", "regenerated", KEEP, "the base's own"),
    Rule("etc/passwd-", "backup"),
    Rule("etc/group-", "backup"),
    Rule("etc/shadow-", "backup"),
    Rule("etc/gshadow-", "backup"),
    Rule("etc/subuid-", "backup"),
    Rule("etc/subgid-", "backup"),
    Rule("etc/.pwd.lock", "volatile", KEEP),
    Rule("var/lib/dpkg/*-old", "backup"),
    Rule("var/lib/dpkg/lock*", "volatile", KEEP),
    Rule("var/lib/dpkg/triggers/Lock", "volatile", KEEP),
    Rule("var/lib/ucf/hashfile.[0-9]*", "backup"),
    Rule("var/lib/ucf/registry.[0-9]*", "backup"),
    Rule("var/lib/apt/lists/*", "cache"),
    Rule("var/cache/debconf/*-old", "backup"),
    Rule("var/cache/debconf/*", "kept"),
    Rule("var/cache/*", "cache"),
    Rule("var/lib/systemd/catalog/database", "cache"),
    Rule("var/lib/rpm/__db*", "cache"),
    Rule("var/lib/rpm/.rpm.lock", "volatile", KEEP),
    Rule("var/log/*", "log"),
    Rule("tmp/*", "volatile"),
    Rule("var/tmp/*", "volatile"),
    Rule("run/*", "volatile"),
    Rule("dev/*", "volatile", KEEP),
    Rule("proc/*", "volatile", KEEP),
    Rule("sys/*", "volatile", KEEP),
    Rule("lost+found", DISK, KEEP),
    Rule("lost+found/*", DISK, KEEP),
    Rule("boot/extlinux", DISK, KEEP),
    Rule("boot/extlinux/*", DISK, KEEP),
    Rule("boot/syslinux/*", DISK, KEEP),
    Rule("boot/grub", DISK, KEEP),
    Rule("boot/grub/*", DISK, KEEP),
    Rule("boot/grub2/*", DISK, KEEP),
    Rule("boot/efi/*", DISK, KEEP),
    Rule("etc/fstab", DISK, KEEP),
    Rule("etc/crypttab", DISK, KEEP),
)
#: Kinds that are not rules about identity but exceptions from a wider one.
_KEPT = "kept"


class _Any:
    """Contains everything."""

    def __contains__(self, item: object) -> bool:
        return True


class Identity:
    """The rules, with an operator's own patterns added.

    :param mounts: of the disk: a mount point is never removed, and the file
        system's own directory in it is nobody's
    """

    def __init__(self, exclude: Sequence[str] = (), mounts: Iterable[Mount] = ()) -> None:
        points = [glob.escape(m.mountpoint.strip("/")) for m in mounts if m.mountpoint != "/"]
        self.rules = (*(Rule(pattern, "excluded") for pattern in exclude),
                      *(Rule(f"{point}{rest}", DISK, KEEP) for point in points
                        for rest in ("", "/lost+found", "/lost+found/*")), *RULES)

    @functools.cached_property
    def _matchers(self) -> tuple[tuple[Rule, re.Pattern[bytes]], ...]:
        return tuple((rule, re.compile(fnmatch.translate(rule.pattern).encode(), re.DOTALL))
                     for rule in self.rules)

    @functools.cached_property
    def _roots(self) -> Container[bytes]:
        """First path pieces that any rule can match: most paths are decided
        by this set alone."""
        return _Any() if any(set("*?[") & set(rule.pattern.partition("/")[0])
                             for rule in self.rules) else frozenset(
            rule.pattern.partition("/")[0].encode() for rule in self.rules)

    def rule(self, path: bytes) -> Rule | None:
        """The rule for a path; None: part of the image."""
        if path.partition(b"/")[0] not in self._roots:
            return None
        for rule, matcher in self._matchers:
            if matcher.match(path):
                return None if rule.kind == _KEPT else rule
        return None

    def excludes(self, entry: FileEntry) -> bool:
        """Whether no part and no comparison of trees looks at this entry."""
        rule = self.rule(entry.path)
        return rule is not None and (not entry.is_dir or rule.kind == DISK)

    def digest_options(self) -> tuple[str, ...]:
        """What of this goes into a recipe: the operator's own patterns."""
        return tuple(rule.pattern for rule in self.rules if rule.kind == "excluded")
