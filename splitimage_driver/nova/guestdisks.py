"""The disks from which a server lays its parts, as libvirt is told of them.

Nova does not know them: they are no block devices of the server. All are on one
virtio-scsi controller, a server's own if it has one.
"""

from __future__ import annotations

import functools
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as etree

from nova import exception
from nova.virt.libvirt import config as vconfig
from oslo_log import log as logging

from splitimage_driver.model.layout import PART_MODEL, PART_PREFIX, PLAN_PREFIX, model

LOG = logging.getLogger(__name__)
_MODEL = "virtio-scsi"
#: Targets of a controller: Nova has its own disks at the first one.
_FIRST = 100
#: Disks that a server may have: of 64 parts, of file sets, of the plan.
_MOST = 128
#: Every disk has a name of its own; Nova does not come to sdka and those after it.
_NAMES, _LETTERS = "sdk", string.ascii_lowercase


class SharedDisk(vconfig.LibvirtConfigGuestDisk):
    """A file that several servers read, and nobody writes. libvirt does not make it
    the server's own (it is readable for every process of a server as it is), or
    the first server to end would take it from all others."""

    def format_dom(self) -> Any:
        dom = super().format_dom()
        dom.find("source").append(self._new_node("seclabel", model="dac", relabel="no"))
        dom.append(self._text_node("product", model(self.serial)))
        return dom


def disk(serial: str, path: Path, number: int, controller: int) -> SharedDisk:
    """:param number: of the server's disks of this kind, from 0"""
    found = SharedDisk()
    found.source_type, found.source_device = "file", "disk"
    found.driver_name, found.driver_format = "qemu", "raw"
    found.source_path, found.serial = str(path), serial
    found.target_bus = "scsi"
    found.target_dev = f"{_NAMES[:2]}{_name(number)}"
    found.readonly = True
    found.device_addr = vconfig.LibvirtConfigGuestDeviceAddressDrive()
    found.device_addr.controller, found.device_addr.bus = controller, 0
    found.device_addr.target, found.device_addr.unit = _FIRST + number, 0
    return found


def _name(number: int) -> str:
    first = chr(ord(_NAMES[2]) + number // len(_LETTERS))
    return first + _LETTERS[number % len(_LETTERS)]


def controller(index: int) -> Any:
    found = vconfig.LibvirtConfigGuestController()
    found.type, found.model, found.index = "scsi", _MODEL, index
    return found


def add(guest: Any, disks: Sequence[tuple[str, Path]]) -> None:
    """To the configuration of a server that is going to be started.

    :param guest: LibvirtConfigGuest
    :param disks: serial number and file of each
    """
    if not disks:
        return
    scsi = {device.index or 0: device.model for device in guest.devices
            if isinstance(device, vconfig.LibvirtConfigGuestController) and device.type == "scsi"}
    if not scsi and any(isinstance(device, vconfig.LibvirtConfigGuestDisk)
                        and device.target_bus == "scsi" for device in guest.devices):
        scsi[0] = None  # libvirt makes that one
    index = next((index for index, model in scsi.items() if model == _MODEL), None)
    if index is None:
        index = max(scsi, default=-1) + 1
        guest.add_device(controller(index))
    for number, (serial, path) in enumerate(disks):
        guest.add_device(disk(serial, path, number, index))


def attach(guest: Any, disks: Sequence[tuple[str, Path]], *, live: bool) -> None:
    """Give a server further disks, one after the other; those that it has stay.

    :param guest: nova.virt.libvirt.guest.Guest
    :param live: it runs
    :raises libvirtError: some may be attached
    """
    tree = etree.fromstring(guest.get_xml_desc())  # noqa: S314 (libvirt's own)
    scsi = {int(found.get("index", "0")): found.get("model")
            for found in tree.iterfind("devices/controller[@type='scsi']")}
    index = next((index for index, model in scsi.items() if model == _MODEL), None)
    if index is None:
        index = max(scsi, default=-1) + 1
        guest.attach_device(controller(index), persistent=True, live=live)
    there = _devices(tree)
    taken = set(there.values())
    numbers = (number for number in range(_MOST)
               if f"{_NAMES[:2]}{_name(number)}" not in taken)
    for serial, path in disks:
        if serial not in there:
            guest.attach_device(disk(serial, path, next(numbers), index), persistent=True,
                                live=live)


def detach(driver: Any, guest: Any, server: str) -> bool:
    """Take a server's further disks away.

    :param driver: the compute driver, which waits for the guest to let go
    :param server: id, for messages
    :returns: whether none is there any more
    """
    found: dict[str, str] = {}
    for inactive in (False, True):
        found |= _devices(etree.fromstring(  # noqa: S314 (libvirt's own)
            guest.get_xml_desc(dump_inactive=inactive)))
    # The plan first: without it a guest begins nothing.
    for serial, name in sorted(found.items(), key=lambda item: model(item[0]) == PART_MODEL):
        try:
            driver._detach_with_retry(guest, server, functools.partial(guest.get_disk, name),
                                      name)
        except exception.DeviceNotFound:
            continue
        except exception.DeviceDetachFailed as error:
            LOG.warning("server %s keeps disk %s for now: %s", server, serial, error)
            return False
    return True


def _devices(tree: Any) -> dict[str, str]:
    """Serial number to name of a server's disks of this kind."""
    found = {}
    for device in tree.iterfind("devices/disk"):
        serial, target = device.findtext("serial", ""), device.find("target")
        if serial.startswith((PLAN_PREFIX, PART_PREFIX)) and target is not None:
            found[serial] = target.get("dev", "")
    return found

