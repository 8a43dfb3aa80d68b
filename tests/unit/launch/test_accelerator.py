from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import exceptions, process
from splitimage_driver.launch import accelerator


class Host:
    """A host whose KVM works or not; counts how often it was tried."""

    def __init__(self, place: Path) -> None:
        self.device, self.qemu, self.boot = place / "kvm", place / "qemu", place / "boot_id"
        self.device.touch()
        self.qemu.touch()
        self.boot.write_text("first boot\n")
        self.works, self.tries, self.now = True, 0, 1e9

    def run(self, words: Sequence[Any], *, ok: tuple[int, ...], timeout: float) -> None:
        self.tries += 1
        assert ok == (85,) and timeout <= 10
        assert words[words.index("-accel") + 1] == "kvm"
        if not self.works:
            raise exceptions.ToolFailed(tool="qemu", status="no end after 3 s", reason="-")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host(tmp_path)
    monkeypatch.setattr(accelerator, "_DEVICE", found.device)
    monkeypatch.setattr(accelerator, "_BOOT_ID", found.boot)
    monkeypatch.setattr(process, "find", lambda tool: str(found.qemu))
    monkeypatch.setattr(process, "run", found.run)
    monkeypatch.setattr(accelerator.time, "time", lambda: found.now)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return found


@pytest.mark.parametrize("works", [True, False])
def test_the_answer_is_remembered(host: Host, works: bool) -> None:
    host.works = works
    assert [accelerator.kvm_works() for _ in range(3)] == [works] * 3
    assert host.tries == 1
    assert accelerator.choose() == ("kvm" if works else "tcg")
    assert host.tries == 1
    assert accelerator.cache_file().is_relative_to(host.device.parent)


def test_another_boot_or_qemu_or_user_is_asked_again(
        host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator.kvm_works()
    host.boot.write_text("second boot\n")
    accelerator.kvm_works()
    assert host.tries == 2
    os.utime(host.qemu, (1, 1))
    accelerator.kvm_works()
    assert host.tries == 3
    monkeypatch.setattr(accelerator.os, "getuid", lambda: 12345)
    accelerator.kvm_works()
    assert host.tries == 4


def test_a_no_is_not_for_ever(host: Host) -> None:
    host.works = False
    assert not accelerator.kvm_works()
    host.works = True
    host.now += accelerator.NO_LASTS - 1
    assert not accelerator.kvm_works()
    host.now += 2
    assert accelerator.kvm_works()
    host.now -= 1e6
    assert accelerator.kvm_works()
    assert host.tries == 2


def test_without_a_device_nothing_is_tried(host: Host) -> None:
    host.device.unlink()
    assert not accelerator.kvm_works()
    assert host.tries == 0
    assert not accelerator.cache_file().exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"works": 1}', b"\xff"])
def test_a_damaged_cache_is_no_answer(host: Host, tmp_path: Path, content: bytes) -> None:
    cache = tmp_path / "answer"
    cache.write_bytes(content)
    assert accelerator.kvm_works(cache)
    assert host.tries == 1


def test_an_unwritable_cache_is_no_error(host: Host) -> None:
    assert accelerator.kvm_works(host.qemu / "below a file")


def test_what_is_configured_is_not_tried(host: Host) -> None:
    assert accelerator.choose("kvm") == "kvm"
    assert accelerator.choose("tcg") == "tcg"
    assert host.tries == 0


def test_the_probe_is_a_boot_sector() -> None:
    assert len(accelerator.PROBE) == 512
    assert accelerator.PROBE[-2:] == b"\x55\xaa"
    assert accelerator.PROBE[446:510] == bytes(64), "no partitions"
