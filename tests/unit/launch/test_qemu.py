from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from splitimage_driver import exceptions, process
from splitimage_driver.assembly import disks
from splitimage_driver.launch import command, processes, qemu
from splitimage_driver.model import server as states
from splitimage_driver.model.server import Server
from tests.unit.launch.conftest import Records

PID, TICKS = 4711, 998877
USERNET = """Hub -1 (net):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[SYN_SENT]      23       127.0.0.1 40131       10.0.2.15    22     0     0
  TCP[ESTABLISHED]   21       127.0.0.1 44781       10.0.2.15    80     0     0
  TCP[FIN_WAIT_2]    22       127.0.0.1 44781       10.0.2.15  7000     0     0
  TCP[HOST_FORWARD]  19       127.0.0.1 44781       10.0.2.15    80     0     0
  TCP[HOST_FORWARD]  18       127.0.0.1 40131       10.0.2.15    22     0     0
"""


class Machine:
    """Stands for qemu: what it says when started, and its monitor."""

    def __init__(self, proc: Callable[..., None]) -> None:
        self.proc = proc
        self.complaints: list[str] = []
        self.started: list[list[str]] = []
        self.told: list[str] = []

    def run(self, words: Sequence[Any], **_: object) -> None:
        self.started.append([str(word) for word in words])
        if self.complaints:
            raise exceptions.ToolFailed(tool="qemu", status="status 1",
                                        reason=self.complaints.pop(0))
        pid_file = self.started[-1][self.started[-1].index("-pidfile") + 1]
        Path(pid_file).write_text(f"{PID}\n")
        self.proc(PID, TICKS, "qemu", "-pidfile", pid_file)

    def monitor(self, path: Path) -> Machine:
        return self

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, what: str, **_: object) -> Any:
        self.told.append(what)
        return USERNET

    def last(self, option: str) -> str:
        return self.started[-1][self.started[-1].index(option) + 1]


