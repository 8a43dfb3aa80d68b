"""Options that bound the completed images, for each project by itself."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "retention"

_RULES = """

Images are deleted least recently used first, after a new one was published
and by ``splitimage image prune``; never the new one, and never one that a
server runs on, so that a project may stay over its limit."""

OPTS = [
    cfg.IntOpt("max_age", default=0, min=0,
               help=f"""Seconds since its last use after which a completed image is deleted.

Possible values: 0 for no limit; 2592000 is 30 days.{_RULES}

Related options: ``[retention] max_count``, ``[retention] max_bytes``"""),
    cfg.IntOpt("max_count", default=100, min=0,
               help=f"""How many completed images a project may have.

Possible values: 0 for no limit.{_RULES}

Related options: ``[retention] max_age``, ``[retention] max_bytes``"""),
    cfg.IntOpt("max_bytes", default=0, min=0,
               help=f"""How many bytes the disks of a project's completed images may take.

Possible values: 0 for no limit. Counted are the stored files, which hold
used clusters only, not the sizes that the guests see.{_RULES}

Related options: ``[retention] max_age``, ``[retention] max_count``"""),
]
