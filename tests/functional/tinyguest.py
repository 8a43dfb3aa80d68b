"""A bootable disk of 48 MiB, made in a second or two without root.

This host's kernel, busybox and nothing else: by BIOS through syslinux, by
UEFI through the firmware's own shell and the kernel's EFI stub. It

* counts its boots in the disk's sector :data:`SECTOR` and on the console, where
  it also tells which pages it has,
* answers HTTP on port 80 after a moment, greets on port 2200, is silent on
  port 7000 but keeps the connection, refuses every other,
* shuts down when its power button is pressed,
* tells on the console, whenever they change, the serial numbers of its further disks
  and the sha256 of what it reads from them (:func:`further`).

With :func:`add_root` its disk gets a root file system for libguestfs to find;
the guest then answers HTTP out of ``/srv/www`` of that.

Needs the packages busybox-static, cpio, e2fsprogs, fdisk, mtools, syslinux.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

PAGE = b"the tiny guest\n"
READY = "the tiny guest is ready"
FURTHER = "its further disks:"
SECTOR = 80000  # between the partition and the disk's end
_SIZE = 48 << 20
_FIRST = 2048
_SECTORS = 75000
_ROOT, _ROOT_SECTORS = 81920, 20 * 2048
#: Of the root file system on the disk, in bytes.
ROOT_OFFSET = _ROOT * 512
#: Where a base has its program that lays parts.
LAYOUT = "usr/lib/splitimage/layout"
#: One for this guest, which mounts nothing and changes nothing: it tells on the
#: console what a real one tells. What it is to lay at its first boot never ends; what
#: it is to lay at a later one, or is given while it runs, ends soon. Given two parts
#: or more while it runs it fails with the first, until it is given that plan again.
LAYS = r"""#!/bin/busybox sh
tell() { printf '\n{"splitimage":"%s",%s}\n' "$plan" "$1" >/dev/console; }
begun=$1; told=; failed=
while :; do
    plan=; parts=0
    for disk in /sys/block/sd*; do
        [ -e $disk/device/vpd_pg80 ] || continue
        serial=$(tail -c +5 $disk/device/vpd_pg80)
        case $serial in
        si-plan-*) plan=${serial#si-plan-} ;;
        si-*) parts=$((parts + 1)) ;;
        esac
    done
    if [ -z "$plan" ]; then
        told=; begun=later
    elif [ -z "$told" ]; then
        tell '"event":"begin","bytes":100'
        told=yes
        if [ "$begun" = 1 ]; then
            tell "\"event\":\"progress\",\"bytes\":$((parts * 600000))"
        elif [ "$begun" = later ] && [ $parts -gt 1 ] && [ "$failed" != "$plan" ]; then
            failed=$plan
            state='"failed","failed":{"php":"no room in /"}'
        else
            state='"complete"'
        fi
    fi
    if [ -n "$plan" ] && [ "$begun" != 1 ]; then
        tell "\"event\":\"end\",\"state\":$state,\"kept\":[],\"kept_count\":0"
    fi
    sleep 1
