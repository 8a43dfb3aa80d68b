"""Gold machines to capture: Debian 12 on a disk, after each install step.

The roots are built natively by mmdebstrap, from wherever this host's own apt
gets its packages; the disks by ``demo/disk.sh`` on loop mounts. Both need
root and are for machines that one trusts: a tenant's image never comes here.

``python -m demo.gold --out DIR`` makes the disks of the demonstration.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SUITE = "bookworm"
BASE = "base"
BASE_PACKAGES = ("systemd", "systemd-sysv", "dbus", "udev", "linux-image-cloud-amd64",
                 "openssh-server", "ca-certificates", "iproute2", "kmod", "initramfs-tools")
KERNEL_OPTIONS = "console=tty0 console=ttyS0 ro"
DISK_SIZE = 3 * 1024**3
CACHE = Path(__file__).resolve().parent.parent / ".cache" / "gold"

_DISK_SCRIPT = Path(__file__).with_name("disk.sh")
#: Not part of a machine's state: what mmdebstrap puts there for its own use,
#: package downloads, and what the kernel mounts.
_LEFT_OUT = ("./proc/*", "./sys/*", "./dev/*", "./run/*", "./tmp/*", "./var/tmp/*",
             "./usr/sbin/policy-rc.d", "./etc/apt/apt.conf.d/00mmdebstrap",
             "./var/lib/apt/lists/*_*", "./var/cache/apt/*.bin",
             "./var/cache/apt/archives/*.deb")
#: What a person would set by hand on the fresh system. 10.0.2.3 is where
#: QEMU's user networking answers DNS.
_SET_UP = r"""
set -e
mkdir -p "$1/etc/systemd/network"
printf '[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n' >"$1/etc/systemd/network/80-dhcp.network"
chroot "$1" systemctl enable systemd-networkd
rm -f "$1/etc/resolv.conf" "$1/etc/hostname"
echo 'nameserver 10.0.2.3' >"$1/etc/resolv.conf"
echo gold >"$1/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 gold\n::1 localhost ip6-localhost\n' >"$1/etc/hosts"
"""


class Step(NamedTuple):
    """An install step: what the state after it is called, and what it installs."""

    name: str
    packages: tuple[str, ...]


LAMP = (Step("apache", ("apache2",)),
        Step("mysql", ("mariadb-server",)),
        Step("php", ("php", "libapache2-mod-php", "php-mysql")))


def build_steps(cache: Path, steps: Sequence[Step],
                base_packages: Sequence[str] = BASE_PACKAGES) -> dict[str, Path]:
    """The root file system after each step, as tar files.

    Services are not started. A second call with the same arguments finds the
    first one's files.

    :param cache: directory for the results, made if need be
    :returns: name of the state to tar file, ``base`` first
    :raises subprocess.CalledProcessError: mmdebstrap failed; its output is in
        ``cache``/build.log
    """
    home = cache / _key(steps, base_packages)
    names = [BASE, *(step.name for step in steps)]
    with _locked(cache):
        if not home.is_dir():
            with _beside(home) as work:
                _mmdebstrap(work, steps, base_packages, cache / "build.log")
    return {name: home / f"{name}.tar" for name in names}


def bios_disk(tar: Path, destination: Path, size: int = DISK_SIZE) -> Path:
    """A qcow2 of ``size`` bytes that boots from BIOS: MBR, one ext4, extlinux."""
    return _disk("bios", tar, destination, size)


def uefi_disk(tar: Path, destination: Path, size: int = DISK_SIZE) -> Path:
    """A qcow2 of ``size`` bytes that boots from UEFI: GPT, an ESP, /boot and /
    of their own, GRUB in the removable place."""
    return _disk("uefi", tar, destination, size)


def next_disk(disk: Path, tar: Path, destination: Path) -> Path:
    """The machine on ``disk`` after it came to the state of ``tar``: a new
    qcow2 with the same partitions, file systems and boot loader."""
    with _raw(destination) as raw:
        _run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, raw)
        _run(_DISK_SCRIPT, "next", raw, tar)
    return destination


def machine(cache: Path = CACHE, steps: Sequence[Step] = LAMP, *, firmware: str = "bios",
            base_packages: Sequence[str] = BASE_PACKAGES, size: int = DISK_SIZE,
            ) -> dict[str, Path]:
    """One machine's disk after each step, kept like the tars of
    :func:`build_steps`.

    :param firmware: ``bios`` or ``uefi``
    :returns: name of the state to qcow2, ``base`` first
    """
    tars = build_steps(cache, steps, base_packages)
    script = hashlib.sha256(_DISK_SCRIPT.read_bytes()).hexdigest()[:8]
    home = tars[BASE].parent / f"{firmware}-{size}-{script}"
    with _locked(cache):
        if not home.is_dir():
            with _beside(home) as work:
                last: Path | None = None
                for name, tar in tars.items():
                    here = work / f"{name}.qcow2"
                    last = (_disk(firmware, tar, here, size) if last is None
                            else next_disk(last, tar, here))
    return {name: home / f"{name}.qcow2" for name in tars}


# -- the parts of it ------------------------------------------------------------

def _key(steps: Sequence[Step], base_packages: Sequence[str]) -> str:
    """Names a build by all that goes into it, but for the packages' versions."""
    told = (SUITE, platform.machine(), tuple(base_packages), tuple(map(tuple, steps)),
            _LEFT_OUT, _SET_UP)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _mmdebstrap(work: Path, steps: Sequence[Step], base_packages: Sequence[str],
                log: Path) -> None:
    def keep(name: str) -> str:
        left_out = shlex.join(f"--exclude={pattern}" for pattern in _LEFT_OUT)
        # Status 1 is "a file changed as we read it": a directory, never content.
        return ("--customize-hook=tar --numeric-owner --xattrs --xattrs-include='*' --acls "
                f'--one-file-system -C "$1" {left_out} '
                f"-cf {shlex.quote(str(work / name))}.tar . || [ $? = 1 ]")

    # Hooks run outside the new root: without Chroot-Directory, apt would
    # install into this host.
    hooks = [f"--customize-hook={_SET_UP}", keep(BASE)]
    for step in steps:
        hooks += ["--customize-hook=APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --yes "
                  '-o DPkg::Chroot-Directory="$1" --no-install-recommends install '
                  f"{shlex.join(step.packages)}", keep(step.name)]
    # The stand-in for start-stop-daemon would be in the tars; policy-rc.d is
    # enough to keep services from starting.
    command = ["mmdebstrap", "--mode=root", "--variant=minbase",
               "--skip=chroot/start-stop-daemon", f"--include={','.join(base_packages)}",
               *hooks, SUITE, "/dev/null"]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    with log.open("wb") as output:
        subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL,
                       stdout=output, stderr=subprocess.STDOUT)


