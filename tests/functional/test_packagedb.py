"""Databases that dpkg and rpm themselves wrote, against what they themselves
say about them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from splitimage_driver.capture import inspect
from splitimage_driver.capture.packagedb import base as packagedb
from splitimage_driver.model.entry import DIRECTORY, FILE, SYMLINK, FileEntry
from splitimage_driver.model.manifest import Manifest

needs_rpm = pytest.mark.skipif(shutil.which("rpmbuild") is None, reason="rpm is not installed")
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None or os.geteuid() != 0,
                                reason="needs dpkg and root")
on_debian = pytest.mark.skipif(not Path("/var/lib/dpkg/status").exists(),
                               reason="this host has no dpkg database")

SPEC = """
Name: {name}
Version: 1.{number}
Release: 3
Summary: {name}
License: none
Group: Test/Group
BuildArch: noarch
{more}
%description
x
%install
mkdir -p %{{buildroot}}/etc/{name} %{{buildroot}}/bin %{{buildroot}}/var/log
mkdir -p %{{buildroot}}/usr/lib/systemd/system
echo a > %{{buildroot}}/etc/{name}/{name}.conf
echo b > %{{buildroot}}/bin/{name}-tool
echo c > %{{buildroot}}/usr/lib/systemd/system/{name}.service
touch %{{buildroot}}/var/log/{name}.log
%pre
echo before {name}
%postun
echo gone {name}
%files
%dir /etc/{name}
%config(noreplace) /etc/{name}/{name}.conf
/bin/{name}-tool
/usr/lib/systemd/system/{name}.service
%ghost /var/log/{name}.log
"""

CONTROL = """Package: {name}
Version: 1:1.0-1
Architecture: {architecture}
Maintainer: nobody <nobody@example.org>
Section: test
Priority: optional
Installed-Size: 7
Description: {name}
{more}
"""


def run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def tree(root: Path, below: Iterable[str] = ("",)) -> tuple[Manifest, packagedb.Read]:
    """Names, types and sizes are all that the readers look at."""
    entries: dict[bytes, FileEntry] = {}

    def add(place: str) -> None:
        path = os.fsencode(os.path.relpath(place, root))
        status = os.lstat(place)
        if os.path.islink(place):
            entries[path] = FileEntry(path, SYMLINK, 0o777,
                                      target=os.fsencode(os.readlink(place)))
        elif os.path.isdir(place):
            entries[path] = FileEntry(path, DIRECTORY, 0o755)
        elif os.path.isfile(place):
            entries[path] = FileEntry(path, FILE, status.st_mode & 0o7777, size=status.st_size)

    for start in below:
        for directory, directories, files in os.walk(root / start):
            for name in (*directories, *files):
                add(os.path.join(directory, name))
    for name in os.listdir(root):
        add(os.path.join(root, name))

    def read(paths: Iterable[bytes]) -> dict[bytes, bytes]:
        return {path: (root / os.fsdecode(path)).read_bytes() for path in paths}
    return Manifest(entries.values()), read


# -- rpm ----------------------------------------------------------------------------

def rpm(root: Path, *words: str | Path) -> str:
    return run("rpm", "--root", root, "--dbpath", "/var/lib/rpm", *words)


@pytest.fixture
def rpm_root(tmp_path: Path) -> Path:
    wanted = {
        "web": "Epoch: 2\nProvides: httpd = 4, config(web)\nRecommends: extra\n"
               "Requires: lib >= 1, (missing or helper), (nothing if absent), /usr/bin/shell-tool",
        "lib": "", "helper": "Requires: lib", "shell": "", "extra": "Requires: capability",
        "provider": "Provides: capability", "alone": "Requires: lib"}
    for number, (name, more) in enumerate(wanted.items()):
        spec = tmp_path / f"{name}.spec"
        spec.write_text(SPEC.format(name=name, number=number, more=more))
        run("rpmbuild", "--define", f"_topdir {tmp_path / 'top'}", "-bb", spec)
    root = tmp_path / "root"
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "etc").mkdir()
    (root / "etc" / "os-release").write_text('ID=testos\nVERSION_ID=3\nNAME="Test OS"\n')
    rpm(root, "-i", "--nodeps", "--noscripts", *sorted((tmp_path / "top").rglob("*.rpm")))
    return root


@needs_rpm
def test_rpm_database(rpm_root: Path) -> None:
    manifest, read = tree(rpm_root)
    db = packagedb.read(manifest, read)
    assert db is not None and db.format == "rpm"
    listed = rpm(rpm_root, "-qa", "--qf",
                 "%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE} %{ARCH} %{SIZE} "
                 "%{INSTALLTIME} %{GROUP}\n").splitlines()
    assert sorted(listed) == sorted(
        f"{one.name} {one.version} {one.architecture} {one.installed_size} "
        f"{one.installed} {one.section}" for one in db.packages.values())
    for name, package in db.packages.items():
        paths = {path.replace("/bin/", "/usr/bin/", 1) if path.startswith("/bin/") else path
                 for path in rpm(rpm_root, "-ql", name).splitlines()}
        assert {"/" + os.fsdecode(path) for path in package.files} == paths
        assert package.conffiles == (f"etc/{name}/{name}.conf".encode(),)
        assert package.scripts == f"echo before {name}\necho gone {name}".encode()
    assert db.owners(b"usr/bin/web-tool") == ("web",)
    assert db.owners(b"var/log/web.log") == ("web",), "ghosts are owned"
    assert db.closure(["web"]) == {"web", "lib", "helper", "shell"}
    assert db.closure(["web"], recommends=True) == {"web", "lib", "helper", "shell", "extra",
                                                    "provider"}
    assert {key for key, one in db.packages.items() if one.manual} == {"web", "alone"}
    assert b"var/lib/rpm/rpmdb.sqlite" in db.paths


@needs_rpm
def test_rpm_packages_grouped_by_software(rpm_root: Path) -> None:
    manifest, read = tree(rpm_root)
    db = packagedb.read(manifest, read)
    assert db is not None
    software = {"web": ("web",), "alone": ("alone",)}
    groups = packagedb.groups(db, packagedb.expected_base(db, software), software)
    assert groups.by_needers() == {
        frozenset(("alone",)): ("alone",), frozenset(("alone", "web")): ("lib",),
        frozenset(("web",)): ("extra", "helper", "provider", "shell", "web")}
    found = inspect.propose(db, manifest, read)
    assert found.system.id == "testos" and found.system.packaging == "rpm"
    assert found.arguments == ("--software", "alone=alone", "--software", "web=web")


@needs_rpm
def test_rpm_database_of_a_machine_that_was_not_shut_down(rpm_root: Path) -> None:
    before = rpm(rpm_root, "-qa")
    rpm(rpm_root, "-e", "--nodeps", "--noscripts", "alone")
    manifest, read = tree(rpm_root)
    assert manifest.get(b"var/lib/rpm/rpmdb.sqlite-wal") is not None
    db = packagedb.read(manifest, read)
    assert db is not None
    assert len(db.packages) == len(before.splitlines()) - 1 and "alone" not in db.packages


# -- dpkg ---------------------------------------------------------------------------

@needs_dpkg
def test_dpkg_database(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers",
                 "usr/bin"):
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    for name in ("status", "available", "diversions"):
        (root / "var/lib/dpkg" / name).touch()
    native = run("dpkg", "--print-architecture").strip()
    for name, more in (
            ("server", "Depends: common (>= 0.9), tool | other:any\nProvides: httpd"),
            ("common", "Multi-Arch: same"),
            ("other", "Multi-Arch: allowed\nPre-Depends: common"),
            ("removed", "Depends: common")):
        source = tmp_path / name
        (source / "DEBIAN").mkdir(parents=True)
        (source / "etc").mkdir()
        (source / "bin").mkdir()
        (source / "bin" / f"{name}-tool").write_text("x")
        (source / "etc" / f"{name}.conf").write_text("x")
        (source / "DEBIAN" / "conffiles").write_text(f"/etc/{name}.conf\n")
        (source / "DEBIAN" / "control").write_text(
            CONTROL.format(name=name, architecture=native, more=more))
        run("dpkg-deb", "-b", source, tmp_path / f"{name}.deb")
    dpkg = ("dpkg", "--root", root, "--force-not-root", "--log=/dev/null")
    for name in ("common", "other", "server", "removed"):
        run(*dpkg, "-i", tmp_path / f"{name}.deb")
    run(*dpkg, "-r", "removed")
    run("dpkg-divert", "--root", root, "--package", "server", "--divert",
        "/usr/bin/other-tool.real", "--rename", "/usr/bin/other-tool")

    manifest, read = tree(root)
    db = packagedb.read(manifest, read)
    assert db is not None and db.architecture == native
    shown = run("dpkg-query", "--admindir", root / "var/lib/dpkg", "-W", "-f",
                "${Package} ${Version} ${Architecture} ${db:Status-Status}\n").splitlines()
    assert [line for line in shown if line.endswith(" installed")] == [
        f"{one.name} {one.version} {one.architecture} installed"
        for _, one in sorted(db.packages.items())]
    assert db.closure(["server"]) == {"server", "common", "other"}
    assert {key for key, one in db.packages.items() if one.manual} == {"server"}
    assert db.packages["server"].conffiles == (b"etc/server.conf",)
    assert db.owners(b"usr/bin/other-tool.real") == ("other",)
    assert db.owners(b"usr/bin/other-tool") == ()
    assert b"var/lib/dpkg/info/common:" + native.encode() + b".list" \
        in db.packages["common"].state
    assert b"var/lib/dpkg/info/removed.list" in db.paths
    assert {path for one in db.packages.values() for path in one.files} - {b""} <= {
        entry.path for entry in manifest}


@on_debian
def test_this_hosts_own_database() -> None:
    """Thousands of real stanzas, lists and diversions."""
    manifest, read = tree(Path("/"), ("var/lib/dpkg", "var/lib/apt"))
    db = packagedb.read(manifest, read)
    assert db is not None
    shown = run("dpkg-query", "-W", "-f",
                "${db:Status-Status} ${Package} ${Version} ${Architecture}\n").splitlines()
    assert sorted(f"installed {one.name} {one.version} {one.architecture}"
                  for key, one in db.packages.items() if key not in db.unfinished) == sorted(
        line for line in shown if line.startswith("installed "))
    assert db.architecture == run("dpkg", "--print-architecture").strip()
    manual = run("apt-mark", "showmanual").split() if shutil.which("apt-mark") else None
    if manual is not None and b"var/lib/apt/extended_states" in manifest:
        assert {one.partition(":")[0] for one in manual} == {
            one.name for one in db.packages.values() if one.manual}
    essential = [one.name for one in db.packages.values() if one.essential]
    assert "dpkg" in essential and "libc-bin" in essential
    base = packagedb.expected_base(db, {})
    assert "dpkg" in base and base == db.closure(base)
    assert db.owners(b"usr/bin/dpkg") == ("dpkg",)
