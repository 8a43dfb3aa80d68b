from __future__ import annotations

import os
from collections.abc import Callable

from splitimage_driver.launch import processes


def test_start_ticks(proc: Callable[..., None]) -> None:
    proc(10, 12345)
    proc(11, 12345, state="Z")
    assert processes.start_ticks(10) == 12345
    assert processes.start_ticks(11) is None
    assert processes.start_ticks(12) is None


def test_arguments(proc: Callable[..., None]) -> None:
    proc(10, 1, "qemu", "-pidfile", "/a b/c")
    assert processes.arguments(10) == ["qemu", "-pidfile", "/a b/c"]
    assert processes.arguments(11) == []


def test_only_that_very_process_is_waited_for() -> None:
    own = os.getpid()
    ticks = processes.start_ticks(own)
    assert ticks is not None
    assert not processes.wait(own, ticks, 0)
    assert processes.wait(own, ticks + 1, 0), "another process of that pid is no process"
    processes.kill(own, ticks + 1)  # or this test would not end well
