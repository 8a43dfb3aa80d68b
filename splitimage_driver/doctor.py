"""Checks of this host: what is missing, and how to mend it.

libguestfs is looked for, never imported: a broken binding must not break its
own diagnosis.
"""

from __future__ import annotations

import grp
import importlib.metadata
import importlib.util
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from splitimage_driver import exceptions, process
from splitimage_driver.launch import accelerator

#: The tools that some command cannot do without.
TOOLS = ("qemu-img", "mksquashfs", "sqfs2tar", "supermin", "prlimit")
PYTHON = (3, 11)
#: A base and a few parts; the appliance that libguestfs builds for itself.
_STORE_ROOM, _APPLIANCE_ROOM = 4 << 30, 1 << 30
_KVM = Path("/dev/kvm")
#: Kernels that supermin passes over.
_UNBOOTABLE = ("xen", "zfcpdump", "+debug")


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar ok: None is a warning: it works, but slower, or not for long
    :ivar detail: what was found
    :ivar mend: what to do; "" where nothing is to be done
    """

    name: str
    ok: bool | None
    detail: str
    mend: str = ""


def checks(conf: Any, store_path: Path) -> Iterator[Check]:
    """One after the other, each as soon as it is known.

    :param conf: the whole configuration
    :param store_path: the store's directory; need not exist yet
    """
    yield _python()
    for tool in (conf.launch.qemu, *TOOLS):
        yield _tool(tool)
    yield _binding()
    yield from _nova()
    yield _kernel()
    yield _accelerator(conf)
    if _KVM.exists() and not os.access(_KVM, os.R_OK | os.W_OK):
        yield _kvm_group()
    yield _firmware(conf)
    yield _room("store", store_path, _STORE_ROOM, conf.store.minimum_free,
                "point --store at a larger disk, or run: splitimage image prune")
    yield _room("appliance cache", Path(os.environ.get("LIBGUESTFS_CACHEDIR") or
                                        os.environ.get("TMPDIR") or "/var/tmp"),  # noqa: S108
                _APPLIANCE_ROOM, 0,
                "free some there, or set LIBGUESTFS_CACHEDIR to a directory with room")


def kernel(root: Path = Path("/"), env: Mapping[str, str] | None = None) -> Path:
    """The kernel that libguestfs will boot its appliance with: a fixed
    appliance's, the one that SUPERMIN_KERNEL names, or the newest of the host
    that has modules, as supermin picks it.

    :param root: where to look for /boot and /lib/modules
    :param env: None: this process's environment
    :raises KernelUnreadable: there is none, or this user cannot read it
    """
    env = os.environ if env is None else env
    for directory in filter(None, env.get("LIBGUESTFS_PATH", "").split(":")):
        if Path(directory, "README.fixed").exists():
            return _readable(Path(directory, "kernel"), "of the fixed appliance")
    if env.get("SUPERMIN_KERNEL"):
        return _readable(Path(env["SUPERMIN_KERNEL"]), "that SUPERMIN_KERNEL names")
    found = list((root / "lib/modules").glob("*/vmlinuz"))
    newest = _newest(found, lambda path: path.parent.name)
    if newest is None:
        boot = [path for path in (root / "boot").glob("vmlinu?-*")
                if _modules(root, path, env).joinpath("modules.dep").is_file()]
        machine = ("amd64", "x86_64")  # preferred, not required
        named = [path for path in boot if path.name.endswith(machine)]
        newest = _newest(named, _version) or _newest(boot, _version)
    if newest is None:
        raise exceptions.KernelUnreadable(
            reason="there is no /boot/vmlinuz-* with its modules in /lib/modules")
    return _readable(newest, "of this host")


def _newest(found: list[Path], version: Callable[[Path], str]) -> Path | None:
    bootable = [path for path in found if not any(word in str(path) for word in _UNBOOTABLE)]

    def natural(path: Path) -> list[tuple[int, str]]:
        return [(int(digits or 0), text)
                for text, digits in re.findall(r"(\D*)(\d*)", version(path))]

    return max(bootable, key=natural, default=None)


def _version(path: Path) -> str:
    return path.name.partition("-")[2]


def _modules(root: Path, path: Path, env: Mapping[str, str]) -> Path:
    return Path(env.get("SUPERMIN_MODULES") or root / "lib/modules" / _version(path))


def _readable(path: Path, whose: str) -> Path:
    if not path.exists():
        raise exceptions.KernelUnreadable(reason=f"{path}, the kernel {whose}, does not exist")
    if not os.access(path, os.R_OK):
        raise exceptions.KernelUnreadable(
            reason=f"{path}, the kernel {whose}, is not readable for this user")
    return path


# -- the checks -------------------------------------------------------------------

def cloud(ask: Callable[[], str]) -> Check:
    """Whether a cloud can be used.

    :param ask: asks it something, and tells what answered
    """
    try:
        return Check(name="cloud", ok=True, detail=ask())
    except exceptions.SplitImageError as error:
        return Check(name="cloud", ok=False, detail=str(error), mend=error.advice)


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check(name="python", ok=sys.version_info >= PYTHON, detail=found,
                 mend="" if sys.version_info >= PYTHON else
                 f"use Python {'.'.join(map(str, PYTHON))} or newer")


def _tool(tool: str) -> Check:
    try:
        return Check(name=Path(tool).name, ok=True, detail=process.find(tool))
    except exceptions.ToolMissing as error:
        return Check(name=Path(tool).name, ok=False, detail="not installed",
                     mend=f"apt-get install {error.fields['package']}")


def _binding() -> Check:
    found = importlib.util.find_spec("guestfs")
    if found is not None:
        return Check(name="libguestfs binding", ok=True, detail=found.origin or "built in")
    return Check(name="libguestfs binding", ok=False,
                 detail=f"{sys.executable} has no module guestfs",
                 mend="apt-get install python3-guestfs, and use a virtual environment made "
                      "by /usr/bin/python3 with --system-site-packages")


def _nova() -> Iterator[Check]:
    """Whether Nova, where it is in this environment, finds the compute driver."""
    try:
        importlib.metadata.version("nova")
    except importlib.metadata.PackageNotFoundError:
        return
    found = importlib.util.find_spec("nova")
    if found is None:
        return
    if found.origin is None:
        # Python takes a directory of that name for the package before it asks
        # where an editable one is. pip leaves it there, empty.
        place = next(iter(found.submodule_search_locations or ["nova"]))
        yield Check(name="nova", ok=False,
                    detail=f"an editable Nova is hidden by the directory {place}",
                    mend=f"pip uninstall splitimage-driver; rmdir {place}/virt {place}; "
                         "pip install --editable CHECKOUT; and link CHECKOUT/nova/virt/splitimage "
                         "into Nova's nova/virt")
        return
    shim = Path(found.origin).parent / "virt" / "splitimage"
    if (shim / "__init__.py").exists():
        yield Check(name="nova", ok=True, detail=f"the compute driver is found: {shim}")
    else:
        yield Check(name="nova", ok=None, detail=f"the compute driver is not found: no {shim}",
                    mend=f"ln -s CHECKOUT/nova/virt/splitimage {shim}")


def _kernel() -> Check:
    try:
        return Check(name="appliance kernel", ok=True, detail=str(kernel()))
    except exceptions.KernelUnreadable as error:
        return Check(name="appliance kernel", ok=False, detail=error.fields["reason"],
                     mend="apt-get install linux-image-cloud-amd64; where kernels are for root "
                          "only, build a fixed appliance as root (libguestfs-make-fixed-appliance "
                          "DIR) and set LIBGUESTFS_PATH=DIR")


def _accelerator(conf: Any) -> Check:
    wanted = conf.assembly.accelerator
    try:
        chosen = accelerator.choose(wanted, qemu=conf.launch.qemu)
    except exceptions.ToolMissing:
        return Check(name="accelerator", ok=False, detail=f"no {conf.launch.qemu} to try it with",
                     mend="install qemu first")
    if wanted != accelerator.AUTO:
        return Check(name="accelerator", ok=True, detail=f"{chosen}, as configured")
    if chosen == accelerator.KVM:
        return Check(name="accelerator", ok=True, detail="kvm: a guest was run")
    detail, mend = "/dev/kvm is there, but no guest runs: machines are emulated, slowly", (
        "on a nested host, have its own host enable nested virtualisation; "
        "tried again within an hour and after a boot")
    if not _KVM.exists():
        detail, mend = "no /dev/kvm: machines are emulated, slowly", (
            "load kvm_intel or kvm_amd, or enable virtualisation in the firmware "
            "or on this machine's own host")
    elif not os.access(_KVM, os.R_OK | os.W_OK):
        detail, mend = "no right to use /dev/kvm: machines are emulated, slowly", (
            "see the check of the kvm group")
    return Check(name="accelerator", ok=None, detail=detail, mend=mend)


def _kvm_group() -> Check:
    """Why this user may not use the device. A device made without udev may
    have another group's number: nobody should join that group."""
    device = _KVM.stat()
    try:
        group = grp.getgrnam("kvm")
    except KeyError:
        group = None
    if (group is None or device.st_gid != group.gr_gid or not device.st_mode & stat.S_IWGRP
            or group.gr_gid in (os.getgid(), *os.getgroups())):
        return Check(name="kvm group", ok=None, detail="/dev/kvm is not the group kvm's to use",
                     mend="let udev set its owner and mode: apt-get install udev, then boot again")
    return Check(name="kvm group", ok=None, detail="this user is not in the group kvm",
                 mend='usermod --append --groups kvm "$USER" as root, then log in again')


def _firmware(conf: Any) -> Check:
    for file in (conf.launch.uefi_code, conf.launch.uefi_variables):
        if not os.access(file, os.R_OK):
            return Check(name="UEFI firmware", ok=None,
                         detail=f"no {file}: disks that boot by UEFI cannot be launched",
                         mend="apt-get install ovmf, or set [launch] uefi_code and "
                              "uefi_variables")
    return Check(name="UEFI firmware", ok=True, detail=conf.launch.uefi_code)


def _room(name: str, path: Path, wanted: int, needed: int, mend: str) -> Check:
    place = path.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    detail = f"{free / 2**30:.1f} GiB free in {path}"
    if not os.access(place, os.W_OK):
        return Check(name=name, ok=False, detail=f"{place} is not writable for this user",
                     mend="use a directory of your own")
    if free <= needed:
        return Check(name=name, ok=False, detail=detail, mend=mend)
    if free < wanted:
        return Check(name=name, ok=None, mend=mend,
                     detail=f"{detail}; {wanted / 2**30:.0f} GiB are soon used up")
    return Check(name=name, ok=True, detail=detail)
