"""Disk image files on the host: everything but what is inside them.

A file from outside goes through :func:`inspect` before qemu or libguestfs
may open it, and every call names the format, so that nothing is ever probed
by a program that would follow what the image says.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from oslo_log import log as logging
from oslo_utils.imageutils import format_inspector

from splitimage_driver import exceptions, process
from splitimage_driver.assembly import diskparts
from splitimage_driver.progress import Operation

LOG = logging.getLogger(__name__)

RAW, QCOW2 = "raw", "qcow2"
#: No real disk is larger, and larger numbers overflow elsewhere.
MAX_VIRTUAL_SIZE = 64 * 2**40
_CHUNK = 1 << 20
#: All headers that the inspector knows lie within this.
_HEAD = 2 << 20
_FICLONE = 0x40049409  # linux/fs.h; the errno module has no name for it either
#: What qemu-img may use up on an image from outside (the same as Nova's).
_LIMITS = ("--as=1073741824", "--cpu=60")
_REASONS = {
    "backing_file": "it has a backing file",
    "data_file": "it has an external data file",
    "unknown_features": "it uses qcow2 features that are not known to be safe",
}


class DiskInfo(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar format: ``qcow2`` or ``raw``
    :ivar virtual_size: bytes of the disk as a machine sees it
    :ivar file_size: bytes of the file
    :ivar snapshots: number of internal snapshots; :func:`convert` leaves
        them behind, :func:`copy` does not
    """

    format: str
    virtual_size: int
    file_size: int
    snapshots: int = 0


def inspect(path: Path) -> DiskInfo:
    """Decide whether a file from outside is a complete disk image that refers
    to nothing but itself.

    :raises UnsafeDisk: it refers to other files, or is two formats at once
    :raises BadDisk: no disk image, another format, cut off or damaged
    :raises ToolMissing: no qemu-img
    """
    with _opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size == 0:
            raise exceptions.BadDisk(path=path, reason="it is empty")
        found = _detect(path, stream)
        if str(found) == QCOW2:
            info = _qcow2(path, stream, size)
        else:
            diskparts.check(path, stream, size, partitioned=str(found) == "gpt")
            info = DiskInfo(format=RAW, virtual_size=size, file_size=size)
    if info.virtual_size > MAX_VIRTUAL_SIZE:
        raise exceptions.BadDisk(
            path=path, reason=f"it claims to be a disk of {info.virtual_size} bytes")
    if info.format == QCOW2:
        _check_clusters(path, info)
    return info


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        # O_NONBLOCK: a FIFO of that name must not hold us up
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = ("it is a symbolic link; name the file itself"
                  if error.errno == errno.ELOOP else os.strerror(error.errno or 0))
        raise exceptions.BadDisk(path=path, reason=reason) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise exceptions.BadDisk(path=path, reason="it is not a regular file")
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


def _detect(path: Path, stream: BinaryIO) -> format_inspector.FileInspector:
    wrapper = format_inspector.InspectWrapper(io.BytesIO(stream.read(_HEAD)))
    try:
        while wrapper.read(64 << 10) and wrapper.format is None:
            pass
        wrapper.close()
        found = wrapper.format
    except format_inspector.ImageFormatError as error:
        raise exceptions.UnsafeDisk(
            path=path, reason=f"it is not one format only ({error})") from error
    if found is None or str(found) not in (RAW, "gpt", QCOW2):
        raise exceptions.BadDisk(path=path, reason=f"its format is {found}")
    try:
        found.safety_check()
    except format_inspector.SafetyCheckFailed as error:
        if str(found) == "gpt":
            damage = "; ".join(str(e) for e in error.failures.values())
            raise exceptions.BadDisk(
                path=path, reason=f"its partition table is damaged: {damage}") from error
        raise exceptions.UnsafeDisk(path=path, reason=" and ".join(
            _REASONS.get(name, str(e)) for name, e in error.failures.items())) from error
    except format_inspector.ImageFormatError as error:
        raise exceptions.BadDisk(path=path, reason=str(error)) from error
    return found


def _qcow2(path: Path, stream: BinaryIO, size: int) -> DiskInfo:
    """The header's fields; docs/interop/qcow2.txt of qemu."""
    stream.seek(0)
    head = stream.read(72)
    virtual = int.from_bytes(head[24:32], "big")
    if int.from_bytes(head[32:36], "big"):
        raise exceptions.BadDisk(path=path, reason="it is encrypted")
    if virtual == 0:
        raise exceptions.BadDisk(path=path, reason="it is a disk of 0 bytes")
    return DiskInfo(format=QCOW2, virtual_size=virtual, file_size=size,
                    snapshots=int.from_bytes(head[60:64], "big"))


def _check_clusters(path: Path, info: DiskInfo) -> None:
    """Let qemu walk the tables. It reads bytes beyond the end of the file as
    zeros, without a word, where less than one cluster is cut off."""
    status, report, errors = _limited(path, "check")
    if status == 2:
        reason = ("it is cut off: clusters lie beyond the end of the file"
                  if "the end of the file" in errors or "outside image" in errors
                  else "its tables are damaged")
        raise exceptions.BadDisk(path=path, reason=reason)
    end = json.loads(report).get("image-end-offset", 0)
    if end <= info.file_size:
        return
    # the last cluster is not all there, which is right only at the disk's end
    for extent in json.loads(_limited(path, "map")[1]):
        if extent.get("offset", 0) + extent["length"] > info.file_size and "offset" in extent:
            raise exceptions.BadDisk(
                path=path, reason="it is cut off: its last cluster is not complete")
    if status == 3:  # clusters that no table refers to: a table is what is cut off
        raise exceptions.BadDisk(path=path, reason="it is cut off within its tables")