done
"""
_MODULES = ("virtio_pci", "virtio_net", "virtio_blk", "button", "evdev",
            "virtio_scsi", "sd_mod")
_INIT = f"""#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
while read module; do insmod $module; done </modules
ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
boots=$(dd if=/dev/vda bs=512 skip={SECTOR} count=1 2>/dev/null | tr -d '\\0')
boots=$((${{boots:-0}} + 1))
echo $boots | dd of=/dev/vda bs=512 seek={SECTOR} conv=sync,notrunc,fsync 2>/dev/null
echo "boot number $boots"
ls /dev/vd? | tr '\\n' ' '; echo
serials() {{
    for disk in /sys/block/sd*; do
        [ -e $disk/device/vpd_pg80 ] && echo $(tail -c +5 $disk/device/vpd_pg80) ${{disk##*/}}
    done
}}
further() {{
    before=
    while :; do
        now=$(serials)
        if [ "$now" != "$before" ]; then
            found=$(echo "$now" | while read -r serial disk; do
                [ "$disk" ] && echo -n " $serial=$(sha256sum /dev/$disk | cut -c -64)"
            done)
            echo "{FURTHER}$found"
            # Nothing was read where the kernel lists a disk that cannot be opened yet.
            case "$found " in
            *"= "*) ;;
            *) [ "$now" = "$(serials)" ] && before=$now ;;
            esac
        fi
        sleep 0.2
    done
}}
further &
acpid -l /dev/null
nc -ll -p 2200 -e echo hello &
nc -ll -p 7000 -e sleep 1000 &
echo "{READY}"
sleep 1
www=/www
# Not to be written: what booted must be what was assembled.
if mount -t ext4 -o ro /dev/vda2 /root 2>/dev/null; then www=/root/srv/www; fi
grep -qs busybox /root/{LAYOUT} && sh /root/{LAYOUT} $boots &
echo "it serves $(ls $www | tr '\n' ' ')"
httpd -p 80 -h $www
while :; do sleep 1000; done
"""


def further(console: Path) -> dict[str, str]:
    """What a guest last told of its further disks: serial number to sha256."""
    lines = [line for line in console.read_text(errors="replace").splitlines()
             if line.startswith(FURTHER)]
    return dict(word.split("=") for word in lines[-1].split()[3:]) if lines else {}


def kernel() -> Path:
    """The newest kernel of this host that has modules."""
    found = [file for file in Path("/boot").glob("vmlinuz-*")
             if Path("/lib/modules", file.name.removeprefix("vmlinuz-")).is_dir()]
    return max(found, key=lambda file: file.stat().st_mtime)


def build(directory: Path) -> Path:
    """Make ``directory``/tiny.raw."""
    root = directory / "root"
    for name in ("bin", "dev", "proc", "root", "sys", "www", "etc/acpi/PWRF"):
        (root / name).mkdir(parents=True)
    _run("cp", "/bin/busybox", root / "bin/busybox")
    _script(root / "init", _INIT)
    _script(root / "etc/acpi/PWRF/00000080", "#!/bin/busybox sh\n/bin/busybox poweroff -f\n")
    (root / "www/index.html").write_bytes(PAGE)
    modules = _modules(kernel().name.removeprefix("vmlinuz-"))
    for module in modules:
        _run("cp", module, root / module.name)
    (root / "modules").write_text("".join(f"/{module.name}\n" for module in modules))
    names = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
    initrd = directory / "initrd"
    initrd.write_bytes(_run("cpio", "-H", "newc", "-o", "--quiet", "-D", root,
                            send=names.encode()))
    return _disk(directory / "tiny.raw", initrd)


def add_root(disk: Path, tree: Path, uuid: str) -> None:
    """Give the disk a second partition: a root file system with ``tree``,
    all of it root's."""
    image = disk.with_name("root.ext4")
    with disk.open("r+b") as stream:
        stream.truncate((_ROOT + _ROOT_SECTORS) * 512)
    _run("sfdisk", "-q", "--append", disk, send=f"{_ROOT},{_ROOT_SECTORS},L\n".encode())
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-U", uuid, "-E", "root_owner=0:0", "-d", tree,
         image, f"{_ROOT_SECTORS // 2}k")
    _run("dd", f"if={image}", f"of={disk}", "bs=1M", f"seek={_ROOT // 2048}", "conv=notrunc,sparse",
         "status=none")
    image.unlink()


def _disk(disk: Path, initrd: Path) -> Path:
    with disk.open("wb") as stream:
        stream.truncate(_SIZE)
    _run("sfdisk", "-q", disk, send=f"{_FIRST},{_SECTORS},0xc,*\n".encode())
    loader = next(path for path in map(Path, ("/usr/lib/syslinux/mbr/mbr.bin",
                                              "/usr/lib/SYSLINUX/mbr.bin")) if path.exists())
    with disk.open("r+b") as stream:
        stream.write(loader.read_bytes()[:440])
    image = f"{disk}@@{_FIRST * 512}"
    _run("mformat", "-i", image, "-c", "16", "-T", str(_SECTORS), "-h", "64", "-s", "32",
         "-H", str(_FIRST), "::")
    # The kernel's own words would come between those of its lines.
    words = "console=ttyS0 loglevel=1 panic=-1"
    (disk.parent / "syslinux.cfg").write_text(
        f"default tiny\nlabel tiny\nkernel vmlinuz\ninitrd initrd\nappend {words}\n")
    (disk.parent / "startup.nsh").write_text(f"vmlinuz initrd=\\initrd {words}\r\n")
    _run("mcopy", "-i", image, kernel(), "::vmlinuz")
    _run("mcopy", "-i", image, initrd, disk.parent / "syslinux.cfg",
         disk.parent / "startup.nsh", "::")
    _run("syslinux", "--install", "-t", str(_FIRST * 512), disk)
    return disk


def _modules(version: str) -> list[Path]:
    """Files of the modules and what they need, in the order to load them."""
    found: dict[Path, None] = {}
    for name in _MODULES:
        output = _run("/sbin/modprobe", "-S", version, "--show-depends", name).decode()
        found.update((Path(line.split()[1]), None) for line in output.splitlines()
                     if line.startswith("insmod "))
    return list(found)


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _run(*words: str | Path, send: bytes = b"") -> bytes:
    done = subprocess.run(words, input=send, capture_output=True, check=False,
                          env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
    assert done.returncode == 0, f"{words}: {done.stderr.decode()}"
    return done.stdout
