"""Where composites, parts, images and servers are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from splitimage_driver import plugins
from splitimage_driver.store.base import Opening, Servers, Store

NAMESPACE = "splitimage.stores"

__all__ = ["NAMESPACE", "Opening", "Servers", "Store", "open_store"]


def open_store(conf: Any, path: Path, *, driver: str | None = None, cloud: str | None = None,
               connection: Any = None, servers: Servers | None = None) -> Store:
    """The store of a driver, opened.

    :param conf: see :func:`splitimage_driver.conf.load`
    :param driver: None: what ``[store] driver`` names
    :param cloud: see :class:`Opening`
    :param connection: likewise
    :param servers: likewise
    :raises PluginLoadFailed: there is no such plugin, or it does not load
    """
    driver = driver or conf.store.driver
    plugin: type[Store] = plugins.load(NAMESPACE, driver)
    return plugin.opened(Opening(
        path=path, options=conf.store, own=getattr(conf, driver) if driver in conf else None,
        retention=conf.retention, max_parallel=conf.assembly.max_parallel,
        max_scratch=conf.assembly.max_scratch_bytes, cloud=cloud, connection=connection,
        servers=servers))
