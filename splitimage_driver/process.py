"""The one door for subprocesses.

Every child runs in a process group of its own, with ``LC_ALL=C``, and dies
with the thread that started it, even when that is killed with SIGKILL
(``PR_SET_PDEATHSIG``). A child that shall outlive the command is started by
:func:`leave`, or daemonises itself (``qemu -daemonize``): the signal is not
inherited. Because the kernel binds it to the starting *thread*, use a child in
the thread that opened it.

Stdin is /dev/null unless something is sent, so that no tool can wait for a
terminal.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, BinaryIO, cast

from oslo_log import log as logging

from splitimage_driver import exceptions

LOG = logging.getLogger(__name__)

#: Debian package of a tool, where it is not simply the tool's own name.
PACKAGES = {
    "blkid": "util-linux", "dpkg-deb": "dpkg", "extlinux": "extlinux",
    "getfacl": "acl", "guestfish": "libguestfs-tools", "losetup": "util-linux",
    "mke2fs": "e2fsprogs", "mksquashfs": "squashfs-tools", "mount": "mount",
    "qemu-img": "qemu-utils", "qemu-nbd": "qemu-utils",
    "qemu-system-aarch64": "qemu-system-arm", "qemu-system-x86_64": "qemu-system-x86",
    "rpmdb": "rpm", "setcap": "libcap2-bin", "setfacl": "acl", "setfattr": "attr",
    "sqfs2tar": "squashfs-tools-ng", "sqfstar": "squashfs-tools",
    "supermin": "supermin", "unsquashfs": "squashfs-tools",
    "virt-customize": "libguestfs-tools", "xz": "xz-utils",
}
#: Looked at after PATH: an ordinary user's PATH lacks them.
_MORE_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_PIPE = 1 << 20
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

Argv = Sequence[str | Path]


def find(tool: str) -> str:
    """The full path of a tool.

    :raises ToolMissing: naming the Debian package that has it
    """
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), *_MORE_PLACES))
    found = shutil.which(tool, path=places)
    if found is None:
        name = Path(tool).name
        raise exceptions.ToolMissing(tool=tool, package=PACKAGES.get(name, name))
    return found


def run(argv: Argv, *, input: bytes | None = None, timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        ok: Container[int] = (0,)) -> subprocess.CompletedProcess[bytes]:
    """Run a tool to its end; its stdout and stderr are in the result.

    :param input: sent to its stdin
    :param timeout: seconds; after it the whole process group is killed
    :param env: added to this process's environment
    :param ok: exit statuses that are no failure
    :raises ToolMissing: it is not installed
    :raises ToolFailed: another status, or the time is over; the reason is
        the last line of its stderr
    """
    stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
    with _started(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                  env=env) as child:
        try:
            out, err = child.communicate(input, timeout)
        except subprocess.TimeoutExpired as expired:
            raise exceptions.ToolFailed(
                tool=_name(argv), status=f"no end after {timeout:g} s",
                reason=_last_line(expired.stderr or b"")) from None
    if child.returncode not in ok:
        raise _failure(argv, child.returncode, err)
    return subprocess.CompletedProcess([os.fspath(a) for a in argv], child.returncode, out, err)


def leave(argv: Argv, *, input: bytes, output: Path, env: Mapping[str, str]) -> int:
    """Start a tool that goes on when this process has ended, in a session of its own.

    :param input: sent to its stdin: what fits into a pipe
    :param output: file for its stdout and stderr, made anew, for its user only
    :param env: added to this process's environment
    :returns: its process id
    :raises ToolMissing: it is not installed
    :raises ToolFailed: it cannot be started
    """
    try:
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(log, "wb") as stream:
            child = subprocess.Popen(  # noqa: S603 - a list of words, no shell
                [find(os.fspath(argv[0])), *argv[1:]], stdin=subprocess.PIPE, stdout=stream,
                stderr=stream, env={**os.environ, **env}, start_new_session=True)
        with cast(BinaryIO, child.stdin) as stdin:
            stdin.write(input)
    except (OSError, ValueError) as error:
        raise exceptions.ToolFailed(tool=_name(argv), status="not started",
                                    reason=str(error)) from error
    child.returncode = 0  # nobody here waits for it
    return child.pid


@contextlib.contextmanager
def reading(argv: Argv, *, env: Mapping[str, str] | None = None) -> Iterator[BinaryIO]:
    """A tool's stdout as a stream.

    Read to the end, a status other than 0 is an error. Left early, or by an
    exception, the tool is killed and its status means nothing.

    :raises ToolMissing: it is not installed
    :raises ToolFailed: at the end of the block
    """
    with (tempfile.TemporaryFile() as errors,
          _started(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                   env=env) as child):
        watched = _Watched(cast(IO[bytes], child.stdout))
        yield cast(BinaryIO, io.BufferedReader(watched, _PIPE))
        if watched.ended and child.wait() != 0:
            raise _failure(argv, child.returncode, _tail(errors))


@contextlib.contextmanager
def writing(argv: Argv, *, env: Mapping[str, str] | None = None) -> Iterator[BinaryIO]:
    """A tool's stdin as a stream; its stdout is thrown away.

    At the end of the block stdin is closed and the tool's end awaited; left
    by an exception, the tool is killed. Where the tool gives up first, its
    failure is what is raised, not the broken pipe.

    :raises ToolMissing: it is not installed
    :raises ToolFailed: a status other than 0
    """
    with (tempfile.TemporaryFile() as errors,
          _started(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors,
                   env=env) as child):
        stdin = cast(BinaryIO, child.stdin)
        broken: BrokenPipeError | None = None
        try:
            yield stdin
            stdin.close()
        except BrokenPipeError as error:
            broken = error
        if child.wait() != 0:
            raise _failure(argv, child.returncode, _tail(errors)) from broken
        if broken is not None:
            raise exceptions.ToolFailed(tool=_name(argv), status="ended early",
                                        reason="it did not read all of its input") from broken


@contextlib.contextmanager
def _started(argv: Argv, *, stdin: int, stdout: int, stderr: int | IO[bytes],
             env: Mapping[str, str] | None) -> Iterator[subprocess.Popen[bytes]]:
    """A child that is certainly gone at the end of the block."""
    words = [find(os.fspath(argv[0])), *(os.fspath(word) for word in argv[1:])]
    LOG.debug("starting %s", shlex.join(words))
    try:
        child = subprocess.Popen(  # noqa: S603 - a list of words, no shell
            words, stdin=stdin, stdout=stdout, stderr=stderr,
            bufsize=_PIPE if stdin == subprocess.PIPE else 0, pipesize=_PIPE,
            env={**os.environ, "LC_ALL": "C", **(env or {})}, process_group=0,
            preexec_fn=_dying_with(os.getpid()))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise exceptions.ToolFailed(tool=_name(argv), status="not started",
                                    reason=str(error)) from error
    try:
        yield child
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):  # unsent bytes of a killed child
                    pipe.close()
        child.wait()


def _dying_with(parent: int) -> Callable[[], None]:
    """To run in the child before exec: one system call, so that it is safe
    between fork and exec of a program with threads."""
    def bind() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)
    return bind


class _Watched(io.RawIOBase):
    """Passes a stream on and notes whether its end was seen."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = cast(io.RawIOBase, stream)
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._stream.readinto(buffer) or 0
        self.ended = self.ended or (count == 0 and len(buffer) > 0)
        return count


def _name(argv: Argv) -> str:
    return Path(argv[0]).name


def _failure(argv: Argv, status: int, errors: bytes) -> exceptions.ToolFailed:
    LOG.debug("%s ended with %d: %s", argv[0], status, errors.decode("utf-8", "replace"))
    shown = f"status {status}" if status >= 0 else f"signal {-status}"
    return exceptions.ToolFailed(tool=_name(argv), status=shown, reason=_last_line(errors))


def _last_line(errors: bytes) -> str:
    lines = [line.strip() for line in errors.decode("utf-8", "replace").splitlines()]
    return next((line[:500] for line in reversed(lines) if line), "it gave no reason")


def _tail(errors: IO[bytes]) -> bytes:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - 8192))
    return errors.read()
