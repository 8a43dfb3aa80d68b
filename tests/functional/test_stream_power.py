"""Servers that lay the demonstration's software while they run: their power is cut,
and their users do other things meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from splitimage_driver.application import Application
from splitimage_driver.capture.identity import Identity
from splitimage_driver.model.delivery import STREAM
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.layout import COMPLETE
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.plan import Request
from splitimage_driver.model.server import Server
from splitimage_driver.servers import Wish
from tests.functional import chroot, trees

pytest_plugins = ("tests.functional.lamp",)
pytestmark = [pytest.mark.accept,
              pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")]
PATIENCE = 1800.0
CUTS = 20
CUT = ("apache",)
#: What a system that runs writes itself, in a machine that was injected, too.
RUNNING = (b"var/lib/mysql/", b"var/lib/systemd/", b"var/lib/dhcp/", b"var/lib/private",
           b"var/lib/apt/", b"var/cache/apt/", b"var/lib/php/sessions", b"etc/.pwd.lock",
           b"var/tmp/", b"tmp/", b"run/", b"var/log/journal/")

Native = Callable[[str], Application]


def launched(application: Application, chosen: tuple[str, ...], filesets: tuple[str, ...] = (),
             *, complete: bool = True) -> Server:
    server, = application.servers.launch(Wish(
        request=Request(composite="lamp", parts=chosen, filesets=filesets), deliver=STREAM,
        complete=complete, timeout=PATIENCE)).servers
    return server


@contextlib.contextmanager
def disk_of(application: Application, server: Server) -> Iterator[Path]:
    """The disk of a stopped server, in one raw file; its file systems are clean."""
    with tempfile.TemporaryDirectory(prefix="disk-") as folder:
        raw = Path(folder, "disk.raw")
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw",
                        f"{server.directory}/overlay.qcow2", str(raw)], check=True)
        for _, offset, _, _ in trees.partitions(raw):
            checked = subprocess.run(["e2fsck", "-f", "-n", f"{raw}?offset={offset}"],
                                     capture_output=True, text=True, check=False)
            assert checked.returncode == 0, checked.stdout
        yield raw


def wanted(application: Application, server: Server) -> Manifest:
    plans = application.images.plans
    return plans.target(plans.goal(server.request)).manifest


def differences(application: Application, server: Server, *ours: bytes) -> list[str]:
    """Of a stopped server's tree from what was asked for, outside logs,
    identity and what runs."""
    def excluded(entry: FileEntry) -> bool:
        return (chroot.is_own(entry) or Identity().excludes(entry)
                or any((entry.path + b"/").startswith(path) for path in (*RUNNING, *ours)))

    with disk_of(application, server) as raw, trees.mounted(raw, format="raw") as tree:
        return trees.differences(tree.manifest(), wanted(application, server), times=True,
                                 excludes=excluded)


@contextlib.contextmanager
def deleted(application: Application, server: Server) -> Iterator[None]:
    try:
        yield
    finally:
        application.servers.delete(server.id)


# -- power cuts ---------------------------------------------------------------------------


def begun(application: Application, server: Server) -> float:
    """Wait until the guest lays; returns the time."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = application.servers.show(server.id)
        if found.layout is not None and found.layout.begun:
            return time.monotonic()
        time.sleep(0.05)
    raise AssertionError("the layout never began")


@pytest.fixture(scope="module")
def duration(native: Native) -> float:
    """Seconds that a layout takes that nobody interrupts."""
    application = native("steps")
    server = launched(application, CUT, complete=False)
    with deleted(application, server):
        since = begun(application, server)
        application.servers.wait(server.id, timeout=PATIENCE)
        return time.monotonic() - since


@pytest.mark.must_show("streams", 2)
@pytest.mark.parametrize("moment", range(CUTS))
def test_power_cut(native: Native, duration: float, moment: int) -> None:
    application = native("steps")
    server = launched(application, CUT, complete=False)
    with deleted(application, server):
        since = begun(application, server)
        chance = random.Random(moment)
        # One in each twentieth of the time that it takes.
        share = (moment + chance.random()) / CUTS
        time.sleep(max(0.0, since + share * duration - time.monotonic()))
        os.kill(application.servers.show(server.id).pid, signal.SIGKILL)
        application.servers.stop(server.id, timeout=0)
        application.servers.start(server.id)
        complete = application.servers.wait(server.id, timeout=PATIENCE)
        assert complete.layout is not None and complete.layout.state == COMPLETE
        application.servers.stop(server.id, timeout=120)
        assert differences(application, server) == []


# -- what users do meanwhile ----------------------------------------------------------------


MEANWHILE = r"""#!/bin/sh
until ls /var/lib/splitimage/journal-* >/dev/null 2>&1; do sleep 0.1; done
useradd --create-home --shell /bin/sh carol
DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 install /opt/other.deb
echo "status $?" >/opt/result
grep -q '^end' /var/lib/splitimage/journal-* || echo during >>/opt/result
sync
"""
UNIT = """[Unit]
Description=What a user does meanwhile
[Service]
Type=exec
ExecStart=/opt/meanwhile
[Install]
WantedBy=multi-user.target
"""


def other_package(place: Path) -> None:
    """A package that is in no part."""
    tree = place.with_suffix("")
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: other\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@localhost>\n"
        "Description: in no part\n")
    (tree / "usr/share/other").mkdir(parents=True)
    (tree / "usr/share/other/data").write_text("other\n")
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(tree), str(place)],
                   check=True, stdout=subprocess.DEVNULL)


@pytest.mark.must_show("streams", 2)
def test_what_users_do_meanwhile_stays(native: Native, tmp_path: Path) -> None:
    application = native("steps")
    files = tmp_path / "meanwhile"
    wants = files / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (files / "opt").mkdir()
    (files / "opt/meanwhile").write_text(MEANWHILE)
    (files / "opt/meanwhile").chmod(0o755)
    (wants.parent / "meanwhile.service").write_text(UNIT)
    (wants / "meanwhile.service").symlink_to("/etc/systemd/system/meanwhile.service")
    other_package(tmp_path / "other.deb")
    (files / "opt/other.deb").write_bytes((tmp_path / "other.deb").read_bytes())
    fileset = application.images.create_part("meanwhile", files)
    # It has to be there before anything is laid.
    _, start = trees.native(application).assemble(
        Request(composite="lamp", filesets=(fileset.id,)))
    assert start.image is not None
    server = launched(application, ("apache", "mysql"), (fileset.id,))
    with deleted(application, server):
        assert server.layout is not None and server.layout.state == COMPLETE
        application.servers.stop(server.id, timeout=120)
        with disk_of(application, server) as raw, trees.mounted(raw, format="raw") as tree:
            assert tree.read("opt/result") == b"status 0\nduring\n"
            assert tree.read("usr/share/other/data") == b"other\n"
            packages = [line.split()[0] for line in trees.packages(tree)]
            assert {"other", "apache2", "mariadb-server"} <= set(packages)
            assert trees.audit(tree) == ""
            names = [row.split(b":")[0] for row in tree.read("etc/passwd").splitlines()]
            assert {b"mysql", b"carol", b"root"} <= set(names) and len(set(names)) == len(names)
            # Both are whole: in all four files, with a home.
            assert tree.run("pwck -r; grpck -r", check=False).stdout.count("carol") == 0
            assert tree.run("id -u mysql; id -u carol").stdout.split()
            assert tree.run("getent shadow mysql carol").stdout.count("\n") == 2
    application.store.delete_image(start.image.id)
