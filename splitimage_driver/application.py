"""Builds the services from configuration: what a command begins with."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from splitimage_driver import conf as configuration
from splitimage_driver import launch, store
from splitimage_driver.batches import BatchService
from splitimage_driver.composites import CompositeService
from splitimage_driver.launch import accelerator
from splitimage_driver.servers import Launched, ServerService, Wish
from splitimage_driver.service import ImageService
from splitimage_driver.store.base import Store

#: The environment's answer where no --store is given.
STORE = "SPLITIMAGE_STORE"


class Application:
    """:param path: the store's directory; None: the environment's, else the
        configured one
    :param files: configuration files; None: the default places
    :param project: who acts; None: the configured one
    """

    def __init__(self, path: Path | None = None, files: Sequence[str] | None = None,
                 project: str | None = None) -> None:
        self._files = tuple(files) if files else None
        self.conf: Any = configuration.load(files=list(files) if files else None)
        self.project = project or self.conf.store.project
        self.path = Path(path or os.environ.get(STORE) or self.conf.store.path
                         or _default()).expanduser()

    @functools.cached_property
    def store(self) -> Store:
        return store.open_store(self.conf, self.path)

    @functools.cached_property
    def accelerator(self) -> str:
        """``kvm`` or ``tcg``."""
        return accelerator.choose(self.conf.assembly.accelerator, qemu=self.conf.launch.qemu)

    @functools.cached_property
    def images(self) -> ImageService:
        return ImageService(self.conf, self.store, owner=self.project,
                            emulate=lambda: self.accelerator == accelerator.TCG)

    @functools.cached_property
    def composites(self) -> CompositeService:
        return CompositeService(self.images)

    @functools.cached_property
    def servers(self) -> ServerService:
        launcher = launch.load(self.conf, self.store, lambda: self.accelerator)
        return ServerService(self.images, launcher, self.conf.launch)

    @functools.cached_property
    def batches(self) -> BatchService:
        again = functools.partial(launch_elsewhere, self.path, self._files, self.project)
        return BatchService(self.images.plans, again, parallel=self.conf.launch.max_parallel)


def launch_elsewhere(path: Path, files: Sequence[str] | None, project: str,
                     tell: Callable[[str | None], Any], wish: Wish,
                     source: str | None) -> Launched:
    """One launch of a batch, in a process that has no application yet."""
    application = Application(path, files, project)
    try:
        launched = application.servers.launch(wish, source=source, ready=tell)
    finally:
        application.store.close()
    return msgspec.structs.replace(launched, plan=launched.plan.told())


def _default() -> Path:
    """The user's own data directory, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "splitimage"
