"""Locks between processes and threads, freed by the kernel with their holder.

filelock uses flock(2), which belongs to one opening of the file. The POSIX
record locks of fasteners and oslo.concurrency belong to the process: they do
not exclude its threads, and closing any descriptor of the file drops them.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import filelock
from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.store.space import Space

LOG = logging.getLogger(__name__)
SUFFIX = ".lock"


def file_lock(path: Path, timeout: float) -> filelock.BaseFileLock:
    return filelock.FileLock(str(path), timeout=timeout, mode=0o600, thread_local=False)


class Locks:
    """Named locks, each a file in ``root``.

    :param timeout: seconds to wait for a holder
    """

    def __init__(self, root: Path, space: Space, timeout: float) -> None:
        self.root, self.space, self.timeout = root, space, timeout

    def file(self, name: str) -> Path:
        """For any name: readable as far as it goes, unique by its hash."""
        shown = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:40]
        return self.root / f"{shown}-{hashlib.sha256(name.encode()).hexdigest()[:32]}{SUFFIX}"

    @contextlib.contextmanager
    def lock(self, name: str, timeout: float | None = None) -> Iterator[None]:
        """Hold ``name``. Not re-entrant: a thread that asks again for what it
        holds waits for itself and gets the time-out.

        :param timeout: seconds to wait for a holder; None: as configured
        :raises LockTimeout: somebody else held it all the time
        """
        patience = self.timeout if timeout is None else timeout
        held = file_lock(self.file(name), patience)
        with self.space.guard():
            try:
                held.acquire(timeout=0)
            except filelock.Timeout:
                if patience > 0:
                    LOG.info("waiting for %s, which another process holds", name)
                try:
                    held.acquire()
                except filelock.Timeout:
                    raise exceptions.LockTimeout(what=name, seconds=patience) from None
        try:
            yield
        finally:
            held.release()

    def tidy(self) -> None:
        """Remove the files of locks that nobody holds; who opened one just
        now notices that its file is gone and takes a new one."""
        for path in self.root.glob("*" + SUFFIX):
            with contextlib.suppress(filelock.Timeout), file_lock(path, 0):
                path.unlink(missing_ok=True)
