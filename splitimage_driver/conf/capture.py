"""Options of the capture."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "capture"
OPTS = [
    cfg.ListOpt("exclude", default=[],
                help="""Further paths that belong to no part and not to the base.

Shell patterns without a leading slash, matched against the whole path, added
to the built-in rules for identity, logs and caches."""),
    cfg.IntOpt("max_entries", default=2_000_000, min=1,
               help="How many files and directories a gold machine or file set may have."),
    cfg.IntOpt("max_bytes", default=1 << 40, min=1,
               help="How many bytes of content a gold machine may have."),
    cfg.IntOpt("max_fileset_bytes", default=4 << 30, min=1,
               help="How many bytes of content a tenant's file set may have."),
    cfg.IntOpt("max_fileset_entries", default=200_000, min=1,
               help="How many files and directories a tenant's file set may have."),
]