@pytest.fixture
def machine(proc: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(proc)
    monkeypatch.setattr(process, "run", found.run)
    monkeypatch.setattr(qemu, "Monitor", found.monitor)
    monkeypatch.setattr(disks, "create_overlay",
                        lambda backing, backing_format, overlay: overlay.write_bytes(b"new"))
    monkeypatch.setattr(processes, "wait", lambda pid, ticks, timeout: True)
    return found


@pytest.fixture
def launcher(machine: Machine, options: types.SimpleNamespace,
             records: Records) -> qemu.QemuLauncher:
    return qemu.QemuLauncher(options, records, lambda: "tcg")  # type: ignore[arg-type]


def start(launcher: qemu.QemuLauncher, server: Server, **fields: Any) -> Server:
    return launcher.start(server, backing=Path("/store/base"), backing_format="qcow2", **fields)


def test_a_start_is_recorded_before_and_after(
        launcher: qemu.QemuLauncher, records: Records, server: Server,
        machine: Machine) -> None:
    running = start(launcher, server, ports=[80, 22, 80])
    assert [saved.state for saved in records.saved] == [states.BUILDING, states.RUNNING]
    assert records.saved[-1] == running
    assert (running.pid, running.started) == (PID, TICKS)
    assert running.ports == {80: 44781, 22: 40131}
    assert machine.last("-m") == "512" and machine.last("-smp") == "2"
    assert machine.last("-netdev").count("127.0.0.1:0-:") == 2
    assert launcher.alive(running)


def test_a_server_that_runs_is_not_started_again(launcher: qemu.QemuLauncher,
                                                 server: Server) -> None:
    running = start(launcher, server)
    with pytest.raises(exceptions.InvalidInput, match="runs already"):
        start(launcher, running)


def test_a_restart_keeps_disk_and_ports(launcher: qemu.QemuLauncher, server: Server,
                                        machine: Machine) -> None:
    files = command.Files(Path(server.directory))
    files.directory.mkdir(parents=True)
    files.overlay.write_bytes(b"written by the guest")
    start(launcher, msgspec.structs.replace(server, ports={80: 4080}), ports=[80, 22])
    assert files.overlay.read_bytes() == b"written by the guest"
    assert "127.0.0.1:4080-:80" in machine.last("-netdev")
    assert "127.0.0.1:0-:22" in machine.last("-netdev")


def test_ports_taken_meanwhile_are_replaced(launcher: qemu.QemuLauncher, server: Server,
                                            machine: Machine) -> None:
    machine.complaints = ["Could not set up host forwarding rule 'tcp:127.0.0.1:4080-:80'"]
    start(launcher, msgspec.structs.replace(server, ports={80: 4080}), ports=[80])
    assert "127.0.0.1:0-:80" in machine.last("-netdev")
    assert len(machine.started) == 2


def test_a_build_without_sandbox(launcher: qemu.QemuLauncher, server: Server,
                                 machine: Machine) -> None:
    machine.complaints = ["-sandbox on: sandbox support is not enabled in this QEMU"]
    start(launcher, server)
    assert ["-sandbox" in words for words in machine.started] == [True, False]


@pytest.mark.parametrize("complaint", [
    "Failed to get \"write\" lock", "Could not set up host forwarding rule 'x'"])
def test_a_failed_start_says_what_qemu_said(
        launcher: qemu.QemuLauncher, server: Server, machine: Machine, records: Records,
        complaint: str) -> None:
    machine.complaints = [complaint] * 5
    with pytest.raises(exceptions.LaunchFailed, match="server web did not start: .*" + complaint):
        start(launcher, server, ports=[80])
    assert len(machine.started) == 1
    assert records.saved[-1].state == states.STOPPED


@pytest.mark.parametrize(("fields", "error"), [
    ({"memory": 4096}, exceptions.TooLarge), ({"cpus": 5}, exceptions.TooLarge),
    ({"memory": 0}, exceptions.InvalidInput), ({"firmware": "coreboot"}, exceptions.InvalidInput),
    ({"firmware": "uefi"}, exceptions.ToolMissing)])
def test_refusals(launcher: qemu.QemuLauncher, server: Server, machine: Machine,
                  fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        start(launcher, server, **fields)
    assert machine.started == []


def test_a_reused_pid_is_another_process(launcher: qemu.QemuLauncher, records: Records,
                                         server: Server, proc: Callable[..., None]) -> None:
    proc(99, 5000, "someone else")
    stale = msgspec.structs.replace(server, pid=99, started=4000, state=states.RUNNING)
    assert not launcher.alive(stale)
    fresh = launcher.refresh(stale)
    assert (fresh.state, fresh.pid) == (states.STALE, 0)
    assert records.saved == [fresh]


def test_a_server_whose_starter_was_killed_is_found(launcher: qemu.QemuLauncher,
                                                    records: Records, server: Server) -> None:
    start(launcher, server)
    lost = records.saved[0]
    assert (lost.state, lost.pid) == (states.BUILDING, 0)
    found = launcher.refresh(lost)
    assert (found.state, found.pid, found.started) == (states.RUNNING, PID, TICKS)


def test_an_old_pid_file_means_nothing(launcher: qemu.QemuLauncher, server: Server,
                                       proc: Callable[..., None]) -> None:
    files = command.Files(Path(server.directory))
    files.directory.mkdir(parents=True)
    files.pid.write_text("99\n")
    proc(99, 5000, "another", "-pidfile", "/elsewhere")
    assert not launcher.alive(server)
    assert launcher.refresh(server) == server


def test_stop_presses_the_button_and_records(launcher: qemu.QemuLauncher, server: Server,
                                             machine: Machine, records: Records) -> None:
    running = start(launcher, server)
    machine.told.clear()
    done = launcher.stop(running)
    assert machine.told[0] == "system_powerdown"
    assert (done.state, done.pid, done.started) == (states.STOPPED, 0, 0)
    assert records.saved[-1] == done
    machine.told.clear()
    launcher.stop(running, timeout=0)
    assert "system_powerdown" not in machine.told


def test_delete_leaves_nothing(launcher: qemu.QemuLauncher, server: Server,
                               records: Records) -> None:
    running = start(launcher, server)
    launcher.delete(running)
    assert not Path(server.directory).exists()
    launcher.delete(running)  # of a crash in between
    assert records.deleted == ["one", "one"]


def test_only_an_accepted_connection_counts(launcher: qemu.QemuLauncher,
                                            server: Server) -> None:
    assert launcher._connected(server, 80)
    assert not launcher._connected(server, 22)
    assert not launcher._connected(server, 7000)


def test_a_snapshot_needs_a_running_server(launcher: qemu.QemuLauncher, server: Server,
                                           tmp_path: Path) -> None:
    with pytest.raises(exceptions.InvalidInput, match="does not run"):
        launcher.snapshot(server, tmp_path / "out")
