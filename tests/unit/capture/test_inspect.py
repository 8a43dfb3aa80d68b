from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import pytest

from splitimage_driver import exceptions
from splitimage_driver.capture import inspect
from splitimage_driver.capture.packagedb.base import PackageDB, Read
from splitimage_driver.capture.packagedb.database import Package
from splitimage_driver.model.composite import System
from splitimage_driver.model.entry import FILE, SYMLINK, FileEntry
from splitimage_driver.model.manifest import Manifest

RELEASE = (b'# comment\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n'
           b"VERSION_ID='12'\nBROKEN=\"\nlower=x\n")
UNITS = b"usr/lib/systemd/system/"
WANTS = b"etc/systemd/system/multi-user.target.wants/"
MIB = 1 << 20


def tree(content: Mapping[bytes, bytes | str]) -> tuple[Manifest, Read]:
    def read(paths: Iterable[bytes]) -> dict[bytes, bytes]:
        return {path: value for path in paths if isinstance(value := content[path], bytes)}
    return Manifest(
        FileEntry(path, SYMLINK, 0o777, target=value.encode()) if isinstance(value, str)
        else FileEntry(path, FILE, 0o755, size=len(value))
        for path, value in content.items()), read


def package(name: str, *depends: str, **fields: object) -> Package:
    return Package(**{"name": name, "architecture": "amd64", "version": "1", "manual": False,
                      "priority": "optional", "section": "misc", "source": name,
                      "installed_size": MIB, "depends": tuple((one,) for one in depends),
                      **fields})  # type: ignore[arg-type]


def asked(name: str, *depends: str, **fields: object) -> Package:
    return package(name, *depends, manual=True, **fields)


def serving(name: str, *depends: str, **fields: object) -> Package:
    return asked(name, *depends, files=(UNITS + name.encode() + b".service",), **fields)


def propose(*packages: Package, **links: str) -> inspect.Proposal:
    db = PackageDB(packages, format="dpkg", architecture="amd64",
                   unfinished={"stuck": "half-installed"} if "stuck" in links else None)
    content: dict[bytes, bytes | str] = {b"etc/os-release": RELEASE}
    content |= {path: b"" for one in packages for path in one.files}
    content |= {WANTS + name.encode() + b".service": f"/lib/systemd/system/{name}.service"
                for name in links}
    content[b"lib"] = "usr/lib"
    return inspect.propose(db, *tree(content))


