"""Real machines: a tiny guest is built and booted, emulated where KVM does
not work."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from oslo_config import cfg

from splitimage_driver import exceptions
from splitimage_driver.assembly import disks
from splitimage_driver.conf import launch as options
from splitimage_driver.launch import accelerator, base, command, processes, qemu, qmp
from splitimage_driver.model import server as states
from splitimage_driver.model.server import Server
from tests.functional import tinyguest

LONG = 120.0
ROOT = Path(__file__).resolve().parent.parent.parent


class Records:
    """A store as far as a launcher needs one."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}

    def save_server(self, server: Server) -> None:
        self.servers[server.id] = server

    def delete_server(self, server_id: str) -> None:
        self.servers.pop(server_id, None)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> str:
    return accelerator.choose(cache=tmp_path_factory.mktemp("cache") / "kvm.json")


@pytest.fixture(scope="module")
def backing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tiny")
    disks.convert(tinyguest.build(place), "raw", place / "tiny.qcow2", "qcow2")
    return place / "tiny.qcow2"


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def conf() -> Any:
    conf = cfg.ConfigOpts()
    conf.register_opts(options.OPTS, group=options.GROUP)
    conf([], default_config_files=[])
    return conf


@pytest.fixture
def launcher(conf: Any, records: Records, chosen: str) -> Iterator[qemu.QemuLauncher]:
    made = qemu.QemuLauncher(conf.launch, records, lambda: chosen)  # type: ignore[arg-type]
    yield made
    for server in list(records.servers.values()):
        made.delete(server)


@pytest.fixture
def start(launcher: qemu.QemuLauncher, backing: Path,
          tmp_path: Path) -> Callable[..., Server]:
    def started(server_id: str = "one", *, record: Server | None = None,
                directory: Path | None = None, **fields: Any) -> Server:
        server = record or Server(
            id=server_id, name=f"server {server_id}", composite="c", parts=(), image="i",
            disk="d", directory=str(directory or tmp_path / server_id), owner="default",
            created=time.time())
        settings: dict[str, Any] = {"backing": backing, "backing_format": "qcow2",
                                    "memory": 256, "cpus": 1, "ports": [80]}
        return launcher.start(server, **settings | fields)

    return started


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def boots(disk: Path, scratch: Path) -> int:
    """How often the guest of a (standalone) disk has booted."""
    disks.convert(disk, "qcow2", scratch, "raw")
    with scratch.open("rb") as stream:
        stream.seek(tinyguest.SECTOR * 512)
        return int(stream.read(512).strip(b"\0\n") or b"0")


# -- accelerator ------------------------------------------------------------------

def test_the_probe_runs_to_its_end_under_emulation() -> None:
    """So a False under KVM is KVM's, not the probe's."""
    assert accelerator.probe(accelerator.TCG, timeout=LONG)


def test_another_end_of_qemu_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not accelerator.probe("no such accelerator", qemu="true")
    fails = accelerator.PROBE.replace(b"\xb0\x2a\xe6\xf4", b"\xb0\x2b\xe6\xf4")
    assert fails != accelerator.PROBE
    monkeypatch.setattr(accelerator, "PROBE", fails)
    assert not accelerator.probe(accelerator.TCG, timeout=LONG)


def test_an_endless_guest_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "PROBE", b"\xeb\xfe".ljust(510, b"\0") + b"\x55\xaa")
    assert not accelerator.probe(accelerator.TCG, timeout=2)


def test_kvm_that_is_believed_boots_a_system(
        start: Callable[..., Server], launcher: qemu.QemuLauncher, chosen: str) -> None:
    """Whatever the answer was, a real kernel comes up with it."""
    server = start()
    words = processes.arguments(server.pid)
    assert words[words.index("-accel") + 1].startswith(chosen)
    launcher.wait(server, 80, timeout=LONG)


# -- life -------------------------------------------------------------------------