def _disk(firmware: str, tar: Path, destination: Path, size: int) -> Path:
    with _raw(destination) as raw:
        with raw.open("wb") as file:
            file.truncate(size)
        _run(_DISK_SCRIPT, firmware, raw, tar, KERNEL_OPTIONS)
    return destination


@contextlib.contextmanager
def _raw(destination: Path) -> Iterator[Path]:
    """A raw disk to work on, turned into the qcow2 ``destination`` afterwards."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".disk-") as directory:
        raw, result = Path(directory, "disk.raw"), Path(directory, "disk.qcow2")
        yield raw
        _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, result)
        result.rename(destination)


@contextlib.contextmanager
def _beside(home: Path) -> Iterator[Path]:
    """A directory that becomes ``home`` when the block ends well."""
    work = Path(tempfile.mkdtemp(dir=home.parent, prefix=".build-"))
    try:
        yield work
        work.chmod(0o755)
        work.rename(home)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in cache.glob("**/.build-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _run(program: str | Path, *arguments: str | Path) -> None:
    """:raises subprocess.CalledProcessError: with the program's own words
    printed before"""
    done = subprocess.run([program, *arguments], stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demo.gold",
        description="Make the disks of a Debian 12 machine after each install step: the "
                    "system, Apache, MariaDB, PHP. Needs root.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR",
                        help="where to put base.qcow2, apache.qcow2, mysql.qcow2, php.qcow2")
    parser.add_argument("--firmware", choices=("bios", "uefi"), default="bios")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    steps = []
    for name, disk in machine(firmware=arguments.firmware).items():
        here = arguments.out / disk.name
        shutil.copyfile(disk, here)
        steps.append(f"--step {name}={here}")
    print("Capture them with:\n  splitimage capture lamp", " ".join(steps))


if __name__ == "__main__":
    main()
