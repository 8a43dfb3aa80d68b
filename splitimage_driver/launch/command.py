"""qemu's command line for a server."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.assembly import disks as images
from splitimage_driver.launch import accelerator as accelerators
from splitimage_driver.launch.base import Disk
from splitimage_driver.model import layout
from splitimage_driver.model.server import Server

#: Name of the disk's node, by which the monitor knows it.
DISK = "disk"
#: elevateprivileges and spawn cannot be denied: -daemonize itself needs both.
#: What remains has no privileges to elevate (the filter forbids new ones).
SANDBOX = ("-sandbox", "on,obsolete=deny,resourcecontrol=deny")
_NAMESPACE = uuid.UUID("6b3c8c39-0f4e-4c1f-9f5e-2d9a51b7a0c1")
#: The controller of further disks. Its slot is said, so that it moves no other
#: device: guests name their network interfaces by the slot.
CONTROLLER, _SLOT = "further", 0x10
#: Targets of a controller.
MAX_DISKS = 255


class Files:
    """Names within a server's directory."""

    def __init__(self, directory: Path) -> None:
        # qemu changes its working directory when it goes to the background
        self.directory = directory = directory.absolute()
        self.overlay = directory / "overlay.qcow2"
        self.console = directory / "console.log"
        self.monitor = directory / "qmp.sock"
        self.pid = directory / "qemu.pid"
        self.variables = directory / "uefi-variables.fd"


def build(server: Server, files: Files, *, qemu: str, accelerator: str, backing: Path,
          backing_format: str, memory: int, cpus: int, ports: Mapping[int, int],
          uefi_code: Path | None = None, disks: Sequence[Disk] = (), outbound: bool = False,
          monitor: Path | None = None, sandbox: bool = True) -> list[str]:
    """The words of the command.

    :param ports: guest TCP port to host port on 127.0.0.1; 0: any free one,
        which qemu's monitor tells
    :param uefi_code: the firmware; None: BIOS
    :param monitor: another name of the monitor's socket, where its own is
        longer than a socket's name can be
    :raises InvalidInput: more disks than fit
    """
    check_room(server, len(disks))
    machine = "q35"
    nodes: list[dict[str, Any]] = [{
        "driver": images.QCOW2, "node-name": DISK, "discard": "unmap",
        "detect-zeroes": "unmap", "file": _file(files.overlay),
        # said here, so that the name inside the overlay is never followed
        "backing": _image(backing, backing_format)}]
    if uefi_code is not None:
        machine += ",pflash0=code,pflash1=variables"
        nodes += [{"driver": "raw", "node-name": "code", "read-only": True,
                   "file": _file(uefi_code)},
                  {"driver": "raw", "node-name": "variables", "file": _file(files.variables)}]
    nodes += [node(disk) for disk in disks]
    return [
        qemu, "-name", f"guest={_escaped(server.name)}",
        "-uuid", str(uuid.uuid5(_NAMESPACE, server.id)),
        "-nodefaults", "-no-user-config", "-display", "none",
        *(SANDBOX if sandbox else ()),
        "-machine", machine, *accelerators.arguments(accelerator),
        "-m", str(memory), "-smp", str(cpus),
        *(word for one in nodes for word in ("-blockdev", msgspec.json.encode(one).decode())),
        "-device", f"virtio-blk-pci,drive={DISK},bootindex=1",
        "-device", f"virtio-scsi-pci,id={CONTROLLER},addr={_SLOT:x}",
        *(word for disk in disks for word in ("-device", ",".join(
            f"{name}={value}" for name, value in device(disk.serial).items()))),
        "-netdev", ",".join(["user", "id=net", f"restrict={'off' if outbound else 'on'}",
                             *_forwards(ports.items())]),
        "-device", "virtio-net-pci,netdev=net,romfile=",
        "-object", "rng-builtin,id=random", "-device", "virtio-rng-pci,rng=random",
        "-chardev", f"file,id=console,path={_escaped(files.console)},append=on",
        "-serial", "chardev:console",
        "-qmp", f"unix:{_escaped(monitor or files.monitor)},server=on,wait=off",
        "-daemonize", "-pidfile", str(files.pid)]


def check_room(server: Server, count: int) -> None:
    """:raises InvalidInput: so many further disks do not fit"""
    if count > MAX_DISKS:
        raise exceptions.InvalidInput(what=f"server {server.name}",
                                      reason=f"it has {count} disks, {MAX_DISKS} fit")


def node(disk: Disk) -> dict[str, Any]:
    """A further disk's contents, as the monitor's ``blockdev-add`` has it."""
    return {"driver": "raw", "node-name": disk.serial, "read-only": True,
            "file": _file(disk.path)}


def device(serial: str) -> dict[str, str]:
    """A further disk, as the monitor's ``device_add`` has it."""
    return {"driver": "scsi-hd", "id": serial, "bus": f"{CONTROLLER}.0", "drive": serial,
            "serial": serial, "product": layout.model(serial)}


def _file(path: Path) -> dict[str, Any]:
    return {"driver": "file", "filename": str(path.absolute())}


def _image(path: Path, image_format: str) -> dict[str, Any]:
    node: dict[str, Any] = {"driver": image_format, "read-only": True, "file": _file(path)}
    if image_format == images.QCOW2:
        node["backing"] = None
    return node


def _forwards(ports: Iterable[tuple[int, int]]) -> Iterable[str]:
    for guest, host in ports:
        yield f"hostfwd=tcp:127.0.0.1:{host}-:{guest}"


def _escaped(value: object) -> str:
    """A value in one of qemu's comma-separated lists."""
    return str(value).replace(",", ",,")
