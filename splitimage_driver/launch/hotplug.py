"""Further disks of a machine that runs, by qemu's monitor.

A disk is two things of one name, its contents (a block node) and the device
that the guest sees. Whoever is killed between the two leaves one of them: so
each step looks at what is there first.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.launch import command
from splitimage_driver.launch.base import Disk
from splitimage_driver.launch.qmp import Monitor
from splitimage_driver.model.server import Server

LOG = logging.getLogger(__name__)
#: Seconds for qemu to let go of a disk, and between two looks.
_PATIENCE, _PAUSE = 30.0, 0.05
#: Where qemu has the devices that were given names.
_DEVICES = "/machine/peripheral"


def attach(monitor: Monitor, server: Server, disks: Sequence[Disk]) -> None:
    """See :meth:`splitimage_driver.launch.base.Launcher.attach`."""
    devices, nodes = _devices(monitor), _nodes(monitor)
    if command.CONTROLLER not in devices:
        raise exceptions.InvalidInput(
            what=f"server {server.name}", reason="it was started by an earlier release, which "
            "gave it no controller for further disks: stop it and start it again")
    wanted = {disk.serial: disk for disk in disks}
    command.check_room(server, len((devices | wanted.keys()) - {command.CONTROLLER}))
    for serial, disk in wanted.items():
        if serial not in nodes:
            monitor.execute("blockdev-add", **command.node(disk))
        if serial not in devices:
            monitor.execute("device_add", **command.device(serial))
            LOG.info("server %s has disk %s now", server.id, serial)


def detach(monitor: Monitor, server: Server, serials: Iterable[str]) -> None:
    """See :meth:`splitimage_driver.launch.base.Launcher.detach`."""
    wanted = set(serials)
    for serial in sorted(wanted & _devices(monitor)):
        monitor.execute("device_del", id=serial)
    end = time.monotonic() + _PATIENCE
    while left := wanted & _devices(monitor):
        _pause(end, server, left)
    refused: exceptions.ToolFailed | None = None
    while left := wanted & _nodes(monitor):
        if refused is not None:
            _pause(end, server, left, refused)
        for serial in sorted(left):
            try:
                monitor.execute("blockdev-del", node_name=serial)
            except exceptions.ToolFailed as error:  # the device's last requests end
                refused = error
    LOG.info("server %s has none of the disks %s any more", server.id, ", ".join(sorted(wanted)))


def _pause(end: float, server: Server, left: set[str],
           refused: exceptions.ToolFailed | None = None) -> None:
    if time.monotonic() >= end:
        raise refused or exceptions.ToolFailed(
            tool="qemu", status="QMP", reason=f"server {server.name} keeps its disks "
            f"{', '.join(sorted(left))} for more than {_PATIENCE:g} s")
    time.sleep(_PAUSE)


def _devices(monitor: Monitor) -> set[str]:
    return {found["name"] for found in monitor.execute("qom-list", path=_DEVICES)
            if found["type"].startswith("child<")}


def _nodes(monitor: Monitor) -> set[str]:
    return {found["node-name"] for found in monitor.execute("query-named-block-nodes", flat=True)}
