"""What an administrator says about a machine's hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.capture import hardware

DOMAIN = """<?xml version="1.0"?>
<!-- as virsh dumpxml prints it -->
<domain type="kvm" xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
  <name>gold</name>
  <memory unit="MiB">2048</memory>
  <vcpu placement="static">4</vcpu>
  <os{firmware}>
    <type arch="x86_64" machine="pc-q35-7.2">hvm</type>
    {loader}
  </os>
  <cpu mode="host-passthrough"/>
  <devices>
    <disk type="file" device="disk">
      <driver name="qemu" type="qcow2"/>
      <source file="/secret/place/gold.qcow2"/>
      <target dev="vda" bus="virtio"/>
    </disk>
    <disk type="file" device="cdrom"><target dev="sda" bus="sata"/></disk>
    <interface type="network"><mac address="52:54:00:00:00:01"/><model type="e1000"/></interface>
  </devices>
</domain>"""


def read(tmp_path: Path, content: str | bytes) -> dict[str, Any]:
    path = tmp_path / "hardware"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return hardware.read(path)


def test_a_domain_tells_what_matters_elsewhere(tmp_path: Path) -> None:
    assert read(tmp_path, DOMAIN.format(firmware="", loader="")) == {
        "architecture": "x86_64", "machine": "pc-q35-7.2", "firmware": "bios",
        "memory": 2 << 30, "cpus": 4, "cpu_model": "host-passthrough",
        "disks": [{"bus": "virtio", "format": "qcow2"}], "interfaces": [{"model": "e1000"}]}


@pytest.mark.parametrize(("firmware", "loader"), [
    (' firmware="efi"', ""), ("", '<loader readonly="yes" type="pflash">/x.fd</loader>')])
def test_a_domain_that_boots_by_uefi(firmware: str, loader: str, tmp_path: Path) -> None:
    assert read(tmp_path, DOMAIN.format(firmware=firmware, loader=loader))["firmware"] == "uefi"


def test_a_domain_may_say_little(tmp_path: Path) -> None:
    assert read(tmp_path, "<domain><memory>1048576</memory></domain>") == {"memory": 1 << 30}


def test_an_object_is_taken_as_it_is(tmp_path: Path) -> None:
    facts = '{"firmware": "uefi", "rack": {"unit": 7}, "drivers": ["virtio"]}'
    assert read(tmp_path, facts) == {"firmware": "uefi", "rack": {"unit": 7},
                                     "drivers": ["virtio"]}


LAUGHS = """<!DOCTYPE domain [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<domain><name>&b;</name></domain>"""
OUTSIDE = '<!DOCTYPE domain [<!ENTITY x SYSTEM "file:///etc/passwd">]><domain>&x;</domain>'


@pytest.mark.parametrize(("content", "reason"), [
    (LAUGHS, "entities"), (OUTSIDE, "entities"),
    ('<!DOCTYPE domain SYSTEM "http://example.org/x.dtd"><domain/>', "document type"),
    ("<domain><memory>much</memory></domain>", "<memory> is no number"),
    ("<domain>", "not well-formed"), ("<network/>", "<network>, not <domain>"),
    ("[1, 2]", "no object"), ("firmware: uefi", "neither JSON nor"), ("", "neither JSON nor"),
    (b"\xff\xfe\x00", "neither JSON nor"), ("[" * 100_000, "neither JSON nor"),
    ('{"firmware": "coreboot"}', "bios or uefi"), ('{"firmware": ["uefi"]}', "bios or uefi"),
    (b" " * ((1 << 20) + 1), "more than"),
])
def test_anything_else_is_refused(content: str | bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(exceptions.InvalidInput, match=reason):
        read(tmp_path, content)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(exceptions.InvalidInput, match="No such file"):
        hardware.read(tmp_path / "absent")
