from __future__ import annotations

from splitimage_driver.capture import clean
from splitimage_driver.capture.identity import Identity
from splitimage_driver.model.entry import DIRECTORY, FILE, FileEntry
from splitimage_driver.model.manifest import Manifest


def directory(path: str) -> FileEntry:
    return FileEntry(path=path.encode(), type=DIRECTORY, mode=0o755)


def file(path: str, content: bytes = b"x") -> FileEntry:
    return FileEntry(path=path.encode(), type=FILE, mode=0o644).with_content(content)


def test_what_belongs_to_one_machine_goes_and_its_id_is_emptied() -> None:
    tree = Manifest([file("etc/machine-id", b"0123\n"), file("etc/ssh/ssh_host_rsa_key"),
                     file("etc/ssh/sshd_config"), directory("var/log"), file("var/log/syslog"),
                     file("usr/lib/systemd/systemd")])
    cleaned = clean.clean(tree, Identity(), generated={})
    found = cleaned.manifest
    assert found.by_path[b"etc/machine-id"].size == 0
    assert b"etc/ssh/ssh_host_rsa_key" not in found and b"var/log/syslog" not in found
    assert b"etc/ssh/sshd_config" in found and b"var/log" in found
    assert cleaned.first_boot <= {e.path for e in found}


def test_a_machine_s_own_empty_directories_go() -> None:
    known = Manifest([directory("var/log"), directory("var/log/apache2"), directory("srv")])
    tree = known | [
        directory("var/log/journal"), directory("var/log/journal/0123"),
        directory("tmp/systemd-private-0123"), directory("srv/new"),
        directory("var/cache/debconf"), directory("var/cache/new"),
        directory("var/cache/new/debconf"), file("var/cache/debconf/config.dat")]
    left = clean.without_own_directories(tree, known, Identity())
    assert {e.path.decode() for e in left} == {
        "var/log", "var/log/apache2", "srv", "srv/new", "var/cache/debconf",
        "var/cache/debconf/config.dat"}
