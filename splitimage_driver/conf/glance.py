"""Options of the store in the image service."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "glance"
OPTS = [
    cfg.StrOpt("cloud",
               help="""The cloud whose image service is the store, as ``clouds.yaml`` names it.

Possible values: a name; none: the one that the environment describes
(``OS_CLOUD``, or ``OS_AUTH_URL`` and the like). The command line's
``--os-cloud`` wins over this, and needs no ``[store] driver``.

Related options: ``[store] driver``"""),
    cfg.StrOpt("store", default="",
               help="""The Glance store that parts and manifests go to.

Possible values: an id as ``openstack image stores info`` shows it; empty: the
default store of the cloud. Disks, of composites and of completed images, always
go to the default store, whence servers start. The command line's
``--image-store`` wins over this."""),
    cfg.IntOpt("parallel", default=4, min=1, max=64,
               help="""Contents that are transferred at the same time, up or down.

Possible values: 1 is one after the other; more use a fast network better as
long as the service's disks keep up."""),
    cfg.FloatOpt("timeout", default=60.0, min=1.0,
                 help="""Seconds without a byte after which a connection counts as broken.

A broken transfer is continued or repeated; a command ends with an error once
several attempts in a row brought nothing.

Possible values: more than the service takes to answer when it is busy."""),
    cfg.FloatOpt("stall", default=60.0, min=1.0,
                 help="""Seconds without a sign of life after which the unfinished image of another
publisher is taken over.

Who is asked for a completed image that another host is just assembling or
publishing waits for that one instead.

Possible values: more than the pauses that the network makes; less only makes
the same work be done twice."""),
    cfg.IntOpt("grace", default=3600, min=0,
               help="""Age in seconds from which parts that no composite refers to are deleted.

Possible values: longer than the longest capture takes to upload; a capture
stores its parts first and the composite that refers to them last."""),
    cfg.IntOpt("cache_bytes", default=20 * 2**30, min=0,
               help="""Bytes of disks and parts that this host keeps of what it has transferred.

What is kept need not be fetched again. Beyond this the least recently used
contents go first, but never what is in use.

Possible values: 0 for no limit.

Related options: ``[store] minimum_free``"""),
    cfg.BoolOpt("filter", default=True,
                help="""Whether to ask the image service which image is nearest to a request.

It answers where the operator has put this project's filter into its pipeline;
elsewhere, and with ``false``, the plan is made on this host."""),
]
