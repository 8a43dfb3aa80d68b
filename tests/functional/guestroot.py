"""A root directory that holds what the guest's own programs may rely on in a
minimal Debian, and nothing else: the files of a few of this host's packages.

The real programs of ``splitimage_driver/guest`` run in it, by chroot, in name
spaces of their own: what they mount is gone when they end, however they end.
Needs root, on Debian.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from splitimage_driver.archive.directory import DirTree
from splitimage_driver.delivery import plandisk
from splitimage_driver.guest import LAYING
from splitimage_driver.model import layout
from splitimage_driver.model.delivery import BlobDisk, DeliveryPlan
from splitimage_driver.model.entry import FileEntry

PROGRAMS = Path(__file__).resolve().parents[2] / "splitimage_driver/guest"
LAYOUT = "/usr/lib/splitimage/layout"
ID = "0123456789ab"
#: perl-base, coreutils, util-linux: what a layout may call. dpkg for
#: update-alternatives, passwd for useradd, dash for sh.
_PACKAGES = ("perl-base", "coreutils", "util-linux", "mount", "libc-bin", "dpkg", "dash",
             "passwd", "base-passwd")
_LEFT_OUT = ("/usr/share/doc", "/usr/share/man", "/usr/share/locale", "/usr/share/perl5",
             "/usr/lib/x86_64-linux-gnu/gconv")
_DIRECTORIES = ("disks", "etc/alternatives", "dev", "mnt", "proc", "root", "run", "srv", "sys",
                "tmp", "usr", "var/lib/dpkg/alternatives", "var/log", "var/tmp")
_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
#: Of the root itself: no test looks at these.
_OWN = (b"disks", b"run", b"var/lib/splitimage", b"var/lib/dpkg/lock", b"etc/.pwd.lock")
#: In systemd's place: writes down what it is told, and fails what is named
#: in /srv/failing.
_SYSTEMD = r"""#!/bin/sh
echo "${0##*/} $*" >>/run/told
[ "$(cat /srv/failing 2>/dev/null)" = "$*" ] || exit 0
echo "Job for ${2-} failed because it is named."
exit 1
"""
_ENTER = r"""
set -e
root=$1 system=$2; shift 2
mount --bind "$system/usr" "$root/usr"
if [ -n "$SUMS" ]; then mount --bind "$SUMS" "$root/usr/bin/sha256sum"; fi
if [ -n "$SMALL" ]; then mount -o loop "$SMALL" "$root/srv"; fi
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot "$root" "$@"
"""


class Ended(NamedTuple):
    """:ivar events: what was reported, in order"""

    status: int
    events: tuple[dict[str, Any], ...]
    err: str

    def of(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each["event"] == event]

    @property
    def end(self) -> dict[str, Any]:
        (found,) = self.of("end")
        return found

    @property
    def parts(self) -> dict[str, str]:
        """Part to its state as last reported."""
        return {each["part"]: each["state"] for each in self.of("part")}


def build_system(path: Path) -> Path:
    """What roots share: /usr, with the programs that lay parts."""
    listed = subprocess.run(["dpkg-query", "-L", *_closure(_PACKAGES)], check=True, text=True,
                            capture_output=True).stdout.splitlines()
    wanted = sorted({os.path.realpath(os.path.dirname(p)) + "/" + os.path.basename(p)
                     for p in listed if p.startswith(("/bin", "/sbin", "/lib", "/usr"))
                     and not p.startswith(_LEFT_OUT)})
    wanted = [p for p in wanted if os.path.islink(p) or os.path.isfile(p)]
    path.mkdir()
    subprocess.run(["cpio", "--quiet", "-0pdm", path], check=True, cwd="/",
                   input="\0".join(p.lstrip("/") for p in wanted).encode(), capture_output=True)
    for name, mode, resource in LAYING:
        copy = path / name.decode()
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((PROGRAMS / resource).read_bytes())
        copy.chmod(mode)
    for program in ("systemctl", "systemd-tmpfiles"):
        double = path / "usr/bin" / program
        double.write_text(_SYSTEMD)
        double.chmod(0o755)
    return path


def _build_root(path: Path) -> None:
    for name in _DIRECTORIES:
        (path / name).mkdir(parents=True)
    for name, target in _LINKS.items():
        (path / name).symlink_to(target)
    (path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nold:x:100:100::/:/bin/false\n")
    (path / "etc/group").write_text("root:x:0:\nold:x:100:\n")
    (path / "etc/shadow").write_text("root:*:19000:0:99999:7:::\nold:!:19000::::::\n")
    (path / "etc/shadow").chmod(0o640)
    (path / "var/lib/dpkg/status").write_text(stanza("base-files") + stanza("old"))


def stanza(name: str, version: str = "1") -> str:
    """Of dpkg's status."""
    return (f"Package: {name}\nStatus: install ok installed\nPriority: optional\nSection: misc\n"
            f"Maintainer: Nobody <nobody@example.org>\nArchitecture: all\nVersion: {version}\n"
            f"Description: {name}\n\n")


