"""Options of the store."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "store"
OPTS = [
    cfg.StrOpt("driver", default="local",
               help="""Where composites, parts and images live.

Possible values: the name of an entry point of ``splitimage.stores``;
``local`` is a directory with SQLite on this host."""),
    cfg.StrOpt("path",
               help="""Directory of the ``local`` store.

Possible values: a path on a file system with room for whole disks; it is
made, with access for its user only, when it does not exist. The command
line's ``--store`` and the environment variable ``SPLITIMAGE_STORE`` win over
this.

Related options: ``[store] minimum_free``"""),
    cfg.StrOpt("project", default="default",
               help="""The project that owns what the command line stores.

Retention limits hold for each project by itself, and one project's completed
images are no candidates of another.

Related options: ``[retention] max_count``"""),
    cfg.FloatOpt("lock_timeout", default=3600.0, min=0.0,
                 help="""Seconds to wait for what another process does with the same object.

Possible values: more than one assembly takes, because whoever asks for a
combination that is just being made waits for it and uses it."""),
    cfg.IntOpt("grace", default=3600, min=0,
               help="""Age in seconds from which ``store check --repair`` removes a file that
nothing refers to.

Possible values: longer than the longest capture; a capture stores its files
first and what refers to them last."""),
    cfg.IntOpt("minimum_free", default=64 * 2**20, min=0,
               help="""Bytes of the store's file system to leave free.

With less than this, new work is refused at once; deleting still works.
0 uses all there is."""),
]
