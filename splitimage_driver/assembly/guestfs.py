"""One open disk in the libguestfs appliance: the only importer of guestfs.

A session is one appliance launch. It has no network, names the disk's
format, and never runs anything of the guest: the few commands it gives are
the appliance's own, on paths that were resolved before.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import os
import re
import secrets
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from oslo_log import log as logging

from splitimage_driver import doctor, exceptions
from splitimage_driver.assembly.base import Opener, Session, Space
from splitimage_driver.launch import processes
from splitimage_driver.model.composite import Mount
from splitimage_driver.progress import Operation

LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Bytes of one command line sent to the appliance; a message may have 4 MiB.
_COMMAND = 96 * 1024
#: What the appliance's kernel says of a write that failed; a disk that cannot
#: discard is none.
_LOST = re.compile(r"(?<!not supported) error, dev \w+, sector .*WRITE.*")
#: How tar ends, whatever the reason was.
_UNTELLING = "Exiting with failure status due to previous errors"
#: Likewise where a file system became full in the middle of a write.
_SHORT = re.compile(r"Wrote only \d+ of \d+ bytes$")
_SUBVOLUME = re.compile(r"^(btrfsvol:/dev/)[hsv]d[a-z]+(?=\d*/)")
_SOCKETS = 'find "$@" -mindepth 1 -maxdepth 1 -type s -delete'
_FILESYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat")


class DiskSession(Session):
    """A context manager around one appliance with one disk.

    libguestfs' long calls run in a thread of their own, because a call cannot
    be interrupted and Python sees to signals only between two of the main
    thread's steps: a command that is told to end kills the appliance and ends
    at once.

    :param disk: the image file
    :param disk_format: ``qcow2`` or ``raw``
    :param mounts: what to mount, in order; None: look for the system and
        mount it as its own fstab says
    :param options: the configuration group ``assembly``
    :param emulate: whether hardware virtualisation does not work here
    :param scratch: for the appliance's own files, so that those of a killed
        process are found again; None: the system's temporary directory
    :raises NoOperatingSystem: none found, with ``mounts`` None
    :raises ApplianceFailed: anything inside went wrong
    """

    def __init__(self, disk: Path, disk_format: str, mounts: Sequence[Mount] | None, *,
                 options: Any, emulate: bool, readonly: bool = False,
                 scratch: Path | None = None, shown: str | None = None) -> None:
        self.disk, self.disk_format, self.readonly = disk, disk_format, readonly
        self.mounts: tuple[Mount, ...] = tuple(mounts or ())
        self._inspect = mounts is None
        self._options, self._emulate = options, emulate
        self._shown, self._scratch = shown or str(disk), scratch
        self._handle: Any = None
        self._worker: concurrent.futures.Executor | None = None
        #: Of the appliance's process: libguestfs tells no pid during a call.
        self._name = f"splitimage-appliance-{secrets.token_hex(8)}"

    # -- life -------------------------------------------------------------------

    def __enter__(self) -> DiskSession:
        try:
            import guestfs
        except ImportError as error:
            raise exceptions.ToolMissing(tool="the libguestfs python binding",
                                         package="python3-guestfs") from error
        doctor.kernel()
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "splitimage-appliance")
        try:
            # Made there too: in any other thread it prints its errors itself.
            self._handle = self._run(guestfs.GuestFS, python_return_dict=True)
            self._call("preparation", self._configure)
            self._launch()
            if self._inspect:
                self.mounts = self._call("inspection", self._find_mounts)
            self._call("mounting", self._mount)
        except BaseException:
            self._close()
            raise
        return self

    def _configure(self) -> None:
        g = self._handle
        g.set_backend("direct")
        if self._emulate:
            g.set_backend_setting("force_tcg", "1")
        g.set_network(False)
        g.set_autosync(True)
        g.set_memsize(self._options.appliance_memory)
        g.set_identifier("splitimage")
        g.config("-name", self._name)
        # qemu's own way with a full host disk is to stop the machine, and
        # libguestfs would wait for ever. Told to the guest, it is found in
        # the kernel's log before anything counts as written.
        g.config("-global", "scsi-hd.werror=report")
        if self._scratch is not None:
            g.set_tmpdir(str(self._scratch))
        g.add_drive(str(self.disk), format=self.disk_format, readonly=self.readonly,
                    cachemode=None if self.readonly else self._options.cache_mode,
                    discard=None if self.readonly else "besteffort")

    def _launch(self) -> None:
        seconds = self._options.launch_timeout
        try:
            with Operation("appliance", total=1, unit="steps", subject=self._shown) as step:
                self._run(self._handle.launch, seconds=seconds)
                step.advance()
        except TimeoutError as error:
            raise exceptions.ApplianceTimeout(seconds=seconds, step="launch",
                                              reason="") from error
        except RuntimeError as error:
            raise exceptions.ApplianceFailed(step="launch", reason=_line(error)) from error

    def _run(self, function: Callable[..., _T], *args: Any, seconds: float | None = None,
             **kwargs: Any) -> _T:
        """A call of libguestfs, ended with the appliance by whatever
        exception reaches the caller meanwhile.

        :raises TimeoutError: after ``seconds``; the appliance is gone then
        """
        assert self._worker is not None  # noqa: S101 (within the context)
        call = self._worker.submit(function, *args, **kwargs)
        try:
            return call.result(seconds)
        finally:
            while not call.done():
                self._kill()
                concurrent.futures.wait([call], 0.1)

    def _kill(self) -> None:
        for pid in processes.pids():
            if self._name in processes.arguments(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and not self.readonly:
            try:
                self._call("shutdown", self._shut_down)
            finally:
                self._close()
        else:
            self._close()

    def _shut_down(self) -> None:
        self._handle.umount_all()
        lost = _LOST.search(self._handle.dmesg())
        if lost is not None:
            raise RuntimeError(f"a write did not reach the disk: {lost[0].strip()}")
        self._handle.shutdown()

    def _close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(RuntimeError):
                self._run(handle.close)
        if self._worker is not None:
            self._worker.shutdown()
            self._worker = None

    def _call(self, step: str, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        try:
            return self._run(function, *args, **kwargs)
        except RuntimeError as error:
            raise exceptions.ApplianceFailed(step=step, reason=_line(error)) from error

    # -- what is on the disk -------------------------------------------------------

    def _find_mounts(self) -> tuple[Mount, ...]:
        g = self._handle
        roots = g.inspect_os()
        if not roots:
            raise exceptions.NoOperatingSystem(path=self._shown)
        if len(roots) > 1:
            raise exceptions.Unsupported(what=self._shown,
                                         reason=f"it holds {len(roots)} operating systems")
        kind = g.inspect_get_type(roots[0])
        if kind != "linux":
            raise exceptions.Unsupported(what=self._shown,
                                         reason=f"its system is {kind}, not linux")
        found = []
        points = g.inspect_get_mountpoints(roots[0])
        for point in sorted(points, key=lambda p: (len(p), p)):
            device = _first_disk(points[point])
            fstype = g.vfs_type(device)
            if fstype not in _FILESYSTEMS:
                raise exceptions.Unsupported(
                    what=f"{point} of {self._shown}",
                    reason=f"its file system is {fstype or 'unknown'}, not one of "
                           + ", ".join(_FILESYSTEMS))
            found.append(Mount(device, point, fstype))
        return tuple(found)

    def _mount(self) -> None:
        for mount in self.mounts:
            options = "ro" if self.readonly else "discard" if mount.fstype != "vfat" else ""
            if mount.options:
                options = f"{options},{mount.options}".strip(",")
            self._handle.mount_options(options, mount.device, mount.mountpoint)

    def facts(self) -> dict[str, Any]:
        """Partition table, boot and disk facts, for the hardware record."""
        return self._call("facts", self._facts)

    def _facts(self) -> dict[str, Any]:
        g = self._handle
        facts: dict[str, Any] = {"size": g.blockdev_getsize64("/dev/sda"), "file_systems": [
            {"device": m.device, "mountpoint": m.mountpoint, "type": m.fstype}
            for m in self.mounts]}
        with contextlib.suppress(RuntimeError):
            facts["partition_table"] = g.part_get_parttype("/dev/sda")
        with contextlib.suppress(RuntimeError):
            facts["lvm"] = list(g.lvs())
        return facts

    # -- trees -----------------------------------------------------------------------

    def read_tree(self, destination: Path) -> None:
        """Write the whole tree as a tar file, every attribute included."""
        with Operation("read", unit="bytes", subject=self._shown) as step:
            done = threading.Event()

            def watch() -> None:
                seen = 0
                while not done.wait(0.5):
                    with contextlib.suppress(OSError):
                        size = destination.stat().st_size
                        step.advance(size - seen)
                        seen = size

            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            try:
                self._call("reading the tree", self._handle.tar_out, "/", str(destination),
                           numericowner=True, xattrs=True, acls=True, selinux=True)
            finally:
                done.set()
                watcher.join()

    def sparse_files(self) -> set[bytes]:
        """A tar stream out of the appliance tells no holes; the file system
        tells which files have some."""
        listing = self._call("looking for sparse files", self._handle.debug, "sh", [
            "cd /sysroot && find . -type f -size +7k -printf '%b %s %P\\0' | base64"])
        found = set()
        for record in base64.b64decode(listing).split(b"\0"):
            blocks, _, rest = record.partition(b" ")
            size, _, path = rest.partition(b" ")
            if path and int(blocks) * 512 < int(size):
                found.add(path)
        return found

    def read_file(self, path: bytes, destination: Path) -> None:
        """Copy one file out of the tree.

        :raises Unsupported: libguestfs cannot name it
        """
        try:
            name = "/" + path.decode()
        except UnicodeDecodeError as error:
            raise exceptions.Unsupported(what=repr(path),
                                         reason="its name is not UTF-8") from error
        self._call(f"reading {name}", self._handle.download, name, str(destination))

    def write(self, fill: Callable[[BinaryIO], None], *, selinux: bool = False) -> None:
        """Lay one tar stream over the tree.

        :param fill: writes the stream; what it raises is what this raises
        """
        read_end, write_end = os.pipe()
        failure: list[BaseException] = []

        def feed() -> None:
            try:
                with os.fdopen(write_end, "wb", buffering=1 << 18) as stream:
                    fill(stream)
            except BrokenPipeError:
                pass  # the appliance has the reason
            except BaseException as error:  # told to the caller below
                failure.append(error)

        feeder = threading.Thread(target=feed, name="splitimage-feed", daemon=True)
        feeder.start()
        try:
            self._run(self._handle.tar_in, f"/dev/fd/{read_end}", "/", xattrs=True, acls=True,
                      selinux=selinux)
        except RuntimeError as error:
            os.close(read_end)
            read_end = -1
            feeder.join()
            if failure:
                raise failure[0] from error
            raise exceptions.ApplianceFailed(step="injection", reason=_line(error)) from error
        finally:
            if read_end >= 0:
                os.close(read_end)
            feeder.join()
        if failure:
            raise failure[0]

    def remove(self, files: Sequence[bytes], directories: Sequence[bytes]) -> None:
        """Remove files, then directories that must be empty by then, but for
        sockets: no manifest has those.

        The paths are real places in a tree whose manifest is known, so none
        leads through a link. They are sent as one list, because a call a
        path would take longer than the work, and because libguestfs takes
        only UTF-8 names. The commands are the appliance's own.
        """
        with Operation("remove", total=len(files) + len(directories), unit="files",
                       subject=self._shown) as step:
            for command, paths in (("rm -f --", files),
                                   (f"sh -c '{_SOCKETS}; rmdir -- \"$@\"' sh",
                                    sorted(directories, reverse=True))):
                for chunk, count in _chunks(paths):
                    self._call("removal", self._handle.debug, "sh", [
                        f"cd /sysroot && printf '{chunk}' | xargs -0 {command} && echo done"])
                    step.advance(count)

    # -- space -------------------------------------------------------------------------

    def space(self) -> list[Space]:
        found = []
        for mount in self.mounts:
            stat: Mapping[str, int] = self._call("statvfs", self._handle.statvfs,
                                                 mount.mountpoint)
            found.append(Space(mount.mountpoint, stat["frsize"] or stat["bsize"], stat["bavail"],
                               stat["ffree"] if stat["files"] else -1))
        return found

    def trim(self) -> None:
        """Give freed blocks back to the disk image, so that what was removed
        can no longer be read from it."""
        for mount in self.mounts:
            try:
                self._run(self._handle.fstrim, mount.mountpoint)
            except RuntimeError as error:
                if mount.fstype != "vfat":
                    raise exceptions.ApplianceFailed(step="trim", reason=_line(error)) from error
                LOG.debug("no trim of %s: %s", mount.mountpoint, error)


class Guestfs(Opener):
    """The libguestfs appliance."""

    def __call__(self, disk: Path, disk_format: str, mounts: Sequence[Mount] | None, *,
                 readonly: bool = False, scratch: Path | None = None,
                 shown: str | None = None) -> DiskSession:
        return DiskSession(disk, disk_format, mounts, options=self.options,
                           emulate=self.emulate(), readonly=readonly, scratch=scratch,
                           shown=shown)


def _chunks(paths: Iterable[bytes]) -> Iterator[tuple[str, int]]:
    """Paths as octal escapes for printf, NUL-separated, in pieces."""
    piece: list[str] = []
    size = 0
    for path in paths:
        escaped = "./" + "".join(
            chr(b) if 0x2b <= b <= 0x7a and b != 0x5c else f"\\{b:03o}" for b in path) + "\\0"
        if piece and size + len(escaped) > _COMMAND:
            yield "".join(piece), len(piece)
            piece, size = [], 0
        piece.append(escaped)
        size += len(escaped)
    if piece:
        yield "".join(piece), len(piece)


def _first_disk(mountable: str) -> str:
    """A subvolume by the name that its disk has in every appliance. The kernel
    may find the appliance's own disk first; libguestfs hides that for plain
    devices only, and the name is kept for other appliances."""
    return _SUBVOLUME.sub(r"\1sda", mountable)


def _line(error: BaseException) -> str:
    """The last line of what libguestfs says: the reason, not the story."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.endswith(_UNTELLING)]
    last = (telling or lines or [type(error).__name__])[-1]
    return f"{last}: No space left on device" if _SHORT.search(last) else last
