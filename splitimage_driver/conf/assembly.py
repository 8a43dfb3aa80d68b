"""Options of the assembly: the appliance and its limits."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "assembly"
OPTS = [
    cfg.StrOpt("driver", default="guestfs",
               help="""What opens disks and writes into them.

Possible values: the name of an entry point of ``splitimage.assemblers``;
``guestfs`` is the libguestfs appliance."""),
    cfg.IntOpt("max_parallel", default=1, min=1, max=64,
               help="""How many assemblies run at the same time on this host.

Further ones wait in a queue (``splitimage queue list``), in order of arrival;
those of one project and composite in the order in which they are best made
from each other. Each takes ``appliance_memory`` and one processor.

Related options: ``[assembly] appliance_memory``, ``[assembly]
max_scratch_bytes``"""),
    cfg.IntOpt("max_scratch_bytes", default=0, min=0,
               help="""Bytes of the store's file system for assemblies that run at the same time.

Each is predicted to need the size of the disk that it begins with and of the
files that it injects. One that does not fit beside those that run waits in
the queue; one that needs more than this by itself is refused at once.

Possible values: 0 for no limit other than the file system's own.

Related options: ``[assembly] max_parallel``, ``[store] minimum_free``"""),
    cfg.IntOpt("appliance_memory", default=1024, min=512, max=65536,
               help="Memory of the libguestfs appliance in MiB."),
    cfg.IntOpt("launch_timeout", default=180, min=5, max=3600,
               help="""Seconds after which an appliance that has not started is killed.

About 3 are usual with hardware virtualisation, 10 to 30 without."""),
    cfg.StrOpt("accelerator", default="auto", choices=[
        ("auto", "try hardware virtualisation once, remember whether it works"),
        ("kvm", "always use hardware virtualisation"),
        ("tcg", "always emulate")],
        help="How the appliance and embedded servers are run."),
    cfg.StrOpt("cache_mode", default="unsafe", choices=[
        ("unsafe", "the host may keep writes in memory until the disk is published"),
        ("writeback", "guest flushes reach the host's disk")],
        help="""How writes of the appliance reach the working copy of a disk.

The working copy is synced once before it is published, so nothing is lost
with ``unsafe``."""),
]
