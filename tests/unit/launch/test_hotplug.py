from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.launch import command, hotplug
from splitimage_driver.launch.base import Disk
from splitimage_driver.model.server import Server

PLAN, PART = Disk("si-plan-1", Path("/server/plan")), Disk("si-2", Path("/store/part"))


class Machine:
    """Stands for qemu's monitor.

    :ivar slow: answers during which a device stays after it was taken away,
        and a node is in use after its device is gone
    """

    def __init__(self, *, devices: set[str] | None = None, nodes: set[str] | None = None,
                 slow: int = 0) -> None:
        self.devices = {command.CONTROLLER} if devices is None else devices
        self.nodes = nodes or set()
        self.slow, self.leaving = slow, dict[str, int]()
        self.done: list[tuple[str, str]] = []

    def execute(self, what: str, **arguments: Any) -> Any:
        if what == "qom-list":
            for name in [name for name, left in self.leaving.items() if left == 0]:
                self.devices.discard(name)
            self.leaving = {name: max(0, left - 1) for name, left in self.leaving.items()}
            return [{"name": "type", "type": "string"},
                    *({"name": name, "type": "child<scsi-hd>"} for name in self.devices)]
        if what == "query-named-block-nodes":
            return [{"node-name": name} for name in self.nodes | {"disk", "#block1"}]
        name = arguments.get("id") or arguments.get("node_name") or arguments["node-name"]
        self.done.append((what, name))
        if what == "device_del":
            assert name in self.devices
            self.leaving[name] = self.slow
        elif what == "blockdev-del":
            assert name not in self.devices
            if self.slow:
                self.slow -= 1
                raise exceptions.ToolFailed(tool="qemu", status="QMP", reason="in use")
            self.nodes.remove(name)
        elif what == "device_add":
            assert arguments["drive"] in self.nodes and name not in self.devices
            self.devices.add(name)
        else:
            assert name not in self.nodes and arguments["read-only"]
            self.nodes.add(name)
        return {}


def attach(machine: Machine, server: Server, *disks: Disk) -> list[tuple[str, str]]:
    machine.done.clear()
    hotplug.attach(machine, server, disks)  # type: ignore[arg-type]
    return machine.done


def test_contents_come_before_the_device_and_only_what_is_not_there(server: Server) -> None:
    machine = Machine()
    assert attach(machine, server, PLAN, PART) == [
        ("blockdev-add", "si-plan-1"), ("device_add", "si-plan-1"),
        ("blockdev-add", "si-2"), ("device_add", "si-2")]
    assert attach(machine, server, PLAN, PART) == []
    # whoever added it was killed in between
    machine = Machine(nodes={"si-2"})
    assert attach(machine, server, PART) == [("device_add", "si-2")]


def test_an_old_machine_without_a_controller(server: Server) -> None:
    with pytest.raises(exceptions.InvalidInput, match="earlier release"):
        attach(Machine(devices=set()), server, PLAN)


def test_more_than_fit(server: Server) -> None:
    there = {f"d{n}" for n in range(command.MAX_DISKS - 1)}
    machine = Machine(devices={command.CONTROLLER} | there)
    with pytest.raises(exceptions.InvalidInput, match="255 fit"):
        attach(machine, server, PLAN, PART)
    assert machine.done == []
    assert attach(machine, server, PLAN) != []


@pytest.mark.parametrize("slow", [0, 3])
def test_a_disk_is_gone_when_its_contents_are(server: Server, slow: int,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hotplug.time, "sleep", lambda seconds: None)
    machine = Machine(slow=slow)
    attach(machine, server, PLAN, PART)
    hotplug.detach(machine, server, ["si-2", "si-plan-1"])  # type: ignore[arg-type]
    assert (machine.devices, machine.nodes) == ({command.CONTROLLER}, set())
    machine.done.clear()
    hotplug.detach(machine, server, ["si-2", "si-plan-1"])  # type: ignore[arg-type]
    assert machine.done == []
    # whoever took it away was killed in between
    machine = Machine(nodes={"si-2"})
    hotplug.detach(machine, server, ["si-2"])  # type: ignore[arg-type]
    assert machine.nodes == set()


def test_what_is_kept_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hotplug, "_PATIENCE", 0.0)
    machine = Machine(devices={command.CONTROLLER, "si-2"}, nodes={"si-2"}, slow=99)
    with pytest.raises(exceptions.ToolFailed, match="keeps its disks si-2"):
        hotplug.detach(machine, server, ["si-2"])  # type: ignore[arg-type]
    machine = Machine(nodes={"si-2"}, slow=99)
    with pytest.raises(exceptions.ToolFailed, match="in use"):
        hotplug.detach(machine, server, ["si-2"])  # type: ignore[arg-type]
