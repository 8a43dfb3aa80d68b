"""The host this runs on: what class it is of, and how busy it is now."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path

from splitimage_driver.planning.adaptive import Load

_PRESSURE = Path("/proc/pressure")
_MEMORY = Path("/proc/meminfo")


def kind(*, emulate: bool) -> str:
    """Hosts of one class work at about one speed."""
    return f"{platform.machine()}-{'tcg' if emulate else 'kvm'}"


def load(transfers: int) -> Load:
    """By the kernel's pressure stall information: the share of the last ten
    seconds in which somebody waited for a processor, or for a disk. A kernel
    that does not tell counts as idle.

    :param transfers: in flight
    """
    return Load(cpu=_stalled("cpu"), disk=_stalled("io"), memory=_memory(), transfers=transfers)


def _stalled(resource: str) -> float:
    # some avg10=1.23 avg60=...
    with contextlib.suppress(OSError, ValueError, IndexError):
        return float((_PRESSURE / resource).read_text().split()[1].partition("=")[2]) / 100
    return 0.0


def _memory() -> float:
    with contextlib.suppress(OSError, ValueError, IndexError, KeyError, ZeroDivisionError):
        told = {line.split()[0]: int(line.split()[1])
                for line in _MEMORY.read_text().splitlines()}
        return 1 - told["MemAvailable:"] / told["MemTotal:"]
    return 0.0
