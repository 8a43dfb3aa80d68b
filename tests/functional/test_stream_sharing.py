"""Ten servers of one host that are given the same parts."""

from __future__ import annotations

import collections
import contextlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from splitimage_driver.application import Application
from splitimage_driver.model.plan import Request
from splitimage_driver.model.server import Server
from splitimage_driver.servers import Wish
from tests.cloud import accounts
from tests.functional import bootgold, tinyguest

if TYPE_CHECKING:
    from tests.functional.glancescene import Scene

pytest_plugins = ("tests.functional.cloud", "tests.functional.glancescene")
pytestmark = [pytest.mark.must_show("streams", line=6), pytest.mark.accept]

#: Launches at the same time, and servers of each.
LAUNCHES, SERVERS = 2, 5
LONG = 900.0


@contextlib.contextmanager
def host(scene: Scene, name: str) -> Iterator[Application]:
    """A host of the cloud's clients, with a directory of its own."""
    application = Application(scene.place / name, files=[os.devnull],
                              connection=accounts.connect(scene.clouds, "alpha"))
    with contextlib.closing(application):
        yield application


def launch(scene: Scene, number: int) -> list[Server]:
    with host(scene, "host") as application:
        return list(application.servers.launch(Wish(
            request=Request(composite=bootgold.NAME, parts=bootgold.PAIR), count=SERVERS,
            name=f"web{number}", deliver="stream", memory=128, cpus=1)).servers)


def test_each_part_is_fetched_once_for_all_servers_of_a_host(scene: Scene,
                                                             tmp_path: Path) -> None:
    bootgold.build(tmp_path / "gold", lays=True)
    with host(scene, "capturing") as application:
        application.images.capture(bootgold.NAME, bootgold.there(tmp_path / "gold"))
    before = len(scene.proxy.heads)
    with host(scene, "host") as application:
        try:
            with ThreadPoolExecutor(LAUNCHES) as pool:
                servers = [server for found in pool.map(
                    lambda number: launch(scene, number), range(LAUNCHES)) for server in found]
            assert len(servers) == LAUNCHES * SERVERS
            for server in servers:
                reads_what_it_was_given(application, server)
        finally:
            for server in application.servers.list():
                application.servers.delete(server.id)
    fetched = collections.Counter(
        head.split()[1] for head in scene.proxy.heads[before:]
        if head.startswith("GET ") and head.split()[1].endswith("/file"))
    parts = {disk.blob for server in servers if server.layout for disk in server.layout.disks}
    assert len(parts) == len(bootgold.PAIR)
    assert len(fetched) > len(parts), "the base, too"
    assert set(fetched.values()) == {1}, fetched


def reads_what_it_was_given(application: Application, server: Server) -> None:
    """The guest itself has read all of every part, by its serial number."""
    assert server.layout is not None
    wanted = {disk.serial: disk.blob for disk in server.layout.disks}
    console = application.servers.launcher.console(server)
    end = time.monotonic() + LONG
    while True:
        found = tinyguest.further(console)
        if found.keys() == {*wanted, server.layout.serial}:
            break
        assert time.monotonic() < end, console.read_text(errors="replace")
        time.sleep(1)
    assert {serial: digest for serial, digest in found.items() if serial in wanted} == wanted
    # All of them are the same file of this host.
    links = {str(link.readlink()) for link in Path(f"/proc/{server.pid}/fd").iterdir()
             if link.is_symlink()}
    assert links >= {str(application.store.path(blob)) for blob in wanted.values()}
