"""OpenStack from PyPI, and this project, in an environment of their own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.cloud import ROOT, CloudError

#: The distribution's Python, because only that has guestfs.
_PYTHON = "/usr/bin/python3"
_HERE = Path(__file__).resolve().parent
_WANTED = (_HERE / "requirements.txt", _HERE / "constraints.txt", ROOT / "requirements.txt",
           ROOT / "setup.cfg", ROOT / "setup.py", ROOT / "pyproject.toml")


class Packages:
    """:param directory: the virtual environment
    :ivar key: the same as long as the same is wanted of it
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        digest = hashlib.sha256(str(directory).encode())
        for path in _WANTED:
            digest.update(path.read_bytes())
        self.key = digest.hexdigest()[:16]
        self._stamp = directory / f".set-up-{self.key}"

    def program(self, name: str) -> Path:
        return self.directory / "bin" / name

    def packaged(self, name: str) -> str:
        """The text of a file that a distribution puts below its prefix."""
        return (self.directory / name).read_text()

    def library(self, name: str) -> Path:
        """The directory of a Python package."""
        return next(self.directory.glob("lib/python3.*/site-packages")) / name

    @property
    def is_there(self) -> bool:
        return self._stamp.exists()

    def install(self, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            made = self.directory / ".made"
            if not made.exists():  # or not to its end
                shutil.rmtree(self.directory, ignore_errors=True)
                self._run([_PYTHON, "-m", "venv", "--system-site-packages", self.directory],
                          output.fileno(), log)
                made.touch()
            self._run([self.program("pip"), "install", "--progress-bar", "off",
                       "--constraint", _HERE / "constraints.txt",
                       "--requirement", _HERE / "requirements.txt", "--editable", ROOT],
                      output.fileno(), log)
        for old in self.directory.glob(".set-up-*"):
            old.unlink()
        self._stamp.touch()

    @staticmethod
    def _run(words: list[str | Path], output: int, log: Path) -> None:
        environment = os.environ | {
            "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore",
            "SKIP_GENERATE_AUTHORS": "1", "SKIP_WRITE_GIT_CHANGELOG": "1"}
        # Without the history pbr cannot name a version.
        if not (ROOT / ".git").exists():
            environment.setdefault("PBR_VERSION", "0.0.1.dev0")
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=output,
                              stderr=subprocess.STDOUT, env=environment, check=False)
        if done.returncode:
            raise CloudError(f"the packages cannot be installed, see {log}",
                             "\n".join(log.read_text(errors="replace").splitlines()[-20:]))