def elf(machine: int, bits: int = 64, order: str = "<") -> bytes:
    return (b"\x7fELF" + bytes((bits // 32, 1 if order == "<" else 2)) + b"\0" * 12
            + struct.pack(f"{order}H", machine) + b"\0" * 44)


# -- the system -------------------------------------------------------------------

@pytest.mark.parametrize("header, expected", [
    (elf(62), "x86_64"), (elf(183), "aarch64"), (elf(3, 32), "i686"), (elf(22, 64, ">"), "s390x"),
    (elf(21), "ppc64le"), (elf(62, 32), ""), (b"#!/bin/sh\n" + b" " * 40, ""), (b"", "")])
def test_system_of_a_tree_without_packages(header: bytes, expected: str) -> None:
    found = inspect.system(*tree({
        b"usr/lib/os-release": RELEASE, b"etc/os-release": "../usr/lib/os-release",
        b"sbin": "usr/sbin", b"usr/sbin/init": "/lib/systemd/systemd", b"lib": "usr/lib",
        b"usr/lib/systemd/systemd": header}))
    assert found == System(id="debian", version="12", name="Debian GNU/Linux 12 (bookworm)",
                           architecture=expected, packaging="")


def test_the_shell_tells_where_init_does_not() -> None:
    found = inspect.system(*tree({b"etc/os-release": b"NAME=Own\nBUILD_ID=7\n",
                                  b"bin/sh": "busybox", b"bin/busybox": elf(40, 32)}))
    assert found == System(id="linux", version="7", name="Own", architecture="armv7l")


def test_names_from_the_machine_are_cut_and_printable() -> None:
    found = inspect.system(*tree({b"etc/os-release":
                                  b'ID=a\x1b[31m\nPRETTY_NAME="' + b"x" * 999 + b'"\n'}))
    assert found.id == "a[31m" and found.name == "x" * 200


def test_no_operating_system() -> None:
    with pytest.raises(exceptions.NoOperatingSystem):
        inspect.system(*tree({b"etc/passwd": b""}))
    with pytest.raises(exceptions.InvalidInput, match="os-release"):
        inspect.system(*tree({b"etc/os-release": b"#" * 100_000}))


# -- the proposal -----------------------------------------------------------------

def test_software_with_a_service_is_proposed() -> None:
    found = propose(serving("apache2", "apache2-bin"), package("apache2-bin"),
                    asked("hello"), apache2="")
    [apache] = found.software
    assert (apache.name, apache.packages) == ("apache", ("apache2",))
    assert apache.exclusive == ("apache2", "apache2-bin")
    assert apache.exclusive_bytes == 2 * MIB and apache.shared_bytes == 0
    assert apache.services == (inspect.Service("apache2.service", "apache2", True),)
    assert found.arguments == ("--software", "apache=apache2")
    assert found.base_packages == 1 and found.base_bytes == MIB and found.rest == ()
    assert found.system.architecture == "x86_64" and found.system.packaging == "dpkg"


def test_infrastructure_stays_in_the_base() -> None:
    found = propose(
        serving("openssh-server"), serving("dbus", priority="standard"), serving("cloud-init"),
        serving("udev", priority="important"), serving("guard", essential=True),
        serving("grub-pc"), serving("linux-image-6.1", section="kernel"),
        serving("locales", section="localization"), serving("systemd-resolved"),
        serving("needed"), asked("boot", "needed", files=(b"boot/loader",)))
    assert found.software == () and found.arguments == () and found.base_packages == 11


def test_large_software_needs_no_service() -> None:
    found = propose(asked("java", "runtime"), package("runtime", installed_size=32 * MIB),
                    asked("small", "lib"), package("lib", installed_size=10 * MIB))
    assert [one.name for one in found.software] == ["java"]


def test_packages_of_one_source_are_one_software() -> None:
    found = propose(serving("mariadb-server", "mariadb-client", source="mariadb"),
                    asked("mariadb-client", source="mariadb", installed_size=40 * MIB))
    assert found.arguments == ("--software", "mariadb=mariadb-client,mariadb-server")


def test_packages_that_share_most_of_what_they_need_are_one_software() -> None:
    common = package("php8.2-common", files=(UNITS + b"phpsessionclean.service",))
    found = propose(asked("php", "php8.2", source="php-defaults"),
                    package("php8.2", "php8.2-common", "php-common"), package("php-common"),
                    asked("php-xdebug", "php8.2-common", "php-common"), common,
                    serving("nginx", "libicu"), package("libicu", section="libs"),
                    serving("postgresql-15", "libicu"))
    assert found.arguments == ("--software", "nginx=nginx", "--software", "php=php,php-xdebug",
                               "--software", "postgresql=postgresql-15")
    assert [one.shared_bytes for one in found.software] == [MIB, 0, MIB]


def test_software_upon_other_software_requires_it() -> None:
    found = propose(serving("php", "php-common"), package("php-common"),
                    serving("phpmyadmin", "php", "php-common"))
    assert {one.name: one.requires for one in found.software} == {
        "php": (), "phpmyadmin": ("php",)}


def test_names_are_unique_and_fit_for_parts() -> None:
    found = propose(serving("bind9"), serving("bind-server"), serving("G++.x"),
                    serving("x" * 80))
    names = [one.name for one in found.software]
    assert sorted(names) == sorted(["bind", "bind9", "g-.x", "x" * 63])


def test_services_units_scripts_aliases_and_templates() -> None:
    units = (b"a.service", b"b@.service", b"c.timer", b"d.socket", b"e.service")
    files = (*(UNITS + one for one in units),
             b"etc/init.d/a", b"etc/init.d/old", b"etc/init.d/idle")
    db = PackageDB([asked("p", files=(*files, UNITS + b"alias.service", UNITS + b"gone.service"))],
                   format="dpkg", architecture="amd64")
    content: dict[bytes, bytes | str] = dict.fromkeys(files, b"")
    content |= {b"etc/os-release": RELEASE, UNITS + b"alias.service": "a.service",
                b"etc/rc3.d/S20old": "../init.d/old", b"etc/rc0.d/K20idle": "../init.d/idle",
                b"etc/systemd/system/sockets.target.wants/d.socket": "/" + UNITS.decode()
                + "d.socket"}
    [found] = inspect.propose(db, *tree(content)).software
    assert [(one.name, one.enabled) for one in found.services] == [
        ("a.service", True), ("d.socket", True), ("e.service", False), ("idle", False),
        ("old", True)]


def test_without_a_package_database_the_way_is_by_steps() -> None:
    found = inspect.propose(None, *tree({b"etc/os-release": RELEASE}))
    assert found.software == () and found.system.id == "debian"
    assert "--step" in found.notes[0]


def test_half_installed_packages_are_told() -> None:
    assert propose(asked("a"), stuck="").notes == (
        "package stuck is not wholly installed: half-installed",)


def test_only_the_largest_are_considered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "MAX_CONSIDERED", 2)
    found = propose(serving("a", installed_size=MIB), serving("b", installed_size=3 * MIB),
                    serving("c", installed_size=2 * MIB))
    assert [one.name for one in found.software] == ["b", "c"]
