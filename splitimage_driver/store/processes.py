"""Which process holds something, in a form that survives in a file."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def started(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0 when there is none.

    With its pid this names a process: a pid alone is used again. One that
    has ended and was not yet collected by its parent counts as none.
    """
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The second field, the command's name, may hold spaces and parentheses.
    fields = stat.rpartition(b")")[2].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def current() -> tuple[int, int]:
    """(pid, start) of this process. Asked anew each time: it may have forked."""
    pid = os.getpid()
    return pid, started(pid)


def alive(pid: int, start: int) -> bool:
    """Whether the process that was ``pid`` and began at ``start`` still runs."""
    return start != 0 and started(pid) == start
