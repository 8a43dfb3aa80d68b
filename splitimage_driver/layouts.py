"""Servers that lay parts while they run: what they are given, what they tell, and
what is taken away again.

A record says what is going to be before it is: whoever comes after a command
that was killed finds there what is left to do, and :meth:`LayoutService.settle`
does it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.assembly import disks
from splitimage_driver.deliveries import Delivery
from splitimage_driver.launch import Launcher, report
from splitimage_driver.launch.base import Disk
from splitimage_driver.model.delivery import FORCE, KEEP, REFUSE
from splitimage_driver.model.layout import COMPLETE, FAILED, LAYING, Layout
from splitimage_driver.model.plan import Request
from splitimage_driver.model.server import BUILDING, Server
from splitimage_driver.progress import Operation
from splitimage_driver.service import ImageService

LOG = logging.getLogger(__name__)
#: Seconds between two looks at what a guest has told.
_PAUSE = 0.5
#: Bytes of a console that may be read once more rather than noting that they were.
_AGAIN = 1 << 20


class LayoutService:
    """:param images: plans what is to be laid
    :param launcher: gives servers their disks
    :param options: the configuration group ``launch``
    """

    def __init__(self, images: ImageService, launcher: Launcher, options: Any) -> None:
        self.images, self.launcher, self.options = images, launcher, options
        self.store = images.store

    def held(self, server_id: str,
             timeout: float | None = None) -> contextlib.AbstractContextManager[None]:
        """Held by whoever starts a server, or changes what it lays."""
        return self.store.lock(f"server {server_id}", timeout=timeout)

    # -- what it is given -----------------------------------------------------------

    def given(self, server: Server, delivery: Delivery, becoming: Request | None = None) -> Server:
        """The record of a server that is going to have the disks of a delivery.

        :param becoming: what it has once that is laid; None: what it has been
            asked for from the beginning
        """
        layout = msgspec.structs.replace(delivery.layout, attached=True,
                                         policy=delivery.plan.policy,
                                         heard=report.size(self.launcher.console(server)))
        return msgspec.structs.replace(server, layout=layout, becoming=becoming)

    def write(self, server: Server, delivery: Delivery) -> None:
        """Put the delivery's plan into the server's directory."""
        place = Path(server.directory)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in place.glob("layout-*"):
            old.unlink()
        with disks.beside(_plan(server, delivery.layout)) as part:
            delivery.write(part)

    def again(self, server: Server, *, begun: bool = True) -> Server:
        """The record of a server that is to go on where it was.

        :param begun: nothing of an earlier attempt is told any more
        """
        if server.layout is None or server.layout.over:
            return server
        return msgspec.structs.replace(server, layout=msgspec.structs.replace(
            server.layout, state=LAYING, failed={}, attached=True, begun=begun,
            heard=report.size(self.launcher.console(server))))

    def disks(self, server: Server) -> list[Disk]:
        """What its machine has to have.

        :raises NotFound: a part is not in the store any more
        :raises InvalidInput: its launch was killed before the plan was written
        """
        layout = server.layout
        if layout is None or layout.over:
            return []
        plan = _plan(server, layout)
        if not plan.exists():
            raise exceptions.InvalidInput(
                what=f"server {server.name}", reason="its launch ended before what it has to lay "
                "was written down: delete it, and launch it anew")
        return [Disk(layout.serial, plan),
                *(Disk(disk.serial, self.store.path(disk.blob)) for disk in layout.disks)]

    # -- what it tells --------------------------------------------------------------

    def look(self, server: Server, *, mend: bool = True) -> Server:
        """The record with what the guest has told. What has to be done then is done,
        unless another command is about to.

        :param mend: give it disks that it should have and has not
        """
        if server.layout is None or server.layout.settled:
            return server
        try:
            with self.held(server.id, timeout=0):
                return self.settle(self.launcher.refresh(self.store.server(server.id)), mend=mend)
        except exceptions.LockTimeout:
            return msgspec.structs.replace(server, layout=report.read(
                server.layout, self.launcher.console(server)))
        except exceptions.SplitImageError as error:  # the next one tries it again
            LOG.warning("server %s, what it lays: %s", server.name, error)
            return self._stored(server)

    def _stored(self, server: Server) -> Server:
        try:
            return self.store.server(server.id)
        except exceptions.NotFound:  # deleted just now
            return server

    def settle(self, server: Server, *, mend: bool = True) -> Server:
        """Bring what the server has in line with what its guest has told.

        :param server: as it is stored; the caller holds it
        :raises ToolFailed: its hypervisor refuses
        """
        layout = server.layout
        if layout is None or layout.settled:
            return server
        alive = self.launcher.alive(server)
        layout = report.read(layout, self.launcher.console(server))
        if not alive and server.state != BUILDING:
            layout = msgspec.structs.replace(layout, attached=False)
        server = self._saved(server, layout)
        if layout.state == LAYING:
            if mend and alive and layout.attached:
                self.launcher.attach(server, self.disks(server))
            return server
        if layout.attached:
            self.launcher.detach(server, [layout.serial, *(d.serial for d in layout.disks)])
            layout = msgspec.structs.replace(layout, attached=False)
            server = self._saved(server, layout)
        if layout.over:
            _plan(server, layout).unlink(missing_ok=True)
        return server

    def _saved(self, server: Server, layout: Layout) -> Server:
        fresh = msgspec.structs.replace(server, layout=layout)
        if layout.state == COMPLETE and server.becoming is not None:
            fresh = msgspec.structs.replace(
                fresh, parts=server.becoming.parts, filesets=server.becoming.filesets,
                answers=server.becoming.answers)
        if layout.over:
            fresh = msgspec.structs.replace(fresh, becoming=None)
        if _told(fresh) != _told(server) or server.layout is None or (
                layout.heard - server.layout.heard > _AGAIN):
            self.store.save_server(fresh)
        if layout.state != LAYING and server.layout and server.layout.state == LAYING:
            LOG.info("server %s: layout %s is %s", server.id, layout.id, layout.state)
        return fresh

    # -- waiting --------------------------------------------------------------------

    def wait(self, server: Server, *, timeout: float | None = None) -> Server:
        """Wait until nothing is left to lay.

        :param timeout: seconds; None: the configured time
        :raises LayoutIncomplete: the time is over
        :raises LayoutFailed: :raises ChangedInServer: as the guest says
        :raises InvalidInput: it does not run
        """
        limit = self.options.layout_timeout if timeout is None else timeout
        end, mend = time.monotonic() + limit, True
        with Operation("lay", subject=server.name) as operation:
            while True:
                server = self.look(self.launcher.refresh(self.store.server(server.id)), mend=mend)
                layout, mend = server.layout, False
                if layout is None:
                    return server
                operation.total = layout.size
                operation.advance(layout.done - operation.current)
                if layout.state != LAYING and not layout.attached:
                    break
                if not self.launcher.alive(server):
                    raise exceptions.InvalidInput(
                        what=f"server {server.name}", reason="it does not run; started again, it "
                        "lays what is missing")
                if time.monotonic() >= end:
                    raise self.incomplete(server, f"the time to wait, {limit:g} s, is over")
                time.sleep(_PAUSE)
        return self.judged(server)

    def watch(self, server: Server) -> Callable[[], None]:
        """To be called while something else is waited for.

        :returns: what raises LayoutFailed when the guest has failed
        """
        if server.layout is None:
            return lambda: None

        def watched() -> None:
            fresh = self.look(self._stored(server), mend=False)
            if fresh.layout is not None and fresh.layout.state == FAILED:
                self.judged(fresh)

        return watched

    def judged(self, server: Server) -> Server:
        """:raises LayoutFailed: :raises ChangedInServer:"""
        layout = server.layout
        if layout is None or layout.state != FAILED:
            return server
        if layout.refused:
            more = layout.kept_count - len(layout.kept)
            raise exceptions.ChangedInServer(
                server=server.name,
                paths=", ".join(layout.kept) + (f" and {more} more" if more > 0 else ""))
        raise exceptions.LayoutFailed(server=server.name, reason=_reason(layout))

    def incomplete(self, server: Server, what: str) -> exceptions.SplitImageError:
        """Why something has to wait until all is laid."""
        layout = server.layout
        if layout is not None and layout.state == FAILED:
            return exceptions.LayoutFailed(server=server.name,
                                           reason=f"{_reason(layout)}; {what}")
        return exceptions.LayoutIncomplete(server=server.name, what=what,
                                           percent=layout.percent if layout else 0)

    # -- changes --------------------------------------------------------------------

    def add(self, server: Server, request: Request) -> Server:
        """Let a running server lay more parts and file sets.

        :param request: those; the composite is the server's
        :raises InvalidInput: it does not run, or has them already
        :raises LayoutIncomplete: :raises LayoutFailed: it is not complete
        :raises OpenConflict: :raises UnknownPart: as planning does
        """
        def wanted(now: Request) -> Request:
            return msgspec.structs.replace(
                now, parts=_unique(now.parts + request.parts),
                filesets=_unique(now.filesets + request.filesets),
                answers=_unique(now.answers + request.answers))

        return self._change(server, wanted, KEEP)

    def remove(self, server: Server, request: Request, *, force: bool = False) -> Server:
        """Let a running server remove parts and file sets.

        :param force: what was changed there, too
        :raises InvalidInput: it does not run, or was not asked to have them
        :raises LayoutIncomplete: :raises LayoutFailed: it is not complete
        """
        def wanted(now: Request) -> Request:
            self._check_removal(server, now, request)
            return msgspec.structs.replace(
                now, parts=tuple(p for p in now.parts if p not in request.parts),
                filesets=tuple(f for f in now.filesets if f not in request.filesets))

        return self._change(server, wanted, FORCE if force else REFUSE)

    def _check_removal(self, server: Server, now: Request, request: Request) -> None:
        composite = self.store.composite(server.composite)
        for name in request.parts:
            if name not in now.parts:
                raise exceptions.InvalidInput(
                    what=f"part {name} of server {server.name}",
                    reason=f"it was asked for {', '.join(now.parts) or 'no part'}")
            needed = [other for other in now.parts if other not in request.parts
                      and name in composite.closure([other])]
            if needed:
                raise exceptions.InvalidInput(what=f"part {name} of server {server.name}",
                                              reason=f"{', '.join(needed)} requires it")
        for fileset in request.filesets:
            if fileset not in now.filesets:
                raise exceptions.InvalidInput(what=f"file set {fileset} of server {server.name}",
                                              reason="it does not have it")

    def _change(self, server: Server, wanted: Callable[[Request], Request],
                policy: str) -> Server:
        with self.held(server.id):
            server = self._running(server)
            now = server.becoming or server.request
            asked = wanted(now)
            # What could not be added may be removed again.
            if not server.complete and not (
                    server.layout is not None and server.layout.state == FAILED
                    and server.becoming is not None and asked == server.request):
                raise self.incomplete(server, "its parts cannot be changed now")
            with self.images.deliveries.change(now, asked, policy=policy) as delivery:
                server = self.given(server, delivery, asked)
                self.write(server, delivery)
                self.store.save_server(server)
                self.launcher.attach(server, self.disks(server))
        return server

    def retry(self, server: Server) -> Server:
        """Let a server lay what it failed to lay.

        :raises InvalidInput: it does not run, or nothing is missing
        :raises LayoutIncomplete: it is still at it
        :raises DigestMismatch: a part is damaged in the store
        """
        with self.held(server.id):
            server = self._running(server)
            if server.layout is None or server.complete:
                raise exceptions.InvalidInput(what=f"server {server.name}",
                                              reason="there is nothing that it failed to lay")
            if server.layout.state == LAYING:
                raise self.incomplete(server, "it is still at it")
            for disk in server.layout.disks:
                self._sound(disk.blob)
            # The guest may go on telling how the last attempt ended.
            server = self.again(server, begun=False)
            self.store.save_server(server)
            self.launcher.attach(server, self.disks(server))
        return server

    def _running(self, server: Server) -> Server:
        """As it is now; the caller holds it. :raises InvalidInput: it does not run"""
        server = self.settle(self.launcher.refresh(self.store.server(server.id)))
        if not self.launcher.alive(server):
            raise exceptions.InvalidInput(
                what=f"server {server.name}", reason="it does not run: start it first")
        return server

    def _sound(self, blob: str) -> None:
        """See that the store's copy of a part is good; one of an image service's is
        fetched again."""
        try:
            self.store.verify(blob)
        except exceptions.DigestMismatch as error:
            LOG.warning("%s", error)
            self.store.path(blob)
            self.store.verify(blob)


def _plan(server: Server, layout: Layout) -> Path:
    """The disk with what a guest has to do."""
    return Path(server.directory, f"layout-{layout.id}.squashfs")


def _told(server: Server) -> Server:
    """The record but for how much of the console was read."""
    if server.layout is None:
        return server
    return msgspec.structs.replace(server, layout=msgspec.structs.replace(
        server.layout, heard=0))


def _reason(layout: Layout) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in layout.failed.items()) or \
        "it does not say why"


def _unique(items: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(items))
