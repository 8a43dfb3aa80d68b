"""Disk images as the real tools make and break them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from splitimage_driver import exceptions
from splitimage_driver.assembly import disks

MIB = 1 << 20


def run(*words: str | Path, send: bytes = b"") -> None:
    subprocess.run(words, input=send, check=True, capture_output=True,
                   env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A partitioned disk of 24 MiB with 6 MiB of data in two places."""
    path = tmp_path_factory.mktemp("raw") / "disk.raw"
    with path.open("wb") as stream:
        stream.truncate(24 * MIB)
    run("sfdisk", "-q", path, send=b"label: gpt\n,,L\n")
    with path.open("r+b") as stream:
        for place, size in ((2, 4), (16, 2)):
            stream.seek(place * MIB)
            stream.write(os.urandom(size * MIB // 2) + b"compressible" * (size * MIB // 24))
    return path


@pytest.fixture
def qcow2(raw: Path, tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    disks.convert(raw, "raw", path, "qcow2")
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refused(path: Path) -> str:
    with pytest.raises(exceptions.BadDisk) as caught:
        disks.inspect(path)
    return str(caught.value)


def cut(path: Path, size: int) -> Path:
    short = path.with_name("short")
    shutil.copy(path, short)
    os.truncate(short, size)
    return short


def test_a_gpt_disk(raw: Path) -> None:
    assert disks.inspect(raw) == disks.DiskInfo(format="raw", virtual_size=24 * MIB,
                                                file_size=24 * MIB)
    assert "cut off" in refused(cut(raw, 23 * MIB))
    assert "cut off" in refused(cut(raw, 24 * MIB - 512))


def test_an_mbr_disk(raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "mbr.raw"
    shutil.copy(raw, path)
    run("sfdisk", "-q", "--wipe", "always", path, send=b"label: dos\n,8M,L,*\n,8M,E\n,4M,L\n")
    assert disks.inspect(path).format == "raw"
    assert "cut off" in refused(cut(path, 12 * MIB))


@pytest.mark.parametrize("make", [("mke2fs", "-q", "-F"), ("mkfs.vfat",)])
def test_a_file_system_without_partitions(tmp_path: Path, make: tuple[str, ...]) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as stream:
        stream.truncate(16 * MIB)
    run(*make, path)
    assert disks.inspect(path).format == "raw"


@pytest.mark.parametrize("compress", [False, True])
def test_qcow2_disks_cut_anywhere_are_refused(raw: Path, tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "disk.qcow2"
    disks.convert(raw, "raw", path, "qcow2", compress=compress)
    info = disks.inspect(path)
    assert (info.format, info.virtual_size, info.snapshots) == ("qcow2", 24 * MIB, 0)
    for missing in (70_000, MIB, 3 * MIB, info.file_size - 200_000, info.file_size - 1000,
                    info.file_size - 100):
        message = refused(cut(path, info.file_size - missing))
        assert "cut off" in message or "damaged" in message, missing


def test_a_last_cluster_cut_off_is_noticed(qcow2: Path) -> None:
    """qemu itself would read the missing bytes as zeros."""
    assert "last cluster" in refused(cut(qcow2, qcow2.stat().st_size - 512))


def test_a_damaged_table_is_noticed(qcow2: Path) -> None:
    with qcow2.open("r+b") as stream:
        stream.seek(40)
        table = int.from_bytes(stream.read(8), "big")
        stream.seek(table)
        stream.write(b"\x80\0\0\0\0\x01\x23\x00")
    assert "damaged" in refused(qcow2) or "cut off" in refused(qcow2)


def test_what_refers_to_other_files_is_unsafe(qcow2: Path, tmp_path: Path) -> None:
    overlay, data = tmp_path / "overlay", tmp_path / "data"
    disks.create_overlay(qcow2, "qcow2", overlay)
    assert "backing file" in refused(overlay)
    run("qemu-img", "create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'content'}", data, "1M")
    assert "external data file" in refused(data)
    for path in (overlay, data):
        with pytest.raises(exceptions.UnsafeDisk):
            disks.inspect(path)


@pytest.mark.parametrize("kind", ["vmdk", "vdi", "vhdx", "qed", "vpc"])
def test_other_formats_are_refused(raw: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "disk"
    run("qemu-img", "convert", "-f", "raw", "-O", kind, raw, path)
    assert "its format is" in refused(path)


def test_internal_snapshots_are_told_and_converted_away(qcow2: Path, tmp_path: Path) -> None:
    run("qemu-img", "snapshot", "-c", "before", qcow2)
    assert disks.inspect(qcow2).snapshots == 1
    disks.convert(qcow2, "qcow2", tmp_path / "plain", "qcow2")
    assert disks.inspect(tmp_path / "plain").snapshots == 0


def test_an_overlay_shows_what_is_below(
        raw: Path, qcow2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # by a relative name that looks like a protocol's, seen from elsewhere
    odd = tmp_path / "nbd:host,file=x"
    qcow2.rename(odd)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "below").mkdir()
    overlay = Path("below/overlay")
    disks.create_overlay(Path(odd.name), "qcow2", overlay)
    assert disks.virtual_size(overlay) == 24 * MIB
    assert disks.allocated(overlay) < MIB
    disks.convert(overlay, "qcow2", tmp_path / "out", "raw")
    assert digest(tmp_path / "out") == digest(raw)


def test_conversions_keep_the_disk(raw: Path, qcow2: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    disks.convert(qcow2, "qcow2", small, "qcow2", compress=True)
    assert disks.allocated(small) < disks.allocated(qcow2) < 8 * MIB
    disks.convert(small, "qcow2", tmp_path / "back", "raw")
    assert digest(tmp_path / "back") == digest(raw)


def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"no disk")
    with pytest.raises(exceptions.ToolFailed):
        disks.convert(bad, "qcow2", tmp_path / "out", "qcow2")
    assert list(tmp_path.iterdir()) == [bad]


def test_a_copy_is_checked(raw: Path, tmp_path: Path) -> None:
    disks.copy(raw, tmp_path / "copy", expected=digest(raw), sync=True)
    assert digest(tmp_path / "copy") == digest(raw)
    assert disks.allocated(tmp_path / "copy") <= disks.allocated(raw)


def test_without_qemu_img(qcow2: Path, hide: Callable[[str], None]) -> None:
    hide("qemu-img")
    with pytest.raises(exceptions.ToolMissing, match="qemu-img is not installed"):
        disks.inspect(qcow2)


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a tool look as if it were not installed."""
    which = shutil.which

    def hidden(tool: str) -> None:
        monkeypatch.setattr(shutil, "which", lambda name, **more: (
            None if Path(name).name == tool else which(name, **more)))

    return hidden
