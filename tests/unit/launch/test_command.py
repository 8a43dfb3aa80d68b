from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.launch import command
from splitimage_driver.launch.base import Disk
from tests.unit.launch.conftest import make


def words(name: str = "web", **fields: Any) -> list[str]:
    server = make(Path("/servers/o,ne"), name=name)
    settings: dict[str, Any] = {
        "qemu": "qemu", "accelerator": "tcg", "backing": Path("/store/base"),
        "backing_format": "qcow2", "memory": 512, "cpus": 2, "ports": {}}
    return command.build(server, command.Files(Path(server.directory)), **settings | fields)


def after(option: str, found: list[str]) -> list[str]:
    return [found[i + 1] for i, word in enumerate(found) if word == option]


def nodes(found: list[str]) -> dict[str, dict[str, Any]]:
    decoded = [json.loads(word) for word in after("-blockdev", found)]
    return {node["node-name"]: node for node in decoded}


def test_every_format_is_named_and_no_backing_file_is_looked_up() -> None:
    disk = nodes(words(backing=Path("/store/a:b,c")))[command.DISK]
    assert disk["driver"] == "qcow2"
    assert disk["file"] == {"driver": "file", "filename": "/servers/o,ne/overlay.qcow2"}
    assert disk["backing"] == {
        "driver": "qcow2", "read-only": True, "backing": None,
        "file": {"driver": "file", "filename": "/store/a:b,c"}}
    raw = nodes(words(backing_format="raw"))[command.DISK]["backing"]
    assert raw["driver"] == "raw" and "backing" not in raw


def test_commas_do_not_end_a_value() -> None:
    found = words(name="a,b=c")
    assert after("-name", found) == ["guest=a,,b=c"]
    assert "path=/servers/o,,ne/console.log,append=on" in after("-chardev", found)[0]
    assert after("-qmp", found)[0].startswith("unix:/servers/o,,ne/qmp.sock,server=on")
    assert after("-pidfile", found) == ["/servers/o,ne/qemu.pid"]


@pytest.mark.parametrize(("outbound", "restrict"), [(False, "on"), (True, "off")])
def test_the_network(outbound: bool, restrict: str) -> None:
    (net,) = after("-netdev", words(ports={80: 0, 22: 4022}, outbound=outbound))
    assert net == (f"user,id=net,restrict={restrict},hostfwd=tcp:127.0.0.1:0-:80,"
                   "hostfwd=tcp:127.0.0.1:4022-:22")


def test_firmware() -> None:
    assert after("-machine", words()) == ["q35"]
    found = words(uefi_code=Path("/fw/code"))
    assert after("-machine", found) == ["q35,pflash0=code,pflash1=variables"]
    assert nodes(found)["code"]["read-only"] is True
    assert nodes(found)["variables"]["file"]["filename"] == "/servers/o,ne/uefi-variables.fd"


def test_further_disks_have_a_serial_each_and_are_never_written() -> None:
    disks = [Disk(f"si-{n}", Path(f"/parts/{n}")) for n in range(command.MAX_DISKS)]
    found = words(disks=disks)
    devices = [device for device in after("-device", found) if "scsi-hd" in device]
    assert devices[7] == ("driver=scsi-hd,id=si-7,bus=further.0,drive=si-7,serial=si-7,"
                          "product=splitimage-part")
    assert len(set(devices)) == len(disks)
    assert nodes(found)["si-7"] == {
        "driver": "raw", "node-name": "si-7", "read-only": True,
        "file": {"driver": "file", "filename": "/parts/7"}}
    assert all(nodes(found)[disk.serial]["read-only"] for disk in disks)
    with pytest.raises(exceptions.InvalidInput):
        words(disks=[*disks, Disk("si-x", Path("/x"))])


def test_the_controller_of_further_disks_moves_no_other_device() -> None:
    """Its slot is its own; there is one whether or not a disk is."""
    for found in (words(), words(disks=[Disk("si-1", Path("/parts/1"))])):
        assert "virtio-scsi-pci,id=further,addr=10" in after("-device", found)
        assert not [d for d in after("-device", found) if "addr" in d and "scsi" not in d]


def test_a_server_keeps_its_identity_and_shares_it_with_none() -> None:
    def identity(server_id: str) -> list[str]:
        server = make(Path("/s"), id=server_id)
        return after("-uuid", command.build(
            server, command.Files(Path("/s")), qemu="q", accelerator="kvm", backing=Path("/b"),
            backing_format="raw", memory=1, cpus=1, ports={}))

    assert identity("a") == identity("a") != identity("b")


def test_the_sandbox_can_be_left_out() -> None:
    assert "-sandbox" in words()
    assert "-sandbox" not in words(sandbox=False)
