"""The use cases around servers: launch, list, stop, delete, publish back."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.launch import HTTP_PORTS, Launcher
from splitimage_driver.model.plan import Plan, Request
from splitimage_driver.model.server import BUILDING, STALE, Server
from splitimage_driver.progress import Operation
from splitimage_driver.service import Assembled, ImageService

LOG = logging.getLogger(__name__)

ASSEMBLED, BOOTED, NEVER = "assembled", "booted", "never"


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """How servers of one request are to be launched.

    :ivar publish: ``assembled``, ``never``, or ``booted``: the first server
        as it is once it answers on ``wait``; where that was published
        before, it is what the servers are started from
    :ivar ports: guest TCP ports to reach from this host
    :ivar wait: guest port to wait for; None: do not wait
    :ivar path: for which HTTP status 200 is awaited where ``wait`` is a
        web server's port; None: any answer will do
    :ivar timeout: seconds to wait; None: the configured time
    """

    request: Request
    name: str = ""
    count: int = 1
    publish: str = ASSEMBLED
    memory: int | None = None
    cpus: int | None = None
    ports: tuple[int, ...] = ()
    wait: int | None = None
    path: str | None = None
    timeout: float | None = None


class Launched(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar measured: seconds by step, bytes
    :ivar unknown: with ``booted``: paths that nobody vouches for
    """

    servers: tuple[Server, ...]
    plan: Plan
    measured: dict[str, float]
    unknown: tuple[str, ...] = ()


