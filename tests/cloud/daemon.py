"""A process that goes on when the one that started it has ended.

It is found again by its pid file. Because the kernel gives numbers out again,
a pid counts only if that process has this cloud's mark in its environment;
so have all its children, and none outlives :meth:`Daemon.stop`. Of one that has
made a mount namespace, and a mount with the mark in there, so have all that are
in it, whatever their environment is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_MARK = "SPLITIMAGE_CLOUD"
#: Of the environment of whoever starts it, nothing of these reaches a daemon.
_PRIVATE = ("OS_", "PYTHON", "VIRTUAL_ENV")
_LOG_KEPT = 8 << 20
#: Written by the process itself, so that there is no moment in which it runs
#: and is not known.
_NOTE_PID = 'echo $$ > "$0.new" && mv "$0.new" "$0" && exec "$@"'


class Daemon:
    """:ivar directory: has its ``pid`` and ``log``
    :param mark: of the cloud
    """

    def __init__(self, directory: Path, mark: str) -> None:
        self.directory = directory
        self.log, self._pid = directory / "log", directory / "pid"
        self._mark = f"{mark}/{directory.name}"

    @property
    def pid(self) -> int | None:
        """None: it does not run."""
        try:
            pid = int(self._pid.read_text())
        except (OSError, ValueError):
            return None
        return pid if self._mine(pid) else None

    def start(self, words: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._pid.unlink(missing_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_KEPT:
            self.log.replace(self.log.with_suffix(".old"))
        with self.log.open("ab") as log:
            # A child of init at once: nobody here has to wait for its end.
            subprocess.run(["setsid", "--fork", "sh", "-c", _NOTE_PID, self._pid,
                            *map(str, words)],
                           stdin=subprocess.DEVNULL, stdout=log, stderr=log, umask=0o077,
                           cwd=self.directory, env={**environment, _MARK: self._mark}, check=True)
        until(self._pid.exists, 10)

    def stop(self, seconds: float = 10) -> bool:
        """Ask it to end, then end all that is left of it.

        :returns: whether there was something to end
        """
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            until(lambda: not self.processes(), seconds)
        ended = self.kill() or pid is not None
        self._pid.unlink(missing_ok=True)
        return ended

    def kill(self) -> bool:
        """At once, with its children; its pid file stays.

        :returns: whether there was something to kill
        """
        found = self.processes()
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.processes(), 10)
        return bool(found)

    @property
    def began(self) -> float | None:
        """When it was started, in seconds since the epoch; None: it does not run."""
        return self._pid.stat().st_mtime if self.pid is not None else None

    def processes(self) -> list[int]:
        """It and its children, and all in a mount namespace of its."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*")
                if self._mine(int(path.name))]

    def tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 32768))
                return b"\n".join(log.read().splitlines()[-lines:]).decode(errors="replace")
        except OSError:
            return ""

    def _mine(self, pid: int) -> bool:
        """A zombie has no environment any more: it does not count."""
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            mounts = Path(f"/proc/{pid}/mountinfo").read_bytes()
        except OSError:
            return False
        if f"{_MARK}={self._mark}".encode() in environment.split(b"\0"):
            return True
        return f" - tmpfs {self._mark} ".encode() in mounts


def clean_environment() -> dict[str, str]:
    """This process's own, without what would lead OpenStack's programs astray."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_PRIVATE)}
    # Some give themselves a title, which by default is written over the environment.
    return kept | {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost",
                   "SPT_NOENV": "1"}


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """:returns: whether it came true in time"""
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return met
