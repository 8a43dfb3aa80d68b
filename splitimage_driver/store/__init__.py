"""Where composites, parts, images and servers are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from splitimage_driver import plugins
from splitimage_driver.store.base import Store

NAMESPACE = "splitimage.stores"

__all__ = ["NAMESPACE", "Store", "open_store"]


def open_store(conf: Any, path: Path) -> Store:
    """The store that ``[store] driver`` names, opened.

    A plugin is called with the path, the group ``[store]`` and the keywords
    ``retention`` (that group) and ``max_parallel``.

    :param conf: see :func:`splitimage_driver.conf.load`
    :raises PluginLoadFailed: there is no such plugin, or it does not load
    """
    store: Store = plugins.load(NAMESPACE, conf.store.driver)(
        path, conf.store, retention=conf.retention, max_parallel=conf.assembly.max_parallel)
    return store