class ServerService:
    """:param images: plans, assembles, publishes
    :param launcher: runs the servers
    """

    def __init__(self, images: ImageService, launcher: Launcher, options: Any) -> None:
        self.images, self.launcher, self.options = images, launcher, options
        self.store = images.store

    # -- launch -----------------------------------------------------------------------

    def launch(self, wish: Wish, *, source: str | None = None,
               ready: Callable[[str | None], None] = lambda image: None) -> Launched:
        """Assemble what is missing and start ``wish.count`` servers on it.

        :param source: id of the image to start from, if that is still there
        :param ready: told the id of the completed image as soon as it is
            there; None where nothing is published
        """
        if wish.publish == BOOTED and wish.wait is None:
            raise exceptions.InvalidInput(
                what="publishing a booted server",
                reason="no port is given to wait for, which tells when it has booted")
        composite = self.store.composite(wish.request.composite)
        request = msgspec.structs.replace(wish.request, booted=wish.publish == BOOTED)
        servers = []
        # Within the block nothing takes the disk away; after it the servers'
        # records keep it.
        with self.images.assembled(request, publish=wish.publish == ASSEMBLED,
                                   source=source) as (plan, assembled):
            ready(assembled.image.id if assembled.image else None)
            began = time.monotonic()
            for number in range(1, wish.count + 1):
                server_id = secrets.token_hex(6)
                with self._starting(server_id):
                    server = self._record(wish, server_id, number, plan, assembled)
                    try:
                        servers.append(self.launcher.start(
                            server, backing=self.store.path(assembled.disk),
                            backing_format="qcow2", memory=wish.memory, cpus=wish.cpus,
                            ports=_ports(wish),
                            firmware=composite.hardware.get("firmware", "bios")))
                    except BaseException:
                        self.launcher.delete(server)
                        raise
        measured = {**assembled.facts, "start_seconds": time.monotonic() - began}
        if wish.wait is not None:
            measured["answer_seconds"] = self._wait(servers, wish, wish.wait)
        unknown: Sequence[str] = ()
        if wish.publish == BOOTED and not (assembled.image and assembled.image.booted):
            unknown = self._publish(servers[0], request)
        self.store.record("launch", {**plan.summary(), "measured": measured})
        return Launched(servers=tuple(servers), plan=plan, measured=measured,
                        unknown=tuple(unknown))

    def _starting(self, server_id: str,
                  timeout: float | None = None) -> contextlib.AbstractContextManager[None]:
        """Held by whoever starts a server: one that is being built and whose
        lock is free has lost its starter."""
        return self.store.lock(f"server {server_id}", timeout=timeout)

    def _record(self, wish: Wish, server_id: str, number: int, plan: Plan,
                assembled: Assembled) -> Server:
        # One after the other, so that no name is given twice.
        with self.store.lock("server names"):
            server = msgspec.structs.replace(
                self._described(wish, server_id, plan, assembled),
                name=self._name(wish, server_id, number))
            self.store.save_server(server)
        return server

    def _name(self, wish: Wish, server_id: str, number: int) -> str:
        name = wish.name or "+".join((wish.request.composite, *sorted(wish.request.parts)))
        if wish.count > 1:
            name = f"{name}-{number}"
        taken = {s.name for s in self.store.servers()}
        if wish.name and name in taken:
            raise exceptions.AlreadyExists(kind="server", name=name, where=self.store.location)
        if name in taken:
            name = f"{name}-{server_id[:4]}"
        return name

    def _described(self, wish: Wish, server_id: str, plan: Plan, assembled: Assembled) -> Server:
        return Server(
            id=server_id, name="", composite=plan.composite, parts=wish.request.parts,
            filesets=wish.request.filesets, disk=assembled.disk,
            image=assembled.image.id if assembled.image else "",
            directory=str(self.store.server_directory(server_id)), owner=self.images.owner,
            created=time.time(), state=BUILDING)

    def _wait(self, servers: Sequence[Server], wish: Wish, port: int) -> float:
        timeout = self.options.timeout if wish.timeout is None else wish.timeout
        longest = 0.0
        for server in servers:
            with Operation("boot", total=1, unit="steps", subject=server.name) as step:
                if wish.path is not None and port in HTTP_PORTS:
                    seconds, _, _ = self.launcher.wait_http(server, port, wish.path,
                                                            timeout=timeout)
                else:
                    seconds = self.launcher.wait(server, port, timeout=timeout)
                step.advance()
            longest = max(longest, seconds)
        return longest

    # -- afterwards -------------------------------------------------------------------

    def list(self) -> list[Server]:
        return [self._refreshed(s) for s in self.store.servers() if s.owner == self.images.owner]

    def show(self, name_or_id: str) -> Server:
        server = self.store.server(name_or_id)
        if server.owner != self.images.owner:
            raise exceptions.NotFound(kind="server", name=name_or_id, where=self.store.location)
        return self._refreshed(server)

    def _refreshed(self, server: Server) -> Server:
        fresh = self.launcher.refresh(server)
        if fresh.state != BUILDING or self.launcher.alive(fresh):
            return fresh
        try:
            with self._starting(server.id, timeout=0):
                # Its starter may have finished just before.
                fresh = self.launcher.refresh(self.store.server(server.id))
                if fresh.state == BUILDING and not self.launcher.alive(fresh):
                    LOG.warning("server %s was never started: its launch ended early", server.id)
                    fresh = msgspec.structs.replace(fresh, state=STALE)
                    self.store.save_server(fresh)
        except exceptions.LockTimeout:
            LOG.debug("server %s is being started", server.id)
        except exceptions.NotFound:
            LOG.debug("server %s was deleted just now", server.id)
        return fresh

    def console(self, name_or_id: str) -> Path:
        return self.launcher.console(self.show(name_or_id))

    def stop(self, name_or_id: str, *, timeout: float | None = None) -> Server:
        return self.launcher.stop(self.show(name_or_id), timeout=timeout)

    def start(self, name_or_id: str) -> Server:
        """Start a stopped or stale server again; it keeps its disk and ports.

        :raises InvalidInput: it runs
        """
        with self._starting(self.show(name_or_id).id):
            server = self.show(name_or_id)
            composite = self.store.composite(server.composite)
            return self.launcher.start(
                server, backing=self.store.path(server.disk), backing_format="qcow2",
                ports=tuple(server.ports), firmware=composite.hardware.get("firmware", "bios"))

    def delete(self, name_or_id: str) -> None:
        self.launcher.delete(self.show(name_or_id))

    def publish(self, name_or_id: str) -> Sequence[str]:
        """Publish a running server's disk, identity cleaned, as an image of
        its own; returns the paths that no part vouches for.

        :raises AlreadyExists: there is one of this request
        """
        server = self.show(name_or_id)
        composite = self.store.composite(server.composite)
        return self._publish(server, Request(composite=composite.name, parts=server.parts,
                                             filesets=server.filesets))

    def _publish(self, server: Server, request: Request) -> Sequence[str]:
        with self.store.scratch() as scratch:
            snapshot = scratch / "snapshot.qcow2"
            self.launcher.snapshot(server, snapshot)
            _, unknown = self.images.publish_booted(request, snapshot)
        LOG.warning("published %s as booted: %d paths nobody vouches for", server.name,
                    len(unknown))
        return unknown


def _ports(wish: Wish) -> tuple[int, ...]:
    extra = () if wish.wait is None else (wish.wait,)
    return tuple(dict.fromkeys((*wish.ports, *extra)))
