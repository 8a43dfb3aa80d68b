"""Which paths belong to one machine: the classes are narrow."""

from __future__ import annotations

import pytest

from splitimage_driver.capture.identity import DISK, EMPTY, KEEP, REMOVE, RULES, Identity
from tests.unit.making import directory, file, symlink

RULED = {
    "etc/machine-id": ("identity", EMPTY), "var/lib/dbus/machine-id": ("identity", REMOVE),
    "etc/ssh/ssh_host_ed25519_key": ("identity", REMOVE),
    "etc/ssh/ssh_host_rsa_key.pub": ("identity", REMOVE),
    "var/lib/systemd/random-seed": ("identity", REMOVE),
    "var/lib/mysql/auto.cnf": ("identity", REMOVE),
    "etc/ssl/private/ssl-cert-snakeoil.key": ("identity", REMOVE),
    "var/lib/splitimage/journal-0123456789ab": ("identity", REMOVE),
    "var/lib/splitimage/deep/er": ("identity", REMOVE),
    "root/.bash_history": ("secret", REMOVE), "home/me/.bash_history": ("secret", REMOVE),
    "etc/ld.so.cache": ("regenerated", REMOVE), "boot/initrd.img-6.1": ("regenerated", KEEP),
    "etc/shadow-": ("backup", REMOVE), "var/lib/dpkg/status-old": ("backup", REMOVE),
    "var/lib/ucf/hashfile.0": ("backup", REMOVE), "var/lib/ucf/registry.12": ("backup", REMOVE),
    "var/lib/dpkg/lock-frontend": ("volatile", KEEP),
    "var/lib/apt/lists/x_InRelease": ("cache", REMOVE), "var/cache/apt/a.bin": ("cache", REMOVE),
    "var/log/dpkg.log": ("log", REMOVE), "var/log/apt/term.log": ("log", REMOVE),
    "tmp/x": ("volatile", REMOVE), "run/lock/x": ("volatile", REMOVE),
    "boot/extlinux/ldlinux.sys": (DISK, KEEP), "boot/grub/grub.cfg": (DISK, KEEP),
    "boot/efi/EFI/BOOT/BOOTX64.EFI": (DISK, KEEP), "etc/fstab": (DISK, KEEP),
}
#: Part of the image, however near to a rule.
FREE = (
    "etc/ssh/sshd_config", "etc/ssh/ssh_host_banner", "etc/passwd", "etc/shadow", "etc/group",
    "etc/apache2/apache2.conf", "etc/mysql/mariadb.conf.d/50-server.cnf", "etc/ld.so.conf",
    "etc/hostname", "etc/hosts", "etc/machine-info", "etc/ssl/private/mine.key",
    "etc/ssl/certs/ca-certificates.crt", "var/lib/dpkg/status", "var/lib/dpkg/info/x.list",
    "var/lib/ucf/cache/:etc:x.1", "var/lib/ucf/hashfile", "var/lib/mysql/ibdata1",
    "var/lib/systemd/deb-systemd-helper-enabled/x.service.dsh-also", "var/lib/systemd/linger/me",
    "var/cache/debconf/config.dat", "var/lib/apt/extended_states", "var/www/log/x",
    "srv/tmp/x", "usr/share/run/x", "usr/lib/modules/6.1/kernel/x.ko", "boot/vmlinuz-6.1",
    "root/.ssh/authorized_keys", "root/.bashrc", "home/me/.profile", "opt/var/log/x",
    "usr/lib/splitimage/layout",
)


@pytest.mark.parametrize("path", RULED)
def test_ruled(path: str) -> None:
    rule = Identity().rule(path.encode())
    assert rule is not None
    assert (rule.kind, rule.action) == RULED[path]
    assert Identity().excludes(file(path)) and Identity().excludes(symlink(path, "x"))


@pytest.mark.parametrize("path", FREE)
def test_free(path: str) -> None:
    assert Identity().rule(path.encode()) is None
    assert not Identity().excludes(file(path))


def test_directories_are_part_of_the_image_but_for_the_disks_own() -> None:
    for path in "var/log", "var/log/apache2", "var/cache/apt", "tmp", "var/lib/dhcp":
        assert not Identity().excludes(directory(path))
    for path in "lost+found", "boot/grub", "boot/extlinux":
        assert Identity().excludes(directory(path))


def test_every_rule_is_met_by_something() -> None:
    """No rule is hidden by one before it."""
    found = Identity()
    for rule in RULES:
        path = (rule.pattern.replace("[0-9]*", "0").replace("*-old", "x-old")
                .replace("*", "zz")).encode()
        hit = found.rule(path)
        assert hit is rule or (rule.kind == "kept" and hit is None), rule


def test_rules_tell_what_makes_things_again() -> None:
    makers = {rule.pattern: rule.maker for rule in RULES if rule.kind == "regenerated"}
    assert all(makers.values())


def test_an_operators_own_patterns() -> None:
    mine = Identity(["srv/private/*", "*.secret"])
    for path in "srv/private/a", "etc/x.secret", "opt/deep/er/y.secret":
        assert mine.rule(path.encode()).kind == "excluded"  # type: ignore[union-attr]
    assert mine.rule(b"srv/public") is None
    assert mine.rule(b"etc/machine-id") == Identity().rule(b"etc/machine-id")
    assert mine.digest_options() == ("srv/private/*", "*.secret")
    assert Identity().digest_options() == ()


def test_names_that_are_not_text() -> None:
    assert Identity().rule(b"var/log/\xff\n") is not None
    assert Identity().rule(b"srv/\xff\n") is None
