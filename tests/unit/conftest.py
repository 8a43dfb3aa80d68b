"""Unit tests start no process and no appliance, not even by accident."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

_DOORS = ("fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen",
          "execv", "execve", "_spawnvef")


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        def refused(*args: object, **_: object) -> None:
            # pytest's own failure is no Exception: the code under test
            # cannot swallow it
            pytest.fail(f"a unit test called {name}{args!r:.200}", pytrace=True)
        return refused

    monkeypatch.setattr(subprocess, "Popen", refuse("subprocess.Popen"))
    # what a Popen imported by name ends in
    monkeypatch.setattr(subprocess, "_fork_exec", refuse("fork_exec"), raising=False)
    for name in _DOORS:
        monkeypatch.setattr(os, name, refuse(f"os.{name}"), raising=False)
    try:
        import guestfs
    except ImportError:
        return
    monkeypatch.setattr(guestfs, "GuestFS", refuse("guestfs.GuestFS"))
