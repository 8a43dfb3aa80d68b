"""Gold disks of other shapes than the demonstration's: each is captured, a
part is laid on its base, and the disk read back is the tree that was planned.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import guestfs
import pytest

from splitimage_driver import exceptions
from splitimage_driver.application import Application
from splitimage_driver.archive.tree import TarTree
from splitimage_driver.capture.gold import GoldState
from splitimage_driver.capture.machine import Gold
from splitimage_driver.model.plan import Request
from tests.functional import bootgold

MiB = 1 << 20
SPARSE = "srv/sparse"


def _ext4_var_on_lvm(g: Any) -> dict[str, str]:
    g.part_init("/dev/sda", "mbr")
    g.part_add("/dev/sda", "p", 2048, -2048)
    g.pvcreate("/dev/sda1")
    g.vgcreate("gold", ["/dev/sda1"])
    g.lvcreate("root", "gold", 120)
    g.lvcreate("var", "gold", 60)
    g.mkfs("ext4", "/dev/gold/root")
    g.mkfs("ext4", "/dev/gold/var")
    return {"/": "/dev/gold/root", "/var": "/dev/gold/var"}


def _xfs_with_boot_on_gpt(g: Any) -> dict[str, str]:
    g.part_init("/dev/sda", "gpt")
    g.part_add("/dev/sda", "p", 2048, 64 * 2048)
    g.part_add("/dev/sda", "p", 64 * 2048 + 2048, -4096)
    g.mkfs("ext4", "/dev/sda1")
    g.mkfs("xfs", "/dev/sda2")
    return {"/": "/dev/sda2", "/boot": "/dev/sda1"}


def _btrfs_subvolumes(g: Any) -> dict[str, str]:
    g.part_init("/dev/sda", "gpt")
    g.part_add("/dev/sda", "p", 2048, -4096)
    g.mkfs("btrfs", "/dev/sda1")
    g.mount("/dev/sda1", "/")
    g.btrfs_subvolume_create("/@")
    g.btrfs_subvolume_create("/@home")
    g.umount_all()
    return {"/": "btrfsvol:/dev/sda1/@", "/home": "btrfsvol:/dev/sda1/@home"}


def _minix_data(g: Any) -> dict[str, str]:
    g.part_init("/dev/sda", "mbr")
    g.part_add("/dev/sda", "p", 2048, 100 * 2048)
    g.part_add("/dev/sda", "p", 101 * 2048, -2048)
    g.mkfs("ext4", "/dev/sda1")
    g.mkfs("minix", "/dev/sda2")
    return {"/": "/dev/sda1", "/srv": "/dev/sda2"}


def _fstab(mounts: dict[str, str]) -> bytes:
    lines = []
    for point, device in mounts.items():
        fstype, options = "auto", "defaults"
        if device.startswith("btrfsvol:"):
            real, _, volume = device.removeprefix("btrfsvol:").rpartition("/")
            device, fstype, options = real, "btrfs", f"subvol={volume}"
        lines.append(f"{device} {point} {fstype} {options} 0 0\n")
    return "".join(lines).encode()


def _root(path: Path, fstab: bytes) -> None:
    """The miniature's root as a tar, with a file that has a hole."""
    tree = bootgold._base() | {"etc/fstab": fstab}
    bootgold._tar(tree, path)
    with tarfile.open(path, "a", format=tarfile.PAX_FORMAT) as tar:
        for name in ("boot", "home"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        member = tarfile.TarInfo("boot/vmlinuz")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"linux"))


def _disk(directory: Path, layout: Callable[[Any], dict[str, str]]) -> Path:
    disk = directory / "gold.img"
    with disk.open("wb") as out:
        out.truncate((520 if layout is _xfs_with_boot_on_gpt else 256) * MiB)
    g = guestfs.GuestFS(python_return_dict=True)
    g.set_backend("direct")
    g.set_backend_setting("force_tcg", "1")
    g.add_drive(str(disk), format="raw")
    g.launch()
    mounts = layout(g)
    _root(directory / "root.tar", _fstab(mounts))
    for point in sorted(mounts):
        if point != "/":
            g.mkdir_p(point)
        if layout is not _minix_data or point == "/":  # the appliance cannot
            g.mount(mounts[point], point)
    g.tar_in(str(directory / "root.tar"), "/")
    if layout is not _minix_data:
        g.write(f"/{SPARSE}", b"begins")
        g.truncate_size(f"/{SPARSE}", 8 * MiB)
    g.shutdown()
    g.close()
    return disk




@pytest.mark.accept
@pytest.mark.must_show("main-job", 4)
@pytest.mark.parametrize("layout", [
    _ext4_var_on_lvm, _xfs_with_boot_on_gpt, _btrfs_subvolumes])
def test_a_base_of_this_shape_takes_a_part(layout: Callable[[Any], dict[str, str]],
                                           tmp_path: Path) -> None:
    disk = _disk(tmp_path, layout)
    software = bootgold._software(bootgold._base(), "apache", 110)
    bootgold._tar(bootgold._base() | software, tmp_path / "apache.tar")
    application = Application(tmp_path / "store")
    composite = application.images.capture("small", Gold(
        disk=disk, steps=(("apache", tmp_path / "apache.tar"),)))
    base = application.store.manifest(composite.base.manifest)
    hole = base.by_path[SPARSE.encode()]
    assert hole.size == 8 * MiB
    assert hole.sparse == ((0, 4096),)

    plan, made = application.images.assemble(Request(composite="small", parts=("apache",)))
    assert plan.target is not None
    with application.images.session(application.store.path(made.disk), "qcow2",
                                    composite.base.mounts, readonly=True) as session:
        session.read_tree(tmp_path / "back.tar")
        back = GoldState("back", TarTree(tmp_path / "back.tar"),
                         sparse=session.sparse_files()).manifest
    planned = [e for e in plan.target.manifest if e.path]
    assert [e for e in back if e.path] == planned
    assert back.by_path[b"srv/www/apache"].size > 0
    application.store.close()


@pytest.mark.accept
def test_a_file_system_that_nobody_knows_is_one_clear_refusal(tmp_path: Path) -> None:
    disk = _disk(tmp_path, _minix_data)
    application = Application(tmp_path / "store")
    with pytest.raises(exceptions.Unsupported, match=r"/srv of .*gold\.img is not supported: "
                                                     "its file system is minix"):
        application.images.capture("small", Gold(disk=disk, software={"x": ("x",)}))
    assert application.store.composites() == []
    assert application.store.parts() == []
    application.store.close()
