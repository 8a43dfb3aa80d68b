"""A gold machine in small: a root file system of a megabyte, invented after
Debian's, on a disk of 64 MiB without a boot loader.

Its pieces of software have what makes parts interesting:

* ``web`` and ``db`` share the dependency package ``libshared``,
* ``php`` switches a file of ``web``, so that part is under a condition,
* ``db`` brings an account and data that no package lists.

Needs e2fsprogs; no root. Made in a moment, captured in fifteen seconds under
emulation, almost all of that the appliance.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import NamedTuple

NAME = "small"
PARTS = ("db", "php", "web")
SHARED = "libshared"
#: For a capture of the finished machine by packages.
PACKAGES = {"web": "webd", "db": "dbd", "php": "phpd"}
SPLIT = " ".join(map("=".join, PACKAGES.items()))
#: A file of web's, and its content without and with php.
SWITCHED, ALONE, TOGETHER = "etc/webd/mode", b"event\n", b"prefork\n"
DISK_SIZE = 64 << 20
MTIME = 1_700_000_000
_UUID = "7c1d2a52-3f0e-4a4e-9a53-0d5a5e1f4b10"

_DIRECTORIES = ("boot", "dev", "etc", "home", "proc", "root", "run", "srv", "sys", "tmp",
                "usr/bin", "usr/lib", "usr/sbin", "usr/share", "var/lib/apt",
                "var/lib/dpkg/info", "var/log", "var/tmp")
_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "var/run": "/run"}

Tree = dict[str, bytes]


class Gold(NamedTuple):
    """:ivar disk: of the base
    :ivar tars: root of each later step, cumulative, in order
    """

    disk: Path
    tars: dict[str, Path]

    @property
    def arguments(self) -> list[str]:
        """For ``splitimage capture``."""
        return [word for name, path in {"base": self.disk, **self.tars}.items()
                for word in ("--step", f"{name}={path}")]


def build(directory: Path, more: Tree | None = None) -> Gold:
    """Make disk and tars in ``directory``.

    :param more: files of the base
    """
    tree = _base() | (more or {})
    disk = directory / "base.raw"
    make_disk(disk, _tar(tree, directory / "base.tar"), directory)
    tars = {}
    for name, install in (("web", _web), ("db", _db), ("php", _php)):
        tree = install(tree)
        tars[name] = _tar(tree, directory / f"{name}.tar")
    return Gold(disk, tars)


def finished(directory: Path) -> Path:
    """The machine with all its software, on one qcow2."""
    disk = directory / "finished.raw"
    make_disk(disk, _tar(_php(_db(_web(_base()))), directory / "finished.tar"), directory)
    qcow2 = directory / "finished.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, qcow2], check=True)
    return qcow2


def make_disk(disk: Path, tar: Path, directory: Path) -> None:
    """An ext4 of :data:`DISK_SIZE` with the members of ``tar``."""
    root = directory / f"root of {disk.name}"
    with tarfile.open(tar) as archive:
        archive.extractall(root)
    with disk.open("wb") as file:
        file.truncate(DISK_SIZE)
    subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-U", _UUID, "-N", "2048",
                    "-O", "^has_journal", "-E", "root_owner=0:0,lazy_itable_init=0",
                    "-d", root, disk], check=True, capture_output=True)


def empty_disk(directory: Path) -> Path:
    """A sound disk with files and no operating system."""
    tar = directory / "none.tar"
    with tarfile.open(tar, "w") as archive:
        _add(archive, "letters/hello.txt", b"hello\n")
    make_disk(directory / "none.raw", tar, directory)
    return directory / "none.raw"


# -- trees ---------------------------------------------------------------------

def _base() -> Tree:
    tree = {
        "etc/debian_version": b"12.5\n",
        "etc/os-release": b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian in small"\n',
        "etc/fstab": f"UUID={_UUID} / ext4 errors=remount-ro 0 1\n".encode(),
        "etc/hostname": b"gold\n",
        "etc/machine-id": b"0123456789abcdef0123456789abcdef\n",
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
        "etc/group": b"root:x:0:\n",
        "usr/bin/sh": b"\x7fELF" + bytes(2000),
        "var/lib/dpkg/status": b"",
        "var/lib/apt/extended_states": b"",
    }
    return _install(tree, "base-files", {"usr/share/base": b"the base's own\n"})


def _web(tree: Tree) -> Tree:
    tree = _install(tree, SHARED, {"usr/lib/libshared.so.1": b"shared code\n" * 4000},
                    automatic=True)
    return _install(tree, "webd", {"usr/sbin/webd": b"#!/bin/sh\n", SWITCHED: ALONE,
                                   "etc/webd.conf": b"port 80\n",
                                   "srv/index.html": b"it works\n"}, depends=SHARED)


def _db(tree: Tree) -> Tree:
    tree = _install(tree, "dbd", {"usr/sbin/dbd": b"#!/bin/sh\n",
                                  "etc/dbd.conf": b"data /var/lib/dbd\n"}, depends=SHARED)
    tree["var/lib/dbd/tables"] = bytes(range(256)) * 400
    tree["etc/passwd"] += b"dbd:x:110:110::/var/lib/dbd:/bin/false\n"
    tree["etc/group"] += b"dbd:x:110:\n"
    return tree


def _php(tree: Tree) -> Tree:
    tree = _install(tree, "phpd", {"usr/bin/phpd": b"#!/bin/sh\n", "etc/phpd.ini": b"\n"})
    return tree | {SWITCHED: TOGETHER}


def _install(tree: Tree, package: str, files: Tree, *, depends: str = "",
             automatic: bool = False) -> Tree:
    """The tree after ``package`` was installed."""
    wanted = f"Depends: {depends}\n" if depends else ""
    listed = {f"/{path}" for path in files}
    listed |= {str(above) for path in listed for above in Path(path).parents}
    after = tree | files | {f"var/lib/dpkg/info/{package}.list": "".join(
        f"{path}\n" for path in sorted(listed)).replace("/\n", "/.\n", 1).encode()}
    stanza = (
        f"Package: {package}\nStatus: install ok installed\nPriority: optional\nSection: misc\n"
        f"Installed-Size: {sum(map(len, files.values())) // 1024 + 1}\n"
        f"Maintainer: Nobody <nobody@example.org>\nArchitecture: amd64\nVersion: 1.0-1\n{wanted}"
        f"Description: invented\n\n").encode()
    # dpkg keeps them in order of their names.
    stanzas = [*tree["var/lib/dpkg/status"].split(b"\n\n")[:-1], stanza[:-2]]
    after["var/lib/dpkg/status"] = b"".join(one + b"\n\n" for one in sorted(stanzas))
    if automatic:
        after["var/lib/apt/extended_states"] += (
            f"Package: {package}\nArchitecture: amd64\nAuto-Installed: 1\n\n").encode()
    return after


# -- archives --------------------------------------------------------------------

def _tar(tree: Tree, path: Path) -> Path:
    names = {*_DIRECTORIES, *_LINKS, *tree}
    names |= {str(above) for name in names for above in Path(name).parents} - {"."}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(names):
            if name in tree:
                _add(archive, name, tree[name])
            else:
                member = tarfile.TarInfo(name)
                member.mtime, member.mode, member.type = MTIME, 0o755, tarfile.DIRTYPE
                if name in _LINKS:
                    member.type, member.linkname = tarfile.SYMTYPE, _LINKS[name]
                    member.mode = 0o777
                archive.addfile(member)
    return path


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.mtime, member.size = MTIME, len(content)
    member.mode = 0o755 if "bin/" in name else 0o644
    archive.addfile(member, io.BytesIO(content))
