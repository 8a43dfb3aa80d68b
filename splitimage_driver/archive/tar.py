"""Tar streams and squashfs blobs as trees.

The parsing is the standard library's; this module bounds what a header may
ask for, sees every defect as :class:`BadArchive`, and keeps what ``tarfile``
leaves to its caller: nanoseconds, extended attributes, ACLs, SELinux labels
and the map of sparse files. A tar has to have its end-of-archive mark,
otherwise a cut file would pass for a smaller tree.
"""

from __future__ import annotations

import abc
import contextlib
import io
import re
import tarfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from splitimage_driver import exceptions, process
from splitimage_driver.archive import acl, compression, sparse
from splitimage_driver.archive.base import CHUNK, SMALL, Member, Place, Tree
from splitimage_driver.model import entry as entries
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.paths import clean_member

#: Bytes of headers before one member: long names, pax records with extended
#: attributes, the map of a sparse file.
_HEADERS = 16 << 20
#: Bytes read behind the end mark, so that checksums of compressed streams
#: and statuses of tools are met. More is not tar's padding.
_PADDING = 16 << 20
_MAX_ID = 2**32 - 2
_MAX_NAME, _MAX_PATH = 255, 4095
_TIME = re.compile(r"(-?)([0-9]{1,10})(?:\.([0-9]*))?\Z")
_TYPES = {tarfile.REGTYPE: entries.FILE, tarfile.AREGTYPE: entries.FILE,
          tarfile.CONTTYPE: entries.FILE, tarfile.GNUTYPE_SPARSE: entries.FILE,
          tarfile.DIRTYPE: entries.DIRECTORY, tarfile.SYMTYPE: entries.SYMLINK,
          tarfile.CHRTYPE: entries.CHAR, tarfile.BLKTYPE: entries.BLOCK,
          tarfile.FIFOTYPE: entries.FIFO}
#: What the parser and the streams below raise on broken input. The parser
#: was not written for hostile input: beside its own errors come those of
#: conversions and of deep recursion through chained headers.
_BROKEN = (tarfile.TarError, ValueError, LookupError, TypeError, ArithmeticError, OSError,
           RecursionError, MemoryError, *compression.ERRORS)

XATTR, SELINUX = "SCHILY.xattr.", "RHT.security.selinux"
ACL_TEXT = {"SCHILY.acl.access": acl.ACCESS, "SCHILY.acl.default": acl.DEFAULT}
SELINUX_XATTR = b"security.selinux"


