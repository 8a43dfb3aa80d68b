"""Bounded access to a few files of a tree: what the database readers share."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator

from splitimage_driver import exceptions
from splitimage_driver.model.entry import SYMLINK, FileEntry, text
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.paths import Resolver

#: Path to content, of small files of the tree that a manifest describes.
Read = Callable[[Iterable[bytes]], dict[bytes, bytes]]

_MIB = 1 << 20
_LINKS = 40  # as the kernel's MAXSYMLINKS


class Files:
    """A manifest, its resolver and the contents behind them."""

    def __init__(self, manifest: Manifest, read: Read) -> None:
        self.manifest = manifest
        self.place = Resolver(manifest)
        self._read = read

    def find(self, path: bytes) -> FileEntry | None:
        """The regular file that opening ``path`` would give, links followed
        inside the tree; None where there is none."""
        place = self.place(path)
        for _ in range(_LINKS):
            entry = self.manifest.get(place)
            if entry is None or entry.is_file:
                return entry
            if entry.type != SYMLINK:
                return None
            place = self.place.target(entry)
        return None

    def below(self, directory: bytes) -> Iterator[FileEntry]:
        """Every entry strictly below ``directory`` (its real place), sorted."""
        start = self.place.directory(directory.strip(b"/")) + b"/"
        entries = self.manifest.entries
        for index in range(bisect.bisect_left(entries, start, key=_path), len(entries)):
            if not entries[index].path.startswith(start):
                return
            yield entries[index]

    def contents(self, wanted: Iterable[FileEntry], *, each: int = 64 * _MIB,
                 together: int = 1024 * _MIB) -> dict[bytes, bytes]:
        """Contents by path, in one call, so that an archive is read once.

        :param each: most bytes of one file
        :param together: most bytes of all
        :raises InvalidInput: not a regular file, too large, or not readable
        """
        entries = {entry.path: entry for entry in wanted}
        total = 0
        for entry in entries.values():
            if not entry.is_file:
                raise exceptions.InvalidInput(what=text(entry.path),
                                              reason="it is not a regular file")
            if entry.size > each:
                raise exceptions.InvalidInput(
                    what=text(entry.path),
                    reason=f"{entry.size} bytes are more than such a file can have ({each})")
            total += entry.size
        if total > together:
            raise exceptions.InvalidInput(
                what="package database",
                reason=f"its {len(entries)} files hold {total} bytes, more than {together}")
        if not entries:
            return {}
        found = self._read(tuple(sorted(entries)))
        for path in entries:
            if path not in found:
                raise exceptions.InvalidInput(what=text(path), reason="its content is missing")
        return found

    def content(self, path: bytes, *, limit: int) -> bytes | None:
        """Of the regular file at ``path``, links followed; None: no such file."""
        entry = self.find(path)
        if entry is None:
            return None
        return self.contents([entry], each=limit)[entry.path]


def _path(entry: FileEntry) -> bytes:
    return entry.path
