from __future__ import annotations

import io
import os
import signal
import subprocess
from typing import Any, ClassVar

import pytest

from splitimage_driver import exceptions, process


class Child:
    """Stands in for subprocess.Popen; scripted by its class attributes."""

    out, err, status, hangs = b"", b"", 0, False
    started: dict[str, Any]
    killed: ClassVar[list[tuple[int, int]]]
    pid = 4242

    def __init__(self, words: list[str], **options: Any) -> None:
        type(self).started = {"words": words, **options}
        self.returncode: int | None = None
        self.stdin = io.BytesIO() if options["stdin"] == subprocess.PIPE else None
        self.stdout = io.BytesIO(self.out) if options["stdout"] == subprocess.PIPE else None
        self.stderr = None
        if hasattr(options["stderr"], "write"):
            options["stderr"].write(self.err)

    def communicate(self, _input: bytes | None, timeout: float | None) -> tuple[bytes, bytes]:
        if self.hangs:
            raise subprocess.TimeoutExpired("x", timeout or 0, stderr=self.err)
        self.returncode = self.status
        return self.out, self.err

    def wait(self) -> int:
        self.returncode = self.status
        return self.status


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> type[Child]:
    class Scripted(Child):
        killed: ClassVar[list[tuple[int, int]]] = []

    monkeypatch.setattr(subprocess, "Popen", Scripted)
    monkeypatch.setattr(process.shutil, "which", lambda tool, path: f"/usr/bin/{tool}")
    monkeypatch.setattr(os, "killpg", lambda *args: Scripted.killed.append(args))
    return Scripted


def test_the_guard_refuses_processes() -> None:
    for start in (lambda: subprocess.run(["true"], check=False), os.fork,
                  lambda: process.run(["true"]), lambda: os.system("true")):
        with pytest.raises(pytest.fail.Exception):
            start()


def test_the_guard_refuses_an_appliance() -> None:
    guestfs = pytest.importorskip("guestfs")
    with pytest.raises(pytest.fail.Exception):
        guestfs.GuestFS(python_return_dict=True)


def test_a_missing_tool_names_its_package() -> None:
    with pytest.raises(exceptions.ToolMissing) as caught:
        process.find("/nowhere/qemu-img")
    assert "qemu-utils" in caught.value.advice


def test_run_gives_output_in_a_clean_environment(child: type[Child]) -> None:
    child.out = b"hello"
    done = process.run(["tool", "--flag"], env={"X": "1"})
    assert done.stdout == b"hello"
    assert child.started["words"] == ["/usr/bin/tool", "--flag"]
    assert child.started["env"]["LC_ALL"] == "C"
    assert child.started["env"]["X"] == "1"
    assert child.started["stdin"] == subprocess.DEVNULL
    assert child.started["process_group"] == 0
    assert not child.killed


def test_run_reports_the_last_line_and_the_status(child: type[Child]) -> None:
    child.err, child.status = b"noise\ntool: the disk is full\n\n", 3
    with pytest.raises(exceptions.ToolFailed, match=r"tool failed \(status 3\): .*disk is full"):
        process.run(["tool"])
    assert process.run(["tool"], ok=(0, 3)).returncode == 3


def test_run_names_the_signal(child: type[Child]) -> None:
    child.status = -signal.SIGSEGV
    with pytest.raises(exceptions.ToolFailed, match=r"signal 11.*no reason"):
        process.run(["tool"])


def test_a_timeout_kills_the_group(child: type[Child]) -> None:
    child.hangs = True
    with pytest.raises(exceptions.ToolFailed, match="no end after 5 s"):
        process.run(["tool"], timeout=5)
    assert child.killed == [(child.pid, signal.SIGKILL)]


def test_reading_to_the_end_checks_the_status(child: type[Child]) -> None:
    child.out, child.err, child.status = b"part of it", b"disk on fire", 1
    with (pytest.raises(exceptions.ToolFailed, match="disk on fire"),
          process.reading(["tool"]) as stream):
        assert stream.read() == b"part of it"


def test_reading_may_stop_early(child: type[Child]) -> None:
    child.out, child.status = b"x" * (4 << 20), 1
    with process.reading(["tool"]) as stream:
        assert stream.read(10) == b"x" * 10
    assert child.killed


def test_the_readers_own_error_is_the_one_seen(child: type[Child]) -> None:
    child.status = 1
    with pytest.raises(KeyError), process.reading(["tool"]) as stream:
        stream.read()
        raise KeyError
    assert child.killed


def test_writing_checks_the_status(child: type[Child]) -> None:
    child.err, child.status = b"cannot write", 1
    with (pytest.raises(exceptions.ToolFailed, match="cannot write"),
          process.writing(["tool"]) as stream):
        stream.write(b"data")


def test_a_broken_pipe_shows_the_tools_own_reason(child: type[Child]) -> None:
    child.err, child.status = b"unknown option", 2
    with (pytest.raises(exceptions.ToolFailed, match="unknown option"),
          process.writing(["tool"])):
        raise BrokenPipeError
    child.status = 0
    with (pytest.raises(exceptions.ToolFailed, match="did not read all"),
          process.writing(["tool"])):
        raise BrokenPipeError


def test_a_word_with_nul_is_one_clear_error(child: type[Child],
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise ValueError("embedded null byte")

    monkeypatch.setattr(subprocess, "Popen", refused)
    with pytest.raises(exceptions.ToolFailed, match="null byte"):
        process.run(["tool", "a\0b"])
