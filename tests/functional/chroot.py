"""The guest's own program, run in a tree that is mounted on this host, with
part blobs as its disks and its workers held up at random."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from splitimage_driver.deliveries import Delivery
from splitimage_driver.model.delivery import Gone
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.store.base import Store
from tests.functional.trees import Mounted

DISKS = "/run/disks"
PROGRAM = "/usr/lib/splitimage/layout"
#: Where it keeps its journal; no part of a request's tree.
OWN = b"var/lib/splitimage"


class Chroot:
    """:ivar tree: its own, with /dev, /proc and /sys of this host"""

    def __init__(self, tree: Mounted) -> None:
        self.tree = tree
        self._enter = ["nsenter", f"--target={tree.pid}", "--mount", "--root"]

    @property
    def path(self) -> str:
        """Where programs in its name space see its root."""
        return str(self.tree._root)

    def _run(self, *words: str) -> None:
        subprocess.run([*self._enter, *words], check=True)

    def attach(self, serial: str, disk: Path) -> None:
        """A file becomes one of its disks."""
        place = self.tree.root / DISKS[1:] / serial
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        self._run("mount", "--bind", str(disk.absolute()), f"{self.path}{DISKS}/{serial}")

    def detach(self, serial: str) -> None:
        self._run("umount", f"{self.path}{DISKS}/{serial}")
        (self.tree.root / DISKS[1:] / serial).unlink()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The program, leader of a session of its own."""
        return subprocess.Popen(
            [*self._enter, "chroot", self.path, PROGRAM, "--disks", DISKS, *arguments],
            start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"})

    def reports(self) -> list[dict[str, object]]:
        """What it has reported since the tree was mounted."""
        log = self.tree.root / "run/splitimage/report"
        lines = log.read_text().splitlines() if log.exists() else []
        return [msgspec.json.decode(line) for line in lines if line.startswith("{")]


@contextlib.contextmanager
def entered(tree: Mounted) -> Iterator[Chroot]:
    found = Chroot(tree)
    for name in ("dev", "proc", "sys"):
        found._run("mount", "--rbind", f"/{name}", f"{found.path}/{name}")
    found._run("mount", "-t", "tmpfs", "tmpfs", f"{found.path}/run")
    yield found
    # The disk's own tree, without what was needed to run something in it.
    for name in ("run", "sys", "proc", "dev"):
        found._run("umount", "--recursive", "--lazy", f"{found.path}/{name}")


def give(chroot: Chroot, delivery: Delivery, store: Store, plan: Path) -> None:
    """Write the plan's disk, and attach it and the parts'.

    :param plan: where to write it
    """
    delivery.write(plan)
    chroot.attach(delivery.layout.serial, plan)
    for disk in delivery.layout.disks:
        chroot.attach(disk.serial, store.path(disk.blob))


def shuffled(delivery: Delivery, chance: random.Random) -> Delivery:
    """The same with its chunks in another order; directories go last."""
    chunks = list(delivery.plan.chunks)
    last = [c for c in chunks if any(
        isinstance(change, Gone) and change.before.is_dir for change in c.changes)]
    first = [c for c in chunks if c not in last]
    chance.shuffle(first)
    plan = msgspec.structs.replace(delivery.plan, chunks=(*first, *last))
    return Delivery(plan, delivery.generated, parts=delivery.layout.parts,
                    filesets=delivery.layout.filesets)


def held_up(process: subprocess.Popen[str], chance: random.Random) -> threading.Thread:
    """Stops a process of its session for some milliseconds, again and again,
    until all have ended."""
    def hold() -> None:
        pause = threading.Event()
        while process.poll() is None:
            found = session(process.pid)[1:]  # not the one that waits for them
            if found:
                pid = chance.choice(found)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    pause.wait(chance.uniform(0.001, 0.08))
                    os.kill(pid, signal.SIGCONT)
            pause.wait(chance.uniform(0.001, 0.05))

    thread = threading.Thread(target=hold)
    thread.start()
    return thread


def session(leader: int) -> list[int]:
    """The processes of a session, the oldest first."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                stat = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
                if int(stat[3]) == leader and stat[0] != "Z":
                    found.append((int(stat[19]), int(name)))
    return [pid for _, pid in sorted(found)]


def is_own(entry: FileEntry) -> bool:
    """What the program keeps for itself."""
    return entry.path == OWN or entry.path.startswith(OWN + b"/")