def _closure(packages: Iterable[str]) -> list[str]:
    """With all that they depend on."""
    found = set(packages)
    left = list(packages)
    while left:
        said = subprocess.run(["dpkg-query", "-W", "-f", "${Pre-Depends},${Depends}\n", *left],
                              check=True, text=True, capture_output=True).stdout
        names = {each.split("|")[0].split()[0].partition(":")[0]
                 for each in said.replace("\n", ",").split(",") if each.strip()}
        left = sorted(name for name in names - found if not name.startswith("debconf"))
        found.update(left)
    return sorted(found)


class Guest:
    """One root, and the disks that the host has given it.

    :ivar root: its directory on this host, made in a moment
    """

    def __init__(self, system: Path, root: Path) -> None:
        self.system, self.root = system, root
        self.disks = root / "disks"
        _build_root(root)

    # -- what the host does ---------------------------------------------------------

    def give(self, plan: DeliveryPlan, contents: Mapping[bytes, bytes] | None = None,
             blobs: Mapping[str, Mapping[bytes, bytes]] | None = None, layout_id: str = ID) -> None:
        """Attach the disks of a plan, as directories.

        :param contents: of files on the plan's own disk, by path
        :param blobs: digest of a blob to its members and their contents
        """
        own = plandisk.contents(plan, contents or {})
        self._disk(layout.plan_serial(layout_id),
                   {b"plan": plandisk.text(layout_id, plan)}
                   | {b"contents/" + digest.encode(): data for digest, data in own.items()})
        for blob, members in (blobs or {}).items():
            self._disk(layout.part_serial(blob), members)

    def _disk(self, serial: str, members: Mapping[bytes, bytes]) -> None:
        place = self.disks / serial
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for name, content in members.items():
            file = Path(os.fsdecode(bytes(place) + b"/" + name))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    def take_back(self, serial: str) -> None:
        shutil.rmtree(self.disks / serial)

    def pack(self, serial: str) -> Path:
        """A disk that was given as a directory becomes a squashfs file."""
        place = self.disks / serial
        made = place.with_name(f".{serial}")
        subprocess.run(["mksquashfs", place, made, "-quiet", "-no-progress", "-comp", "zstd"],
                       check=True, capture_output=True)
        shutil.rmtree(place)
        return made.rename(place)

    # -- what the guest does ----------------------------------------------------------

    def start(self, *command: str, small: Path | None = None,
              sums: Path | None = None) -> subprocess.Popen[str]:
        """A command in the guest; all that it starts dies with it.

        :param small: image of a file system that is mounted at /srv
        :param sums: a program in the place of sha256sum
        """
        return subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
             "sh", "-c", _ENTER, "enter", str(self.root), str(self.system), *command],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SMALL": str(small or ""),
                 "SUMS": str(sums or "")},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True)

    def run(self, *command: str) -> str:
        process = self.start(*command)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
        return out

    def lay(self, *options: str, small: Path | None = None, sums: Path | None = None) -> Ended:
        """Run the layout to its end."""
        return self.ended(self.start(*self.words(*options), small=small, sums=sums))

    def words(self, *options: str) -> list[str]:
        return [LAYOUT, "--disks", "/disks", *(options or ("--streams", "2"))]

    def ended(self, process: subprocess.Popen[str]) -> Ended:
        out, err = process.communicate(timeout=300)
        return Ended(process.returncode, tuple(json.loads(line) for line in out.splitlines()), err)

    def boot(self) -> None:
        """As if systemd ran in it: a double writes down what it is told."""
        (self.root / "run/systemd/system").mkdir(parents=True, exist_ok=True)

    @property
    def told(self) -> list[str]:
        """What systemd's programs were told since the last look."""
        told = self.root / "run/told"
        found = told.read_text().splitlines() if told.exists() else []
        told.unlink(missing_ok=True)
        return found

    # -- what is to be seen -----------------------------------------------------------

    def tree(self) -> dict[bytes, FileEntry]:
        """All but the root's own system, the times of directories too."""
        return {e.path: e for e in DirTree(self.root).manifest()
                if not e.path.startswith(_OWN)}

    def temporaries(self) -> list[Path]:
        return sorted(path for path in self.root.rglob(".splitimage-*"))

    @property
    def journal(self) -> Path:
        return self.root / f"var/lib/splitimage/journal-{ID}"

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.root / "var/lib/splitimage/status.json").read_text())
        return found


def blob_disk(blob: str, members: Mapping[bytes, bytes], name: str) -> BlobDisk:
    return BlobDisk(blob, sum(map(len, members.values())), name)
