"""Where composites, parts, images and servers are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stevedore import driver

from splitimage_driver import exceptions
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
    name = conf.store.driver
    try:
        manager: driver.DriverManager[Any] = driver.DriverManager(
            NAMESPACE, name, on_load_failure_callback=_failed)
    except RuntimeError as error:  # stevedore's NoMatches and MultipleMatches
        raise exceptions.PluginLoadFailed(name=name, namespace=NAMESPACE,
                                          reason=str(error)) from error
    store: Store = manager.driver(path, conf.store, retention=conf.retention,
                                  max_parallel=conf.assembly.max_parallel)
    return store


def _failed(_manager: Any, entry_point: Any, error: BaseException) -> None:
    raise exceptions.PluginLoadFailed(name=entry_point.name, namespace=NAMESPACE,
                                      reason=str(error)) from error
