"""What an administrator knows of a gold machine's hardware, from a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitimage_driver import exceptions

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_LIMIT = 1 << 20
FIRMWARE = ("bios", "uefi")
#: libvirt's units of memory, in bytes.
_UNITS = {"b": 1, "bytes": 1, "kb": 1000, "k": 1 << 10, "kib": 1 << 10, "mb": 10**6,
          "m": 1 << 20, "mib": 1 << 20, "gb": 10**9, "g": 1 << 30, "gib": 1 << 30,
          "tb": 10**12, "t": 1 << 40, "tib": 1 << 40}


def read(path: Path) -> dict[str, Any]:
    """A JSON object, taken as it is, or a libvirt domain XML, of which is
    taken what matters for another deployment: ``architecture``, ``machine``,
    ``firmware`` (bios or uefi), ``memory`` (bytes), ``cpus``, ``cpu_model``,
    ``disks`` and ``interfaces`` (with bus or model).

    :raises InvalidInput: it is neither
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        raise _bad(path, error.strerror or str(error)) from error
    if len(data) > _LIMIT:
        raise _bad(path, f"it has more than {_LIMIT} bytes")
    found = _domain(path, data) if data.lstrip()[:1] == b"<" else _object(path, data)
    if found.get("firmware", FIRMWARE[0]) not in FIRMWARE:
        raise _bad(path, f"firmware is {' or '.join(FIRMWARE)}, not {found['firmware']!r}")
    return found


def _bad(path: Path, reason: str) -> exceptions.InvalidInput:
    return exceptions.InvalidInput(what=f"hardware {path}", reason=reason)


def _object(path: Path, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"it is neither JSON nor a domain XML: {error}") from error
    if not isinstance(found, dict):
        raise _bad(path, "it is JSON, but no object")
    return found


def _domain(path: Path, data: bytes) -> dict[str, Any]:
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException, ElementTree

    try:
        root = ElementTree.fromstring(data, forbid_dtd=True)
    except ParseError as error:
        raise _bad(path, f"it is not well-formed XML: {error}") from error
    except DefusedXmlException as error:
        raise _bad(path, "it has a document type or entities, which a domain XML has not"
                   ) from error
    if root.tag != "domain":
        raise _bad(path, f"its root is <{root.tag[:40]}>, not <domain>")
    return dict(_facts(path, root))


def _facts(path: Path, root: Element) -> Iterator[tuple[str, Any]]:
    kind = root.find("os/type")
    if kind is not None:
        for name, attribute in (("architecture", "arch"), ("machine", "machine")):
            if kind.get(attribute):
                yield name, kind.get(attribute)
    loader = root.find("os/loader")
    system = root.find("os")
    if system is not None:
        pflash = loader is not None and loader.get("type") == "pflash"
        yield "firmware", "uefi" if pflash or system.get("firmware") == "efi" else "bios"
    memory = root.find("memory")
    if memory is not None:
        yield "memory", (_number(path, memory)
                         * _UNITS.get((memory.get("unit") or "KiB").lower(), 1 << 10))
    processors = root.find("vcpu")
    if processors is not None:
        yield "cpus", _number(path, processors)
    model = root.findtext("cpu/model") or (root.find("cpu") is not None
                                           and root.find("cpu").get("mode"))  # type: ignore[union-attr]
    if model:
        yield "cpu_model", model
    disks = [dict(_attributes(device, bus="target", format="driver"))
             for device in root.findall("devices/disk") if device.get("device", "disk") == "disk"]
    if disks:
        yield "disks", disks
    interfaces = [dict(_attributes(device, model="model"))
                  for device in root.findall("devices/interface")]
    if interfaces:
        yield "interfaces", interfaces


def _attributes(device: Element, **wanted: str) -> Iterator[tuple[str, str]]:
    """Attributes of a device's children; libvirt's driver says its format by
    ``type``, the model of an interface likewise."""
    for name, tag in wanted.items():
        child = device.find(tag)
        if child is not None:
            value = child.get("bus" if name == "bus" else "type")
            if value:
                yield name, value


def _number(path: Path, element: Element) -> int:
    try:
        return int((element.text or "").strip())
    except ValueError as error:
        raise _bad(path, f"<{element.tag}> is no number") from error
