"""Partition tables and file system signatures of raw disk images, as far as
needed to tell a complete disk from a cut-off one and from any other file."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from splitimage_driver import exceptions

SECTOR = 512
#: File systems that fill a disk without a partition table: (offset, magic).
_SIGNATURES = (
    (1024 + 56, b"\x53\xef"),  # ext2, ext3, ext4
    (0, b"XFSB"), (0x10040, b"_BHRfS_M"), (0, b"hsqs"),
    (1024, b"\xe2\xe1\xf5\xe0"),  # erofs
    (1024, b"\x10\x20\xf5\xf2"),  # f2fs
    (54, b"FAT"), (82, b"FAT"),
    *((sector * SECTOR, b"LABELONE") for sector in range(4)),  # an LVM volume
)


def check(path: Path, stream: BinaryIO, size: int, *, partitioned: bool) -> None:
    """Refuse a raw file that is no disk, or not all of one.

    :param stream: opened for reading, seekable
    :param size: bytes of the file
    :param partitioned: whether its first sector is a boot record
    :raises BadDisk: with the reason
    """
    head = _read(stream, 0, 4)
    if head == b"QFI\xfb":
        raise exceptions.BadDisk(path=path, reason="it is a qcow2 image cut off in its header")
    if partitioned:
        _check_table(path, stream, size)
    elif not any(_read(stream, place, len(magic)) == magic for place, magic in _SIGNATURES):
        raise exceptions.BadDisk(
            path=path, reason="it has neither a partition table nor a file system")
    else:
        _check_ext(path, stream, size)
    if size % SECTOR:
        raise exceptions.BadDisk(
            path=path, reason=f"its size, {size} bytes, is not a multiple of {SECTOR}: cut off?")


def _check_table(path: Path, stream: BinaryIO, size: int) -> None:
    record = _read(stream, 0, SECTOR)
    for number in range(4):
        entry = record[446 + 16 * number:462 + 16 * number]
        kind = entry[4]
        first, count = _number(entry[8:12]), _number(entry[12:16])
        if kind == 0xEE:
            _check_gpt(path, stream, size)
        elif kind and (first + count) * SECTOR > size:
            _cut_off(path, f"partition {number + 1} ends", (first + count) * SECTOR, size)


def _check_ext(path: Path, stream: BinaryIO, size: int) -> None:
    """An ext2, ext3 or ext4 that fills the disk says its own size."""
    block = _read(stream, 1024, 0x154)
    if block[56:58] != b"\x53\xef":
        return
    blocks = _number(block[4:8])
    if _number(block[0x60:0x64]) & 0x80:  # INCOMPAT_64BIT
        blocks |= _number(block[0x150:0x154]) << 32
    end = blocks << min(10 + _number(block[24:28]), 16)
    if end > size:
        _cut_off(path, "its file system ends", end, size)


def _check_gpt(path: Path, stream: BinaryIO, size: int) -> None:
    for sector in (512, 4096):
        header = _read(stream, sector, 92)
        if header[:8] == b"EFI PART":
            # The copy of the table is in the disk's last sector. A disk made
            # larger later has it earlier, which is usual and harmless.
            end = (_number(header[32:40]) + 1) * sector
            if end > size:
                _cut_off(path, "the second partition table ends", end, size)
            return
    raise exceptions.BadDisk(
        path=path, reason="its boot record announces a GPT, and there is none")


def _cut_off(path: Path, what: str, end: int, size: int) -> None:
    raise exceptions.BadDisk(
        path=path, reason=f"it is cut off: {what} at byte {end}, the file at {size}")


def _read(stream: BinaryIO, place: int, count: int) -> bytes:
    stream.seek(place)
    return stream.read(count)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
