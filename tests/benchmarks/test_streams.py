"""Laying parts while a server runs, against injecting them first.

Compared: the time to the login prompt with the bare base's, and the time to
the first HTTP status 200 of {apache, php, mysql} with that of an injection
and a boot, and with that of laying in one stream. Rounds alternate, ratios
are those of medians. ``SPLITIMAGE_ROUNDS`` sets how many there are (3).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo import gold
from splitimage_driver.application import Application
from splitimage_driver.capture.machine import Gold
from splitimage_driver.launch import command
from splitimage_driver.launch.qmp import Monitor
from splitimage_driver.model.delivery import INJECT, STREAM
from splitimage_driver.model.plan import Request
from splitimage_driver.model.server import Server
from splitimage_driver.servers import NEVER, Wish
from tests.benchmarks.results import ROOT, Results
from tests.functional import trees

pytestmark = pytest.mark.must_show("streams", 3)

ROUNDS = int(os.environ.get("SPLITIMAGE_ROUNDS", "3"))
LAMP = ("apache", "mysql", "php")
PATIENCE = 1800.0
BARE, LOGIN = "login, bare base", "login, laying"
STREAMED, INJECTED, SERIAL = "HTTP 200, laying", "HTTP 200, injected", "HTTP 200, in one stream"
ONE_STREAM = """[Service]
ExecStart=
ExecStart=/usr/lib/splitimage/layout --streams 1
"""
Note = Callable[[str, object], None]


class Bench:
    """:ivar serial: id of a file set that makes the guest lay in one stream"""

    def __init__(self, home: Path) -> None:
        tars, disks = gold.build_steps(gold.CACHE, gold.LAMP), gold.machine()
        capturing = Application(home / "store")
        trees.native(capturing).capture("lamp", Gold(disk=disks[gold.BASE], steps=tuple(
            (step.name, tars[step.name]) for step in gold.LAMP)))
        place = home / "serial/etc/systemd/system/splitimage-layout.service.d"
        place.mkdir(parents=True)
        (place / "streams.conf").write_text(ONE_STREAM)
        self.serial = capturing.images.create_part("serial", home / "serial").id
        # What it starts from: that is no part of the comparison.
        capturing.images.assemble(Request(composite="lamp", filesets=(self.serial,)))
        capturing.store.close()
        self.application = Application(home / "store")
        self.servers = self.application.servers

    @contextlib.contextmanager
    def launched(self, deliver: str, parts: tuple[str, ...] = LAMP,
                 filesets: tuple[str, ...] = ()) -> Iterator[Server]:
        server, = self.servers.launch(Wish(
            request=Request(composite="lamp", parts=parts, filesets=filesets), publish=NEVER,
            deliver=deliver, ports=(80,))).servers
        try:
            yield server
        finally:
            self.servers.delete(server.id)

    def login(self, server: Server) -> None:
        """Wait for the prompt on its console."""
        console, end = self.servers.console(server.id), time.monotonic() + PATIENCE
        while b" login:" not in console.read_bytes():
            assert time.monotonic() < end, "no login prompt"
            time.sleep(0.05)

    def http(self, server: Server) -> None:
        _, status, body = self.servers.launcher.wait_http(
            server, 80, timeout=PATIENCE, meanwhile=self.servers.layouts.watch(server))
        assert status == 200 and b"Apache2" in body

    def bytes_read(self, server: Server) -> int:
        """From the disks of parts, so far."""
        assert server.layout is not None
        serials = {disk.serial for disk in server.layout.disks}
        with Monitor(command.Files(Path(server.directory)).monitor) as monitor:
            return sum(device["stats"]["rd_bytes"] for device in monitor.execute("query-blockstats")
                       if device.get("node-name") in serials)


@pytest.fixture(scope="module")
def bench(results: Results) -> Iterator[Bench]:
    home = ROOT / ".cache" / "benchmarks" / "streams"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    made = Bench(home)
    results.facts |= {"accelerator": made.application.accelerator}
    yield made
    made.application.store.close()
    shutil.rmtree(home)


def test_streams(bench: Bench, results: Results, record_property: Note) -> None:
    for _ in range(ROUNDS):
        began = time.monotonic()
        with bench.launched(INJECT, ()) as server:
            bench.login(server)
            results.note(BARE, time.monotonic() - began)
        began = time.monotonic()
        with bench.launched(STREAM) as server:
            bench.login(server)
            results.note(LOGIN, time.monotonic() - began)
            bench.http(server)
            results.note(STREAMED, time.monotonic() - began)
            read = bench.bytes_read(server)
        began = time.monotonic()
        with bench.launched(STREAM, filesets=(bench.serial,)) as server:
            bench.http(server)
            results.note(SERIAL, time.monotonic() - began)
        began = time.monotonic()
        with bench.launched(INJECT) as server:
            bench.http(server)
            results.note(INJECTED, time.monotonic() - began)
    assert read > 0
    results.facts["bytes of parts read until HTTP 200"] = read
    found = {
        f"{LOGIN} / {BARE}": results.ratio(LOGIN, BARE, "at most 1.1"),
        f"{STREAMED} / {INJECTED}": results.ratio(STREAMED, INJECTED, "below 1"),
        f"{STREAMED} / {SERIAL}": results.ratio(STREAMED, SERIAL, "below 1")}
    for name, ratio in found.items():
        record_property(name, f"{ratio:.3f}")
    record_property("bytes of parts read until HTTP 200", read)
    assert found[f"{LOGIN} / {BARE}"] <= 1.1
    assert found[f"{STREAMED} / {INJECTED}"] < 1
