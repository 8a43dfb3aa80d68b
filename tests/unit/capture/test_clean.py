from __future__ import annotations

from pathlib import Path

import msgspec

from splitimage_driver import guest
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


def test_hard_links_are_those_of_the_names_that_are_left() -> None:
    def linked(path: str, link: str) -> FileEntry:
        return FileEntry(path=path.encode(), type=FILE, mode=0o644,
                         link=link.encode()).with_content(b"x")

    groups = [("var/log/a", "var/log/a"), ("var/log/b", "var/log/a"), ("var/mail/c", "var/log/a"),
              ("etc/x", "etc/x"), ("srv/y", "etc/x"), ("srv/z", "etc/x"),
              ("run/p", "run/p"), ("srv/q", "run/p"), ("srv/r", "run/p")]
    tree = Manifest(msgspec.structs.replace(linked(path, link), link=link.encode())
                    for path, link in groups)
    cleaned = clean.clean(tree, Identity(), generated={b"etc/x": b"other"})
    assert {e.path.decode(): e.link.decode() for e in cleaned.manifest} == {
        "var/mail/c": "", "etc/x": "", "srv/y": "srv/y", "srv/z": "srv/y", "srv/q": "srv/q",
        "srv/r": "srv/q"}


def test_changed_files_have_their_new_content() -> None:
    tree = Manifest([file("etc/passwd", b"root\nmysql\n"), file("etc/other")])
    cleaned = clean.clean(tree, Identity(), generated={b"etc/passwd": b"root\n"})
    assert cleaned.generated == {b"etc/passwd": b"root\n"}
    assert cleaned.manifest.by_path[b"etc/passwd"].same(file("etc/passwd", b"root\n"))
    assert cleaned.manifest.by_path[b"etc/other"] == file("etc/other")
    assert cleaned.first_boot == frozenset()


def test_an_operators_own_patterns_are_cleaned_too() -> None:
    tree = Manifest([file("srv/secret/key"), file("srv/public")])
    cleaned = clean.clean(tree, Identity(["srv/secret/*"]), generated={})
    assert [e.path for e in cleaned.manifest] == [b"srv/public"]


def test_a_machine_without_an_id_gets_an_empty_one() -> None:
    found = clean.clean(Manifest([file("usr/lib/systemd/systemd")]), Identity(), generated={})
    e = found.manifest.by_path[b"etc/machine-id"]
    assert (e.size, e.mode) == (0, 0o444)
    assert found.first_boot < {e.path for e in found.manifest}
    assert all(found.manifest.by_path[path].size == len(content)
               for path, content in found.generated.items())


def test_a_base_gets_what_lays_parts_where_that_can_run() -> None:
    system = [file("usr/lib/systemd/systemd")]
    tools = [file("usr/bin/perl"), file("usr/bin/udevadm")]
    layout = b"usr/lib/splitimage/layout"
    rule = b"usr/lib/udev/rules.d/55-splitimage.rules"
    whole = clean.clean(Manifest([*system, *tools]), Identity(), generated={})
    assert {path for path, _, _ in guest.LAYING} <= whole.first_boot
    assert whole.manifest.by_path[layout].mode == 0o755
    assert whole.manifest.by_path[rule].mode == 0o644
    for some in ([], [tools[0]], [tools[1]]):
        found = clean.clean(Manifest([*system, *some]), Identity(), generated={})
        assert found.first_boot and layout not in found.manifest and rule not in found.manifest
    assert clean.clean(Manifest(tools), Identity(), generated={}).first_boot == frozenset()


def test_before_the_usrmerge_units_and_rules_are_below_lib() -> None:
    tree = Manifest([file("lib/systemd/systemd"), file("usr/bin/perl"), file("bin/udevadm")])
    found = clean.clean(tree, Identity(), generated={}).manifest
    assert b"lib/systemd/system/splitimage-layout.service" in found
    assert b"lib/udev/rules.d/55-splitimage.rules" in found
    assert b"usr/lib/splitimage/layout" in found


def test_every_program_of_the_guest_is_carried() -> None:
    place = Path(guest.__file__).parent
    carried = {resource for _, _, resource in (*guest.FIRST_BOOT, *guest.LAYING)}
    assert carried == {path.name for path in place.iterdir() if path.is_file()} - {"__init__.py"}
    for name in carried:
        assert len((place / name).read_text().splitlines()) < 300, name
