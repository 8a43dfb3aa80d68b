"""The contract of a launcher: what runs the servers."""

from __future__ import annotations

import abc
import http.client
import re
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.model import server as states
from splitimage_driver.model.server import Server

LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Guest ports that count as answering only when HTTP is spoken.
HTTP_PORTS = frozenset({80, 8000, 8008, 8080, 8888})
HOST = "127.0.0.1"
_BODY = 1 << 20
_PAUSE = 0.25
#: Seconds of silence after which the guest is asked whether it has accepted.
_SILENCE = 0.5
#: Seconds that a slow program in the guest has to answer a request.
_PATIENCE = 30.0
_TAIL = 8192
#: What a kernel says last where nothing but a reset will help.
_PANIC = re.compile(r"---\[ end Kernel panic - not syncing: (.*?) \]---$")
#: The reason that is the emulator's fault: on a busy host its clock stands
#: still for as long as the kernel tries it out.
_NO_CLOCK = "IO-APIC + timer doesn't work"
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]+[0-~]|[0-Z\\^_-~])")


class Disk(NamedTuple):
    """A further disk of a server, raw and read-only; several servers may have the
    same file.

    :ivar serial: what its guest knows it by: at most 20 of A-Z a-z 0-9 . _ -, the
        first a letter; each once in a server
    """

    serial: str
    path: Path


