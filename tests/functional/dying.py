"""A command in a process of its own that stops at each of its moments, to be
let go on or killed there.

A *moment* is a step of the work as seen from outside: an operation of the
progress stream begins or ends, a transaction has committed, a file or
directory of the store is about to be made, renamed, changed or removed.
Between two moments nothing of the store changes but contents of files that
no record names.

This file is the child, too: ``python -m tests.functional.dying TASK``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from splitimage_driver.application import Application
from splitimage_driver.assembly import disks
from splitimage_driver.model.plan import Request
from splitimage_driver.progress import Event, listening
from splitimage_driver.servers import Wish
from splitimage_driver.store.database import Database
from tests.functional import bootgold

ROOT = Path(__file__).resolve().parents[2]
_MARK = "SPLITIMAGE_TEST_MARK"
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.utime", "os.link",
            "os.symlink", "os.truncate")


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar do: ``capture``, ``assemble``, ``launch``, ``booted``
    :ivar step: stop at each moment
    :ivar options: "group.name": value
    """

    do: str
    store: str
    gold: str = ""
    name: str = "mini"
    parts: tuple[str, ...] = ()
    server: str = ""
    publish: str = "assembled"
    step: bool = False
    options: dict[str, Any] = {}


# -- the child -------------------------------------------------------------------

class _Moments:
    """Tells the parent of each moment and waits for its answer."""

    def __init__(self, store: Path) -> None:
        self.store = os.path.realpath(store)
        self._lock = threading.Lock()
        self._busy = threading.local()

    def tell(self, label: str) -> None:
        if getattr(self._busy, "now", False):
            return
        with self._lock:
            self._busy.now = True
            try:
                print(label, flush=True)
                if not sys.stdin.readline():
                    os._exit(1)  # the parent is gone
            finally:
                self._busy.now = False

    def event(self, event: Event) -> None:
        if event.done:
            self.tell(f"{event.operation} ends")
        elif event.current == 0:
            self.tell(f"{event.operation} begins")
        # What is between is a matter of time.

    def audit(self, what: str, arguments: tuple[Any, ...]) -> None:
        opened = what == "open" and isinstance(arguments[2], int) and arguments[2] & (
            os.O_CREAT | os.O_WRONLY | os.O_RDWR)
        if not (opened or what in _CHANGES) or not isinstance(arguments[0], (str, bytes, Path)):
            return
        path = os.fsdecode(arguments[0])
        if path.startswith(self.store + "/"):
            where = path[len(self.store) + 1:].split("/")[0]
            self.tell(f"{what.removeprefix('os.')} {where}")


def _perform(task: Task, application: Application) -> None:
    request = Request(composite=task.name, parts=task.parts)
    if task.do == "capture":
        application.images.capture(task.name, bootgold.there(Path(task.gold)))
    elif task.do == "assemble":
        application.images.assemble(request)
    elif task.do == "launch":
        application.servers.launch(Wish(request=request, memory=128, cpus=1, ports=(80,),
                                        name=task.server, publish=task.publish))
    elif task.do == "booted":
        application.servers.publish(task.server)
    else:
        raise ValueError(task.do)


def application(task: Task) -> Application:
    made = Application(Path(task.store), files=[os.devnull])
    for name, value in task.options.items():
        group, _, option = name.partition(".")
        made.conf.set_override(option, value, group)
    return made


def main(text: str) -> None:
    task = msgspec.json.decode(text, type=Task)
    made = application(task)
    with contextlib.ExitStack() as stack:
        if task.step:
            moments = _Moments(Path(task.store))
            write = Database.writing

            @contextlib.contextmanager
            def writing(self: Database) -> Iterator[Any]:
                with write(self) as connection:
                    yield connection
                moments.tell("committed")

            Database.writing = writing  # type: ignore[method-assign]
            stack.enter_context(listening(moments.event))
            sys.addaudithook(moments.audit)
        stack.callback(made.store.close)
        _perform(task, made)
    if task.step:
        sys.stdout.write("done\n")


# -- the parent ------------------------------------------------------------------

class Child:
    """The process of a task. Iterate over its moments; it goes on with the
    next step of the iteration, or never, after :meth:`kill`."""

    def __init__(self, task: Task, log: Path) -> None:
        self.mark = secrets.token_hex(8)
        self.log = log
        self._errors = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.functional.dying",
             msgspec.json.encode(task).decode()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            cwd=ROOT, env={**os.environ, _MARK: self.mark, "PYTHONPATH": str(ROOT)})
        self._stepping = task.step

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def __iter__(self) -> Iterator[str]:
        assert self.process.stdout is not None and self.process.stdin is not None
        for line in self.process.stdout:
            label = line.strip()
            if label == "done":
                break
            yield label
            if self.process.poll() is not None:
                return
            self.process.stdin.write("\n")
            self.process.stdin.flush()

    def wait(self, timeout: float = 600) -> int:
        """Its status; it goes on without stops."""
        if self._stepping:
            for _ in self:
                pass
        return self.process.wait(timeout)

    def kill(self, number: int = signal.SIGKILL) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(600)

    def errors(self) -> str:
        return self.log.read_text()

    def orphans(self) -> list[int]:
        """Processes that it started, directly or not, and that still run."""
        found = []
        for place in Path("/proc").iterdir():
            if place.name.isdigit() and int(place.name) not in (self.process.pid, os.getpid()):
                with contextlib.suppress(OSError):
                    if (f"{_MARK}={self.mark}".encode() in (place / "environ").read_bytes()
                            .split(b"\0")):
                        found.append(int(place.name))
        return found

    def alone(self) -> None:
        """Wait until nothing of it runs any more."""
        until(lambda: not self.orphans())


def run(task: Task, log: Path) -> None:
    """Let it go to its end, which must be a success."""
    with Child(task, log) as child:
        status = child.wait()
        assert status == 0, child.errors()[-2000:]


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not happen within {seconds:g} s"
        time.sleep(0.05)


# -- a store as a crash leaves it --------------------------------------------------

def shadow(store: Path, copy: Path) -> Path:
    """The store as it would be if its user died now: everything that is in
    its directory, with locks that nobody holds. What is never changed in
    place is shared with the original."""
    shutil.rmtree(copy, ignore_errors=True)
    for place, _, files in os.walk(store):
        there = copy / Path(place).relative_to(store)
        there.mkdir(mode=0o700)
        for name in files:
            source = Path(place, name)
            with contextlib.suppress(FileNotFoundError):  # a tool's own, gone just now
                if name.endswith(".lock"):
                    (there / name).touch(0o600)
                elif name.startswith("splitimage.db"):
                    shutil.copy2(source, there / name)
                elif source.is_file():
                    os.link(source, there / name)
    return copy


def contents(store: Path) -> set[str]:
    """Every file of a store but its database and locks."""
    return {str(path.relative_to(store)) for where in ("objects", "manifests", "tmp", "servers")
            for path in (store / where).rglob("*") if not path.is_dir()}


def boots(disk: Path, scratch: Path) -> int:
    """How often the guest of a standalone disk has booted."""
    disks.convert(disk, "qcow2", scratch, "raw")
    with scratch.open("rb") as stream:
        stream.seek(bootgold.tinyguest.SECTOR * 512)
        return int(stream.read(512).strip(b"\0\n") or b"0")


def subsets() -> Iterator[tuple[str, ...]]:
    """Different combinations of the miniature's software, small ones first;
    all of them together would be the gold machine."""
    for size in range(1, len(bootgold.NAMES)):
        yield from itertools.combinations(bootgold.NAMES, size)


if __name__ == "__main__":
    main(sys.argv[1])
