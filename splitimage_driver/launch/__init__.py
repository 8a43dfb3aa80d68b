"""What runs the servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stevedore import driver

from splitimage_driver import exceptions
from splitimage_driver.launch.base import HTTP_PORTS, Launcher
from splitimage_driver.store.base import Store

NAMESPACE = "splitimage.launchers"

__all__ = ["HTTP_PORTS", "NAMESPACE", "Launcher", "load"]


def load(conf: Any, store: Store, accelerator: Callable[[], str]) -> Launcher:
    """The launcher that ``[launch] driver`` names.

    A plugin is called with the group ``[launch]``, the store, and a function
    that tells the accelerator.

    :raises PluginLoadFailed: there is no such plugin, or it does not load
    """
    name = conf.launch.driver
    try:
        manager: driver.DriverManager[Any] = driver.DriverManager(
            NAMESPACE, name, on_load_failure_callback=_failed)
    except RuntimeError as error:  # stevedore's NoMatches and MultipleMatches
        raise exceptions.PluginLoadFailed(name=name, namespace=NAMESPACE,
                                          reason=str(error)) from error
    launcher: Launcher = manager.driver(conf.launch, store, accelerator)
    return launcher


def _failed(_manager: Any, entry_point: Any, error: BaseException) -> None:
    raise exceptions.PluginLoadFailed(name=entry_point.name, namespace=NAMESPACE,
                                      reason=str(error)) from error
