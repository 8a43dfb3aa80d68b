"""Plugins, one stevedore namespace an axis, found by name."""

from __future__ import annotations

from typing import Any

from stevedore import driver

from splitimage_driver import exceptions


def load(namespace: str, name: str) -> Any:
    """What the entry point ``name`` of ``namespace`` leads to, not called yet.

    :raises PluginLoadFailed: there is no such plugin, or it does not load
    """
    def failed(_manager: Any, entry_point: Any, error: BaseException) -> None:
        raise exceptions.PluginLoadFailed(name=entry_point.name, namespace=namespace,
                                          reason=f"{type(error).__name__}: {error}") from error

    try:
        manager: driver.DriverManager[Any] = driver.DriverManager(
            namespace, name, on_load_failure_callback=failed)
    except RuntimeError as error:  # stevedore's NoMatches and MultipleMatches
        raise exceptions.PluginLoadFailed(name=name, namespace=namespace,
                                          reason=str(error)) from error
    return manager.driver
