"""Whose file is it, on a small invented machine."""

from __future__ import annotations

import pytest

from splitimage_driver.capture.attribution import BASE, Attribution, Group, part_name
from splitimage_driver.capture.packagedb import base as packagedb
from splitimage_driver.model.entry import FILE, FileEntry
from tests.unit import machines
from tests.unit.machines import State, base, install, with_account

APACHE, PHP, MYSQL = (frozenset({name}) for name in ("apache", "php", "mysql"))
SHARED = APACHE | PHP
SOFTWARE = {"apache": ("apache2",), "php": ("php8.2",), "mysql": ("mariadb",)}


def owned(uid: int = 0, gid: int = 0) -> tuple[FileEntry, bytes]:
    return FileEntry(b"", FILE, 0o640, uid=uid, gid=gid, size=1), b"x"


def machine() -> State:
    found = base()
    found = install(found, "adduser", {"usr/sbin/adduser": b"x"}, priority="important",
                    script="adduser --system messagebus\nadduser www-data mail")
    found = install(found, "systemd", {"usr/lib/systemd/systemd": b"x",
                                       "usr/lib/sysusers.d/basic.conf": b"# none\nu nobody -\n",
                                       "usr/lib/systemd/system/cron.service": b"x"},
                    priority="important", listed=["etc/systemd/system", "var/lib/systemd"])
    found = install(found, "libz", {"usr/lib/libz": b"x"}, manual=False)
    found = install(found, "apache2", {
        "usr/sbin/apache2": b"x", "usr/lib/systemd/system/apache2.service": b"x",
        "etc/apache2/mods/event": b"x", "usr/lib/python3/a.py": b"x"}, depends=["libz"],
        listed=["etc/apache2/enabled", "srv/www"],
        script="a2enmod event\nadduser foo www-data\ntouch /srv/stamp /srv/stamped-not")
    found = install(found, "php8.2", {
        "usr/bin/php8.2": b"x", "usr/share/php/ini": b"x",
        "usr/lib/sysusers.d/php.conf": b"u! fpm-user - \"FPM\" /nonexistent\ng fpm-group -\n"},
        depends=["libz"], script="NAME=worker\nadduser --system $NAME\n: worker sudo")
    found = install(found, "mariadb", {"usr/sbin/mariadbd": b"x"},
                    script="adduser --system --group mysql; : /var/lib/dbs/.stamp")
    for name, number in (("messagebus", 101), ("mysql", 102), ("fpm-user", 103), ("worker", 104),
                         ("person", 1000)):
        found = with_account(found, name, number)
    found |= {
        "etc/apache2/enabled/event": "../mods/event",
        "etc/apache2/enabled/loop": "../enabled/loop2", "etc/apache2/enabled/loop2": "loop",
        "etc/alternatives/php": "/usr/bin/php8.2", "srv/odd": "/nowhere",
        "usr/lib/python3/__pycache__/a.cpython-311.pyc": b"x",
        "etc/systemd/system/apache2.service.d/override.conf": b"x",
        "etc/systemd/system/multi-user.target.wants/apache2.service": "/nowhere",
        "var/lib/systemd/enabled/apache2.service.dsh-also": b"x",
        "var/lib/systemd/enabled/cron.service": b"x",
        "var/lib/dbs/table": owned(102), "var/lib/dbs/.stamp": b"x",
        "var/lib/dbs/sub/info": b"x", "var/lib/mysterious": owned(gid=102),
        "srv/stamp": b"x", "srv/stamped": b"x",
        "var/lib/php8.2/sessions": b"x", "var/lib/data/mariadb.conf": b"x",
        "var/lib/ucf/cache/:etc:apache2:mods:event": b"x", "var/lib/ucf/cache/:etc:nobodys": b"x",
        "etc/apache2/enabled/php8.2.load": b"x", "var/lib/php8.2/modules/apache2/x": b"x",
        "home/person/file": owned(1000, 1000), "srv/www/index.html": b"x", "srv/page": b"x",
    }
    return found


@pytest.fixture(scope="module")
def owner() -> Attribution:
    found = machines.state("gold", machine())
    db = found.packages
    assert db is not None
    system = packagedb.expected_base(db, SOFTWARE)
    return Attribution(found.manifest, db, system, packagedb.groups(db, system, SOFTWARE),
                       found.place, found.shared, found.declared)


