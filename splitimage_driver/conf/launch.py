"""Options of the embedded hypervisor: servers on this host."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "launch"
OPTS = [
    cfg.StrOpt("driver", default="qemu",
               help="""What runs the servers.

Possible values: the name of an entry point of ``splitimage.launchers``;
``qemu`` runs them on this host."""),
    cfg.StrOpt("qemu", default="qemu-system-x86_64",
               help="""The program that runs a server.

Possible values: a name in PATH, or an absolute path."""),
    cfg.IntOpt("memory", default=1024, min=64,
               help="""Memory of a server in MiB, unless the request says otherwise.

Related options: ``[launch] max_memory``"""),
    cfg.IntOpt("cpus", default=2, min=1,
               help="""Processors of a server, unless the request says otherwise.

Related options: ``[launch] max_cpus``"""),
    cfg.IntOpt("max_memory", default=65536, min=64,
               help="The largest memory in MiB that a request may give a server."),
    cfg.IntOpt("max_cpus", default=16, min=1, max=255,
               help="The largest number of processors that a request may give a server."),
    cfg.IntOpt("max_parallel", default=8, min=1, max=256,
               help="""How many requests of a batch are launched at the same time.

Those of them that have to assemble still wait in the queue.

Related options: ``[assembly] max_parallel``"""),
    cfg.FloatOpt("timeout", default=300.0, min=1.0,
                 help="""Seconds to wait for a server to answer on its port.

About 10 are usual with hardware virtualisation, 20 to 100 without; a server
that ends meanwhile is reported at once."""),
    cfg.FloatOpt("layout_timeout", default=3600.0, min=1.0,
                 help="""Seconds to wait for a server that lays its parts while it runs.

It goes on by itself when they are over; ``splitimage server wait`` waits again.

Related options: ``[launch] timeout``"""),
    cfg.FloatOpt("stop_timeout", default=30.0, min=0.0,
                 help="""Seconds that a server has to shut down after its power button was pressed.

After them its power is cut. 0 cuts it at once."""),
    cfg.BoolOpt("outbound", default=False,
                help="""Whether servers reach the network, and this host's own services on it.

Without it only the forwarded ports work, from outside to the server. With it
a server may reach everything that this host's user may, ports that listen on
127.0.0.1 (other servers' too) included."""),
    cfg.StrOpt("uefi_code", default="/usr/share/OVMF/OVMF_CODE_4M.fd",
               help="""The firmware of servers whose disk boots by UEFI.

Related options: ``[launch] uefi_variables``"""),
    cfg.StrOpt("uefi_variables", default="/usr/share/OVMF/OVMF_VARS_4M.fd",
               help="""The firmware's empty variable store; each server gets a copy.

Possible values: the file that belongs to ``uefi_code``, of the same size."""),
]
