from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.assembly.disks import QCOW2, DiskInfo
from splitimage_driver.store.base import Servers
from splitimage_driver.store.glance import api, meeting, places, transfer
from splitimage_driver.store.glance.api import Images
from splitimage_driver.store.glance.store import GlanceStore
from tests.imagerecords import Records
from tests.unit.store.conftest import options
from tests.unit.store.glance.fake import FakeGlance

#: What a disk begins with that refers to other files.
UNSAFE = b"unsafe"


@pytest.fixture
def glance() -> FakeGlance:
    return FakeGlance()


@pytest.fixture
def alpha(glance: FakeGlance) -> Records:
    """What the project alpha stores."""
    return Records(glance.user("alpha"))


@pytest.fixture
def beta(glance: FakeGlance) -> Records:
    return Records(glance.user("beta"))


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for an image service that is in this process."""
    for module, name in ((api, "_PAUSE"), (transfer, "_PAUSE"), (meeting, "_POLL"),
                         (meeting, "_SECOND")):
        monkeypatch.setattr(module, name, 0.0)


class Stores:
    """Opens stores, each in a directory of its own unless told."""

    def __init__(self, place: Path, stack: contextlib.ExitStack) -> None:
        self.place, self._stack, self._number = place, stack, 0

    def __call__(self, images: Images, *, host: str = "", limits: dict[str, int] | None = None,
                 purpose: str = "", servers: Servers | None = None, **own: Any) -> GlanceStore:
        """:param images: of the user who acts
        :param host: whose directory; "": another one
        :param own: options of the group [glance]
        """
        self._number += 1
        retention = {"max_age": 0, "max_count": 0, "max_bytes": 0} | (limits or {})
        store = GlanceStore(
            self.place / (host or f"host{self._number}"), options(),
            own=types.SimpleNamespace(**{"store": "", "parallel": 2, "stall": 0.5, "grace": 3600,
                                         "cache_bytes": 0, "filter": True} | own),
            transport=images.transport, retention=types.SimpleNamespace(**retention),
            purpose=purpose, servers=servers)
        self._stack.callback(store.close)
        return store


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pauses: None) -> Iterator[Stores]:
    def inspect(path: Path) -> DiskInfo:
        if path.read_bytes().startswith(UNSAFE):
            raise exceptions.UnsafeDisk(path=path, reason="it has a backing file")
        return DiskInfo(format=QCOW2, virtual_size=2**30, file_size=path.stat().st_size)

    monkeypatch.setattr(places.disks, "inspect", inspect)
    with contextlib.ExitStack() as stack:
        yield Stores(tmp_path, stack)