def test_a_server_from_start_to_end(
        start: Callable[..., Server], launcher: qemu.QemuLauncher, records: Records,
        backing: Path, tmp_path: Path) -> None:
    before = digest(backing)
    server = start(ports=[80, 2200, 7000, 9])
    assert records.servers["one"] == server
    assert server.state == states.RUNNING and launcher.alive(server)
    assert set(server.ports) == {80, 2200, 7000, 9}
    status = Path(f"/proc/{server.pid}/status").read_text()
    assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status

    # the forwarder accepts at once; nothing of that is an answer
    with pytest.raises(exceptions.LaunchFailed, match=r"did not answer within 0\.1 s"):
        launcher.wait(server, 80, timeout=0.1)
    assert launcher.wait(server, 2200, timeout=LONG) > 0
    assert launcher.wait_http(server, 80, timeout=LONG)[1:] == (200, tinyguest.PAGE)
    launcher.wait(server, 80, timeout=LONG, path="/absent")
    launcher.wait(server, 7000, timeout=LONG)
    with pytest.raises(exceptions.LaunchFailed, match=tinyguest.READY):
        launcher.wait(server, 9, timeout=2)
    assert "boot number 1" in launcher.console(server).read_text()

    # a snapshot while it runs on
    snapshot = tmp_path / "snapshot.qcow2"
    launcher.snapshot(server, snapshot)
    assert disks.inspect(snapshot).virtual_size == disks.virtual_size(backing)
    assert boots(snapshot, tmp_path / "snapshot.raw") == 1
    assert boots(backing, tmp_path / "backing.raw") == 0
    launcher.wait_http(server, 80, timeout=LONG)
    launcher.snapshot(server, snapshot)  # leaves nothing behind that hinders another
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "backing.raw", "one", "snapshot.qcow2", "snapshot.raw"]

    # off by its button, on again with what it wrote
    stopped = launcher.stop(server, timeout=LONG)
    assert stopped.state == states.STOPPED and not launcher.alive(server)
    assert "Power down" in launcher.console(server).read_text()
    again = start(record=stopped)
    assert again.ports == {80: server.ports[80]}
    launcher.wait(again, 80, timeout=LONG)
    assert "boot number 2" in launcher.console(again).read_text()
    assert digest(backing) == before

    launcher.delete(again)
    assert not launcher.alive(again) and not Path(again.directory).exists()
    assert records.servers == {}


def test_two_servers_from_one_disk(
        start: Callable[..., Server], launcher: qemu.QemuLauncher, backing: Path,
        tmp_path: Path) -> None:
    one, two = start("one"), start("two")
    assert one.ports[80] != two.ports[80]
    for server in (one, two):
        assert launcher.wait_http(server, 80, timeout=LONG)[2] == tinyguest.PAGE
        assert "boot number 1" in launcher.console(server).read_text()

    # one is killed: noticed, and not mistaken for the other
    os.kill(one.pid, signal.SIGKILL)
    assert processes.wait(one.pid, one.started, LONG)
    assert not launcher.alive(one) and launcher.alive(two)
    assert launcher.refresh(one).state == states.STALE
    assert launcher.refresh(two) == two
    assert not launcher.alive(msgspec.structs.replace(one, pid=two.pid))
    with pytest.raises(exceptions.InvalidInput):
        launcher.snapshot(one, tmp_path / "none")
    launcher.delete(launcher.refresh(one))
    launcher.wait(two, 80, timeout=LONG)
    assert launcher.stop(two, timeout=0).state == states.STOPPED
    assert "Power down" not in launcher.console(two).read_text()


def told(launcher: qemu.QemuLauncher, server: Server, disks: Iterable[base.Disk]) -> bool:
    """Wait until the guest has exactly these further disks, and reads what is in them."""
    wanted = {disk.serial: digest(disk.path) for disk in disks}
    end = time.monotonic() + LONG
    while tinyguest.further(launcher.console(server)) != wanted:
        assert time.monotonic() < end, (wanted, launcher.console(server).read_text())
        time.sleep(0.2)
    return True


def opened(server: Server) -> set[str]:
    """The files that its process has open."""
    return {os.readlink(link) for link in Path(f"/proc/{server.pid}/fd").iterdir()
            if link.is_symlink()}


def test_further_disks_come_and_go(
        start: Callable[..., Server], launcher: qemu.QemuLauncher, tmp_path: Path) -> None:
    def disk(serial: str, size: int = 1 << 16) -> base.Disk:
        path = tmp_path / f"{serial}, of a part"
        path.write_bytes(random.Random(serial).randbytes(size))
        path.chmod(0o444)
        return base.Disk(serial, path)

    plan, part, other = disk("si-plan-0123456789ab"), disk("si-0123456789abcdef0"), disk("si-b")
    many = [disk(f"si-{n}", 512) for n in range(40)]
    # Two of one host have the same files, at boot and later.
    one, two = start("one", disks=[plan, part]), start("two")
    assert told(launcher, one, [plan, part])
    launcher.wait(two, 80, timeout=LONG)
    launcher.attach(two, [part, plan])
    assert told(launcher, two, [plan, part])

    launcher.attach(one, [part, other, plan])
    launcher.attach(one, [other])
    assert told(launcher, one, [plan, part, other])
    launcher.detach(one, [part.serial, other.serial])
    assert opened(one).isdisjoint({str(part.path), str(other.path)})
    launcher.detach(one, [part.serial, "si-never"])
    assert told(launcher, one, [plan])
    launcher.attach(one, [part, *many])  # and again
    assert told(launcher, one, [plan, part, *many])
    launcher.detach(one, [d.serial for d in (plan, part, *many)])
    assert told(launcher, one, [])
    launcher.wait(one, 80, timeout=LONG)

    # What somebody was killed in the middle of.
    with qmp.Monitor(Path(two.directory, "qmp.sock")) as monitor:
        monitor.execute("blockdev-add", **command.node(other))
        monitor.execute("device_del", id=part.serial)
    launcher.attach(two, [part, other])
    assert told(launcher, two, [plan, part, other])
    with qmp.Monitor(Path(two.directory, "qmp.sock")) as monitor:
        monitor.execute("device_del", id=other.serial)
    launcher.detach(two, [plan.serial, part.serial, other.serial])
    assert opened(two).isdisjoint({str(d.path) for d in (plan, part, other)})

    with pytest.raises(exceptions.ToolFailed, match="absent"):
        launcher.attach(two, [base.Disk("si-x", tmp_path / "absent")])
    with pytest.raises(exceptions.InvalidInput, match="255 fit"):
        launcher.attach(two, [base.Disk(f"si-{n}", plan.path) for n in range(256)])
    done = launcher.stop(two, timeout=0)
    launcher.detach(done, [plan.serial])
    with pytest.raises(exceptions.InvalidInput, match="does not run"):
        launcher.attach(done, [plan])