class Launcher(abc.ABC):
    """Runs servers. Found by stevedore in ``splitimage.launchers``.

    Methods that change a server return its new record and have saved it in
    the store.
    """

    @abc.abstractmethod
    def start(self, server: Server, *, backing: Path, backing_format: str,
              memory: int | None = None, cpus: int | None = None, ports: Sequence[int] = (),
              firmware: str = "bios", disks: Sequence[Disk] = ()) -> Server:
        """Start a server; started again it keeps what it wrote.

        :param backing: the disk it runs on; nothing is written to it
        :param memory: MiB; None: the configured size
        :param ports: the guest's TCP ports to reach from this host
        :param firmware: ``bios`` or ``uefi``
        :param disks: further ones; :meth:`attach` can add others later
        :raises InvalidInput: it runs already, or is larger than allowed
        :raises LaunchFailed: with the hypervisor's own words
        """

    @abc.abstractmethod
    def attach(self, server: Server, disks: Sequence[Disk]) -> None:
        """Give a running server further disks; those that it has already stay.

        :raises InvalidInput: it does not run, or more than fit
        :raises ToolFailed: the hypervisor refused; some may be attached
        """

    @abc.abstractmethod
    def detach(self, server: Server, serials: Iterable[str]) -> None:
        """Take further disks away, and wait until the hypervisor has let go of
        their files. What the server does not have, or does not run any more, is
        gone already.

        :raises ToolFailed: the hypervisor keeps one; others may be gone
        """

    @abc.abstractmethod
    def alive(self, server: Server) -> bool: ...

    @abc.abstractmethod
    def refresh(self, server: Server) -> Server:
        """The record as it should be: ``stale`` where the server has ended
        without being told to, ``running`` where its starter did not live to
        note that."""

    @abc.abstractmethod
    def stop(self, server: Server, *, timeout: float | None = None) -> Server:
        """Shut it down; cut its power after ``timeout`` seconds (None: the
        configured time)."""

    @abc.abstractmethod
    def delete(self, server: Server) -> None:
        """Remove it with its disk, its console and its record; cuts its
        power where it runs."""

    @abc.abstractmethod
    def console(self, server: Server) -> Path:
        """The file with all it wrote on its serial console."""

    @abc.abstractmethod
    def snapshot(self, server: Server, destination: Path) -> None:
        """Write its disk, as at one moment while it runs on, to a new qcow2
        file without backing.

        :raises InvalidInput: it does not run
        :raises ToolFailed: the hypervisor gave up; nothing is left behind
        """

    @abc.abstractmethod
    def _connected(self, server: Server, guest_port: int) -> bool:
        """Whether the guest itself has accepted a connection to that port.
        A forwarder accepts in its place, long before the guest runs."""

    @abc.abstractmethod
    def _reset(self, server: Server) -> None:
        """Start its machine again, as a reset button does."""

    # -- waiting ------------------------------------------------------------------

    def wait(self, server: Server, guest_port: int, *, timeout: float, path: str = "/",
             meanwhile: Callable[[], object] = lambda: None) -> float:
        """Wait until a port answers: one of :data:`HTTP_PORTS` by an HTTP
        status (any) for ``path``, another by sending something, or by keeping
        the connection.

        :param meanwhile: called again and again; what it raises ends the waiting
        :returns: seconds
        :raises LaunchFailed: the server ended, or the time is over; with the
            last lines of its console
        """
        def attempt(port: int) -> bool | None:
            if guest_port in HTTP_PORTS:
                return self._get(server, guest_port, port, path) is not None or None
            return self._accepts(server, guest_port, port) or None

        return self._poll(server, guest_port, timeout, attempt, meanwhile)[0]

    def wait_http(self, server: Server, guest_port: int, path: str = "/", *, timeout: float,
                  meanwhile: Callable[[], object] = lambda: None) -> tuple[float, int, bytes]:
        """Wait for the first HTTP status 200.

        :param meanwhile: as :meth:`wait`
        :returns: seconds, status, body (of at most 1 MiB)
        :raises LaunchFailed: as :meth:`wait`
        """
        def attempt(port: int) -> tuple[int, bytes] | None:
            answer = self._get(server, guest_port, port, path)
            return answer if answer is not None and answer[0] == 200 else None

        seconds, (status, body) = self._poll(server, guest_port, timeout, attempt, meanwhile)
        return seconds, status, body

    def _poll(self, server: Server, guest_port: int, timeout: float,
              attempt: Callable[[int], _T | None],
              meanwhile: Callable[[], object]) -> tuple[float, _T]:
        port = server.ports.get(guest_port)
        if port is None:
            raise exceptions.InvalidInput(what=f"port {guest_port} of server {server.name}",
                                          reason="it is not forwarded to this host")
        began, panics = time.monotonic(), _Panics(self.console(server))
        while True:
            result = attempt(port)
            seconds = time.monotonic() - began
            if result is not None:
                LOG.info("server %s answers on port %d after %.1f s",
                         server.id, guest_port, seconds)
                return seconds, result
            if not self.alive(server):
                raise self._failed(server, "it ended before it answered")
            reason = panics.new()
            if reason.startswith(_NO_CLOCK):
                LOG.warning("server %s: the kernel found no clock on this busy host; it is "
                            "started again", server.name)
                self._reset(server)
            elif reason:
                raise self._failed(server, f"its kernel panicked: {reason}")
            meanwhile()
            if seconds >= timeout:
                raise self._failed(
                    server, f"port {guest_port} did not answer within {timeout:g} s")
            time.sleep(min(_PAUSE, timeout))

    def _get(self, server: Server, guest_port: int, port: int,
             path: str) -> tuple[int, bytes] | None:
        """One HTTP request: status and body, None where no answer came."""
        connection = http.client.HTTPConnection(HOST, port, timeout=_PATIENCE)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            if not self._readable(connection.sock, server, guest_port):
                return None
            response = connection.getresponse()
            return response.status, response.read(_BODY)
        except (OSError, http.client.HTTPException) as error:
            LOG.debug("server %s, port %d: %r", server.id, guest_port, error)
            return None
        finally:
            connection.close()

    def _accepts(self, server: Server, guest_port: int, port: int) -> bool:
        try:
            with socket.create_connection((HOST, port), timeout=5) as connection:
                if self._readable(connection, server, guest_port, patience=2 * _SILENCE):
                    return bool(connection.recv(1))
                return self._connected(server, guest_port)
        except OSError:
            return False

    def _readable(self, connection: socket.socket, server: Server, guest_port: int,
                  patience: float = _PATIENCE) -> bool:
        """Whether bytes, or the end, come within ``patience`` seconds. Given
        up early where the guest has not accepted: a new connection is quicker
        than the forwarder's growing pauses."""
        end = time.monotonic() + patience
        while True:
            if select.select([connection], [], [], _SILENCE)[0]:
                return True
            if time.monotonic() >= end or not self._connected(server, guest_port):
                return False

    def _failed(self, server: Server, reason: str) -> exceptions.LaunchFailed:
        lines = self.last_lines(server)
        if lines:
            reason += "; its console ends: " + " | ".join(lines)
        return exceptions.LaunchFailed(server=server.name, reason=reason)

    def last_lines(self, server: Server, count: int = 4) -> list[str]:
        """The end of its console, without what could play with a terminal."""
        return _end(self.console(server))[1][-count:]


class _Panics:
    """Of a console on which a kernel may panic more than once."""

    def __init__(self, console: Path) -> None:
        self._console, self._told = console, -1

    def new(self) -> str:
        """Why the kernel hangs now; "" if it does not, or was told before."""
        size, lines = _end(self._console)
        found = _PANIC.search(lines[-1]) if lines else None
        if found is None or size == self._told:
            return ""
        self._told = size
        return found[1]


def _end(console: Path) -> tuple[int, list[str]]:
    """Size in bytes and last lines."""
    try:
        with console.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(0, size - _TAIL))
            return size, printable(log.read(_TAIL))
    except OSError:
        return 0, []


def printable(console: bytes) -> list[str]:
    """The lines of a console that are not empty, without control sequences."""
    text = _ESCAPES.sub("", console.decode("utf-8", "replace"))
    lines = ("".join(c for c in line if c.isprintable()).strip()
             for line in re.split(r"[\r\n]+", text))
    return [line[:200] for line in lines if line]


def changed(server: Server, **fields: object) -> Server:
    """The record with other values in some fields."""
    return msgspec.structs.replace(server, **fields)


def stopped(server: Server, state: str = states.STOPPED) -> Server:
    """The record of a server that does not run."""
    return changed(server, pid=0, started=0, state=state)