class _StreamTree(Tree):
    """A tree that comes as a tar stream."""

    @abc.abstractmethod
    def _stream(self) -> contextlib.AbstractContextManager[BinaryIO]:
        """The tar's bytes from the start."""

    def members(self) -> Iterator[Member]:
        return self._members(self._stream())

    def _members(self, opened: contextlib.AbstractContextManager[BinaryIO]) -> Iterator[Member]:
        try:
            with opened as stream:
                source = _Forward(stream)
                # The constructor reads the first header already.
                source.budget = _HEADERS
                with tarfile.TarFile(fileobj=cast(Any, source), tarinfo=_Header, encoding="utf-8",
                                     errors="surrogateescape") as archive:
                    while (header := self._next(archive, source)) is not None:
                        member = self._member(archive, header)
                        try:
                            yield member
                        finally:
                            member.close()
                    source.budget = None
                    left = _PADDING
                    while left > 0 and (data := source.read(CHUNK)):
                        left -= len(data)
        except exceptions.ToolFailed as error:
            raise self._bad(str(error)) from error
        except _BROKEN as error:
            raise self._bad(_words(error)) from error

    def _next(self, archive: tarfile.TarFile, source: _Forward) -> _Header | None:
        source.budget = _HEADERS
        header = archive.next()
        source.budget = None
        archive.members.clear()  # type: ignore[attr-defined]  # it would remember them all
        return cast("_Header | None", header)

    def _member(self, archive: tarfile.TarFile, header: _Header) -> Member:
        # tarfile lets a long sparse file's stand-in name win over its own
        name = header.pax_headers.get("GNU.sparse.name", header.name)
        path = clean_member(self.source, _bytes(name))
        if (len(path) > _MAX_PATH or len(header.linkname) > _MAX_PATH
                or max(map(len, path.split(b"/"))) > _MAX_NAME):
            raise exceptions.UnsafePath(source=self.source, path=entries.text(path)[:200],
                                        reason="its name is longer than a file system allows")
        if header.type == tarfile.LNKTYPE:
            return Member(FileEntry(path, entries.FILE, 0),
                          hardlink=clean_member(self.source, _bytes(header.linkname)))
        kind = _TYPES.get(header.type)
        if kind is None:
            raise self._bad(f"{entries.text(path)} is of unknown type {header.type!r}")
        if not (0 <= header.uid <= _MAX_ID and 0 <= header.gid <= _MAX_ID):
            raise self._bad(f"the owner of {entries.text(path)} is out of range")
        try:
            size, segments = _extent(archive, header) if kind == entries.FILE else (0, ())
            xattrs = _xattrs(header.pax_headers)
            entry = FileEntry(
                path=path, type=kind,
                mode=0o777 if kind == entries.SYMLINK else _mode(header, dict(xattrs)),
                uid=header.uid, gid=header.gid, size=size,
                mtime=0 if kind == entries.DIRECTORY else _mtime(header),
                target=_bytes(header.linkname) if kind == entries.SYMLINK else b"",
                device=((header.devmajor, header.devminor)
                        if kind in (entries.CHAR, entries.BLOCK) else None),
                xattrs=xattrs, sparse=segments)
        except ValueError as error:
            raise self._bad(f"{entries.text(path)}: {error}") from error
        if kind != entries.FILE:
            return Member(entry)
        return Member(entry, opener=lambda: cast(BinaryIO, _Content(self, archive, header)))


class TarTree(_StreamTree):
    """A tar file: plain, gzip, xz or zstd; ustar, pax or GNU."""

    expected = "a tar archive"

    def _stream(self) -> contextlib.AbstractContextManager[BinaryIO]:
        return compression.opened(self.path)


class BlobTree(_StreamTree):
    """A squashfs, read as a stream without unpacking it.

    What squashfs cannot hold (ACLs, nanoseconds, the exact place of holes)
    is not there; a part's manifest has it.
    """

    expected = "a squashfs"

    def _stream(self, *options: str) -> contextlib.AbstractContextManager[BinaryIO]:
        return process.reading(["sqfs2tar", "--root-becomes", ".", "--no-skip", *options,
                                Path(self.path).absolute()])

    def contents(self, wanted: Container[bytes],
                 place: Place | None = None) -> Iterator[tuple[bytes, BinaryIO]]:
        """As :meth:`Tree.contents`, but every wanted name comes under itself,
        hard links as copies: in one pass, for no path occurs twice, which
        ends early where ``wanted`` has a length and all of it was met."""
        left = len(wanted) if isinstance(wanted, Sized) else -1
        if left == 0:
            return
        for member in self._members(self._stream("--no-hard-links")):
            path = member.entry.path if place is None else place(member.entry.path)
            if path in wanted and member.content is not None:
                yield path, member.content
                left -= 1
                if left == 0:
                    return

    def read(self, paths: Iterable[bytes], *, limit: int = SMALL,
             place: Place | None = None) -> dict[bytes, bytes]:
        return {path: self._small(path, content, limit)
                for path, content in self.contents(set(paths), place)}