def test_a_uefi_server_keeps_its_variables(
        start: Callable[..., Server], launcher: qemu.QemuLauncher, conf: Any) -> None:
    server = start(firmware="uefi")
    launcher.wait(server, 80, timeout=LONG)
    variables = Path(server.directory, "uefi-variables.fd")
    assert variables.stat().st_size == Path(conf.launch.uefi_variables).stat().st_size
    assert digest(variables) != digest(Path(conf.launch.uefi_variables))


def test_the_end_of_a_machine_ends_the_waiting(
        start: Callable[..., Server], launcher: qemu.QemuLauncher) -> None:
    server = start(ports=[9])
    threading.Timer(1.5, os.kill, (server.pid, signal.SIGKILL)).start()
    with pytest.raises(exceptions.LaunchFailed, match=r"server server one.*ended before"):
        launcher.wait(server, 9, timeout=3600)


def test_a_server_outlives_its_command(
        launcher: qemu.QemuLauncher, records: Records, backing: Path, tmp_path: Path) -> None:
    """The starter is killed before it could note the process."""
    # longer than a socket's name can be, and odd
    directory = tmp_path / ("deep, and long " * 8)
    script = tmp_path / "start.py"
    script.write_text(f"""
import os, signal, sys, time
from pathlib import Path
from oslo_config import cfg
from splitimage_driver.conf import launch
from splitimage_driver.launch import qemu
from splitimage_driver.model.server import Server

class Killed:
    def save_server(self, server):
        if server.pid:
            os.kill(os.getpid(), signal.SIGKILL)

conf = cfg.ConfigOpts()
conf.register_opts(launch.OPTS, group="launch")
conf([], default_config_files=[])
server = Server(id="lost", name="lost", composite="c", parts=(), image="i", disk="d",
                directory={str(directory)!r}, owner="default", created=0.0)
qemu.QemuLauncher(conf.launch, Killed(), lambda: "tcg").start(
    server, backing=Path({str(backing)!r}), backing_format="qcow2", memory=256, cpus=1,
    ports=[80])
""")
    done = subprocess.run([sys.executable, script], cwd=ROOT, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    recorded = Server(id="lost", name="lost", composite="c", parts=(), image="i", disk="d",
                      directory=str(directory), owner="default", created=0.0)
    records.save_server(recorded)
    assert launcher.alive(recorded)
    found = launcher.refresh(recorded)
    assert found.state == states.RUNNING and found.pid and found.ports[80]
    launcher.delete(found)
    assert processes.start_ticks(found.pid) != found.started


# -- refusals ---------------------------------------------------------------------

def test_qemu_says_why(start: Callable[..., Server], backing: Path, tmp_path: Path,
                       records: Records) -> None:
    with pytest.raises(exceptions.LaunchFailed, match=r"server server one did not start: .+"):
        start(disks=[base.Disk("absent", tmp_path / "absent")])
    assert records.servers["one"].state == states.STOPPED
    assert not Path(records.servers["one"].directory, "qemu.pid").exists()


def test_taken_ports_are_replaced(start: Callable[..., Server],
                                  launcher: qemu.QemuLauncher) -> None:
    server = start("one")
    other = start(record=msgspec.structs.replace(
        server, id="two", directory=server.directory + "-two", pid=0, started=0))
    assert launcher.alive(server) and launcher.alive(other)
    assert other.ports[80] not in (0, server.ports[80])


def test_qemu_missing(start: Callable[..., Server], conf: Any, records: Records) -> None:
    conf.set_override("qemu", "qemu-system-none", group="launch")
    with pytest.raises(exceptions.ToolMissing, match="qemu-system-none is not installed"):
        start()
