from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from splitimage_driver import exceptions, process


def gone(pid: int, patience: float = 10.0) -> bool:
    """Whether a process ends within ``patience`` seconds (a zombie has)."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_run_passes_input_and_takes_output() -> None:
    done = process.run(["cat"], input=b"x" * 3_000_000)
    assert done.stdout == b"x" * 3_000_000
    assert process.run(["cat"]).stdout == b""
    assert process.run(["sh", "-c", "echo $LC_ALL $MORE"], env={"MORE": "x"}).stdout == b"C x\n"
    assert process.run(["sh", "-c", "exit 3"], ok=(0, 3)).returncode == 3


def test_failures_are_one_line() -> None:
    with pytest.raises(exceptions.ToolFailed, match=r"^ls failed \(status 2\): .*nowhere.*$"):
        process.run(["ls", "/nowhere"])
    with pytest.raises(exceptions.ToolFailed, match="signal 9"):
        process.run(["sh", "-c", "kill -9 $$"])
    with pytest.raises(exceptions.ToolMissing, match="no-such-tool"):
        process.run(["no-such-tool"])
    with pytest.raises(exceptions.ToolFailed, match="null byte"):
        process.run(["echo", "a\0b"])


def test_the_end_of_the_time_kills_children_of_children(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(exceptions.ToolFailed, match=r"no end after 0\.5 s"):
        process.run(["sh", "-c", f"sleep 1000 & echo $! > {note}; wait"], timeout=0.5)
    assert gone(int(note.read_text()))


def test_reading() -> None:
    with process.reading(["seq", "100000"]) as stream:
        assert stream.read().endswith(b"100000\n")
    with (pytest.raises(exceptions.ToolFailed, match="trouble"),
          process.reading(["sh", "-c", "echo data; echo trouble >&2; exit 1"]) as stream):
        assert stream.read() == b"data\n"


def test_reading_may_stop_early() -> None:
    with process.reading(["yes"]) as stream:
        assert stream.read(4) == b"y\ny\n"


def test_a_lot_on_stderr_blocks_nobody() -> None:
    with (pytest.raises(exceptions.ToolFailed, match="the last line"),
          process.reading(["sh", "-c", "seq 1000000 >&2; echo the last line >&2; exit 1"]) as out):
        assert out.read() == b""


def test_writing(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with process.writing(["dd", f"of={target}"]) as stream:
        stream.write(b"x" * 5_000_000)
    assert target.stat().st_size == 5_000_000
    with (pytest.raises(exceptions.ToolFailed, match=r"dd failed \(status 1\): .*nowhere"),
          process.writing(["dd", "of=/nowhere/x"]) as stream):
        for _ in range(100):
            stream.write(b"x" * 1_000_000)
    with pytest.raises(KeyError), process.writing(["cat"]) as stream:
        stream.write(b"x" * 100)
        raise KeyError


@pytest.mark.parametrize("way", ["run", "reading", "writing"])
def test_a_killed_parent_leaves_no_child(tmp_path: Path, way: str) -> None:
    note = tmp_path / "pid"
    script = f"""
from splitimage_driver import process
import time
argv = ["sh", "-c", "echo $$ > {note}.new; mv {note}.new {note}; exec sleep 1000"]
if {way!r} == "run":
    process.run(argv)
with getattr(process, {way!r})(argv) as stream:
    time.sleep(1000)
"""
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        deadline = time.monotonic() + 30
        while not note.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child = int(note.read_text())
        assert not gone(child, 0.1)
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert gone(child)


def test_a_daemon_outlives_the_call() -> None:
    done = process.run(["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $!"])
    pid = int(done.stdout)
    try:
        assert not gone(pid, 0.3)
    finally:
        os.kill(pid, signal.SIGKILL)
