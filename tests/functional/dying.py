"""The real command in a process that stops at each of its moments, to be let
go on or killed there.

A *moment* is a step of the work as seen from outside: an operation of the
progress stream begins or ends, a transaction has committed, a file or
directory of the store is about to be made, renamed, changed or removed.
Between two moments nothing of the store changes but contents of files that
no record names.

This file is the child, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from splitimage_driver.application import Application
from splitimage_driver.store.base import Store
from tests.functional.command import ROOT, Command

_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.utime", "os.link",
            "os.symlink", "os.truncate")


# -- the child -------------------------------------------------------------------

class _Moments:
    """Tells the parent of each moment and waits for its answer."""

    def __init__(self, store: str, tell: int, listen: int) -> None:
        self.store = os.path.realpath(store)
        self._out, self._in = tell, listen
        self._lock = threading.Lock()
        self._busy = threading.local()

    def tell(self, label: str) -> None:
        if getattr(self._busy, "now", False):
            return
        with self._lock:
            self._busy.now = True
            try:
                os.write(self._out, f"{label}\n".encode())
                if not os.read(self._in, 1):
                    os._exit(1)  # the parent is gone
            finally:
                self._busy.now = False

    def event(self, event: Any) -> None:
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


def main(tell: str, listen: str, *words: str) -> int:
    from splitimage_driver import progress
    from splitimage_driver.cli.main import main as command
    from splitimage_driver.store.database import Database

    moments = _Moments(words[words.index("--store") + 1], int(tell), int(listen))
    write = Database.writing

    @contextlib.contextmanager
    def writing(self: Database) -> Iterator[Any]:
        with write(self) as connection:
            yield connection
        moments.tell("committed")

    Database.writing = writing  # type: ignore[method-assign]
    sys.addaudithook(moments.audit)
    with progress.listening(moments.event):
        return command(words)


# -- the parent ------------------------------------------------------------------

class Child:
    """A running ``splitimage``. Iterate over its moments; it goes on with the
    next step of the iteration, or never, after :meth:`kill`.

    :param step: stop at each moment
    :param config: lines of a configuration file
    """

    def __init__(self, store: Path, *words: str | Path, step: bool = False,
                 config: str = "") -> None:
        self._place = tempfile.TemporaryDirectory(prefix="splitimage-child-")
        place = Path(self._place.name)
        (place / "conf").write_text(config)
        self.command = Command(store, "--config-file", place / "conf")
        self.store, self._out, self._err = store, place / "out", place / "err"
        line = self.command.words(*words)
        tell, listen = os.pipe(), os.pipe()
        if step:
            line = [sys.executable, "-m", "tests.functional.dying", str(tell[1]), str(listen[0]),
                    *line[3:]]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=ROOT,
                pass_fds=(tell[1], listen[0]) if step else (), env=self.command.environment())
        os.close(tell[1])
        os.close(listen[0])
        self._told = os.fdopen(tell[0], "r")
        self._answer = listen[1]

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._told.close()
        os.close(self._answer)
        self._place.cleanup()

    def __iter__(self) -> Iterator[str]:
        for line in self._told:
            yield line.strip()
            if self.process.poll() is not None:
                return
            with contextlib.suppress(BrokenPipeError):
                os.write(self._answer, b"\n")

    def reach(self, *labels: str) -> None:
        """Let it go on to the first moment of that name, from there to the
        first of the next name, and so on; it waits there."""
        left = list(labels)
        while left:
            line = self._told.readline()
            assert line, f"it ended before {left[0]}: {self.errors()}"
            if line.strip() == left[0]:
                left.pop(0)
            if left:
                self.go()

    def go(self) -> None:
        """From the moment that it waits at."""
        os.write(self._answer, b"\n")

    def wait(self, timeout: float = 600) -> int:
        """Its status; it goes on without stops from where it waits."""
        if self.process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._answer, b"\n" * 4096)
            for _ in self._told:
                pass
        return self.process.wait(timeout)

    def success(self) -> Any:
        """What it printed, which must be JSON; None if nothing."""
        status = self.wait()
        assert status == 0, (status, self.errors())
        text = self._out.read_text()
        return json.loads(text) if text.strip() else None

    def kill(self, number: int = signal.SIGKILL) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(600)

    def errors(self) -> str:
        return self._err.read_text()[-3000:]

    def orphans(self) -> list[int]:
        """What it started, directly or not, and still runs; after a moment
        that it gets to end."""
        return self.command.processes()


def run(store: Path, *words: str | Path, config: str = "") -> Any:
    """The command to its end, which must be a success."""
    with Child(store, *words, config=config) as child:
        return child.success()


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not happen within {seconds:g} s"
        time.sleep(0.05)


# -- the store as it is found ------------------------------------------------------

class State(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar findings: of ``store check``
    :ivar members: COMPOSITE/PART of every composite
    :ivar files: all but database, locks and what is in servers' directories
    """

    findings: tuple[str, ...]
    queue: int
    composites: tuple[str, ...]
    members: tuple[str, ...]
    parts: tuple[str, ...]
    images: tuple[str, ...]
    servers: tuple[str, ...]
    files: frozenset[str]


@contextlib.contextmanager
def opened(store: Path, **overrides: Any) -> Iterator[Application]:
    """The services on a store; ``group__name=value`` changes an option."""
    made = Application(store, files=[os.devnull])
    for name, value in overrides.items():
        group, _, option = name.partition("__")
        made.conf.set_override(option, value, group)
    with contextlib.closing(made.store):
        yield made


def state(path: Path) -> State:
    """What there is, once the store has been opened."""
    with opened(path) as application:
        store: Store = application.store
        return State(
            findings=tuple(f"{f.kind} {f.subject}: {f.detail}" for f in store.check()),
            queue=len(store.queue()), composites=tuple(c.name for c in store.composites()),
            members=tuple(sorted(f"{c.name}/{n}" for c in store.composites() for n in c.parts)),
            parts=tuple(p.name for p in store.parts()),
            images=tuple(sorted(i.name for i in store.images())),
            servers=tuple(sorted(s.name for s in store.servers())),
            files=frozenset(
                str(file.relative_to(path)) for where in ("objects", "manifests", "tmp")
                for file in (path / where).rglob("*")
                if not file.is_dir() or where == "tmp") | frozenset(
                str(file.relative_to(path)) for file in (path / "servers").iterdir()))


def delete_servers(path: Path) -> None:
    """So that none outlives a test, however that ended."""
    with opened(path) as application:
        for server in application.servers.list():
            application.servers.delete(server.id)


def shadow(store: Path, copy: Path) -> Path:
    """The store as its user's death would leave it now: all that is in its
    directory, with locks that nobody holds. Files that are never changed in
    place are shared with the original."""
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


Moments = list[tuple[str, State]]


def moments_of(store: Path, words: Sequence[str | Path], copy: Path) -> Moments:
    """Every moment of a command with the store's state were it killed there;
    the command is let go on to its end."""
    found = []
    with Child(store, *words, step=True) as child:
        for label in child:
            found.append((label, state(shadow(store, copy))))
        assert child.process.wait() == 0, child.errors()
    shutil.rmtree(copy, ignore_errors=True)
    return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
