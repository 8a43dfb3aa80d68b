"""nova-compute, on each of the hosts."""

from __future__ import annotations

from pathlib import Path

from tests.cloud import nova
from tests.cloud.machines import ENTERED, STATE, Machine, OnMachine
from tests.cloud.state import SPLITIMAGE

#: Of the setting to Nova's option.
DRIVERS = {SPLITIMAGE: "splitimage.SplitImageDriver", "stock": "libvirt.LibvirtDriver"}
_SSH = """\
#!/bin/sh
# ssh between the hosts of the test cloud, as far as Nova uses it.
set -eu
while :; do
    case $1 in
        -o) shift 2 ;;
        -*) shift ;;
        *) break ;;
    esac
done
pid=$("{directory}/host-pid" "$1")
shift
exec nsenter {entered} --target "$pid" sh -c "$*"
"""
_SCP = """\
#!/bin/sh
# scp between the hosts of the test cloud, as far as Nova uses it.
set -eu
while :; do
    case $1 in
        -*) shift ;;
        *) break ;;
    esac
done
place() {{
    case $1 in
        /*) echo "$1" ;;
        *:*) echo "/proc/$("{directory}/host-pid" "${{1%%:*}}")/root${{1#*:}}" ;;
        *) echo "$1" ;;
    esac
}}
from=$(place "$1")
to=$(place "$2")
exec cp -r --sparse=auto "$from" "$to"
"""
_PID = """\
#!/bin/sh
# Of the host with this address or name.
case $1 in
{cases}
    *) echo "ssh: no host $1 in this cloud" >&2; exit 255 ;;
esac
pid=$(cat "$file" 2>/dev/null) && [ -e "/proc/$pid/root/run/ready" ] || {{
    echo "ssh: host $1 does not answer" >&2
    exit 255
}}
echo "$pid"
"""


class Compute(OnMachine):
    stage = 3
    loads_driver = True

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, "nova-compute")

    def files(self) -> dict[str, str]:
        """One host's differs by overrides of names with its number."""
        number, settings = self.machine.number, self.site.state.settings
        state = self.site.directory / STATE
        helper = (f"{self.site.packages.program('privsep-helper')} --config-file "
                  f"{self.directory / 'nova.conf'}")
        common = nova.common(self.site)
        own: dict[str, dict[str, object]] = {
            "DEFAULT": {
                "host": self.machine.name, "my_ip": self.machine.address,
                "state_path": state, "compute_driver": DRIVERS[settings.compute_driver],
                # Nobody waits for a guest that does not listen.
                "shutdown_timeout": 0,
                "vif_plugging_is_fatal": "false", "vif_plugging_timeout": 0,
                "heal_instance_info_cache_interval": -1,
                # All hosts have the same processors, memory and disk.
                "initial_cpu_allocation_ratio": 64, "initial_ram_allocation_ratio": 2,
                "initial_disk_allocation_ratio": 20},
            "libvirt": {
                "connection_uri": "qemu:///system", "inject_partition": -2,
                **({"virt_type": "kvm", "cpu_mode": "host-passthrough"} if self.site.has_kvm
                   else {"virt_type": "qemu", "cpu_mode": "none"}),
                "live_migration_inbound_addr": self.machine.address,
                "migration_inbound_addr": self.machine.address,
                "live_migration_scheme": "tcp"},
            "oslo_concurrency": {"lock_path": state / "locks"},
            "os_brick": {"lock_path": state / "locks"},
            "nova_sys_admin": {"helper_command": helper},
            "privsep_osbrick": {"helper_command": helper}}
        if settings.with_driver:
            own["splitimage"] = {"config_file": self.directory / "splitimage.conf"}
        return {
            "nova.conf": self.ini("nova.conf", {
                name: {**common.get(name, {}), **own.get(name, {})} for name in {**common, **own}},
                over=("nova.conf", "nova-compute.conf", f"nova-compute-{number}.conf")),
            "splitimage.conf": self.ini("splitimage.conf", {
                "store": {"path": self.machine.store}},
                over=("splitimage.conf", "splitimage-compute.conf",
                      f"splitimage-compute-{number}.conf")),
            "ssh": _SSH.format(directory=self.directory, entered=" ".join(ENTERED)),
            "scp": _SCP.format(directory=self.directory),
            "host-pid": _PID.format(cases="\n".join(
                f'    {self.site.state.address(n)} | host-{n}) '
                f'file="{self.site.directory / f"host-{n}" / "pid"}" ;;' for n in range(1, 10)))}

    def configure(self) -> None:
        super().configure()
        for name in ("ssh", "scp", "host-pid"):
            (self.directory / name).chmod(0o700)

    def variables(self) -> dict[str, str]:
        told = {"PATH": f"{self.directory}:{self.path()}", "LIBGUESTFS_BACKEND": "direct"}
        if not self.site.has_kvm:
            # What Nova asks libguestfs for is done without KVM, too.
            told["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
        return told

    def words(self) -> list[str | Path]:
        return self.machine.within(self.site.packages.program("nova-compute"), "--config-file",
                                   self.directory / "nova.conf")

    def is_ready(self) -> bool:
        """Servers can be put there."""
        listed = nova.get(self.site, "os-hypervisors") or {}
        return (self.machine.name in [one["hypervisor_hostname"]
                                      for one in listed.get("hypervisors", ())]
                and nova.reports(self.site, self.daemon, "nova-compute", self.machine.name))
