"""Options of the planning: equation, rates and weights."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "planning"
OPTS = [
    cfg.StrOpt("cost", default="weighted",
               help="""The equation that candidates are compared by.

Possible values: ``download``, ``inject``, ``remove``, ``transport``,
``weighted``, ``count``, ``bytes``, or the name of an installed plugin of
``splitimage.costs``.

Related options: ``[planning] alpha``, ``beta``, ``gamma``, ``delta``"""),
    cfg.IntOpt("shortlist", default=64, min=1,
               help="""How many completed images of a composite are compared file by file.

Where there are more, the nearest by their parts are. An exact match is found
whatever this is."""),
    cfg.StrOpt("weights", default="static",
               help="""Where rates and weights come from.

Possible values: the name of an entry point of ``splitimage.weights``;
``static`` takes the options below, ``adaptive`` corrects them by what
finished assemblies took and by the load of this host
(``splitimage weights show``)."""),
    cfg.StrOpt("host_class",
               help="""The hosts that share what ``adaptive`` learns.

Unset: by processor architecture and accelerator, such as ``x86_64-kvm``."""),
    cfg.FloatOpt("bandwidth", default=200e6, min=1,
                 help="Bytes a second at which a missing file reaches this host."),
    cfg.FloatOpt("inject_rate", min=1,
                 help="""Bytes a second at which files are injected into a disk.

Unset: 100e6 with hardware virtualisation, 15e6 without."""),
    cfg.FloatOpt("inject_seconds", default=0.001, min=0,
                 help="Seconds to inject one file, besides its bytes."),
    cfg.FloatOpt("remove_seconds", default=0.0005, min=0,
                 help="Seconds to remove one file in excess."),
    cfg.FloatOpt("prepare_seconds", min=0,
                 help="""Seconds every assembly takes whatever it does: starting the appliance.

Unset: 4 with hardware virtualisation, 12 without."""),
    cfg.FloatOpt("lay_rate", min=1,
                 help="""Bytes a second that a running server lays.

Unset: 200e6 with hardware virtualisation, 12e6 without.
``launch --deliver auto`` compares by it."""),
    cfg.FloatOpt("alpha", default=1.0, min=0, help="Weight of the transfer of missing files."),
    cfg.FloatOpt("beta", default=1.0, min=0, help="Weight of their injection."),
    cfg.FloatOpt("gamma", default=1.0, min=0, help="Weight of the removal of files in excess."),
    cfg.FloatOpt("delta", default=0.0, min=0,
                 help="Weight of the transport of files in excess."),
]
