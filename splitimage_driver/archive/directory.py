"""A directory of this host as a tree."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from splitimage_driver import exceptions
from splitimage_driver.archive import sparse
from splitimage_driver.archive.base import Member, Tree
from splitimage_driver.archive.tar import SELINUX_XATTR
from splitimage_driver.model import entry as entries
from splitimage_driver.model.entry import FileEntry, text

_KINDS = {stat.S_IFREG: entries.FILE, stat.S_IFDIR: entries.DIRECTORY,
          stat.S_IFLNK: entries.SYMLINK, stat.S_IFCHR: entries.CHAR,
          stat.S_IFBLK: entries.BLOCK, stat.S_IFIFO: entries.FIFO}
#: Open directories while walking; more than PATH_MAX allows on one path of
#: sensible names.
_MAX_DEPTH = 400
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class DirTree(Tree):
    """Members in the order of their names, the root first.

    Links are never followed, not even ones put in place while the tree is
    read: every name is looked up in its open directory. Sockets are left
    out; borders between file systems are crossed.

    :param owner: (uid, gid) of every member instead of the host's own, whose
        numbers mean nothing elsewhere; the host's SELinux labels are then
        left out too
    """

    expected = "a directory tree"

    def __init__(self, path: Path, owner: tuple[int, int] | None = None) -> None:
        super().__init__(path)
        self.owner = owner

    def members(self) -> Iterator[Member]:
        seen: dict[tuple[int, int], bytes] = {}
        try:
            # the root itself may be named through a link
            root = os.open(self.path, _DIRECTORY & ~os.O_NOFOLLOW)
            try:
                yield Member(self._entry(b"", os.fstat(root), root, b"."))
                yield from self._below(root, b"", seen, 1)
            finally:
                os.close(root)
        except OSError as error:
            where = f" ({error.filename!r})" if error.filename else ""
            raise self._bad((error.strerror or str(error)) + where) from error
        except ValueError as error:
            raise self._bad(str(error)) from error

    def _below(self, directory: int, prefix: bytes, seen: dict[tuple[int, int], bytes],
               depth: int) -> Iterator[Member]:
        if depth > _MAX_DEPTH:
            raise self._bad(f"{text(prefix)} is nested deeper than {_MAX_DEPTH} directories")
        for name in sorted(os.fsencode(name) for name in os.listdir(directory)):
            path = prefix + b"/" + name if prefix else name
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISSOCK(status.st_mode):
                continue
            if stat.S_ISDIR(status.st_mode):
                child = os.open(name, _DIRECTORY, dir_fd=directory)
                try:
                    yield Member(self._entry(path, os.fstat(child), child, b"."))
                    yield from self._below(child, path, seen, depth + 1)
                finally:
                    os.close(child)
                continue
            first = path
            if status.st_nlink > 1:
                first = seen.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                yield Member(FileEntry(path, entries.FILE, 0), hardlink=first)
            elif stat.S_ISREG(status.st_mode):
                yield from self._file(path, directory, name, status)
            else:
                yield Member(self._entry(path, status, directory, name))

    def _file(self, path: bytes, directory: int, name: bytes,
              status: os.stat_result) -> Iterator[Member]:
        segments: sparse.Segments = ()
        if status.st_blocks * 512 < status.st_size:
            with self._open(directory, name, path, status) as file:
                segments = sparse.of_file(file.fileno(), status.st_size)
        member = Member(self._entry(path, status, directory, name, segments),
                        opener=lambda: self._open(directory, name, path, status))
        try:
            yield member
        finally:
            member.close()

    def _open(self, directory: int, name: bytes, path: bytes,
              status: os.stat_result) -> BinaryIO:
        try:
            descriptor = os.open(name, _FILE, dir_fd=directory)
        except OSError as error:
            raise self._bad(f"{text(path)}: {error.strerror}") from error
        there = os.fstat(descriptor)
        if (there.st_dev, there.st_ino) != (status.st_dev, status.st_ino):
            os.close(descriptor)
            raise self._bad(f"{text(path)} changed while it was read")
        return os.fdopen(descriptor, "rb")

    def _entry(self, path: bytes, status: os.stat_result, directory: int, name: bytes,
               segments: sparse.Segments = ()) -> FileEntry:
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            raise self._bad(f"{text(path)} is of a type that archives do not know")
        uid, gid = self.owner or (status.st_uid, status.st_gid)
        return FileEntry(
            path=path, type=kind,
            mode=0o777 if kind == entries.SYMLINK else stat.S_IMODE(status.st_mode),
            uid=uid, gid=gid,
            size=status.st_size if kind == entries.FILE else 0,
            mtime=0 if kind == entries.DIRECTORY else status.st_mtime_ns,
            target=os.readlink(name, dir_fd=directory) if kind == entries.SYMLINK else b"",
            device=((os.major(status.st_rdev), os.minor(status.st_rdev))
                    if kind in (entries.CHAR, entries.BLOCK) else None),
            xattrs=self._xattrs(directory, name, path), sparse=segments)

    def _xattrs(self, directory: int, name: bytes,
                path: bytes) -> tuple[tuple[bytes, bytes], ...]:
        # There is no call relative to an open directory; this path is one.
        place = b"/proc/self/fd/%d/%s" % (directory, name)
        found = []
        try:
            for listed in os.listxattr(place, follow_symlinks=False):
                attribute = os.fsencode(listed)
                if self.owner is None or attribute != SELINUX_XATTR:
                    found.append((attribute,
                                  os.getxattr(place, attribute, follow_symlinks=False)))
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise exceptions.BadArchive(path=self.source, expected=self.expected,
                                            reason=f"{text(path)}: {error.strerror}") from error
        return tuple(sorted(found))
