"""A launcher whose processes are only files below a made-up /proc."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver.launch import processes
from splitimage_driver.model.server import Server


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make a process: ``proc(pid, ticks, *arguments, state="S")``."""
    root = tmp_path / "proc"
    root.mkdir()
    monkeypatch.setattr(processes, "PROC", root)

    def made(pid: int, ticks: int, *arguments: str, state: str = "S",
             name: str = "qemu) S (x") -> None:
        place = root / str(pid)
        place.mkdir()
        before = " ".join(["0"] * 18)
        (place / "stat").write_text(f"{pid} ({name}) {state} {before} {ticks} 1 2 3\n")
        (place / "cmdline").write_bytes(b"".join(a.encode() + b"\0" for a in arguments))

    return made


@pytest.fixture
def options() -> types.SimpleNamespace:
    return types.SimpleNamespace(
        qemu="qemu-system-x86_64", memory=512, cpus=2, max_memory=2048, max_cpus=4,
        stop_timeout=1.0, outbound=False, uefi_code="/firmware/code",
        uefi_variables="/firmware/variables")


class Records:
    """What a launcher needs of a store."""

    def __init__(self) -> None:
        self.saved: list[Server] = []
        self.deleted: list[str] = []

    def save_server(self, server: Server) -> None:
        self.saved.append(server)

    def delete_server(self, server_id: str) -> None:
        self.deleted.append(server_id)


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return make(tmp_path / "servers" / "one")


def make(directory: Path, **fields: Any) -> Server:
    known: dict[str, Any] = {
        "id": "one", "name": "web", "composite": "c", "parts": (), "image": "i", "disk": "d",
        "directory": str(directory), "owner": "default", "created": 0.0}
    return Server(**known | fields)
