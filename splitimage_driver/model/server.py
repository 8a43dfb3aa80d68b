"""A virtual machine started from an assembled disk on this host."""

from __future__ import annotations

import msgspec

from splitimage_driver.model.composite import Answer
from splitimage_driver.model.layout import Layout
from splitimage_driver.model.plan import Request

BUILDING, RUNNING, STOPPED, STALE = "building", "running", "stopped", "stale"


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar id: short random id, also the name of its directory
    :ivar answers: the tenant's own, for clashes of a file set
    :ivar image: id of the completed image (or composite base) it runs on
    :ivar disk: sha256 of the backing disk: what the store must keep for it
    :ivar directory: holds overlay.qcow2, console.log, pid file, QMP socket
    :ivar pid: of qemu; 0 when it does not run
    :ivar started: start time of that process in clock ticks since boot, so
        that a reused pid is not mistaken for it
    :ivar ports: guest TCP port to host TCP port on 127.0.0.1
    :ivar layout: the last plan that it carries, or carried, out itself; None:
        it was complete when it was started
    :ivar becoming: what it is asked to have once that is complete; None: what
        it has been asked for from the beginning
    """

    id: str
    name: str
    composite: str
    parts: tuple[str, ...]
    filesets: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    image: str
    disk: str
    directory: str
    owner: str
    created: float
    pid: int = 0
    started: int = 0
    ports: dict[int, int] = {}
    state: str = BUILDING
    layout: Layout | None = None
    becoming: Request | None = None

    @property
    def request(self) -> Request:
        """What it is to have by what was asked for, without what it is becoming."""
        return Request(composite=self.composite, parts=self.parts, filesets=self.filesets,
                       answers=self.answers)

    @property
    def complete(self) -> bool:
        """Whether its disk has all that it was asked for."""
        return self.layout is None or self.layout.over