@pytest.mark.parametrize(("path", "group", "rule"), [
    ("usr/sbin/apache2", APACHE, "package"), ("usr/bin/sh", BASE, "package"),
    ("usr/lib/libz", SHARED, "package"), ("etc/apache2/mods/event", APACHE, "package"),
    ("var/lib/dpkg/info/mariadb.postinst", MYSQL, "package"),
    ("var/lib/dpkg/info/adduser.list", BASE, "package"),
    ("etc/apache2/enabled/event", APACHE, "link"), ("etc/alternatives/php", PHP, "link"),
    ("usr/lib/python3/__pycache__/a.cpython-311.pyc", APACHE, "compiled"),
    ("var/lib/ucf/cache/:etc:apache2:mods:event", APACHE, "original"),
    ("var/lib/dbs/table", MYSQL, "account"), ("var/lib/mysterious", MYSQL, "account"),
    ("etc/systemd/system/multi-user.target.wants/apache2.service", APACHE, "unit"),
    ("var/lib/systemd/enabled/apache2.service.dsh-also", APACHE, "unit"),
    ("var/lib/systemd/enabled/cron.service", BASE, "unit"),
    ("var/lib/dbs/.stamp", MYSQL, "mentioned"), ("srv/stamp", APACHE, "mentioned"),
    ("var/lib/php8.2/sessions", PHP, "named"), ("var/lib/data/mariadb.conf", MYSQL, "named"),
    ("srv/www/index.html", APACHE, "directory"),
    ("etc/systemd/system/apache2.service.d/override.conf", APACHE, "named"),
    ("srv/stamped", None, "none"), ("srv/page", None, "none"), ("srv/odd", None, "none"),
    ("home/person/file", None, "none"), ("var/lib/dbs/sub/info", MYSQL, "directory"),
    ("var/lib/ucf/cache/:etc:nobodys", None, "none"),
])
def test_evidence(owner: Attribution, path: str, group: Group | None, rule: str) -> None:
    found = owner.evidence(path.encode())
    assert (found.group, found.rule) == (group, rule)


def test_links_in_a_circle_are_told_by_their_place(owner: Attribution) -> None:
    assert owner.evidence(b"etc/apache2/enabled/loop").group == APACHE


@pytest.mark.parametrize(("path", "territory"), [
    ("etc/apache2/enabled/php8.2.load", APACHE), ("var/lib/php8.2/modules/apache2/x", PHP),
    ("etc/apache2/enabled/event", None), ("usr/bin/php8.2", None), ("srv/stamp", None),
    ("var/lib/dbs/table", None), ("usr/lib/systemd/system/apache2.service", None),
])
def test_territory(owner: Attribution, path: str, territory: Group | None) -> None:
    """In whose place a file lies, where that is another's than its maker's."""
    assert owner.evidence(path.encode()).territory == territory


def test_answers_do_not_depend_on_what_was_asked_before() -> None:
    paths = sorted(path.encode() for path in machine())
    found = []
    for order in paths, paths[::-1]:
        state = machines.state("gold", machine())
        assert state.packages is not None
        system = packagedb.expected_base(state.packages, SOFTWARE)
        one = Attribution(state.manifest, state.packages, system,
                          packagedb.groups(state.packages, system, SOFTWARE), state.place,
                          state.shared, state.declared)
        asked = {path: one.evidence(path) for path in order}
        found.append([asked[path] for path in paths])
    assert found[0] == found[1]


@pytest.mark.parametrize(("name", "group"), [
    ("mysql", MYSQL), ("fpm-user", PHP), ("fpm-group", PHP), ("worker", PHP),
    # The system's own, whoever mentions them.
    ("root", BASE), ("www-data", BASE), ("messagebus", BASE), ("nobody", BASE),
    ("person", None), ("unheard-of", None),
])
def test_accounts(owner: Attribution, name: str, group: Group | None) -> None:
    assert owner.account(name) == group


def test_packages(owner: Attribution) -> None:
    assert owner.package("apache2") == owner.package("apache2:amd64") == APACHE
    assert owner.package("adduser") == BASE and owner.package("no-such") is None
    assert owner.owners(b"etc/apache2") == {APACHE} and owner.owners(b"srv/page") == set()
    assert BASE in owner.owners(b"usr/lib") and APACHE in owner.owners(b"usr/lib")


def test_without_a_database_nothing_is_known() -> None:
    state = machines.state("gold", {"etc/x": b"x"})
    one = Attribution(state.manifest, None, frozenset(), None, state.place, {}, {})
    assert one.evidence(b"etc/x").group is None
    assert one.package("x") is None and one.account("x") is None


@pytest.mark.parametrize(("group", "name"), [
    (frozenset({"php"}), "php"), (frozenset({"b", "a"}), "dep.a.b")])
def test_names_of_parts(group: Group, name: str) -> None:
    assert part_name(group) == name


def test_a_name_too_long_is_a_digest() -> None:
    groups = [frozenset(f"software-number-{n}" for n in range(size)) for size in (5, 6)]
    names = [part_name(group) for group in groups]
    assert all(len(name) == 20 and name.startswith("dep.") for name in names)
    assert len(set(names)) == 2
