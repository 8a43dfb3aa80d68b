from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitimage_driver import exceptions, process
from splitimage_driver.assembly import disks

MIB = 1 << 20


def qcow2(*, backing: int = 0, size: int = MIB, encryption: int = 0, snapshots: int = 0,
          features: int = 0, version: int = 3) -> bytes:
    """A header as in qemu's docs/interop/qcow2.txt, padded."""
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, backing, 0, 16, size,
                       encryption, 1, 0x30000, 0x10000, 1, snapshots, 0)
    return (head + struct.pack(">QQQII", features, 0, 0, 4, 104)).ljust(0x50000, b"\0")


def mbr(*entries: tuple[int, int, int], size: int = MIB, boot: int = 0) -> bytes:
    """A disk with (type, first sector, sectors) as its partitions."""
    table = b"".join(struct.pack("<B3sB3sII", boot, b"\0\2\0" if kind == 0xEE else b"\0\0\0",
                                 kind, b"\0\0\0", first, count)
                     for kind, first, count in entries)
    return (bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa").ljust(size, b"\0")


def gpt(size: int, *, last: int, sector: int = 512) -> bytes:
    disk = bytearray(mbr((0xEE, 1, 0xFFFFFFFF), size=size))
    disk[sector:sector + 40] = b"EFI PART".ljust(32, b"\0") + last.to_bytes(8, "little")
    return bytes(disk)


def ext4(blocks: int, *, log_size: int = 2, features: int = 0, size: int = MIB) -> bytes:
    """A file system of ``blocks`` blocks of 1024 << ``log_size`` bytes."""
    block = bytearray(1024)
    block[4:8] = (blocks & 0xFFFFFFFF).to_bytes(4, "little")
    block[24:28] = log_size.to_bytes(4, "little")
    block[56:58] = b"\x53\xef"
    block[0x60:0x64] = features.to_bytes(4, "little")
    block[0x150:0x154] = (blocks >> 32).to_bytes(4, "little")
    return (bytes(1024) + bytes(block)).ljust(size, b"\0")


@pytest.fixture
def image(tmp_path: Path) -> Callable[[bytes], Path]:
    def made(content: bytes) -> Path:
        path = tmp_path / "image"
        path.write_bytes(content)
        return path
    return made


@pytest.fixture
def qemu_img(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """qemu-img's answers: of ``check`` (status, report, errors), of ``map``."""
    answers: dict[str, Any] = {"check": (0, {}, ""), "map": [], "calls": []}

    def run(argv: list[Any], **_: object) -> CompletedProcess[bytes]:
        words = [os.fspath(word) for word in argv]
        answers["calls"].append(words)
        if "map" in words:
            return CompletedProcess(words, 0, json.dumps(answers["map"]).encode(), b"")
        status, report, errors = answers["check"]
        return CompletedProcess(words, status, json.dumps(report).encode(), errors.encode())

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(process, "find", lambda tool: f"/usr/bin/{tool}")
    return answers


def refused(path: Path) -> exceptions.BadDisk:
    with pytest.raises(exceptions.BadDisk) as caught:
        disks.inspect(path)
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize(("content", "reason"), [
    (b"", "empty"),
    (b"hello, this is a text\n" * 100, "neither a partition table nor a file system"),
    (bytes(MIB), "neither a partition table nor a file system"),
    (mbr((0x83, 1, 100)) + b"x", "not a multiple of 512"),
    (mbr((0x83, 1, 100), (0x83, 1000, 2000)), "partition 2 ends at byte 1536000"),
    (mbr(), "no partitions defined"),
    (mbr((0x83, 1, 1), boot=0x17), "invalid boot flag"),
    (mbr((0xEE, 1, 2047)), "announces a GPT, and there is none"),
    (ext4(257), "file system ends at byte 1052672, the file at 1048576"),
    (ext4(1025, log_size=0), "file system ends"),
    (ext4(1 << 32, features=0x80), "file system ends"),
    (ext4(0xFFFFFFFF, log_size=0xFFFFFFFF), "file system ends"),
    (gpt(MIB, last=4095), "second partition table ends at byte 2097152"),
    (qcow2()[:100], "qcow2 image cut off in its header"),
    (qcow2(encryption=2), "encrypted"),
    (qcow2(size=0), "0 bytes"),
    (qcow2(size=2**62), "claims to be a disk of 4611686018427387904 bytes"),
    (b"KDMV" + bytes(MIB), "format is vmdk"),
    (b"conectix" + bytes(MIB), "format is vhd"),
    (b"LUKS\xba\xbe\0\1" + bytes(MIB), "format is luks"),
    (b"QED\0" + bytes(MIB), "format is qed"),
])
def test_what_is_no_complete_disk_is_refused(
        image: Callable[[bytes], Path], qemu_img: dict[str, Any],
        content: bytes, reason: str) -> None:
    error = refused(image(content))
    assert reason in str(error)
    assert type(error) is exceptions.BadDisk


@pytest.mark.parametrize(("content", "reason"), [
    (qcow2(backing=0x400), "it has a backing file"),
    (qcow2(features=1 << 2), "it has an external data file"),
    (qcow2(features=1 << 4), "not known to be safe"),
    (qcow2(features=1 << 40), "not known to be safe"),
    (qcow2(version=1), "not known to be safe"),
    (qcow2(backing=0x400, features=1 << 2), "backing file and it has an external"),
    # a boot record in front of an ISO 9660 file system
    (mbr((0x83, 1, 1))[:32769] + b"CD001\1" + bytes(MIB), "not one format only"),
])
def test_what_refers_to_other_files_is_unsafe_and_qemu_never_sees_it(
        image: Callable[[bytes], Path], qemu_img: dict[str, Any],
        content: bytes, reason: str) -> None:
    error = refused(image(content))
    assert reason in str(error)
    assert isinstance(error, exceptions.UnsafeDisk)
    assert qemu_img["calls"] == []


@pytest.mark.parametrize("content", [
    mbr((0x83, 1, 2047)), mbr((0x0C, 1, 10), (0x83, 100, 10), (5, 200, 1000)),
    gpt(MIB, last=2047), gpt(MIB, last=1000), gpt(MIB, last=255, sector=4096),
    ext4(256), ext4(200), ext4(1024, log_size=0), ext4((1 << 32) + 256), b"XFSB" + bytes(MIB - 4),
    bytes(0x10040) + b"_BHRfS_M" + bytes(MIB - 0x10048),
    bytes(512) + b"LABELONE" + bytes(MIB - 520),
])
def test_a_raw_disk_is_accepted_without_any_tool(
        image: Callable[[bytes], Path], content: bytes) -> None:
    assert disks.inspect(image(content)) == disks.DiskInfo(
        format="raw", virtual_size=len(content), file_size=len(content))


def test_a_qcow2_disk_is_accepted(image: Callable[[bytes], Path],
                                  qemu_img: dict[str, Any]) -> None:
    path = image(qcow2(size=5 * MIB, snapshots=2))
    assert disks.inspect(path) == disks.DiskInfo(
        format="qcow2", virtual_size=5 * MIB, file_size=0x50000, snapshots=2)
    (words,) = qemu_img["calls"]
    assert words[words.index("-f") + 1] == "qcow2" and words[-1] == str(path)


@pytest.mark.parametrize(("check", "extents", "reason"), [
    ((2, {}, "ERROR: region exceeding the end of the file by one cluster"), [], "cut off: clus"),
    ((2, {"corruptions": 3}, "ERROR cluster 5 refcount=0"), [], "tables are damaged"),
    ((0, {"image-end-offset": 0x50001}, ""), [{"length": 2, "offset": 0x4ffff}], "last cluster"),
    ((3, {"image-end-offset": 0x50001}, ""), [], "within its tables"),
])
def test_a_cut_off_qcow2_is_refused(
        image: Callable[[bytes], Path], qemu_img: dict[str, Any],
        check: tuple[int, dict[str, int], str], extents: list[dict[str, int]],
        reason: str) -> None:
    qemu_img.update(check=check, map=extents)
    assert reason in str(refused(image(qcow2())))


@pytest.mark.parametrize(("check", "extents"), [
    ((3, {"image-end-offset": 0x50000}, ""), []),  # clusters lost by a killed qemu
    ((0, {"image-end-offset": 0x50001}, ""), [{"length": 1, "offset": 0x4ffff},
                                              {"length": 1 << 40}]),
])
def test_harmless_findings_are_accepted(
        image: Callable[[bytes], Path], qemu_img: dict[str, Any],
        check: tuple[int, dict[str, int], str], extents: list[dict[str, int]]) -> None:
    qemu_img.update(check=check, map=extents)
    assert disks.inspect(image(qcow2())).format == "qcow2"


def test_what_qemu_img_refuses_is_a_bad_disk(
        image: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise exceptions.ToolFailed(tool="prlimit", status="status 1", reason="too big")

    monkeypatch.setattr(process, "find", lambda tool: tool)
    monkeypatch.setattr(process, "run", fail)
    assert "qemu-img check: too big" in str(refused(image(qcow2())))


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_bytes(mbr((0x83, 1, 10)))
    link, fifo = tmp_path / "link", tmp_path / "fifo"
    link.symlink_to(real)
    os.mkfifo(fifo)
    assert "symbolic link" in str(refused(link))
    assert "not a regular file" in str(refused(fifo))
    assert "not a regular file" in str(refused(tmp_path))
    assert "No such file" in str(refused(tmp_path / "absent"))


def test_virtual_size_reads_the_header(image: Callable[[bytes], Path]) -> None:
    assert disks.virtual_size(image(qcow2(size=7 * MIB))) == 7 * MIB
    assert disks.virtual_size(image(bytes(3000)), "raw") == 3000
    with pytest.raises(exceptions.BadDisk):
        disks.virtual_size(image(bytes(3000)))


# -- copy -------------------------------------------------------------------------

pieces = st.lists(st.tuples(st.booleans(), st.integers(1, 3 * MIB)), max_size=6)


@settings(max_examples=25, deadline=None)
@given(pieces=pieces, checked=st.booleans())
def test_a_copy_has_the_bytes_and_the_holes(
        tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[bool, int]],
        checked: bool) -> None:
    place = tmp_path_factory.mktemp("copy")
    source, copy = place / "source", place / "copy"
    with source.open("wb") as stream:
        for hole, length in pieces:
            if hole:
                stream.seek(length, os.SEEK_CUR)
            else:
                stream.write(b"d" * length)
        stream.truncate(sum(length for _, length in pieces))
    expected = hashlib.sha256(source.read_bytes()).hexdigest()
    disks.copy(source, copy, expected=expected if checked else None)
    assert copy.read_bytes() == source.read_bytes()
    assert disks.allocated(copy) <= disks.allocated(source)
    assert sorted(path.name for path in place.iterdir()) == ["copy", "source"]


def test_a_copy_with_another_digest_is_not_left(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"these bytes")
    with pytest.raises(exceptions.DigestMismatch) as caught:
        disks.copy(source, tmp_path / "copy", expected="0" * 64)
    assert hashlib.sha256(b"these bytes").hexdigest() in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    destination = tmp_path / "out"
    destination.write_bytes(b"old")
    with pytest.raises(RuntimeError), disks.beside(destination) as part:
        part.write_bytes(b"new")
        raise RuntimeError
    assert destination.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [destination]
