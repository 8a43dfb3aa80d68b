"""Compute hosts: each a mount and a host name of its own on this machine, with
its own libvirt.

All that libvirt and Nova keep at fixed places is another directory in each of
them, so neither two hosts, nor two clouds, nor what else runs here meet. A
process belongs to a host if it is in its mount namespace, which is named after
the cloud: that is how guests are found, whose environment libvirt makes.
"""

from __future__ import annotations

import shutil
import socket
import uuid
from pathlib import Path

from tests.cloud.service import Service, Site, tool

#: Where Nova keeps its state, for all hosts: each sees another directory there.
STATE = "nova-state"
#: What of a host nsenter enters; the root, because this may be a chroot, which the
#: directory of whoever enters is not in.
ENTERED = ("--mount", "--uts", "--root", "--wdns=/")
#: In a host's directory, and where the host sees it.
_PLACES = {"libvirt-etc": "/etc/libvirt", "libvirt-lib": "/var/lib/libvirt",
           "libvirt-cache": "/var/cache/libvirt", "libvirt-log": "/var/log/libvirt"}
_STORE, _NOVA = "store", "nova"
#: Told to whoever asks the host's init, when all is mounted.
_READY = "run/ready"
_SETUP = """\
set -eu
umask 022
cd {directory}
hostname {name}
# Nothing of the system's services is seen from here.
mount -t tmpfs -o mode=755 {mark} /run
mkdir /run/lock /run/libvirt
mount --bind hosts /etc/hosts
# libvirt starts only where the user is known whom it would make guests run as.
for file in passwd group; do
    cp /etc/$file .
    grep -q ^libvirt-qemu: $file || cat more-$file >> $file
    mount --bind $file /etc/$file
done
bind() {{
    mkdir -p "$2"
    mount --bind "$1" "$2"
}}
{binds}
cp qemu.conf /etc/libvirt/
{devices}
touch /run/ready
exec sleep infinity
"""
#: libvirt takes a device that is there for one that works.
_DEVICES = """\
mount -t tmpfs -o mode=755 dev devices
for device in /dev/*; do
    case $device in
        /dev/kvm) continue ;;
    esac
    if [ -d "$device" ] && ! [ -L "$device" ]; then
        mkdir "devices/${device#/dev/}"
        mount --rbind "$device" "devices/${device#/dev/}"
    else
        cp -a "$device" devices/
    fi
done
mount --move devices /dev"""
_QEMU = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
remember_owner = 0
migration_address = "{address}"
"""
_LIBVIRTD = """\
listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{uuid}"
"""


def _is_mounted(place: str) -> bool:
    """In a chroot the root may be any directory: its mount is out of reach, and
    private already for whoever has entered as ``./run`` says."""
    return any(line.split()[4] == place
               for line in Path("/proc/self/mountinfo").read_text().splitlines())


class Machine(Service):
    """A host without what runs on it; it runs as long as its init does.

    :ivar address: of the loopback network, of this host alone
    """

    # After the database: with a new one there is nothing left of servers here.
    stage = 1

    def __init__(self, site: Site, number: int) -> None:
        super().__init__(site, f"host-{number}")
        self.number = number
        self.address = site.state.address(number)

    # -- what of it others want --------------------------------------------------------

    @property
    def state(self) -> Path:
        """Nova's on this host."""
        return self.directory / _NOVA

    @property
    def instances(self) -> Path:
        return self.state / "instances"

    @property
    def store(self) -> Path:
        """This project's on this host."""
        return self.directory / _STORE

    def within(self, *words: str | Path) -> list[str | Path]:
        """The command, on this host."""
        return [tool("nsenter"), *ENTERED, "--target", str(self.daemon.pid), *words]

    def seen(self, path: str) -> Path:
        """What the host has there, seen from here; while it runs."""
        return Path(f"/proc/{self.daemon.pid}/root") / path

    def listens(self, path: str) -> bool:
        """Somebody does at that socket of the host's."""
        with socket.socket(socket.AF_UNIX) as peer:
            try:
                peer.connect(str(self.seen(path)))
            except OSError:
                return False
        return True

    # -- a service as others are -------------------------------------------------------

    @property
    def url(self) -> str:
        return self.address

    def ports(self) -> tuple[str, ...]:
        return ()

    @property
    def prepare_key(self) -> str:
        return "1"

    def files(self) -> dict[str, str]:
        binds = {**{self.directory / name: place for name, place in _PLACES.items()},
                 self.state: self.site.directory / STATE}
        names = "".join(f"{self.site.state.address(number)} host-{number}\n"
                        for number in range(1, 10))
        return {
            "setup.sh": _SETUP.format(
                directory=self.directory, name=self.name,
                mark=f"{self.site.state.mark}/{self.name}",
                binds="\n".join(f"bind {ours} {theirs}" for ours, theirs in binds.items()),
                devices="" if self.site.has_kvm else _DEVICES),
            "hosts": f"127.0.0.1 localhost\n{names}",
            "more-passwd": "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin\n",
            "more-group": "libvirt-qemu:x:64055:\n",
            "qemu.conf": _QEMU.format(address=self.address)}

    def words(self) -> list[str | Path]:
        return [tool("unshare"), "--mount", "--uts", "--propagation",
                "private" if _is_mounted("/") else "unchanged", tool("sh"),
                self.directory / "setup.sh"]

    def prepare(self) -> None:
        """Nothing is left of servers that are in no database any more."""
        for name in (*_PLACES, _NOVA, _STORE, "devices"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
            (self.directory / name).mkdir(mode=0o755)
        self.instances.mkdir()

    def is_ready(self) -> bool:
        return self.daemon.pid is not None and self.seen(_READY).exists()

    def end(self) -> bool:
        """As if the plug were pulled, for the guests too."""
        killed = self.daemon.kill()
        return self.daemon.stop() or killed


class OnMachine(Service):
    """Something that runs on a host."""

    def __init__(self, machine: Machine, name: str) -> None:
        super().__init__(machine.site, f"{name}-{machine.number}")
        self.machine = machine

    @property
    def url(self) -> str:
        return self.machine.name

    def ports(self) -> tuple[str, ...]:
        return ()

    def prepare(self) -> None:
        pass


class Consoles(OnMachine):
    """virtlogd, which writes what the guests say."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, "virtlogd")

    def files(self) -> dict[str, str]:
        return {"virtlogd.conf": ""}

    def words(self) -> list[str | Path]:
        return self.machine.within(tool("virtlogd"), "-f", self.directory / "virtlogd.conf")

    def is_ready(self) -> bool:
        return self.machine.listens("run/libvirt/virtlogd-sock")


class Libvirt(OnMachine):
    """Other hosts migrate their guests to it."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, "libvirtd")

    @property
    def url(self) -> str:
        return f"qemu+tcp://{self.machine.address}/system"

    def files(self) -> dict[str, str]:
        mark = uuid.UUID(self.site.state.mark)
        return {"libvirtd.conf": _LIBVIRTD.format(
            address=self.machine.address, uuid=uuid.uuid5(mark, self.machine.name))}

    def words(self) -> list[str | Path]:
        return self.machine.within(tool("libvirtd"), "-f", self.directory / "libvirtd.conf",
                                   "--listen")

    def is_ready(self) -> bool:
        return self.machine.listens("run/libvirt/libvirt-sock")
