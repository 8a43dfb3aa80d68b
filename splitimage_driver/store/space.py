"""Room on the store's file system, and errors that mean there is none."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from splitimage_driver import exceptions

_FULL = (errno.ENOSPC, errno.EDQUOT)
#: Bytes that tools and the appliance write in one go, and then some.
_LARGE = 16 * 2**20
#: What tools say of it; the last is mksquashfs'.
_SAID = ("No space left on device", "Disk quota exceeded", "Failed to write to output filesystem")
#: What an operation that moves no data may still write: directory blocks, a
#: few pages of the database.
OVERHEAD = 64 * 2**10


def available(path: Path) -> int:
    """Bytes that this user may still write there, quotas not counted."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


class Space:
    """:ivar minimum: bytes to leave free"""

    def __init__(self, path: Path, minimum: int = 0) -> None:
        self.path, self.minimum = path, minimum

    def full(self, needed: int) -> exceptions.StoreFull:
        return exceptions.StoreFull(path=str(self.path), needed=needed,
                                    available=available(self.path))

    def require(self, needed: int) -> None:
        """:raises StoreFull: fewer than ``needed`` bytes above the minimum"""
        if available(self.path) < needed + self.minimum:
            raise self.full(needed + self.minimum)

    def exhausted(self) -> bool:
        """Whether a small file cannot be written: the one test that sees
        quotas too."""
        try:
            with tempfile.TemporaryFile(dir=self.path) as probe:
                probe.write(os.urandom(OVERHEAD))
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as error:
            return error.errno in _FULL
        return False

    @contextlib.contextmanager
    def guard(self, needed: int = OVERHEAD) -> Iterator[None]:
        """Turn a lack of room on this file system into :class:`StoreFull`,
        a tool's or the appliance's too: they say it in words of their own."""
        try:
            yield
        except (exceptions.ToolFailed, exceptions.ApplianceFailed) as error:
            # A large write may fail where a small one still fits; and some
            # tools tidy up first: then only their words tell. The appliance's
            # words are about the guest's disk.
            told = isinstance(error, exceptions.ToolFailed) and any(
                said in str(error) for said in _SAID)
            if not told and available(self.path) > _LARGE and not self.exhausted():
                raise
            raise self.full(needed) from error
        except OSError as error:
            if error.errno not in _FULL or not self._concerns(error):
                raise
            raise self.full(needed) from error

    def _concerns(self, error: OSError) -> bool:
        """An error without a name (a write to an open file) is taken to be
        about this file system; a name elsewhere is somebody else's."""
        if not isinstance(error.filename, (str, bytes, os.PathLike)):
            return True
        name = Path(os.fsdecode(error.filename)).absolute()
        return name.is_relative_to(self.path.absolute())
