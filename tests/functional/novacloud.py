"""The fixtures ``nova_cloud`` and ``two_hosts``: the test cloud with Nova, on one
compute host or two.

A test module asks for them with
``pytest_plugins = ("tests.functional.cloud", "tests.functional.novacloud")``.
A cloud without Nova grows for the rest of the session; what it has is not started
again for that.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.cloud.machines import STATE, Machine
from tests.cloud.service import Service
from tests.functional.cloud import TestCloud

if TYPE_CHECKING:
    from openstack.connection import Connection

#: For a guest to be made, or moved, where it is emulated on a host that does
#: much else.
PATIENCE = 300.0
#: The last microversion with files that are put into a server.
FILES = "2.56"


class Host:
    """One compute host."""

    def __init__(self, cloud: NovaCloud, machine: Machine) -> None:
        self.cloud, self.machine = cloud, machine

    def __repr__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """As Nova calls it."""
        return self.machine.name

    # -- where things are, seen from here -------------------------------------------------

    @property
    def instances(self) -> Path:
        return self.machine.instances

    @property
    def base(self) -> Path:
        """Nova's cache of images."""
        return self.instances / "_base"

    @property
    def store(self) -> Path:
        """``[store] path`` of this project."""
        return self.machine.store

    @property
    def log(self) -> Path:
        """Of nova-compute."""
        return self.compute.daemon.log

    def disk(self, server: Any) -> Path:
        return self.instances / str(server.id) / "disk"

    def seen(self, path: Path) -> Path:
        """A file by the path that the host itself has for it, as in the backing
        file of a disk."""
        state = self.cloud.directory / STATE
        if path.is_relative_to(state):
            return self.machine.state.joinpath(path.relative_to(state))
        return path

    # -- what runs there ------------------------------------------------------------------

    @property
    def compute(self) -> Service:
        return self.cloud.service(f"nova-compute-{self.machine.number}")

    def stop(self) -> None:
        """nova-compute ends in order; guests go on."""
        assert self.compute.stop(), f"{self.compute.name} does not run"

    def kill(self) -> None:
        """SIGKILL for nova-compute and all that it has started; guests go on."""
        self.cloud.kill(self.compute.name)

    def start(self) -> None:
        """nova-compute again."""
        service = self.compute
        service.daemon.stop()  # children of one that was killed
        service.configure()
        service.start()
        service.wait()

    def guests(self) -> list[int]:
        """Processes that are a server."""
        return [pid for pid in self.machine.daemon.processes() if b"guest=" in _command(pid)]

    def appliances(self) -> list[int]:
        """Processes of libguestfs."""
        return [pid for pid in self.machine.daemon.processes() if b"guestfs" in _command(pid)]


