"""A gold machine in miniature that boots: the tiny guest with a root file
system of 20 MiB, invented after Debian's, and seven pieces of software.

A server of it answers ``/NAME`` over HTTP for each piece NAME that is
installed, so that a test sees from outside which parts a disk has. It takes
three seconds to make and twenty to capture, almost all of that the
appliance.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import random
import tarfile
import tempfile
from pathlib import Path

from splitimage_driver.application import Application
from splitimage_driver.assembly import disks
from splitimage_driver.capture.machine import Gold
from splitimage_driver.model.server import Server
from tests.functional import tinyguest

NAME = "mini"
NAMES = ("apache", "mysql", "php", "redis", "mail", "cache", "wiki")
#: What most tests assemble.
PAIR = ("apache", "php")
#: Bytes that each piece brings: enough for several progress events.
BULK = 1 << 20
_DIRECTORIES = ("dev", "etc", "home", "mnt", "proc", "root", "run", "srv/www", "sys", "tmp",
                "usr/bin", "usr/lib", "usr/sbin", "usr/share", "var/lib/dpkg/info", "var/log",
                "var/tmp")
_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "var/run": "/run"}
_MTIME = 1_700_000_000
_UUID = "0e0a5a4e-8f0e-4a6f-9d0c-6f1d2b3c4d5e"

Tree = dict[str, bytes]


def build(directory: Path, *, lays: bool = False) -> Gold:
    """Make the disk and the later steps' root tars below ``directory``.

    :param lays: it has a program for what its servers lay while they run: one that
        tells what a guest tells, see :data:`tinyguest.LAYS`
    """
    directory.mkdir(parents=True, exist_ok=True)
    tree = _base()
    if lays:
        tree[tinyguest.LAYOUT] = tinyguest.LAYS.encode()
    with tempfile.TemporaryDirectory(dir=directory) as place:
        raw = tinyguest.build(Path(place))
        tinyguest.add_root(raw, _directory(tree, Path(place, "tree")), _UUID)
        disks.convert(raw, "raw", directory / "base.qcow2", "qcow2")
    for number, name in enumerate(NAMES):
        tree = tree | _software(tree, name, 110 + number)
        _tar(tree, directory / f"{name}.tar")
    return there(directory)


def _base() -> Tree:
    return {
        "etc/debian_version": b"12.5\n",
        "etc/os-release": b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian in miniature"\n',
        "etc/fstab": f"UUID={_UUID} / ext4 errors=remount-ro 0 1\n".encode(),
        "etc/hostname": b"gold\n",
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
        "etc/group": b"root:x:0:\n",
        "usr/bin/sh": Path("/bin/busybox").read_bytes()[:4096],
        "usr/share/base": b"the base's own\n",
        **_package("base-files", ""),
    }


def _software(tree: Tree, name: str, uid: int) -> Tree:
    """What installing ``name`` adds and changes; each stands alone."""
    fresh = {
        f"srv/www/{name}": f"{name} is here\n".encode(),
        f"etc/{name}.conf": f"name = {name}\n".encode(),
        f"usr/lib/{name}.bin": random.Random(uid).randbytes(BULK),
        "etc/passwd": tree["etc/passwd"] + f"{name}:x:{uid}:{uid}::/:/bin/false\n".encode(),
        "etc/group": tree["etc/group"] + f"{name}:x:{uid}:\n".encode(),
    }
    package = _package(name, "".join(f"/{path}\n" for path in fresh if path.endswith(name)
                                     or name in path))
    package["var/lib/dpkg/status"] = (tree["var/lib/dpkg/status"]
                                      + package["var/lib/dpkg/status"])
    return fresh | package


def _package(name: str, listed: str) -> Tree:
    return {
        "var/lib/dpkg/status": (
            f"Package: {name}\nStatus: install ok installed\nPriority: optional\n"
            "Section: misc\nInstalled-Size: 1\nMaintainer: Nobody <nobody@example.org>\n"
            f"Architecture: amd64\nVersion: 1\nDescription: {name}\n\n").encode(),
        f"var/lib/dpkg/info/{name}.list": b"/.\n" + listed.encode(),
    }


def _directory(tree: Tree, root: Path) -> Path:
    for name in _DIRECTORIES:
        (root / name).mkdir(parents=True)
    for name, target in _LINKS.items():
        (root / name).symlink_to(target)
    for name, content in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def _tar(tree: Tree, path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        names = {*_DIRECTORIES, *_LINKS, *tree}
        names |= {str(above) for name in names for above in Path(name).parents} - {"."}
        for name in sorted(names):
            member = tarfile.TarInfo(name)
            member.mtime, member.mode = _MTIME, 0o755
            if name in tree:
                member.size, member.mode = len(tree[name]), 0o644
            elif name in _LINKS:
                member.type, member.linkname, member.mode = (tarfile.SYMTYPE, _LINKS[name], 0o777)
            else:
                member.type = tarfile.DIRTYPE
            tar.addfile(member, io.BytesIO(tree.get(name, b"")))


def there(directory: Path) -> Gold:
    """What :func:`build` made there."""
    return Gold(disk=directory / "base.qcow2",
                steps=tuple((name, directory / f"{name}.tar") for name in NAMES))


def capture(directory: Path, name: str = NAME) -> list[str]:
    """The words of the command that captures it, as a composite of that name."""
    gold = there(directory)
    return ["capture", name, *(word for step, path in (("base", gold.disk), *gold.steps)
                               for word in ("--step", f"{step}={path}")), "-f", "json"]


def serves(application: Application, server: Server) -> tuple[str, ...]:
    """The software that a server shows, once it has booted."""
    application.servers.launcher.wait(server, 80, timeout=120, path="/")
    found = []
    for name in NAMES:
        connection = http.client.HTTPConnection("127.0.0.1", server.ports[80], timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", f"/{name}")
            answer = connection.getresponse()
            if answer.status == 200 and answer.read() == f"{name} is here\n".encode():
                found.append(name)
    return tuple(found)


def assemble(*parts: str) -> list[str]:
    return ["assemble", NAME, *(word for part in parts for word in ("--part", part)),
            "-f", "json"]


def launch(*parts: str, name: str) -> list[str]:
    return ["launch", *assemble(*parts)[1:], "--name", name, "--memory", "128", "--cpus", "1",
            "--port", "80"]
