"""Trees as streams of members, whatever holds them."""

from __future__ import annotations

import abc
import collections
import hashlib
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.model.entry import FileEntry, text
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.paths import Resolver

Place = Callable[[bytes], bytes]
#: Bytes moved at a time: few calls, and within the processor's cache.
CHUNK = 1 << 18
#: The largest file that :meth:`Tree.read` takes into memory, in bytes.
SMALL = 64 << 20


class Limits(NamedTuple):
    """How large a tree may be.

    :ivar entries: number of names; None: any
    :ivar bytes: of content, holes counted too; None: any
    :ivar entries_option: the option that sets the first, for the message
    :ivar bytes_option: the option that sets the second
    """

    entries: int | None = None
    bytes: int | None = None
    entries_option: str = "[capture] max_fileset_entries"
    bytes_option: str = "[capture] max_fileset_bytes"

    def check(self, source: str, entries: int, size: int) -> None:
        """:raises TooLarge:"""
        if self.entries is not None and entries > self.entries:
            raise exceptions.TooLarge(what=source, size=entries, limit=self.entries,
                                      unit="entries", option=self.entries_option)
        if self.bytes is not None and size > self.bytes:
            raise exceptions.TooLarge(what=source, size=size, limit=self.bytes,
                                      unit="bytes", option=self.bytes_option)


class Member:
    """One member as it is met in the stream.

    :ivar entry: its description; ``sha256`` and ``link`` are not known yet.
        Of a further hard link only the path means something
    :ivar hardlink: path of an earlier member that this is a further name
        of; None: it is itself
    """

    __slots__ = ("_content", "_open", "entry", "hardlink")

    def __init__(self, entry: FileEntry, *, hardlink: bytes | None = None,
                 opener: Callable[[], BinaryIO] | None = None) -> None:
        self.entry, self.hardlink, self._open = entry, hardlink, opener
        self._content: BinaryIO | None = None

    @property
    def content(self) -> BinaryIO | None:
        """The bytes of a regular file, holes as zeros, readable until the
        next member is asked for; None for all else and for hard links."""
        if self._content is None and self._open is not None:
            self._content = self._open()
        return self._content

    def close(self) -> None:
        if self._content is not None:
            self._content.close()


class _Names:
    """Which name means which member, as extraction in order would leave it:
    a later member takes the name from an earlier one, whose hard links
    live on."""

    def __init__(self, source: str) -> None:
        self.source = source
        #: path to the number of its member, hard links not counted
        self.number: dict[bytes, int] = {}
        self.count = 0

    def add(self, path: bytes) -> int:
        self.number[path] = self.count
        self.count += 1
        return self.count - 1

    def link(self, path: bytes, target: bytes) -> int:
        number = self.number.get(target)
        if number is None:
            raise exceptions.UnsafePath(
                source=self.source, path=text(path),
                reason=f"it is a hard link to {text(target)}, which is not in the set before it")
        self.number[path] = number
        return number


