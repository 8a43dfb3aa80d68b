"""An assembly against the two ways to do the same without this project.

All that is compared starts with a copy of the same base disk and ends with
a disk that has {apache, mysql, php}, in appliances of the same size. Rounds
alternate, ratios are those of medians. ``SPLITIMAGE_ROUNDS`` sets how many
there are (3); the packages are installed once, for that takes minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from demo import gold
from splitimage_driver.application import Application
from splitimage_driver.archive.tree import BlobTree
from splitimage_driver.assembly import assembler, disks
from splitimage_driver.assembly.base import Session, Space
from splitimage_driver.capture.machine import Gold
from splitimage_driver.launch import accelerator
from splitimage_driver.model.composite import Mount
from splitimage_driver.model.plan import Plan, Request
from tests.benchmarks.results import ROOT, Results

pytestmark = pytest.mark.must_show("main-job", 5)

ROUNDS = int(os.environ.get("SPLITIMAGE_ROUNDS", "3"))
REQUEST = Request(composite="lamp", parts=("apache", "mysql", "php"))
PACKAGES = [name for step in gold.LAMP for name in step.packages]
OURS, TAR_IN, INSTALL, EXACT = ("assembly", "guestfish tar-in", "virt-customize --install",
                                "exact match")
Note = Callable[[str, object], None]


class Bench:
    """A store with the composite, and copies of its base to work on."""

    def __init__(self, home: Path) -> None:
        self.home, self.application = home, Application(home / "store")
        self.images, self.store = self.application.images, self.application.store
        tars = gold.build_steps(gold.CACHE, gold.LAMP)
        disk = gold.bios_disk(tars[gold.BASE], home / "gold.qcow2")
        composite = self.images.capture("lamp", Gold(
            disk=disk, steps=tuple((step.name, tars[step.name]) for step in gold.LAMP)))
        disk.unlink()
        self.base = self.store.path(composite.base.disk)
        self.mounts: tuple[Mount, ...] = composite.base.mounts
        options = self.application.conf.assembly
        self.memory = options.appliance_memory
        self.processors = getattr(options, "appliance_cpus", 1)
        self.cache_mode = options.cache_mode
        # For programs that start an appliance of their own.
        self.environment = dict(os.environ)
        if self.application.accelerator == accelerator.TCG:
            self.environment["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"

    def run(self, *words: str | Path, script: str | None = None) -> str:
        done = subprocess.run(words, input=script, capture_output=True, text=True, check=False,
                              env=self.environment)
        assert done.returncode == 0, f"{words}: {done.stderr[-2000:]}"
        return done.stdout

    def copy(self, source: Path) -> Path:
        """A working copy, as quick as the host can."""
        target = self.home / "work.qcow2"
        self.run("cp", "--reflink=auto", "--sparse=always", source, target)
        return target

    def fish(self, disk: Path, *commands: str, readonly: bool = False) -> str:
        """guestfish on a disk, in an appliance such as an assembly has."""
        drive = (f"add-drive {disk} format:qcow2 readonly:true" if readonly else
                 f"add-drive {disk} format:qcow2 cachemode:{self.cache_mode} discard:besteffort")
        options = "ro" if readonly else "discard"
        mounts = [f"mount-options {options} {m.device} {m.mountpoint}" for m in self.mounts]
        return self.run("guestfish", script="\n".join((
            f"set-memsize {self.memory}", f"set-smp {self.processors}", drive, "run",
            *mounts, *commands, "umount-all", "shutdown", "")))

    def packages(self, disk: Path) -> set[str]:
        """Names of the packages installed on a disk."""
        status = self.fish(disk, "cat /var/lib/dpkg/status", readonly=True)
        return {match[1] for match in re.finditer(
            r"^Package: (\S+)\nStatus: install ok installed$", status, re.MULTILINE)}


class ToFile(Session):
    """Takes an assembly's archive to a file instead of a disk."""

    def __init__(self, mounts: tuple[Mount, ...], path: Path) -> None:
        self.mounts, self.path = mounts, path

    def write(self, fill: Callable[[BinaryIO], None], *, selinux: bool = False) -> None:
        with self.path.open("wb") as stream:
            fill(stream)

    def remove(self, files: Sequence[bytes], directories: Sequence[bytes]) -> None:
        """What is replaced on the base; tar replaces it as well."""

    def trim(self) -> None: ...

    def space(self) -> list[Space]:
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        raise NotImplementedError

    def read_tree(self, destination: Path) -> None:
        raise NotImplementedError

    def sparse_files(self) -> set[bytes]:
        raise NotImplementedError

    def read_file(self, path: bytes, destination: Path) -> None:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def bench(results: Results) -> Iterator[Bench]:
    home = ROOT / ".cache" / "benchmarks" / "work"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    made = Bench(home)
    results.facts |= {"accelerator": made.application.accelerator,
                      "appliance": f"{made.processors} processors, {made.memory} MiB, "
                                   f"cache {made.cache_mode}"}
    yield made
    made.store.close()
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def rounds(bench: Bench, results: Results) -> Plan:
    """Assembly, exact match and bare tar-in, by turns; the assembly's plan."""
    plan = bench.images.plan(REQUEST)
    assert plan.estimate.match == "base" and plan.work is not None
    archive = bench.home / "files.tar"
    assembler.assemble(ToFile(bench.mounts, archive), plan.work,
                       lambda blob, members: BlobTree(bench.store.path(blob)).contents(members))
    results.facts["files"] = (f"{len(plan.work.missing)}, "
                              f"{archive.stat().st_size / 1e6:.0f} MB as tar")
    bench.fish(bench.copy(bench.base))  # the appliance is built, all is in the page cache
    for _ in range(ROUNDS):
        _tar_in(bench, results, archive)
        _assembly(bench, results)
    archive.unlink()
    return plan