def _limited(path: Path, command: str) -> tuple[int, bytes, str]:
    """Status, stdout and stderr of qemu-img on a file from outside."""
    tool = process.find("qemu-img")
    try:
        done = process.run(["prlimit", *_LIMITS, "--", tool, command, "-f", QCOW2,
                            "--output=json", path.absolute()], ok=(0, 2, 3), timeout=120)
    except exceptions.ToolFailed as error:
        raise exceptions.BadDisk(
            path=path, reason=f"qemu-img {command}: {error.fields['reason']}") from error
    return done.returncode, done.stdout, done.stderr.decode("utf-8", "replace")


# -- files that are our own -----------------------------------------------------

def virtual_size(path: Path, image_format: str = QCOW2) -> int:
    """Bytes of the disk as a machine sees it; reads the header only.

    :raises BadDisk: not of this format
    """
    with _opened(path) as stream:
        if image_format == RAW:
            return os.fstat(stream.fileno()).st_size
        head = stream.read(32)
    if head[:4] != b"QFI\xfb":
        raise exceptions.BadDisk(path=path, reason="it is not a qcow2 image")
    return int.from_bytes(head[24:32], "big")


def allocated(path: Path) -> int:
    """Bytes that the file takes on its file system, without its holes."""
    return path.stat().st_blocks * 512


def create(path: Path, size: int) -> None:
    """Make an empty qcow2 image of ``size`` bytes.

    :raises ToolFailed:
    """
    process.run(["qemu-img", "create", "-q", "-f", QCOW2, path.absolute(), str(size)])


def create_overlay(backing: Path, backing_format: str, overlay: Path) -> None:
    """Make a copy-on-write qcow2 image on ``backing``, which nothing may
    change as long as the overlay lives.

    :raises ToolFailed:
    """
    # absolute: a relative backing name would be one from the overlay's
    # directory, and one with a colon a protocol
    process.run(["qemu-img", "create", "-q", "-f", QCOW2, "-F", backing_format,
                 "-b", backing.absolute(), overlay.absolute()])


def convert(source: Path, source_format: str, destination: Path, out_format: str,
            compress: bool = False) -> None:
    """Write ``source`` anew: one file without backing, snapshots and unused
    clusters. ``destination`` appears when it is complete.

    :param compress: qcow2 only; with zstd, which unpacks several times
        faster than zlib
    :raises ToolFailed:
    """
    packing = ["-c", "-o", "compression_type=zstd"] if compress else []
    with beside(destination) as part:
        process.run(["qemu-img", "convert", "-q", "-f", source_format, "-O", out_format,
                     *packing, source.absolute(), part])


def copy(source: Path, destination: Path, *, expected: str | None,
         sync: bool = False) -> None:
    """Copy a file, its holes too; shares the blocks where the file system can.
    ``destination`` appears when it is complete.

    :param expected: sha256 in hexadecimal, checked on the bytes as copied
    :param sync: wait until it is on the disk, for a file that is to stay; a
        working copy need not
    :raises DigestMismatch: nothing is left behind
    """
    with source.open("rb") as reader, beside(destination) as part, part.open("wb") as writer:
        size = os.fstat(reader.fileno()).st_size
        digest = None if expected is None else hashlib.sha256()
        shared = _reflink(reader, writer)
        if not shared or digest is not None:
            with Operation("copy", total=size, subject=destination.name) as operation:
                for chunk in _extents(reader, size):
                    if isinstance(chunk, int):  # a hole of that length
                        _skip(writer, chunk, digest, shared)
                    else:
                        if not shared:
                            writer.write(chunk)
                        if digest is not None:
                            digest.update(chunk)
                    operation.advance(chunk if isinstance(chunk, int) else len(chunk))
            writer.truncate(size)
        if digest is not None and digest.hexdigest() != expected:
            raise exceptions.DigestMismatch(what=str(source), expected=expected,
                                            found=digest.hexdigest())
        if sync:
            writer.flush()
            os.fsync(writer.fileno())


@contextlib.contextmanager
def beside(destination: Path) -> Iterator[Path]:
    """A name in the directory of ``destination`` to write to, which takes its
    place at the end of the block; gone if the block fails."""
    with tempfile.TemporaryDirectory(
            prefix=f".{destination.name[:64]}.", suffix=".part",
            dir=destination.absolute().parent) as directory:
        part = Path(directory, "image")
        yield part
        part.replace(destination)


def _reflink(reader: BinaryIO, writer: BinaryIO) -> bool:
    try:
        fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
    except OSError:  # another file system, or one that cannot
        return False
    return True


def _extents(reader: BinaryIO, size: int) -> Iterator[memoryview | int]:
    """The data of a file, and the lengths of its holes."""
    buffer = memoryview(bytearray(_CHUNK))
    place, descriptor = 0, reader.fileno()
    while place < size:
        try:
            data = os.lseek(descriptor, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = size  # a hole up to the end
        if data > place:
            yield data - place
        end = size if data >= size else os.lseek(descriptor, data, os.SEEK_HOLE)
        place = data
        while place < end:
            count = os.preadv(descriptor, [buffer[:end - place]], place)
            if count == 0:
                raise exceptions.BadDisk(path=reader.name, reason="it became shorter meanwhile")
            yield buffer[:count]
            place += count


def _skip(writer: BinaryIO, length: int, digest: hashlib._Hash | None, shared: bool) -> None:
    if not shared:
        writer.seek(length, os.SEEK_CUR)
    if digest is not None:
        zeros = bytes(min(length, _CHUNK))
        for start in range(0, length, _CHUNK):
            digest.update(zeros[:length - start])
