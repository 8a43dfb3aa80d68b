"""Private directories for work in progress, found again after a crash."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
from oslo_log import log as logging

from splitimage_driver.store.locks import SUFFIX, file_lock
from splitimage_driver.store.space import Space

LOG = logging.getLogger(__name__)


class Scratch:
    """``root/NAME`` directories, each with ``root/NAME.lock``, which the
    owner holds as long as it lives.

    The lock is made before its directory and removed after it, both while
    held: whoever gets the lock may remove both.
    """

    def __init__(self, root: Path, space: Space) -> None:
        self.root, self.space = root, space

    @contextlib.contextmanager
    def directory(self, *, reserve: bool = True) -> Iterator[Path]:
        """A new directory, gone at the end of the block.

        :param reserve: refuse when the store has no free room
        :raises StoreFull: no room, at the start or anywhere in the block
        """
        if reserve:
            self.space.require(0)
        path = self.root / secrets.token_hex(8)
        lock = self._lock_file(path)
        with self.space.guard(), file_lock(lock, -1):
            try:
                # Of its own: the error tells the room there was, not what is
                # there again when the directory is removed.
                with self.space.guard():
                    path.mkdir(mode=0o700)
                    yield path
            finally:
                remove_tree(path)
                lock.unlink(missing_ok=True)

    def leftovers(self) -> Iterator[Path]:
        """What dead processes left behind."""
        for path in self._entries():
            with contextlib.suppress(filelock.Timeout), self._claim(path):
                if os.path.lexists(path):
                    yield path

    def tidy(self) -> list[Path]:
        """Remove what dead processes left behind."""
        removed = []
        for path in self._entries():
            with contextlib.suppress(filelock.Timeout), self._claim(path):
                if os.path.lexists(path):
                    LOG.info("removing %s, left behind by a process that ended early", path)
                    remove_tree(path)
                    removed.append(path)
        return removed

    def _entries(self) -> list[Path]:
        """Without the locks' own names; a lock alone counts as its directory."""
        return sorted({self.root / name.removesuffix(SUFFIX) for name in os.listdir(self.root)})

    @staticmethod
    def _lock_file(path: Path) -> Path:
        return path.with_name(path.name + SUFFIX)

    @contextlib.contextmanager
    def _claim(self, path: Path) -> Iterator[None]:
        """:raises filelock.Timeout: its owner lives"""
        lock = self._lock_file(path)
        with file_lock(lock, 0):
            yield
            if not os.path.lexists(path):
                lock.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Remove a file or directory, links not followed, read-only directories
    included; what cannot be removed is logged and stays for the next time."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    shutil.rmtree(path, onerror=_retry)


def _retry(function: Callable[..., Any], name: str, _failure: object) -> None:
    try:
        os.chmod(os.path.dirname(name), 0o700)
        if os.path.isdir(name) and not os.path.islink(name):
            os.chmod(name, 0o700)
        if function in (os.unlink, os.rmdir):
            function(name)
        else:
            shutil.rmtree(name)
    except FileNotFoundError:
        pass
    except OSError as error:
        LOG.warning("cannot remove %s: %s", name, error.strerror)
