"""Waiting for ports, with real sockets on this host in the guest's place."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from splitimage_driver import exceptions
from splitimage_driver.launch import base
from splitimage_driver.model.server import Server
from tests.unit.launch.conftest import make

Talk = Callable[[socket.socket], None]


PANIC = ("[    0.040000] ---[ end Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot "
         "with apic=debug and send a report.  Then try booting with the 'noapic' option. ]---\r\n")


class Guest(base.Launcher):
    """A machine of which only the ports are real."""

    def __init__(self, log: Path) -> None:
        self.log, self.lives, self.accepted = log, 10**9, False
        self.resets = 0

    def alive(self, server: Server) -> bool:
        self.lives -= 1
        return self.lives >= 0

    def console(self, server: Server) -> Path:
        return self.log

    def _connected(self, server: Server, guest_port: int) -> bool:
        return self.accepted

    def _reset(self, server: Server) -> None:
        self.resets += 1
        if self.resets < 3:  # it booted a little, then the same again
            with self.log.open("a") as log:
                log.write(f"SeaBIOS\n{PANIC}")

    def start(self, server: Server, *, backing: Path, backing_format: str,
              memory: int | None = None, cpus: int | None = None, ports: Sequence[int] = (),
              firmware: str = "bios", disks: Sequence[base.Disk] = ()) -> Server:
        raise AssertionError

    def attach(self, server: Server, disks: Sequence[base.Disk]) -> None:
        raise AssertionError

    def detach(self, server: Server, serials: Iterable[str]) -> None:
        raise AssertionError

    def refresh(self, server: Server) -> Server:
        raise AssertionError

    def stop(self, server: Server, *, timeout: float | None = None) -> Server:
        raise AssertionError

    def delete(self, server: Server) -> None:
        raise AssertionError

    def snapshot(self, server: Server, destination: Path) -> None:
        raise AssertionError


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guest:
    monkeypatch.setattr(base, "_SILENCE", 0.05)
    monkeypatch.setattr(base, "_PAUSE", 0.01)
    return Guest(tmp_path / "console.log")


@contextlib.contextmanager
def port(*talks: Talk) -> Iterator[int]:
    """A listening port: each connection is treated by the next of ``talks``,
    further ones by the last."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        count = 0
        while not over.is_set():
            connection, _ = listener.accept()
            with connection:
                if not over.is_set():
                    with contextlib.suppress(OSError):
                        talks[min(count, len(talks) - 1)](connection)
            count += 1

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        over.set()
        with contextlib.suppress(OSError), \
                socket.create_connection(listener.getsockname(), timeout=1):
            pass
        thread.join(10)
        listener.close()
        assert not thread.is_alive()


def silent(connection: socket.socket) -> None:
    """As the forwarder for a guest that does not listen (yet)."""
    connection.settimeout(10)
    while connection.recv(1000):
        pass


def closing(connection: socket.socket) -> None:
    """As the forwarder for a guest that refuses."""


def http(status: str, body: str = "") -> Talk:
    def talk(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                           .encode())
    return talk


def greeting(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-x\r\n")


def wait(guest: Guest, guest_port: int, *talks: Talk, timeout: float = 20) -> float:
    with port(*talks) as host_port:
        server = make(guest.log.parent, ports={guest_port: host_port})
        return guest.wait(server, guest_port, timeout=timeout)


def test_an_http_port_answers_with_any_status(guest: Guest) -> None:
    assert wait(guest, 80, closing, silent, http("503 Starting")) >= 0


def test_a_greeting_answers(guest: Guest) -> None:
    assert wait(guest, 22, closing, silent, greeting) >= 0


def test_a_silent_service_answers_when_the_guest_accepted(guest: Guest) -> None:
    guest.accepted = True
    assert wait(guest, 7000, silent) >= 0


@pytest.mark.parametrize("guest_port", [80, 22])
@pytest.mark.parametrize("talk", [silent, closing])
def test_the_forwarder_alone_is_no_answer(guest: Guest, guest_port: int, talk: Talk) -> None:
    guest.log.write_bytes(b"one\ntwo\n\x1b[1mthree\x1b[0m\n")
    with pytest.raises(exceptions.LaunchFailed,
                       match=rf"web did not start: port {guest_port} did not answer within "
                             r"0\.3 s; its console ends: one \| two \| three$"):
        wait(guest, guest_port, talk, timeout=0.3)


def test_text_on_an_http_port_is_no_http(guest: Guest) -> None:
    with pytest.raises(exceptions.LaunchFailed):
        wait(guest, 80, greeting, timeout=0.2)


def test_a_machine_that_ends_is_noticed_before_the_time_is_over(guest: Guest) -> None:
    guest.lives = 2
    guest.log.write_bytes(b"Kernel panic\n")
    with pytest.raises(exceptions.LaunchFailed, match=r"ended before it answered.*Kernel panic"):
        wait(guest, 22, closing, timeout=3600)


def test_a_slow_program_in_the_guest_is_not_interrupted(guest: Guest) -> None:
    guest.accepted = True
    asked = []

    def slow(connection: socket.socket) -> None:
        asked.append(1)
        threading.Event().wait(0.3)
        http("200 OK")(connection)

    wait(guest, 80, slow)
    assert len(asked) == 1


def test_wait_http_returns_the_first_200(guest: Guest) -> None:
    with port(closing, http("503 No", "wait"), http("404 No"), http("200 OK", "hello")) as found:
        server = make(guest.log.parent, ports={8080: found})
        seconds, status, body = guest.wait_http(server, 8080, "/page", timeout=20)
    assert (status, body) == (200, b"hello")
    assert seconds >= 0


def test_a_body_is_bounded(guest: Guest) -> None:
    def endless(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            connection.sendall(bytes(1 << 16))

    with port(endless) as found:
        server = make(guest.log.parent, ports={80: found})
        assert len(guest.wait_http(server, 80, timeout=20)[2]) == 1 << 20


def test_a_port_that_is_not_forwarded(guest: Guest) -> None:
    with pytest.raises(exceptions.InvalidInput, match="port 443 of server web"):
        guest.wait(make(guest.log.parent, ports={80: 1}), 443, timeout=1)


@pytest.mark.parametrize(("console", "told", "resets"), [
    ("Booting\n" + PANIC, "did not answer", 3),
    (PANIC.replace("IO-APIC + timer doesn't work!", "VFS: no root."),
     "kernel panicked: VFS: no root", 0),
    (PANIC + "Rebooting in 3 seconds..\n", "did not answer", 0)])
def test_a_kernel_that_found_no_clock_is_started_again(
        guest: Guest, tmp_path: Path, console: str, told: str, resets: int) -> None:
    """Any other panic ends the wait at once, if the machine does not go on by
    itself."""
    guest.log.write_text(console)
    with port(lambda connection: None) as number, pytest.raises(
            exceptions.LaunchFailed, match=told):
        guest.wait(make(tmp_path, ports={22: number}), 22, timeout=0.5)
    assert guest.resets == resets