def _tar_in(bench: Bench, results: Results, archive: Path) -> None:
    began = time.monotonic()
    disk = bench.copy(bench.base)
    bench.fish(disk, f"tar-in {archive} / xattrs:true acls:true")
    results.note(TAR_IN, time.monotonic() - began)
    disk.unlink()


def _assembly(bench: Bench, results: Results) -> None:
    for image in bench.store.images():
        bench.store.delete_image(image.id)
    began = time.monotonic()
    plan, done = bench.images.assemble(REQUEST)
    results.note(OURS, time.monotonic() - began)
    assert plan.estimate.match == "base"
    for name in ("copy", "launch", "remove", "inject", "trim", "publish"):
        results.note(f"  of that, {name}", done.facts[f"{name}_seconds"])
    overlay = bench.home / "overlay.qcow2"
    for _ in range(5):
        began = time.monotonic()
        with bench.images.assembled(REQUEST) as (plan, done):
            disks.create_overlay(bench.store.path(done.disk), "qcow2", overlay)
        results.note(EXACT, time.monotonic() - began)
        assert plan.exact and disks.virtual_size(overlay) == gold.DISK_SIZE
        overlay.unlink()


def test_an_assembly_takes_at_most_a_quarter_more_than_bare_tar_in(
        rounds: Plan, results: Results, record_property: Note) -> None:
    ratio = results.ratio(OURS, TAR_IN, "at most 1.25")
    record_property("assembly / guestfish tar-in", f"{ratio:.2f}")
    assert ratio <= 1.25


def test_an_exact_match_is_ready_in_a_second_and_twenty_times_faster(
        rounds: Plan, results: Results, record_property: Note) -> None:
    ratio = results.ratio(OURS, EXACT, "at least 20")
    record_property("exact match", f"{results.median(EXACT):.2f} s")
    record_property("assembly / exact match", f"{ratio:.0f}")
    assert max(results.seconds[EXACT]) < 1
    assert ratio >= 20


def test_an_assembly_takes_at_most_a_sixth_of_installing_the_packages(
        bench: Bench, rounds: Plan, results: Results, record_property: Note) -> None:
    size = ("--memsize", str(bench.memory), "--smp", str(bench.processors))
    listed = bench.home / "listed.qcow2"
    shutil.copyfile(bench.base, listed)
    # Not counted: package lists, and no more packages than the gold machine has.
    bench.run("virt-customize", "--format", "qcow2", "-a", listed, "--network", *size,
              "--write", '/etc/apt/apt.conf.d/99recommends:APT::Install-Recommends "false";',
              "--run-command", "apt-get update")
    began = time.monotonic()
    disk = bench.copy(listed)
    bench.run("virt-customize", "--format", "qcow2", "-a", disk, "--network", *size,
              "--install", ",".join(PACKAGES))
    results.note(INSTALL, time.monotonic() - began)
    _, done = bench.images.assemble(REQUEST)
    assert bench.packages(disk) == bench.packages(bench.store.path(done.disk))
    ratio = results.ratio(INSTALL, OURS, "at least 6")
    record_property("virt-customize / assembly", f"{ratio:.1f}")
    record_property("on", results.facts["machine"])
    assert ratio >= 6