class Tree(abc.ABC):
    """A file tree that is read as a stream, as often as asked.

    A path that occurs twice is what its last member says, as with tar. The
    source must not change while the object is in use; where that is
    noticed, it is :class:`BadArchive`.

    :ivar source: where it is, for messages
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = str(path)
        self._scanned: tuple[Place | None, _Names] | None = None

    @abc.abstractmethod
    def members(self) -> Iterator[Member]:
        """All members in the order of the source, opened anew each time.

        :raises BadArchive: truncated, damaged or not readable
        :raises UnsafePath: a name is absolute or has a ``..``
        """

    def manifest(self, place: Place | None = None, *, limits: Limits | None = None) -> Manifest:
        """Read everything and describe it.

        :param place: maps every path, e.g. a :class:`Resolver`, which is
            asked for the real place of the directory itself where the member
            is one (``bin/`` over a link ``bin`` is ``usr/bin``)
        :param limits: checked before content is read
        :raises BadArchive: truncated, damaged or not readable
        :raises UnsafePath: an unsafe name, or a hard link out of the set
        :raises TooLarge: over ``limits``
        """
        names, entries, size = _Names(self.source), list[FileEntry](), 0
        for count, (path, target, member) in enumerate(self._placed(place), 1):
            if target is not None:
                entry = entries[names.link(path, target)]
                if entry.is_dir:
                    raise exceptions.UnsafePath(source=self.source, path=text(path),
                                                reason="it is a hard link to a directory")
            else:
                size += member.entry.size
            if limits is not None:
                limits.check(self.source, count, size)
            if target is None:
                names.add(path)
                entries.append(self._described(path, member))
        self._scanned = (place, names)
        groups: dict[int, list[bytes]] = collections.defaultdict(list)
        for path, number in names.number.items():
            groups[number].append(path)
        found = []
        for number, paths in groups.items():
            entry = entries[number]
            link = min(paths) if len(paths) > 1 else b""
            found += [entry if path == entry.path and not link
                      else msgspec.structs.replace(entry, path=path, link=link)
                      for path in paths]
        return Manifest(found)

    def contents(self, wanted: Container[bytes],
                 place: Place | None = None) -> Iterator[tuple[bytes, BinaryIO]]:
        """The content of each wanted regular file, once, in the order of the
        source; each stream is readable until the next is asked for.

        A file with several names comes once, if any of them is wanted, under
        the name that holds its data in the source. That need not be the
        wanted one, nor the group's lowest: find the group by the ``link`` of
        the manifest's entry for the name that is given.

        :param wanted: paths, as mapped by ``place``
        :param place: the same as for :meth:`manifest`; the given names are
            mapped likewise
        :raises BadArchive:
        """
        names = self._names(place)
        numbers = {number for path, number in names.number.items() if path in wanted}
        for _, path, member in self._numbered(numbers, place):
            if member.content is not None:
                yield path, member.content

    def read(self, paths: Iterable[bytes], *, limit: int = SMALL,
             place: Place | None = None) -> dict[bytes, bytes]:
        """The whole content of some small regular files, under the names
        asked for; what does not exist or is no regular file is left out
        (links are not followed).

        :param paths: as mapped by ``place``
        :param limit: bytes, for each file
        :raises TooLarge: a file is larger than ``limit``
        """
        names = self._names(place)
        asked: dict[int, list[bytes]] = collections.defaultdict(list)
        for path in paths:
            if path in names.number:
                asked[names.number[path]].append(path)
        found = {}
        for number, path, member in self._numbered(set(asked), place):
            if member.content is not None:
                data = self._small(path, member.content, limit)
                found.update(dict.fromkeys(asked[number], data))
        return found

    # -- internal -------------------------------------------------------------

    def _placed(self, place: Place | None) -> Iterator[tuple[bytes, bytes | None, Member]]:
        """(path, path of the hard link's target, member), both mapped."""
        for member in self.members():
            path, target = member.entry.path, member.hardlink
            if place is not None:
                real = (place.directory if member.entry.is_dir and isinstance(place, Resolver)
                        else place)
                path, target = real(path), None if target is None else place(target)
            yield path, target, member

    def _names(self, place: Place | None) -> _Names:
        if self._scanned is None or self._scanned[0] is not place:
            names = _Names(self.source)
            for path, target, _ in self._placed(place):
                if target is None:
                    names.add(path)
                else:
                    names.link(path, target)
            self._scanned = (place, names)
        return self._scanned[1]

    def _numbered(self, numbers: set[int],
                  place: Place | None) -> Iterator[tuple[int, bytes, Member]]:
        """The members with these numbers; stops reading after the last."""
        left = set(numbers)
        if not left:
            return
        number = -1
        for path, target, member in self._placed(place):
            number += target is None
            if target is None and number in left:
                left.remove(number)
                yield number, path, member
                if not left:
                    return
        raise self._bad("it changed while it was read")

    def _described(self, path: bytes, member: Member) -> FileEntry:
        entry = member.entry
        if member.content is None:
            return entry if path == entry.path else msgspec.structs.replace(entry, path=path)
        digest, length = hashlib.sha256(), 0
        try:
            while data := member.content.read(CHUNK):
                digest.update(data)
                length += len(data)
        except OSError as error:
            raise self._bad(f"{text(path)}: {error.strerror or error}") from error
        if length != entry.size:
            raise self._bad(f"{text(path)} has {length} bytes instead of {entry.size}")
        return msgspec.structs.replace(entry, path=path, sha256=digest.digest())

    def _small(self, path: bytes, content: BinaryIO, limit: int) -> bytes:
        pieces, size = [], 0
        while data := content.read(min(CHUNK, limit + 1 - size)):
            pieces.append(data)
            size += len(data)
            if size > limit:
                raise exceptions.TooLarge(what=f"{text(path)} in {self.source}", size=size,
                                          limit=limit, unit="bytes",
                                          option="the limit for files read as a whole")
        return b"".join(pieces)

    def _bad(self, reason: str) -> exceptions.BadArchive:
        return exceptions.BadArchive(path=self.source, expected=self.expected, reason=reason)

    #: what it should be, for messages
    expected = "a file tree"
