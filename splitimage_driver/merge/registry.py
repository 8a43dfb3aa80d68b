"""The mergers that are installed, found by stevedore."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from oslo_log import log as logging
from stevedore import extension

from splitimage_driver import exceptions
from splitimage_driver.merge.base import Merger

LOG = logging.getLogger(__name__)
NAMESPACE = "splitimage.mergers"


def load(manager: extension.ExtensionManager[Any] | None = None) -> tuple[Merger, ...]:
    """One instance of every merger, sorted by the name of its entry point.

    :param manager: where the plugins come from; None: what is installed
    :raises PluginLoadFailed: one cannot be loaded, is no merger, or there is
        none at all (the package's entry points are missing)
    """
    if manager is None:
        manager = extension.ExtensionManager(
            NAMESPACE, invoke_on_load=True, on_load_failure_callback=_failed)
    found = {}
    for plugin in manager:
        merger = plugin.obj if plugin.obj is not None else plugin.plugin()
        if not isinstance(merger, Merger):
            raise _error(plugin.name, "it is not a Merger")
        found[plugin.name] = merger
    if not found:
        raise _error("(any)", "none is registered; install the package")
    LOG.debug("mergers: %s", ", ".join(sorted(found)))
    return tuple(found[name] for name in sorted(found))


@functools.cache
def mergers() -> tuple[Merger, ...]:
    """:func:`load`, once for the process.

    :raises PluginLoadFailed: see there
    """
    return load()


def merger_for(path: bytes, among: Sequence[Merger] | None = None) -> Merger | None:
    """The merger of a path (relative, resolved), if it is a shared file.

    :param among: None: those installed
    :raises PluginLoadFailed: see :func:`load`
    """
    for merger in mergers() if among is None else among:
        if merger.pattern.fullmatch(path):
            return merger
    return None


def _failed(manager: Any, entry_point: Any, error: BaseException) -> None:
    raise _error(entry_point.name, f"{type(error).__name__}: {error}") from error


def _error(name: str, reason: str) -> exceptions.PluginLoadFailed:
    return exceptions.PluginLoadFailed(name=name, namespace=NAMESPACE, reason=reason)