class _Header(tarfile.TarInfo):
    """tarfile takes anything that is no header for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            raise tarfile.ReadError("it is truncated: no end-of-archive mark") from None
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a damaged header ({error})") from None


class _Forward:
    """What tarfile needs of a file, over one that cannot go back.

    :ivar budget: bytes that may still be read; None: any
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._position = 0
        self._ended = False
        # A pipe's or decompressor's seek is no gain, or fails.
        self._seekable = isinstance(stream, io.BufferedReader) and stream.seekable()
        self.budget: int | None = None

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return False

    def read(self, size: int) -> bytes:
        if self.budget is not None:
            self.budget -= size
            if self.budget < 0 or size < 0:
                raise tarfile.ReadError("its headers are too large")
        parts = []
        left = size
        while left > 0:
            data = self._stream.read(left)
            if not data:
                break
            parts.append(data)
            left -= len(data)
        found = parts[0] if len(parts) == 1 else b"".join(parts)
        self._position += len(found)
        if size > 0 and not found:
            # tarfile asks again and again in a truncated sparse map
            if self._ended:
                raise tarfile.ReadError("unexpected end of data")
            self._ended = True
        return found

    def seek(self, position: int) -> int:
        if position < self._position:
            raise tarfile.ReadError("its headers point backwards")
        if self._seekable:
            self._stream.seek(position)
            self._position = position
        else:
            budget, self.budget = self.budget, None
            while (left := position - self._position) > 0 and self.read(min(left, CHUNK)):
                pass
            self.budget = budget
        return self._position


class _Content(io.RawIOBase):
    """A member's bytes; a defect in them is a BadArchive too."""

    def __init__(self, tree: _StreamTree, archive: tarfile.TarFile, header: _Header) -> None:
        self._tree = tree
        self._file = cast("IO[bytes]", archive.extractfile(header))

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self.closed:
            raise ValueError("the member's content was read after the next member was asked for")
        try:
            return self._file.read(size)
        except _BROKEN as error:
            raise self._tree._bad(_words(error)) from error

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[:len(data)] = data
        return len(data)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _words(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return "it is truncated"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _extent(archive: tarfile.TarFile, header: _Header) -> tuple[int, sparse.Segments]:
    """Size and map of a file; repairs what tarfile believes of sparse ones."""
    raw = cast("list[tuple[int, int]] | None", header.sparse)
    if raw is not None:
        # With more than 8 GiB of data a record for the size in the archive
        # comes on top, which tarfile confuses with the size of the file.
        for keyword in ("GNU.sparse.realsize", "GNU.sparse.size"):
            if keyword in header.pax_headers:
                header.size = int(header.pax_headers[keyword])
    if not 0 <= header.size < 2**63:
        raise ValueError("its size is out of range")
    if raw is None:
        return header.size, ()
    segments = sparse.normal(raw, header.size)
    raw[:] = [segment for segment in raw if segment[1]]  # it loops over empty ones
    stored = sum(length for _, length in raw)
    archive.offset = header.offset_data + stored + -stored % tarfile.BLOCKSIZE
    return header.size, segments


def _mtime(header: _Header) -> int:
    """Nanoseconds; the pax record has the fraction that tarfile rounds."""
    exact = header.pax_headers.get("mtime", str(int(header.mtime)))
    match = _TIME.match(exact)
    if match is None:
        raise ValueError(f"its time {exact[:40]!r} is not a number of seconds")
    sign, seconds, fraction = match.groups()
    time = int(seconds) * 10**9 + int((fraction or "")[:9].ljust(9, "0"))
    if time >= 2**63:  # what 64 bits hold ends in the year 2262
        raise ValueError("its time is out of range")
    return -time if sign else time


def _mode(header: _Header, xattrs: Mapping[bytes, bytes]) -> int:
    plain = header.mode & 0o7777
    return acl.mode(xattrs[acl.ACCESS], plain) if acl.ACCESS in xattrs else plain


def _xattrs(headers: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    """From pax records. The binary form of an ACL wins over its text."""
    found: dict[bytes, bytes] = {}
    for keyword, value in headers.items():
        if keyword.startswith(XATTR):
            # GNU tar escapes these two, because = ends the keyword
            name = keyword[len(XATTR):].replace("%3D", "=").replace("%25", "%")
            found[_bytes(name)] = _bytes(value)
    if SELINUX in headers and SELINUX_XATTR not in found:
        # the kernel's value ends with NUL, tar's does not
        found[SELINUX_XATTR] = _bytes(headers[SELINUX]).rstrip(b"\0") + b"\0"
    for keyword, attribute in ACL_TEXT.items():
        if attribute in found:
            acl.parse(found[attribute])
        elif headers.get(keyword):
            binary = acl.from_text(headers[keyword])
            if binary:
                found[attribute] = binary
    return tuple(sorted(found.items()))