class NovaCloud(TestCloud):
    """Servers, as alpha unless a test says otherwise."""

    __test__ = False

    @property
    def hosts(self) -> list[Host]:
        return [Host(self, machine) for machine in self.control.machines()]

    def host(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def user(self, project: str) -> Connection:
        found: Connection = getattr(self, project)
        return found

    # -- servers --------------------------------------------------------------------------

    def create(self, image: str, *, project: str = "alpha", name: str = "",
               flavor: str = "tiny", metadata: Mapping[str, str] | None = None,
               host: Host | None = None, files: Mapping[str, bytes] | None = None,
               **more: Any) -> Any:
        """Ask for a server, by the API.

        :param image: id
        :param host: it is to be there; only an administrator may say so, so that
            the others are disabled for the moment
        :param files: path to content, in the way that is older than cloud-init
        """
        compute: Any = self.user(project).compute
        body = {"name": name or f"server-{uuid.uuid4()}", "imageRef": image,
                "flavorRef": compute.find_flavor(flavor, ignore_missing=False).id,
                "metadata": dict(metadata or {}), "networks": "none", **more}
        if files:
            body["personality"] = [{"path": path, "contents": base64.b64encode(content).decode()}
                                   for path, content in files.items()]
        with self.only(host) if host else contextlib.nullcontext():
            answer = compute.post("/servers", json={"server": body},
                                  microversion=FILES if files else "2.90")
            assert answer.status_code == 202, answer.text
            server = compute.get_server(answer.json()["server"]["id"])
            if host:
                self.until(lambda: self.where(server) or self.status(server) == "ERROR")
        return server

    def boot(self, image: str, **more: Any) -> Any:
        """One that is ACTIVE."""
        project = more.get("project", "alpha")
        return self.wait(self.create(image, **more), project=project)

    def wait(self, server: Any, status: str = "ACTIVE", *, project: str = "alpha",
             seconds: float = PATIENCE) -> Any:
        """As it is once it has this status, and nothing is done to it any more.

        :raises AssertionError: it is in another one for good; with its fault
        """
        compute: Any = self.user(project).compute
        end = time.monotonic() + seconds
        while True:
            found = compute.get_server(server.id)
            settled = found.task_state is None
            if found.status == status and settled:
                return found
            assert not (found.status == "ERROR" and settled), self.fault(server, project=project)
            assert time.monotonic() < end, (found.status, found.task_state, status)
            time.sleep(0.3)

    def fault(self, server: Any, *, project: str = "alpha") -> str:
        """Of one in ERROR, what its user is told; "": nothing."""
        compute: Any = self.user(project).compute
        return str((compute.get_server(server.id).fault or {}).get("message", ""))

    def status(self, server: Any) -> str:
        compute: Any = self.admin.compute
        return str(compute.get_server(server.id).status)

    def where(self, server: Any) -> str:
        """Name of its host; "": none yet."""
        compute: Any = self.admin.compute
        return str(compute.get_server(server.id).compute_host or "")

    def console(self, server: Any, *, project: str = "alpha") -> str:
        """All that it has said."""
        compute: Any = self.user(project).compute
        answer = compute.post(f"/servers/{server.id}/action",
                              json={"os-getConsoleOutput": {"length": None}})
        return str(answer.json()["output"]) if answer.status_code == 200 else ""

    def says(self, server: Any, words: str, *, times: int = 1, project: str = "alpha",
             seconds: float = PATIENCE) -> str:
        """Its console, once the words are there so often."""
        said = ""

        def heard() -> bool:
            nonlocal said
            said = self.console(server, project=project)
            return said.count(words) >= times

        assert self.until(heard, seconds), said
        return said

    def act(self, server: Any, what: str, body: object = None, *, project: str = "alpha",
            microversion: str = "2.90") -> None:
        """An action of the API: ``os-stop``, ``reboot``, ``rebuild`` ..."""
        compute: Any = self.user(project).compute
        answer = compute.post(f"/servers/{server.id}/action", json={what: body},
                              microversion=microversion)
        assert answer.status_code in (200, 202, 204), answer.text

    def migrate(self, server: Any, host: Host | None = None, *, confirm: bool = True) -> None:
        """To another host while it does not run."""
        self.act(server, "migrate", {"host": host.name if host else None}, project="admin")
        self.wait(server, "VERIFY_RESIZE", project="admin")
        if confirm:
            self.act(server, "confirmResize", project="admin")
            self.wait(server, project="admin")

    def live_migrate(self, server: Any, host: Host | None = None) -> None:
        """While it runs, its disk with it."""
        before = self.where(server)
        self.act(server, "os-migrateLive", {"host": host.name if host else None,
                                            "block_migration": "auto"}, project="admin")
        self.wait(server, project="admin")
        assert self.where(server) != before, "it stayed where it was"

    def delete(self, *servers: Any) -> None:
        """Until none is there any more."""
        compute: Any = self.admin.compute
        for server in servers:
            compute.delete_server(server.id, ignore_missing=True)
        for server in servers:
            assert self.until(functools.partial(self._is_gone, server)), server.id

    def _is_gone(self, server: Any) -> bool:
        compute: Any = self.admin.compute
        return bool(compute.get(f"/servers/{server.id}").status_code == 404)

    # -- hosts ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def only(self, host: Host) -> Iterator[None]:
        """New servers go to this host."""
        others = [other.name for other in self.hosts if other.name != host.name]
        try:
            for name in others:
                self._enable(name, "disabled")
            yield
        finally:
            for name in others:
                self._enable(name, "enabled")

    def _enable(self, name: str, status: str) -> None:
        compute: Any = self.admin.compute
        service = next(compute.services(host=name, binary="nova-compute"))
        answer = compute.put(f"/os-services/{service.id}", json={"status": status},
                             microversion="2.90")
        assert answer.status_code == 200, answer.text

    @staticmethod
    def until(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
        end = time.monotonic() + seconds
        while not (met := bool(condition())) and time.monotonic() < end:
            time.sleep(0.5)
        return met


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _grown(cloud: TestCloud, hosts: int) -> Iterator[NovaCloud]:
    former = cloud.control.settings
    cloud.control.up(msgspec.structs.replace(former, hosts=max(hosts, former.hosts)))
    try:
        yield NovaCloud(cloud.control)
    finally:
        if former.hosts != cloud.control.settings.hosts:
            cloud.control.up(former)


@pytest.fixture(scope="session")
def nova_cloud(cloud: TestCloud) -> Iterator[NovaCloud]:
    """With one compute host at least."""
    yield from _grown(cloud, 1)


@pytest.fixture(scope="session")
def two_hosts(nova_cloud: NovaCloud) -> Iterator[NovaCloud]:
    """With two of them."""
    yield from _grown(nova_cloud, 2)
