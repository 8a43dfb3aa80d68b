"""The contract of an assembler: what opens a disk and writes into it."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from splitimage_driver.model.composite import Mount

NAMESPACE = "splitimage.assemblers"


class Space(msgspec.Struct, frozen=True):
    """Free room of a mounted file system; ``inodes`` -1: it does not count.

    :ivar block: bytes of one
    :ivar blocks: free ones
    """

    mountpoint: str
    block: int
    blocks: int
    inodes: int


class Session(AbstractContextManager["Session"]):
    """One open disk, a context manager.

    :ivar mounts: its file systems in the order they are mounted
    """

    mounts: tuple[Mount, ...]

    @abc.abstractmethod
    def facts(self) -> dict[str, Any]:
        """Partition table, boot and disk facts, for the hardware record."""

    @abc.abstractmethod
    def read_tree(self, destination: Path) -> None:
        """Write the whole tree as a tar file, every attribute included."""

    @abc.abstractmethod
    def sparse_files(self) -> set[bytes]:
        """Paths of files that take less room than their size."""

    @abc.abstractmethod
    def read_file(self, path: bytes, destination: Path) -> None:
        """Copy one file out of the tree."""

    @abc.abstractmethod
    def write(self, fill: Callable[[BinaryIO], None], *, selinux: bool = False) -> None:
        """Lay one tar stream over the tree.

        :param fill: writes the stream; what it raises is what this raises
        """

    @abc.abstractmethod
    def remove(self, files: Sequence[bytes], directories: Sequence[bytes]) -> None:
        """Remove files, then directories that must be empty by then."""

    @abc.abstractmethod
    def space(self) -> list[Space]: ...

    @abc.abstractmethod
    def trim(self) -> None:
        """Give freed blocks back to the disk image, so that what was removed
        can no longer be read from it."""


class Opener(abc.ABC):
    """Opens disks. Found by stevedore in ``splitimage.assemblers``.

    :param options: the group ``[assembly]``
    :param emulate: tells whether hardware virtualisation does not work here;
        asked when a disk is opened
    """

    def __init__(self, options: Any, emulate: Callable[[], bool]) -> None:
        self.options, self.emulate = options, emulate

    @abc.abstractmethod
    def __call__(self, disk: Path, disk_format: str, mounts: Sequence[Mount] | None, *,
                 readonly: bool = False, scratch: Path | None = None,
                 shown: str | None = None) -> Session:
        """A session on an image file.

        :param disk_format: ``qcow2`` or ``raw``
        :param mounts: what to mount, in order; None: look for the system and
            mount it as its own fstab says
        :param scratch: a private directory for files of its own
        :param shown: what to call the disk in messages
        """
