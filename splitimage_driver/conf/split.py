"""Options of the import plugin, which splits gold disks inside Glance."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "split"
OPTS = [
    cfg.StrOpt("directory", default="/var/lib/glance/splitimage",
               help="""Directory for the work in progress of imports that are split.

Possible values: a path on a file system with room for three times the largest
gold disk's contents; it is made, with access for its user only, when it does
not exist. Each Glance host has its own. What a split leaves behind that was
killed is removed when the next one begins.

Related options: ``[store] minimum_free``"""),
    cfg.IntOpt("max_parallel", default=1, min=1, max=64,
               help="""How many gold disks are split at the same time on this host.

Further ones wait, in order of arrival, and each holds one of the threads that
Glance has for imports (its ``[wsgi] task_pool_threads``) meanwhile. A split
takes ``appliance_memory``, about as much again, and one processor.

Related options: ``[assembly] appliance_memory``"""),
    cfg.IntOpt("timeout", default=7200, min=1,
               help="""Seconds after which a split is ended, and its import fails.

The time that it waits for its turn does not count.

Related options: ``[split] max_parallel``"""),
]
