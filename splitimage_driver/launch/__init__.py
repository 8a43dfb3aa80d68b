"""What runs the servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from splitimage_driver import plugins
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
    launcher: Launcher = plugins.load(NAMESPACE, conf.launch.driver)(
        conf.launch, store, accelerator)
    return launcher
