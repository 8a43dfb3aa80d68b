"""File trees of trusted disks, read and run on the host itself.

The appliance takes a minute to read a tree out under emulation; the host's
own kernel takes three seconds. That is for disks which these tests made:
what comes from outside is never mounted.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from splitimage_driver.application import Application
from splitimage_driver.archive.tree import DirTree
from splitimage_driver.assembly import assembler
from splitimage_driver.assembly.base import Opener, Session, Space
from splitimage_driver.capture.identity import Identity
from splitimage_driver.guest import FIRST_BOOT, LAYING
from splitimage_driver.model.composite import Mount
from splitimage_driver.model.entry import DIRECTORY, FileEntry, parents
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.plan import Plan, Request, Target, Work
from splitimage_driver.service import ImageService

#: This project's own files in every base, with the link that starts them.
OURS = frozenset(path for path, _, _ in (*FIRST_BOOT, *LAYING)) | {
    b"etc/systemd/system/sysinit.target.wants/splitimage-firstboot.service"}
_SCRIPT = r"""
set -eu
raw=$1 root=$2; shift 2
while [ $# -gt 0 ]; do
    mkdir -p "$root$3"
    mount -o "loop,offset=$1,sizelimit=$2" "$raw" "$root$3"
    shift 3
done
echo ready
# Until the test lets go of it, or is no more.
read -r _ || true
umount -R "$root"
echo done
"""


class Mounted:
    """A disk's tree, in a mount namespace of its own.

    :ivar root: where this process sees it
    :ivar raw: the private raw copy of the disk that is mounted
    :ivar mounts: (number of the partition, mount point)
    """

    def __init__(self, pid: int, root: Path, raw: Path,
                 mounts: Sequence[tuple[int, str]]) -> None:
        self.pid, self._root, self.raw, self.mounts = pid, root, raw, tuple(mounts)
        self.root = Path(f"/proc/{pid}/root{root}")
        # Its root too: this may be a chroot.
        self._enter = ("nsenter", f"--target={pid}", "--mount", "--root")

    def manifest(self) -> Manifest:
        return DirTree(self.root).manifest()

    def keep(self, disk: Path, format: str) -> None:
        """Write the tree as it is now into a disk file."""
        subprocess.run([*self._enter, "fsfreeze", "--freeze", str(self._root)], check=True)
        try:
            subprocess.run(["qemu-img", "convert", "-U", "-f", "raw", "-O", format,
                            str(self.raw), str(disk)], check=True)
        finally:
            subprocess.run([*self._enter, "fsfreeze", "--unfreeze", str(self._root)], check=True)

    def read(self, path: str) -> bytes:
        return (self.root / path.lstrip("/")).read_bytes()

    def run(self, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell script inside the tree, natively, as its root user."""
        done = subprocess.run(
            [*self._enter, "chroot", str(self._root), "/bin/sh", "-ec", script],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"})
        if check and done.returncode:
            raise AssertionError(f"{script!r} ended with {done.returncode}: {done.stdout[-2000:]}"
                                 f"{done.stderr[-2000:]}")
        return done


@contextlib.contextmanager
def mounted(disk: Path, *, format: str = "qcow2") -> Iterator[Mounted]:
    """Mount a private copy of a disk that was made by ``demo/gold.py``; what
    is written goes with it."""
    with tempfile.TemporaryDirectory(prefix="tree-") as folder:
        raw, root = Path(folder, "disk.raw"), Path(folder, "root")
        root.mkdir()
        subprocess.run(["qemu-img", "convert", "-f", format, "-O", "raw", str(disk), str(raw)],
                       check=True)
        found = partitions(raw)
        places = [str(word) for _, *place in found for word in place]
        holder = subprocess.Popen(
            # Where / is no mount point (a chroot) its propagation cannot be changed.
            ["unshare", "--mount", "--propagation",
             "private" if _root_is_mounted() else "unchanged", "--", "/bin/sh", "-c", _SCRIPT,
             "sh", str(raw), str(root), *places],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert holder.stdin is not None and holder.stdout is not None
        try:
            assert holder.stdout.readline() == "ready\n"
            yield Mounted(holder.pid, root, raw, [(p[0], p[3]) for p in found])
        finally:
            with contextlib.suppress(BrokenPipeError):
                holder.stdin.close()
            told = holder.stdout.read()
            holder.stdout.close()
            assert (holder.wait(), told) == (0, "done\n")


def _root_is_mounted() -> bool:
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == "/" for line in mounts)


def partitions(raw: Path) -> list[tuple[int, int, int, str]]:
    """(number, offset, bytes, mount point) of the file systems, / first."""
    done = subprocess.run(["sfdisk", "--json", str(raw)], check=False, capture_output=True)
    if done.returncode:  # no partition table: a file system on the bare disk
        return [(0, 0, raw.stat().st_size, "/")]
    table = json.loads(done.stdout)["partitiontable"]
    size = table.get("sectorsize", 512)
    found = [(p["start"] * size, p["size"] * size) for p in table["partitions"]]
    if table["label"] == "dos":
        return [(1, *found[0], "/")]
    return [(3, *found[2], "/"), (2, *found[1], "/boot")]


def read(disk: Path) -> Manifest:
    """The tree of a disk as it is."""
    with mounted(disk) as tree:
        return tree.manifest()


# -- differences ------------------------------------------------------------------


def differences(one: Manifest, two: Manifest, *, ignore: Iterable[bytes] = (),
                excludes: Callable[[FileEntry], bool] = lambda entry: False,
                times: bool = False) -> list[str]:
    """What two trees differ in, one line a path: type, mode, owner, size,
    content, link target, hard links, device, extended attributes.

    :param excludes: entries that are not looked at
    :param times: whether times of all but directories count too
    """
    left = frozenset(ignore)
    told = []
    for path in sorted({*one.by_path, *two.by_path} - left):
        a, b = one.get(path), two.get(path)
        known = a or b
        assert known is not None
        if excludes(known):
            continue
        if a is None or b is None:
            told.append(f"{path!r}: only in the {'second' if a is None else 'first'}")
            continue
        fields = [name for name in FileEntry.__struct_fields__
                  if name not in ("mtime", "sparse") and getattr(a, name) != getattr(b, name)]
        if times and a.type != DIRECTORY and a.mtime != b.mtime:
            fields.append("mtime")
        if fields:
            told.append(f"{path!r}: " + ", ".join(
                f"{n} {getattr(a, n)!r} and {getattr(b, n)!r}" for n in fields))
    return told


def against_gold(gold: Manifest, found: Manifest, identity: Identity | None = None) -> list[str]:
    """Differences outside the identity classes and this project's own
    files; a directory that only holds such files counts as one of them."""
    rules = identity or Identity()
    ours = {*OURS, *(above for path in OURS for above in parents(path)
                     if above not in gold.by_path)}
    return differences(gold, found, ignore=ours, excludes=rules.excludes)


# -- without an appliance -----------------------------------------------------------


class NativeSession(Session):
    """A mounted tree that the assembler may work on, with the host's own tar
    and file calls in the place of the appliance's."""

    def __init__(self, tree: Mounted, mounts: Sequence[Mount] = ()) -> None:
        self.tree, self.root, self.mounts = tree, tree.root, tuple(mounts)
        #: what was asked for, for tests that look at it
        self.calls: collections.Counter[str] = collections.Counter()

    def __exit__(self, *_: object) -> None:
        pass

    def facts(self) -> dict[str, Any]:
        return {"size": self.tree.raw.stat().st_size}

    def read_tree(self, destination: Path) -> None:
        subprocess.run(["tar", "-C", str(self.root), "--numeric-owner", "--xattrs",
                        "--xattrs-include=*", "--acls", "-cf", str(destination), "."],
                       check=True)

    def sparse_files(self) -> set[bytes]:
        return {e.path for e in self.tree.manifest() if e.sparse}

    def read_file(self, path: bytes, destination: Path) -> None:
        shutil.copyfile(os.fsencode(self.root) + b"/" + path, destination)

    def remove(self, files: Sequence[bytes], directories: Sequence[bytes]) -> None:
        self.calls["remove"] += len(files) + len(directories)
        root = os.fsencode(self.root)
        for path in files:
            os.unlink(root + b"/" + path)
        for path in sorted(directories, reverse=True):
            with os.scandir(root + b"/" + path) as inside:
                for entry in inside:
                    if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                        os.unlink(entry.path)
            os.rmdir(root + b"/" + path)

    def write(self, fill: Callable[[BinaryIO], None], *, selinux: bool = False) -> None:
        self.calls["write"] += 1
        with subprocess.Popen(["tar", "-C", str(self.root), "--numeric-owner", "--xattrs",
                               "--xattrs-include=*", "--acls", "-xpf", "-"],
                              stdin=subprocess.PIPE) as tar:
            assert tar.stdin is not None
            fill(tar.stdin)  # type: ignore[arg-type]
            tar.stdin.close()
        assert tar.returncode == 0

    def space(self) -> list[Space]:
        found = os.statvfs(self.root)
        return [Space("/", found.f_frsize, found.f_bavail, found.f_ffree)]

    def trim(self) -> None:
        self.calls["trim"] += 1


class _NativeDisk(NativeSession):
    """The same on a disk file, written back at the end."""

    def __init__(self, disk: Path, disk_format: str, readonly: bool) -> None:
        self.disk, self.format, self.readonly = disk, disk_format, readonly
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _NativeDisk:
        tree = self._stack.enter_context(mounted(self.disk, format=self.format))
        super().__init__(tree, [Mount(f"/dev/sda{number or ''}", point, "ext4")
                                for number, point in tree.mounts])
        return self

    def __exit__(self, *raised: object) -> None:
        with self._stack:
            if raised[0] is None and not self.readonly:
                self.tree.keep(self.disk, self.format)


class Native(Opener):
    """The host's kernel in the place of the appliance, for what these tests
    ask a hundred times; that both make the same is a test of its own.

    :ivar opened: number of disks opened
    """

    opened = 0

    def __call__(self, disk: Path, disk_format: str, mounts: Sequence[Mount] | None, *,
                 readonly: bool = False, scratch: Path | None = None,
                 shown: str | None = None) -> Session:
        self.opened += 1
        return _NativeDisk(disk, disk_format, readonly)


def native(application: Application) -> ImageService:
    """The application's use cases without an appliance."""
    application.images.session = Native(application.conf.assembly, lambda: True)
    return application.images


# -- what dpkg says --------------------------------------------------------------------


def packages(tree: Mounted) -> list[str]:
    """``name architecture version status`` of every package, sorted."""
    return sorted(tree.run(
        "dpkg-query -W -f='${Package} ${Architecture} ${Version} ${Status}\\n'"
    ).stdout.splitlines())


def audit(tree: Mounted) -> str:
    return tree.run("dpkg --audit", check=False).stdout


def verify(tree: Mounted) -> list[str]:
    """What ``dpkg -V`` has to say, sorted."""
    return sorted(tree.run("dpkg -V", check=False).stdout.splitlines())


def simulate_check(tree: Mounted) -> str:
    """apt's own view of whether all dependencies are met."""
    return tree.run("apt-get -o Debug::NoLocking=1 check", check=False).stderr



def expected_packages(base: Mounted, status: bytes, wanted: Sequence[str]) -> list[str]:
    """The packages of a system with ``wanted`` and what they need, by apt's
    own resolver.

    :param base: the system; its apt is run
    :param status: dpkg's, of a machine that has all of that: the versions
        that there are
    """
    offered = []
    for stanza in status.decode().split("\n\n"):
        fields = [line for line in re.split(r"\n(?! )", stanza.strip())
                  if line and not line.startswith(("Status:", "Conffiles:", "Config-Version:"))]
        if fields:
            offered.append("\n".join([*fields, "Filename: ./none.deb", "Size: 1",
                                      f"SHA256: {'0' * 64}"]) + "\n")
    place = base.root / "tmp" / "offered"
    (place / "lists").mkdir(parents=True, exist_ok=True)
    (place / "Packages").write_text("\n".join(offered))
    (place / "sources.list").write_text("deb [trusted=yes] file:/tmp/offered ./\n")
    apt = ("apt-get -qq -o Dir::Etc::SourceList=/tmp/offered/sources.list "
           "-o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=/tmp/offered/lists "
           "-o APT::Sandbox::User=root -o Debug::NoLocking=1 --no-install-recommends ")
    told = base.run(f"{apt} update && {apt} --simulate install {' '.join(wanted)}").stdout
    added = {line.split()[1] for line in told.splitlines() if line.startswith("Inst ")}
    assert {name for name in wanted if name not in added} == set()
    have = packages(base)
    return sorted([*have, *(f"{f['Package']} {f['Architecture']} {f['Version']} {f['Status']}"
                            for f in _fields(status) if f["Package"] in added)])


def _fields(status: bytes) -> Iterator[dict[str, str]]:
    for stanza in status.decode().strip().split("\n\n"):
        yield dict(re.findall(r"^(Package|Architecture|Version|Status): (.*)$", stanza, re.M))


# -- requests ----------------------------------------------------------------------------


@contextlib.contextmanager
def laid(application: Application, composite: str, *parts: str) -> Iterator[tuple[Mounted, Plan]]:
    """A request carried out on a mounted copy of its nearest candidate, by
    the project's own assembler and the host's tar."""
    images = application.images
    plan = images.plan(Request(composite=composite, parts=parts), explain=True)
    assert plan.target is not None
    with mounted(application.store.path(plan.estimate.candidate.disk)) as tree:
        if plan.work is not None:
            session = NativeSession(tree)
            assembler.validate(session, plan.work)
            assembler.assemble(session, plan.work, images._read)
        yield tree, plan


def change(application: Application, tree: Mounted, current: Manifest, target: Target) -> Work:
    """Turn a mounted tree into another of the same composite."""
    work = Work(current, target.manifest, target.sources, target.generated)
    session = NativeSession(tree)
    assembler.validate(session, work)
    assembler.assemble(session, work, application.images._read)
    return work


def told(found: Manifest, stored: Manifest) -> list[str]:
    """What a disk has otherwise than its manifest says, times included."""
    return differences(stored, found, times=True, ignore=(b"lost+found", b"boot/lost+found"))
