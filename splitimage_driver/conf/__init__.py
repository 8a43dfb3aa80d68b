"""oslo.config options, one file a group.

Each module has ``GROUP`` (the group's name) and ``OPTS``; what needs options
gets its own group, never the global ``CONF``.
"""

from __future__ import annotations

import importlib
from typing import Any

from oslo_config import cfg

MODULES = ("assembly", "capture", "glance", "launch", "planning", "retention", "split", "store")


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """For oslo-config-generator."""
    found = []
    for name in MODULES:
        module = importlib.import_module(f"{__name__}.{name}")
        found.append((module.GROUP, list(module.OPTS)))
    return found


def load(args: list[str] | None = None, files: list[str] | None = None) -> Any:
    """A ConfigOpts with all groups registered and the files read.

    :param args: command-line words for oslo.config, normally none
    :param files: configuration files; None: the default places
        (/etc/splitimage/splitimage.conf and the like)
    """
    conf = cfg.ConfigOpts()
    for group, opts in list_opts():
        conf.register_opts(opts, group=group)
    conf(args or [], project="splitimage", prog="splitimage", default_config_files=files)
    return conf
