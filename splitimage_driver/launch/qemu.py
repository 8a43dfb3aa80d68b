"""Servers as qemu processes on this host.

A server's process belongs to nobody: it outlives the command that started
it, and is found again by the pid and start time in the server's record, or,
where its starter was killed before it could note them, by its pid file.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from oslo_log import log as logging

from splitimage_driver import exceptions, process
from splitimage_driver.assembly import disks as images
from splitimage_driver.launch import accelerator as accelerators
from splitimage_driver.launch import base, command, hotplug, processes
from splitimage_driver.launch.qmp import Monitor
from splitimage_driver.model import server as states
from splitimage_driver.model.server import Server
from splitimage_driver.progress import Operation
from splitimage_driver.store.base import Store

LOG = logging.getLogger(__name__)

BIOS, UEFI = "bios", "uefi"
#: Seconds for qemu to set itself up, and to leave when told to.
_SET_UP, _QUIT = 60.0, 5.0
#: A Unix socket's name has 107 bytes; qemu has the path as given.
_SOCKET_NAME = 107
_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)")
_ESTABLISHED = re.compile(r"TCP\[ESTABLISHED\]\s+\d+\s+\S+\s+\d+\s+\S+\s+(\d+)")


class QemuLauncher(base.Launcher):
    """:param options: the configuration group ``launch``
    :param store: where the records of servers are kept
    :param accelerator: tells ``kvm`` or ``tcg``; asked when a server starts
    """

    def __init__(self, options: Any, store: Store,
                 accelerator: Callable[[], str] = accelerators.choose) -> None:
        self._options, self._store, self._accelerator = options, store, accelerator

    # -- start --------------------------------------------------------------------

    def start(self, server: Server, *, backing: Path, backing_format: str,
              memory: int | None = None, cpus: int | None = None, ports: Sequence[int] = (),
              firmware: str = BIOS, disks: Sequence[base.Disk] = ()) -> Server:
        memory = self._within(server, "memory", memory, "MiB")
        cpus = self._within(server, "cpus", cpus, "processors")
        if self.alive(server):
            raise exceptions.InvalidInput(what=f"server {server.name}", reason="it runs already")
        files = command.Files(Path(server.directory))
        code = self._prepare(server, files, backing, backing_format, firmware)
        self._store.save_server(base.stopped(server, states.BUILDING))
        try:
            self._run(server, files, {port: server.ports.get(port, 0) for port in ports},
                      qemu=self._options.qemu, accelerator=self._accelerator(), backing=backing,
                      backing_format=backing_format, memory=memory, cpus=cpus, disks=disks,
                      uefi_code=code, outbound=self._options.outbound)
            running = self._found(server, files)
        except BaseException:
            self._cut(server, files)
            self._store.save_server(base.stopped(server))
            raise
        self._store.save_server(running)
        LOG.info("server %s runs as process %d", server.id, running.pid)
        return running

    def _within(self, server: Server, name: str, wanted: int | None, unit: str) -> int:
        value: int = getattr(self._options, name) if wanted is None else wanted
        limit: int = getattr(self._options, f"max_{name}")
        if value < 1:
            raise exceptions.InvalidInput(what=f"{name} of server {server.name}",
                                          reason=f"{value} {unit} are too few")
        if value > limit:
            raise exceptions.TooLarge(what=f"{name} of server {server.name}", size=value,
                                      limit=limit, unit=unit, option=f"[launch] max_{name}")
        return value

    def _prepare(self, server: Server, files: command.Files, backing: Path,
                 backing_format: str, firmware: str) -> Path | None:
        """Make the server's files that are not there yet; returns the UEFI code."""
        files.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.monitor.unlink(missing_ok=True)
        files.pid.unlink(missing_ok=True)
        if not files.overlay.exists():
            with images.beside(files.overlay) as part:
                images.create_overlay(backing, backing_format, part)
        if firmware == BIOS:
            return None
        if firmware != UEFI:
            raise exceptions.InvalidInput(what=f"firmware {firmware!r} of server {server.name}",
                                          reason=f"it is {BIOS} or {UEFI}")
        code, variables = Path(self._options.uefi_code), Path(self._options.uefi_variables)
        for file in (code, variables):
            if not os.access(file, os.R_OK):
                raise exceptions.ToolMissing(tool=f"the UEFI firmware {file}", package="ovmf")
        if not files.variables.exists():
            images.copy(variables, files.variables, expected=None)
        return code

    def _run(self, server: Server, files: command.Files, ports: Mapping[int, int],
             **settings: Any) -> None:
        """Start qemu; it answers on its monitor when this returns.

        Free ports are for the kernel to choose when qemu binds them, so that
        nobody can be quicker. The ports a server had before are tried once.
        """
        sandbox = True
        while True:
            with _short(files.monitor) as monitor:
                words = command.build(server, files, ports=ports, monitor=monitor,
                                      sandbox=sandbox, **settings)
                try:
                    process.run(words, timeout=_SET_UP)
                    return
                except exceptions.ToolFailed as error:
                    reason = error.fields["reason"]
            if "host forwarding rule" in reason and any(ports.values()):
                LOG.info("server %s gets other ports: %s", server.id, reason)
                ports = dict.fromkeys(ports, 0)
            elif sandbox and re.search("sandbox|seccomp", reason):
                LOG.warning("qemu runs without its sandbox: %s", reason)
                sandbox = False
            else:
                raise exceptions.LaunchFailed(server=server.name, reason=reason)

    def _found(self, server: Server, files: command.Files) -> Server:
        """The record of the process that has just been, or had been, started."""
        found = self._by_pid_file(files)
        if found is None:
            raise self._failed(server, "it ended at once")
        try:
            listening = _forwards(self._usernet(server))
        except exceptions.ToolFailed as error:
            raise self._failed(server, error.fields["reason"]) from error
        return base.changed(server, pid=found[0], started=found[1], ports=listening,
                            state=states.RUNNING)

    # -- further disks ------------------------------------------------------------

    def attach(self, server: Server, disks: Sequence[base.Disk]) -> None:
        if not self.alive(server):
            raise exceptions.InvalidInput(what=f"disks of server {server.name}",
                                          reason="it does not run")
        with self._monitor(server) as monitor:
            hotplug.attach(monitor, server, disks)

    def detach(self, server: Server, serials: Iterable[str]) -> None:
        try:
            if self.alive(server):
                with self._monitor(server) as monitor:
                    hotplug.detach(monitor, server, serials)
        except exceptions.ToolFailed:
            if self.alive(server):  # else it has ended, and they with it
                raise

    # -- life -----------------------------------------------------------------------

    def alive(self, server: Server) -> bool:
        return self._process(server) is not None

    def refresh(self, server: Server) -> Server:
        if self._process(server) is None:
            if server.state != states.RUNNING:
                return server
            LOG.warning("server %s has ended without being told to", server.id)
            fresh = base.stopped(server, states.STALE)
        elif server.pid:
            return server
        else:
            try:
                fresh = self._found(server, command.Files(Path(server.directory)))
            except exceptions.LaunchFailed as error:  # it is still setting itself up, or hangs
                LOG.debug("%s", error)
                return server
        self._store.save_server(fresh)
        return fresh

    def stop(self, server: Server, *, timeout: float | None = None) -> Server:
        patience = self._options.stop_timeout if timeout is None else timeout
        found = self._process(server)
        if found is not None and patience > 0:
            end = time.monotonic() + patience
            self._tell(server, "system_powerdown")
            # a guest without a listener yet drops the event: press again
            while not processes.wait(*found, min(5.0, end - time.monotonic())):
                if time.monotonic() >= end:
                    LOG.warning("server %s did not shut down within %g s, its power is cut",
                                server.id, patience)
                    break
                self._tell(server, "system_powerdown")
        self._cut(server, command.Files(Path(server.directory)))
        done = base.stopped(server)
        self._store.save_server(done)
        return done

    def delete(self, server: Server) -> None:
        files = command.Files(Path(server.directory))
        self._cut(server, files)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(files.directory)
        self._store.delete_server(server.id)

    def console(self, server: Server) -> Path:
        return command.Files(Path(server.directory)).console

    def _cut(self, server: Server, files: command.Files) -> None:
        """Cut the power, whether the record or only the pid file knows it."""
        found = self._process(server) or self._by_pid_file(files)
        if found is None:
            return
        self._tell(server, "quit")  # it flushes its files
        if not processes.wait(*found, _QUIT):
            processes.kill(*found)
            processes.wait(*found, _QUIT)

    def _process(self, server: Server) -> tuple[int, int] | None:
        """Its pid and start time, if it runs."""
        if not server.pid:
            return self._by_pid_file(command.Files(Path(server.directory)))
        if processes.start_ticks(server.pid) == server.started:
            return server.pid, server.started
        return None

    def _by_pid_file(self, files: command.Files) -> tuple[int, int] | None:
        try:
            pid = int(files.pid.read_text())
        except (OSError, ValueError):
            return None
        ticks = processes.start_ticks(pid)
        # the file may be of a time before this pid was given anew
        if ticks is None or str(files.pid) not in processes.arguments(pid):
            return None
        return pid, ticks

    # -- monitor --------------------------------------------------------------------

    def _monitor(self, server: Server) -> Monitor:
        return Monitor(command.Files(Path(server.directory)).monitor)

    def _tell(self, server: Server, what: str) -> None:
        try:
            with self._monitor(server) as monitor:
                monitor.execute(what)
        except exceptions.ToolFailed as error:  # it may be gone by now, or hang
            LOG.debug("server %s: %s", server.id, error)

    def _reset(self, server: Server) -> None:
        self._tell(server, "system_reset")

    def _usernet(self, server: Server) -> str:
        with self._monitor(server) as monitor:
            return str(monitor.execute("human-monitor-command", command_line="info usernet"))

    def _connected(self, server: Server, guest_port: int) -> bool:
        try:
            states_ = _ESTABLISHED.findall(self._usernet(server))
        except exceptions.ToolFailed:
            return False
        return str(guest_port) in states_

    # -- snapshot -------------------------------------------------------------------

    def snapshot(self, server: Server, destination: Path) -> None:
        if not self.alive(server):
            raise exceptions.InvalidInput(what=f"snapshot of server {server.name}",
                                          reason="it does not run")
        overlay = command.Files(Path(server.directory)).overlay
        job = f"snapshot-{uuid.uuid4().hex[:8]}"
        with images.beside(destination) as part:
            images.create(part, images.virtual_size(overlay))
            self._ask(server, "blockdev-add", driver=images.QCOW2, node_name=job,
                      file={"driver": "file", "filename": str(part)})
            try:
                self._ask(server, "blockdev-backup", job_id=job, device=command.DISK,
                          target=job, sync="full", auto_dismiss=False)
                self._follow(server, job)
            finally:
                self._end(server, job)

    def _follow(self, server: Server, job: str) -> None:
        with Operation("snapshot", subject=server.name) as operation:
            while True:
                found = next(j for j in self._ask(server, "query-jobs") if j["id"] == job)
                operation.total = found["total-progress"]
                operation.advance(found["current-progress"] - operation.current)
                if found["status"] == "concluded":
                    break
                time.sleep(0.1)
        if "error" in found:
            raise exceptions.ToolFailed(tool=self._options.qemu, status="snapshot",
                                        reason=found["error"])

    def _end(self, server: Server, job: str) -> None:
        """Take job and target out of the machine, however far they came."""
        with contextlib.suppress(exceptions.ToolFailed):
            for _ in range(100):
                status = next((found["status"] for found in self._ask(server, "query-jobs")
                               if found["id"] == job), None)
                if status == "concluded":
                    self._ask(server, "job-dismiss", id=job)
                if status in ("concluded", None):
                    break
                self._ask(server, "block-job-cancel", device=job, force=True)
                time.sleep(0.1)
            self._ask(server, "blockdev-del", node_name=job)

    def _ask(self, server: Server, question: str, **arguments: Any) -> Any:
        with self._monitor(server) as monitor:
            return monitor.execute(question, **arguments)


def _forwards(usernet: str) -> dict[int, int]:
    """Guest to host port, from the monitor's table of connections."""
    return {int(guest): int(host) for host, guest in _FORWARD.findall(usernet)}


@contextlib.contextmanager
def _short(path: Path) -> Iterator[Path]:
    """Another name for a socket whose own is too long to bind."""
    if len(os.fsencode(path)) <= _SOCKET_NAME:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="splitimage-") as directory:
        link = Path(directory, "d")
        link.symlink_to(path.parent)
        yield link / path.name
