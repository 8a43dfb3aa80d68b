"""Writing trees as tar streams that GNU tar and sqfstar read exactly."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from splitimage_driver import exceptions
from splitimage_driver.archive import acl, sparse
from splitimage_driver.archive.base import CHUNK
from splitimage_driver.archive.tar import ACL_TEXT, SELINUX, SELINUX_XATTR, XATTR
from splitimage_driver.model import entry as entries
from splitimage_driver.model.entry import FileEntry, text

_TYPES = {entries.FILE: tarfile.REGTYPE, entries.DIRECTORY: tarfile.DIRTYPE,
          entries.SYMLINK: tarfile.SYMTYPE, entries.CHAR: tarfile.CHRTYPE,
          entries.BLOCK: tarfile.BLKTYPE, entries.FIFO: tarfile.FIFOTYPE}
_BLOCK = tarfile.BLOCKSIZE
_MAX_ID = 0o7777777
_MAX_NUMBER = 0o77777777777  # of eleven digits: size and time
_ZEROS = bytes(CHUNK)
_ACL_KEYWORDS = {attribute: keyword for keyword, attribute in ACL_TEXT.items()}


class TarWriter:
    """A pax archive, written as a stream.

    Owners are numbers only. ACLs go as text with numeric ids, which is the
    form that ``tar --acls`` restores; SELinux labels both as tar's own
    record and as the plain attribute, because squashfs tools read only that.
    Sparse files are GNU.sparse 1.0, so that holes survive.

    :param holes: False: zeros instead of holes, for readers that are not
        sure with sparse members
    :ivar written: bytes so far
    """

    def __init__(self, fileobj: BinaryIO, *, holes: bool = True) -> None:
        self._file = fileobj
        self._holes = holes
        self.written = 0

    def add(self, entry: FileEntry, content: BinaryIO | None = None, *,
            hardlink_to: bytes | None = None, mtime: int | None = None) -> None:
        """Append a member. Its path goes as it is; the root becomes ``./``.

        :param content: of a regular file: all ``entry.size`` bytes, holes as
            zeros; needed unless it is empty
        :param hardlink_to: path of an earlier member that this is a further
            name of; ``content`` is not read then
        :param mtime: nanoseconds, instead of the entry's
        :raises DigestMismatch: the content is not what the entry says; the
            archive cannot be used then
        :raises InvalidInput: the entry cannot be written
        """
        try:
            records, header = self._header(entry, hardlink_to, mtime)
        except ValueError as error:
            raise exceptions.InvalidInput(what=text(entry.path), reason=str(error)) from error
        segments: sparse.Segments = ((0, entry.size),)
        prologue = b""
        if header.type == tarfile.REGTYPE:
            header.size = entry.size
            if entry.sparse and self._holes:
                segments = self._segments(entry)
                prologue = _map(sparse.for_tar(segments, entry.size))
                header.size = len(prologue) + sum(length for _, length in segments)
                records |= {"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0",
                            "GNU.sparse.name": entry.path,
                            "GNU.sparse.realsize": b"%d" % entry.size}
        self._put(_blocks(header, records) + prologue)
        if header.type == tarfile.REGTYPE:
            self._copy(entry, io.BytesIO() if content is None else content, segments)
            self._put(bytes(-header.size % _BLOCK))

    def close(self) -> None:
        """Write the end mark; the file object stays open."""
        self._put(bytes(2 * _BLOCK))
        self._put(bytes(-self.written % tarfile.RECORDSIZE))
        self._file.flush()

    # -- internal -------------------------------------------------------------

    def _put(self, data: bytes) -> None:
        if data:
            self._file.write(data)
            self.written += len(data)

    def _header(self, entry: FileEntry, hardlink_to: bytes | None,
                mtime: int | None) -> tuple[dict[str, bytes], tarfile.TarInfo]:
        """The pax records and, within its limits, the plain header."""
        records: dict[str, bytes] = {}
        header = tarfile.TarInfo()
        header.type = _TYPES[entry.type]
        path, target = entry.path or b"./", entry.target
        if hardlink_to is not None:
            header.type, target = tarfile.LNKTYPE, hardlink_to
        header.name = _name("path", path, 99, records)  # tarfile adds a slash
        header.linkname = _name("linkpath", target, 100, records)
        header.mode = entry.mode
        header.uid = _number("uid", entry.uid, _MAX_ID, records)
        header.gid = _number("gid", entry.gid, _MAX_ID, records)
        if entry.device is not None:
            header.devmajor, header.devminor = entry.device
        nanoseconds = entry.mtime if mtime is None else mtime
        seconds, rest = divmod(nanoseconds, 10**9)
        header.mtime = min(max(seconds, 0), _MAX_NUMBER)
        if rest or header.mtime != seconds:
            records["mtime"] = _seconds(nanoseconds)
        if hardlink_to is None:
            records |= _attributes(entry)
        return records, header

    def _segments(self, entry: FileEntry) -> sparse.Segments:
        try:
            normal = sparse.normal(entry.sparse, entry.size)
        except ValueError as error:
            raise exceptions.InvalidInput(what=text(entry.path), reason=str(error)) from error
        return tuple(s for s in normal or ((0, entry.size),) if s[1])

    def _copy(self, entry: FileEntry, content: BinaryIO, segments: sparse.Segments) -> None:
        digest = hashlib.sha256()
        position = 0
        for offset, length in (*segments, (entry.size, 0)):
            for data in _exactly(entry, content, offset - position):
                if data != _ZEROS[:len(data)]:
                    raise exceptions.InvalidInput(
                        what=text(entry.path), reason="there is data in a hole of its sparse map")
                digest.update(data)
            for data in _exactly(entry, content, length):
                digest.update(data)
                self._put(data)
            position = offset + length
        if content.read(1):
            raise _mismatch(entry, f"{entry.size} bytes", "more")
        if entry.sha256 and digest.digest() != entry.sha256:
            raise _mismatch(entry, entry.sha256.hex(), digest.hexdigest())



def _exactly(entry: FileEntry, content: BinaryIO, length: int) -> Iterator[bytes]:
    left = length
    while left > 0:
        data = content.read(min(left, CHUNK))
        if not data:
            raise _mismatch(entry, f"{entry.size} bytes", "fewer")
        left -= len(data)
        yield data


def _mismatch(entry: FileEntry, expected: str, found: str) -> exceptions.DigestMismatch:
    return exceptions.DigestMismatch(what=f"the content of {text(entry.path)}",
                                     expected=expected, found=found)


def _map(segments: sparse.Segments) -> bytes:
    numbers = [len(segments), *(number for segment in segments for number in segment)]
    data = b"".join(b"%d\n" % number for number in numbers)
    return data + bytes(-len(data) % _BLOCK)


def _name(keyword: str, name: bytes, limit: int, records: dict[str, bytes]) -> str:
    """What fits of a name in the plain header; if that is not all, the name
    is a record too. Bytes go as they are: a record made only for the sake of
    UTF-8 would help nobody, and mksquashfs cuts the leading slash off the
    target of a symbolic link that comes as one."""
    if len(name) > limit:
        records[keyword] = name
    return name[:limit].decode("utf-8", "surrogateescape")


def _number(keyword: str, value: int, limit: int, records: dict[str, bytes]) -> int:
    if value > limit:
        records[keyword] = b"%d" % value
        return 0
    return value


def _seconds(nanoseconds: int) -> bytes:
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    sign = b"-" if nanoseconds < 0 else b""
    return sign + (b"%d.%09d" % (seconds, rest)).rstrip(b"0").rstrip(b".")


def _attributes(entry: FileEntry) -> dict[str, bytes]:
    """:raises ValueError: an ACL is not one"""
    records = {}
    for name, value in entry.xattrs:
        if name in _ACL_KEYWORDS:
            records[_ACL_KEYWORDS[name]] = acl.to_text(value).encode()
            continue
        if name == SELINUX_XATTR:
            records[SELINUX] = value.rstrip(b"\0")
        key = name.decode("utf-8", "surrogateescape").replace("%", "%25").replace("=", "%3D")
        records[XATTR + key] = value
    return records


def _blocks(header: tarfile.TarInfo, records: dict[str, bytes]) -> bytes:
    """The pax header, if there is need of one, and the member's own."""
    size = header.size
    if size > _MAX_NUMBER:
        records["size"] = b"%d" % size
        header.size = 0
    plain = header.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    header.size = size
    if not records:
        return plain
    body = b"".join(_record(key, value) for key, value in sorted(records.items()))
    extra = tarfile.TarInfo("././@PaxHeader")
    extra.type, extra.size = tarfile.XHDTYPE, len(body)
    return (extra.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
            + body + bytes(-len(body) % _BLOCK) + plain)


def _record(keyword: str, value: bytes) -> bytes:
    """``LENGTH KEYWORD=VALUE\\n``, where the length counts itself."""
    rest = b" " + keyword.encode("utf-8", "surrogateescape") + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(b"%d" % length):
        length = len(rest) + len(b"%d" % length)
    return b"%d" % length + rest
