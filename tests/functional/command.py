"""Running the real command, and looking for what it left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
#: In the environment of the command, so of all that it starts.
_MARK = "SPLITIMAGE_TEST"


class Done(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


class Command:
    """``splitimage`` on one store.

    :param store: its directory
    :param options: global ones, for every run
    :param env: likewise, of the environment
    """

    def __init__(self, store: Path, *options: str | Path,
                 env: Mapping[str, str] | None = None) -> None:
        self.store, self.options, self.env = store, options, env or {}
        self.mark = f"{_MARK}={uuid.uuid4()}"

    def words(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "splitimage_driver.cli", "--store", str(self.store),
                *map(str, self.options), *map(str, words)]

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), _MARK: self.mark.partition("=")[2],
                **self.env, **(env or {})}

    def __call__(self, *words: str | Path, env: Mapping[str, str] | None = None,
                 cwd: Path | None = None, timeout: float = 300) -> Done:
        done = subprocess.run(self.words(*words), env=self.environment(env), cwd=cwd,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout,
                              text=True, errors="surrogateescape", check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    # -- what is left --------------------------------------------------------------

    def leftovers(self) -> list[str]:
        """Scratch of the store, processes, and what ``store check`` finds."""
        found = [f"scratch {path.name}" for path in (self.store / "tmp").glob("*")]
        found += [f"process {pid}" for pid in self.processes()]
        checked = self("store", "check", "-f", "json")
        found += [f"{f['kind']} {f['subject']}: {f['detail']}" for f in checked.json]
        return found

    def processes(self) -> list[int]:
        """Of all that the command has started; they get a moment to end."""
        end = time.monotonic() + 5
        while True:
            found = [int(path.name) for path in Path("/proc").glob("[0-9]*")
                     if self._mine(path)]
            if not found or time.monotonic() > end:
                return found
            time.sleep(0.1)

    def _mine(self, process: Path) -> bool:
        try:
            return self.mark.encode() in (process / "environ").read_bytes().split(b"\0")
        except OSError:
            return False


def refused(done: Done, code: int, *words: str) -> None:
    """One line that says what and where, one hint, the exit code, no more."""
    assert done.status == code, (done.status, done.err)
    assert done.out == ""
    lines = done.err.splitlines()
    assert len(lines) == 2, done.err
    assert lines[0].startswith("splitimage: "), done.err
    assert lines[1].startswith("  hint: "), done.err
    assert all(word in lines[0] for word in words), (words, lines[0])
