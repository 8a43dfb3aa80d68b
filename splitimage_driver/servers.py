"""The use cases around servers: launch, list, stop, delete, publish back."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.deliveries import Delivery
from splitimage_driver.launch import HTTP_PORTS, Launcher
from splitimage_driver.layouts import LayoutService
from splitimage_driver.model.delivery import INJECT, STREAM
from splitimage_driver.model.plan import Plan, Request
from splitimage_driver.model.server import BUILDING, STALE, Server
from splitimage_driver.progress import Operation
from splitimage_driver.service import ImageService

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
    :ivar deliver: ``inject`` what is missing into the disk; ``stream``: boot at
        once from the nearest image that has nothing in excess, and let the
        servers lay the rest while they run, which publishes nothing; ``auto``:
        what is predicted to bring the services up earlier
    :ivar complete: wait until all is laid
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
    deliver: str = INJECT
    complete: bool = False


class _Start(msgspec.Struct, frozen=True, kw_only=True):
    """What servers are started from.

    :ivar disk: sha256
    :ivar image: id of the completed image; "": the composite's base
    :ivar booted: that is one of a machine that had run
    :ivar delivery: what each of them lays; None: nothing
    :ivar facts: what was measured
    """

    plan: Plan
    disk: str
    image: str
    booted: bool = False
    delivery: Delivery | None = None
    facts: dict[str, float] = {}


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
        self.layouts = LayoutService(images, launcher, options)
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
        request = msgspec.structs.replace(wish.request, booted=wish.publish == BOOTED)
        hardware = self.store.composite(wish.request.composite).hardware
        servers = []
        # Within the block nothing takes the disk away; after it the servers'
        # records keep it.
        with self._ready(wish, request, source) as start:
            ready((start.image or None) if start.delivery is None else None)
            began = time.monotonic()
            for number in range(1, wish.count + 1):
                servers.append(self._started(
                    wish, number, start, firmware=hardware.get("firmware", "bios")))
        measured = {**start.facts, "start_seconds": time.monotonic() - began}
        if wish.wait is not None:
            measured["answer_seconds"] = self._wait(servers, wish, wish.wait)
        unknown: Sequence[str] = ()
        if wish.publish == BOOTED and not start.booted:
            unknown = self._publish(servers[0], request)
        if start.delivery is not None:
            servers = [self.layouts.wait(server, timeout=wish.timeout) if wish.complete
                       else self._refreshed(server) for server in servers]
            measured["laid_bytes"] = float(start.delivery.layout.size)
            if wish.complete:
                measured["laid_seconds"] = time.monotonic() - began
        self.store.record("launch", {**start.plan.summary(), "measured": measured,
                                     "deliver": INJECT if start.delivery is None else STREAM})
        return Launched(servers=tuple(servers), plan=start.plan, measured=measured,
                        unknown=tuple(unknown))

    @contextlib.contextmanager
    def _ready(self, wish: Wish, request: Request, source: str | None) -> Iterator[_Start]:
        """What to start from, as long as the block lasts."""
        if self._way(wish) == STREAM:
            with self.images.deliveries.streamed(request) as found:
                yield _Start(plan=found.plan, disk=found.disk, image=found.image,
                             delivery=found.delivery)
            return
        with self.images.assembled(request, publish=wish.publish == ASSEMBLED,
                                   source=source) as (plan, assembled):
            image = assembled.image
            yield _Start(plan=plan, disk=assembled.disk, facts=assembled.facts,
                         image=image.id if image else "", booted=bool(image and image.booted))

    def _way(self, wish: Wish) -> str:
        if wish.publish != BOOTED:
            return self.images.deliveries.way(wish.request, wish.deliver)
        if wish.deliver == STREAM:
            raise exceptions.InvalidInput(
                what="publishing a booted server",
                reason="one that lays its parts while it runs publishes nothing")
        return INJECT

    def _started(self, wish: Wish, number: int, start: _Start, *, firmware: str) -> Server:
        server_id = secrets.token_hex(6)
        delivery = start.delivery and start.delivery.another()
        with self.layouts.held(server_id):
            server = self._record(wish, server_id, number, start, delivery)
            try:
                if delivery is not None:
                    self.layouts.write(server, delivery)
                return self.launcher.start(
                    server, backing=self.store.path(start.disk), backing_format="qcow2",
                    memory=wish.memory, cpus=wish.cpus, ports=_ports(wish),
                    firmware=firmware, disks=self.layouts.disks(server))
            except BaseException:
                self.launcher.delete(server)
                raise

    def _record(self, wish: Wish, server_id: str, number: int, start: _Start,
                delivery: Delivery | None) -> Server:
        # One after the other, so that no name is given twice.
        with self.store.lock("server names"):
            server = msgspec.structs.replace(
                self._described(wish, server_id, start),
                name=self._name(wish, server_id, number))
            if delivery is not None:
                server = self.layouts.given(server, delivery)
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

    def _described(self, wish: Wish, server_id: str, start: _Start) -> Server:
        return Server(
            id=server_id, name="", composite=start.plan.composite, parts=wish.request.parts,
            filesets=wish.request.filesets, answers=wish.request.answers, disk=start.disk,
            image=start.image,
            directory=str(self.store.server_directory(server_id)), owner=self.images.owner,
            created=time.time(), state=BUILDING)

    def _wait(self, servers: Sequence[Server], wish: Wish, port: int) -> float:
        timeout = self.options.timeout if wish.timeout is None else wish.timeout
        longest = 0.0
        for server in servers:
            with Operation("boot", total=1, unit="steps", subject=server.name) as step:
                if wish.path is not None and port in HTTP_PORTS:
                    seconds, _, _ = self.launcher.wait_http(
                        server, port, wish.path, timeout=timeout,
                        meanwhile=self.layouts.watch(server))
                else:
                    seconds = self.launcher.wait(server, port, timeout=timeout,
                                                 meanwhile=self.layouts.watch(server))
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
        """The record as it should be by what runs, and by what the guest has told."""
        return self.layouts.look(self._known(server))

    def _known(self, server: Server) -> Server:
        fresh = self.launcher.refresh(server)
        if fresh.state != BUILDING or self.launcher.alive(fresh):
            return fresh
        try:
            with self.layouts.held(server.id, timeout=0):
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
        # Held, so that nobody changes meanwhile what it lays.
        found = self.show(name_or_id)
        with self.layouts.held(found.id):
            return self.launcher.stop(self.launcher.refresh(self.store.server(found.id)),
                                      timeout=timeout)

    def start(self, name_or_id: str) -> Server:
        """Start a stopped or stale server again; it keeps its disk and ports.

        :raises InvalidInput: it runs
        """
        found = self.show(name_or_id)
        with self.layouts.held(found.id):
            server = self.layouts.settle(self.launcher.refresh(self.store.server(found.id)))
            composite = self.store.composite(server.composite)
            if not self.launcher.alive(server):
                server = self.layouts.again(server)
            return self.launcher.start(
                server, backing=self.store.path(server.disk), backing_format="qcow2",
                ports=tuple(server.ports), firmware=composite.hardware.get("firmware", "bios"),
                disks=self.layouts.disks(server))

    def delete(self, name_or_id: str) -> None:
        found = self.show(name_or_id)
        # Held, so that nobody who has looked before writes its record after it.
        with self.layouts.held(found.id):
            self.launcher.delete(found)

    # -- its parts ------------------------------------------------------------------

    def wait(self, name_or_id: str, *, timeout: float | None = None) -> Server:
        """Wait until nothing is left to lay, see
        :meth:`splitimage_driver.layouts.LayoutService.wait`."""
        return self.layouts.wait(self.show(name_or_id), timeout=timeout)

    def retry(self, name_or_id: str) -> Server:
        """Let it lay what it failed to lay, see
        :meth:`splitimage_driver.layouts.LayoutService.retry`."""
        return self.layouts.retry(self.show(name_or_id))

    def add_parts(self, name_or_id: str, request: Request) -> Server:
        """Let it lay more parts while it runs, see
        :meth:`splitimage_driver.layouts.LayoutService.add`."""
        return self.layouts.add(self.show(name_or_id), request)

    def remove_parts(self, name_or_id: str, request: Request, *, force: bool = False) -> Server:
        """Let it remove parts while it runs, see
        :meth:`splitimage_driver.layouts.LayoutService.remove`."""
        return self.layouts.remove(self.show(name_or_id), request, force=force)

    # -- publishing back --------------------------------------------------------------

    def publish(self, name_or_id: str) -> Sequence[str]:
        """Publish a running server's disk, identity cleaned, as an image of
        its own; returns the paths that no part vouches for.

        :raises AlreadyExists: there is one of this request
        :raises LayoutIncomplete: :raises LayoutFailed: it has not laid all its parts
        """
        server = self.show(name_or_id)
        composite = self.store.composite(server.composite)
        return self._publish(server, msgspec.structs.replace(server.request,
                                                             composite=composite.name))

    def _publish(self, server: Server, request: Request) -> Sequence[str]:
        if not server.complete:
            raise self.layouts.incomplete(server, "no snapshot of it is taken now")
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
