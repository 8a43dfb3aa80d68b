"""Which process a recorded pid means, so that a reused one is not mistaken.

Start times are in clock ticks since boot, field 22 of /proc/PID/stat.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def start_ticks(pid: int) -> int | None:
    """When the process started; None: there is none, or only its remains."""
    try:
        line = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # the name in parentheses may itself hold spaces and parentheses
    fields = line[line.rfind(b")") + 2:].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


def arguments(pid: int) -> list[str]:
    """The command line of a process; empty where there is none."""
    try:
        line = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in line.split(b"\0")[:-1]]


def pids() -> list[int]:
    """Of all processes that this one can see."""
    return [int(place.name) for place in PROC.iterdir() if place.name.isdigit()]


def wait(pid: int, ticks: int, timeout: float) -> bool:
    """Wait for the end of that very process; False: it still runs."""
    with _opened(pid, ticks) as handle:
        if handle is None:
            return True
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout) * 1000))


def kill(pid: int, ticks: int) -> None:
    """SIGKILL to that very process, if it is still there."""
    with _opened(pid, ticks) as handle:
        if handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)


@contextlib.contextmanager
def _opened(pid: int, ticks: int) -> Iterator[int | None]:
    """A handle of that very process, None if it is gone. The handle comes
    first and the comparison after it, so that nobody can step in between."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle if start_ticks(pid) == ticks else None
    finally:
        os.close(handle)
