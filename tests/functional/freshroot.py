"""A Debian 12 with git and bash and nothing else, in a directory of its own.

Commands run in it by chroot, in name spaces of their own: what they mount
and start is gone when they end, however they end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
#: The clone, as seen in the fresh root.
CLONE = "/root/splitimage-driver"
_CERTIFICATES = "/usr/local/share/authorities.crt"
_ENTER = """
set -e
mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
exec chroot "$@"
"""


class FreshRoot:
    """:ivar path: the root's directory on this host"""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._environment = {"HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                             "TERM": "dumb", "LC_ALL": "C.UTF-8"}
        # A host behind a proxy has the proxy's authority among its own.
        certificates = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
        if certificates:
            shutil.copyfile(certificates, path / _CERTIFICATES.lstrip("/"))
            self._environment["PIP_CERT"] = _CERTIFICATES

    def run(self, *command: str, log: Path | None = None, timeout: float | None = None,
            network: bool = True, environment: Mapping[str, str] | None = None,
            ) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone; its output is stdout and stderr in one.

        :param log: file to write the output to as it comes
        :param network: False: it finds no network at all
        :raises subprocess.TimeoutExpired: all that it started is dead then
        """
        words = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork",
                 "--kill-child", *([] if network else ["--net"]), "sh", "-c", _ENTER, "enter",
                 str(self.path), "env", "-i",
                 *(f"{k}={v}" for k, v in (self._environment | dict(environment or {})).items()),
                 "bash", "-c", 'cd "$0" && exec "$@"', CLONE, *command]
        with (log or self.path / "output").open("w+", errors="replace") as output:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=output,
                                  stderr=subprocess.STDOUT, timeout=timeout, check=False)
            output.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, output.read())


@contextmanager
def fresh_root(base: Path) -> Iterator[FreshRoot]:
    """A new root with a clone of what is committed; removed afterwards.

    :param base: directory to make it in: several GB, no tmpfs
    """
    base.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="fresh-", dir=base))
    try:
        path.chmod(0o755)
        _run("mmdebstrap", "--quiet", "--variant=minbase", "--include=git,bash", "bookworm",
             str(path))
        _run("git", "clone", "--quiet", f"file://{ROOT}", str(path) + CLONE)
        yield FreshRoot(path)
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", path], check=True)


def _run(*words: str) -> None:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
