"""Who is alive: a file that each open store keeps locked.

What an open store notes in the database for the time of its work (its place
in the queue, objects not recorded yet) bears its session's name. The kernel
frees the lock with the process, whichever way it ends, so that this holds
for processes in other containers, too, where a pid would say nothing.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

from splitimage_driver.store.locks import SUFFIX
from splitimage_driver.store.space import Space

_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


class Session:
    """:param root: the directory of the lock files
    :ivar name: of this session, random
    """

    def __init__(self, root: Path, space: Space) -> None:
        self._root, self._pid = root, os.getpid()
        while True:
            self.name = secrets.token_hex(8)
            with space.guard():
                self._descriptor = os.open(self._file(self.name),
                                           _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            if os.fstat(self._descriptor).st_nlink:
                break
            os.close(self._descriptor)  # tidied away before it was locked

    def alive(self, name: str) -> bool:
        """Whether the session of that name is still open somewhere."""
        try:
            descriptor = os.open(self._file(name), _FLAGS)
        except FileNotFoundError:
            return False
        try:
            # Shared, so that two who look at once do not take each other for
            # the session itself.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @property
    def own(self) -> bool:
        """Whether it is open and of this process, not inherited by a fork."""
        return self._descriptor >= 0 and self._pid == os.getpid()

    def close(self) -> None:
        if self.own:
            self._file(self.name).unlink(missing_ok=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _file(self, name: str) -> Path:
        return self._root / f"session-{name}{SUFFIX}"
