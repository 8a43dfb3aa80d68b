"""A gold machine in small with all that is odd in a file system: what no
Debian package brings at once, and what a later step does to it.

The disks are made with the host's own file calls, so that nothing of the
project stands between what is meant and what is there. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from splitimage_driver.capture.machine import Gold
from tests.functional import smallgold, trees

DISK_SIZE = 64 << 20
#: setcap cap_net_raw+ep
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
NAMES = (b"new\nline", b"caf\xe9", b"back\\slash", b"%d%s", b"quote'\"`$(x)", b" blank ",
         b"-rf", b"star*?[a]", b"tab\t", b"n" * 255, b"\\012", b"\xff\xfe", b"semi;colon&|")


def build(directory: Path) -> Gold:
    """The base's disk and that after the step ``odd``."""
    small = smallgold.build(directory)
    base, odd = directory / "base.qcow2", directory / "odd.qcow2"
    with trees.mounted(small.disk, format="raw") as tree:
        _before(tree.root)
        tree.keep(base, "qcow2")
    with trees.mounted(base) as tree:
        _after(tree.root)
        tree.keep(odd, "qcow2")
    return Gold(disk=base, steps=(("odd", odd),))


def _before(root: Path) -> None:
    odd = root / "srv" / "odd"
    odd.mkdir()
    for name in ("dir-to-file", "dir-to-link", "dir-to-dir", "emptied", "goes/deep/down"):
        (odd / name).mkdir(parents=True)
    for name in ("dir-to-link/was", "dir-to-file/was", "goes/deep/down/file", "file-to-dir",
                 "file-to-link", "file-to-node", "emptied/file", "removed", "removed-a", "kept"):
        (odd / name).write_text(name)
    (odd / "target").mkdir()
    (odd / "target" / "inside").write_text("inside")
    for name in ("link-to-dir", "link-to-link", "link-to-file", "link-stays"):
        (odd / name).symlink_to("target")
    for group, names in (("one", "abc"), ("two", "abc"), ("three", "ab"), ("four", "abcd"),
                         ("zero", "ab")):
        first = odd / f"{group}-a"
        first.write_text("" if group == "zero" else f"linked {group}")
        for name in names[1:]:
            os.link(first, odd / f"{group}-{name}")
    for raw in NAMES[::2]:
        _bytes(odd, raw, b"before")
    _socket(odd / "goes" / "deep" / "socket")
    _socket(odd / "socket-stays")


def _after(root: Path) -> None:
    odd = root / "srv" / "odd"
    # Types.
    shutil.rmtree(odd / "dir-to-file")
    (odd / "dir-to-file").write_text("now a file")
    shutil.rmtree(odd / "dir-to-link")
    (odd / "dir-to-link").symlink_to("target")
    (odd / "dir-to-dir").chmod(0o3771)
    os.chown(odd / "dir-to-dir", 12, 34)
    (odd / "file-to-dir").unlink()
    (odd / "file-to-dir").mkdir()
    (odd / "file-to-dir" / "inside").write_text("inside")
    (odd / "file-to-link").unlink()
    (odd / "file-to-link").symlink_to("/srv/odd/kept")
    (odd / "file-to-node").unlink()
    os.mknod(odd / "file-to-node", stat.S_IFCHR | 0o620, os.makedev(5, 1))
    (odd / "link-to-dir").unlink()
    (odd / "link-to-dir").mkdir(0o711)
    (odd / "link-to-dir" / "own").write_text("own")
    (odd / "link-to-link").unlink()
    (odd / "link-to-link").symlink_to("kept")
    (odd / "link-to-file").unlink()
    (odd / "link-to-file").write_text("was a link")
    # What goes.
    shutil.rmtree(odd / "goes")
    (odd / "emptied" / "file").unlink()
    (odd / "removed").unlink()
    (odd / "removed-a").unlink()
    # Hard links: a name more, one less, the first one less, one replaced, empty.
    os.link(odd / "one-a", odd / "one-z")
    (odd / "two-c").unlink()
    (odd / "three-a").unlink()
    (odd / "four-b").unlink()
    (odd / "four-b").write_text("its own now")
    os.link(odd / "zero-a", odd / "aa-zero")
    for name in "xyz":
        _link_or_make(odd / "new-linked-x", odd / f"new-linked-{name}", b"new and linked")
        _link_or_make(odd / "new-empty-x", odd / f"new-empty-{name}", b"")
    # Names, modes, attributes.
    for raw in NAMES:
        _bytes(odd, raw, b"after")
        _bytes(odd, b"dir of " + raw[:200] + b"/" + raw, b"below")
    deep = odd.joinpath(*["long-" + "d" * 60] * 8)
    deep.mkdir(parents=True)
    (deep / ("f" * 200)).write_text("deep")
    (odd / "long-link").symlink_to("x" * 900)
    (odd / "setuid").write_text("setuid")
    (odd / "setuid").chmod(0o6755)
    (odd / "no-rights").write_text("none")
    (odd / "no-rights").chmod(0)
    (odd / "owned").write_text("owned")
    os.chown(odd / "owned", 4_000_000_000, 3_000_000_000)
    (odd / "capable").write_text("capable")
    os.setxattr(odd / "capable", "security.capability", CAPABILITY)
    (odd / "attributes").write_text("attributes")
    for key, value in (("user.note", b"\0\xff="), ("trusted.x%y", b""), ("user.long", b"v" * 600)):
        os.setxattr(odd / "attributes", key, value)
    (odd / "listed").mkdir(0o750)
    subprocess.run(["setfacl", "-m", "u:33:rwx,d:u:33:r-x,d:g:44:---", str(odd / "listed")],
                   check=True)
    (odd / "listed" / "below").write_text("below")
    subprocess.run(["setfacl", "-m", "g:12:rw-", str(odd / "listed" / "below")], check=True)
    os.mkfifo(odd / "fifo", 0o600)
    os.mknod(odd / "block", stat.S_IFBLK | 0o640, os.makedev(259, 300000))
    with (odd / "sparse").open("wb") as file:
        file.truncate(40 << 20)
        file.seek(10 << 20)
        file.write(b"data" * 1024)
    with (odd / "all-hole").open("wb") as file:
        file.truncate(5 << 20)
    for name, when in (("old", -10**9), ("epoch", 0), ("exact", 1_700_000_000_123_456_789),
                       ("future", 4_000_000_000_000_000_001)):
        (odd / name).write_text(name)
        os.utime(odd / name, ns=(when, when))
    _socket(odd / "listed" / "socket")


def _bytes(directory: Path, name: bytes, content: bytes) -> None:
    path = os.fsencode(directory) + b"/" + name
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content + name)


def _link_or_make(first: Path, path: Path, content: bytes) -> None:
    if path == first:
        path.write_bytes(content)
    else:
        os.link(first, path)


def _socket(path: Path) -> None:
    # A socket's address holds no long path.
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as made, _inside(path.parent):
        made.bind(path.name)


@contextlib.contextmanager
def _inside(directory: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)
