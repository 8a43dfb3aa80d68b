"""The smallest disk that boots: a boot record that says three lines on the serial
console and stops. Where it does not matter what a server does it costs nothing
under emulation."""

from __future__ import annotations

from pathlib import Path

LINES = ("the boot record", "says three lines", "and stops")
_SIZE = 1 << 20
_ADDRESS = 0x7C00
_CODE = bytes((
    0x31, 0xC0,        # xor ax, ax
    0x8E, 0xD8,        # mov ds, ax
    0xFC,              # cld
    0xBE, 0x16, 0x7C,  # mov si, behind the code
    0xAC,              # next: lodsb
    0x84, 0xC0,        # test al, al
    0x74, 0x06,        # jz stop
    0xBA, 0xF8, 0x03,  # mov dx, first serial port
    0xEE,              # out dx, al
    0xEB, 0xF5,        # jmp next
    0xF4,              # stop: hlt
    0xEB, 0xFD,        # jmp stop
))
#: Active, Linux, from sector 2 on: a record without partitions is none to Glance.
_PARTITION = bytes((0x80, 0, 2, 0, 0x83, 0, 2, 0)) + (1).to_bytes(4, "little") + (
    _SIZE // 512 - 1).to_bytes(4, "little")


def build(path: Path) -> Path:
    """Make the disk, raw."""
    assert int.from_bytes(_CODE[6:8], "little") == _ADDRESS + len(_CODE)
    text = "".join(f"{line}\r\n" for line in LINES).encode() + b"\0"
    sector = (_CODE + text).ljust(446, b"\0") + _PARTITION.ljust(64, b"\0") + b"\x55\xAA"
    with path.open("wb") as stream:
        stream.write(sector)
        stream.truncate(_SIZE)
    return path
