"""What a client of the image service needs of memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.functional.glancescene import Scene

pytest_plugins = ("tests.functional.cloud", "tests.functional.glancescene")
pytestmark = [pytest.mark.must_show("glance", 4), pytest.mark.accept]

MIB = 1 << 20
SIZE, MOST = 2048 * MIB, 200 * MIB


def test_a_large_part_goes_both_ways_in_little_memory(
        scene: Scene, record_property: Callable[[str, object], None]) -> None:
    up = scene.done("send-part", "large", SIZE, host="one")
    path, down = scene.done("fetch-part", "large", host="two")
    record_property("memory, 2 GiB up", f"{up / MIB:.0f} MiB")
    record_property("memory, 2 GiB down", f"{down / MIB:.0f} MiB")
    assert Path(path).stat().st_size == SIZE
    assert max(up, down) < MOST
