"""Builds the services from configuration: what a command begins with."""

from __future__ import annotations

import contextlib
import functools
import os
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from splitimage_driver import conf as configuration
from splitimage_driver import exceptions, launch, store, workers
from splitimage_driver.batches import BatchService
from splitimage_driver.composites import CompositeService
from splitimage_driver.launch import accelerator
from splitimage_driver.model.plan import Request
from splitimage_driver.servers import Launched, ServerService, Wish
from splitimage_driver.service import ImageService
from splitimage_driver.store.base import Servers, Store

#: The environment's answers where no --store or --os-cloud is given.
STORE, CLOUD = "SPLITIMAGE_STORE", "OS_CLOUD"
#: The store driver that a cloud means.
GLANCE = "glance"
#: In the store's directory: what is told by those that work in the background.
BACKGROUND = "background"
#: Digits of a recipe in the name of its log.
_SHORT = 12
#: openstacksdk's own name for the cloud that the environment describes.
_UNNAMED = "envvars"


class Application:
    """:param path: the directory of the store, or of what a store elsewhere
        keeps on this host; None: as the environment or the configuration
        says, each cloud in a directory of its own below that
    :param files: configuration files; None: the default places
    :param project: who acts; None: the configured one, or whoever is logged in
    :param cloud: whose image service is the store; None: as configured
    :param connection: one of openstacksdk to that cloud, if there is one
    :param servers: who tells the servers of the project in that cloud; None: the
        compute service, if the connection's catalogue has one
    :raises InvalidInput: a project and a cloud, whose login decides that
    """

    def __init__(self, path: Path | None = None, files: Sequence[str] | None = None,
                 project: str | None = None, cloud: str | None = None,
                 connection: Any = None, servers: Servers | None = None) -> None:
        self._files = tuple(files) if files else None
        self.conf: Any = configuration.load(files=list(files) if files else None)
        self._driver = GLANCE if cloud or connection else self.conf.store.driver
        self._project, self._connection, self._cloud = project, connection, None
        self._servers = servers
        home = Path(os.environ.get(STORE) or self.conf.store.path or _default())
        if self.in_cloud:
            self._cloud = cloud or (None if connection else self.conf.glance.cloud
                                    or os.environ.get(CLOUD))
            if project:
                raise exceptions.InvalidInput(
                    what=f"--project {project}",
                    reason="in a cloud the project is that of the login: choose it there")
            # What of one cloud is here is never mixed with another's, or with a local store.
            name = self._cloud or (connection and connection.config.name) or _UNNAMED
            name = urllib.parse.quote(name, safe=" @:+,=")
            home = home / "clouds" / (name.replace(".", "%2E") if name in (".", "..") else name)
        self.path = (path or home).expanduser()

    @functools.cached_property
    def store(self) -> Store:
        return store.open_store(self.conf, self.path, driver=self._driver, cloud=self._cloud,
                                connection=self._connection, servers=self._servers)

    @property
    def project(self) -> str:
        """Who acts."""
        return self.store.project or self._project or str(self.conf.store.project)

    @property
    def in_cloud(self) -> bool:
        return self._driver == GLANCE

    def close(self) -> None:
        if "store" in vars(self):
            self.store.close()

    def choose_image_store(self, name: str) -> None:
        """Which of the stores of the image service new parts go to.

        :raises InvalidInput: this store is no image service
        """
        if not self.in_cloud:
            raise exceptions.InvalidInput(
                what=f"--image-store {name}", reason="it names a store of an image service, and "
                f"this store is {self._driver}")
        self.conf.set_override("store", name, group=GLANCE)

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
        return BatchService(self.images.plans, functools.partial(launch_elsewhere, self._again()),
                            parallel=self.conf.launch.max_parallel)

    def assemble_later(self, request: Request, recipe: str) -> tuple[int, Path]:
        """Let a process of its own make and publish a completed image.

        :returns: its id, and where it logs
        :raises ToolFailed: it did not begin
        """
        log = self.path / BACKGROUND / f"{recipe[:_SHORT]}.log"
        return workers.background(assemble_elsewhere, self._again(), request, log=log), log

    def _again(self) -> Again:
        login = None
        if self._connection is not None:
            from splitimage_driver.store.glance import http
            login = http.settings(self._connection)
        return Again(self.path, self._files, self._project, self._cloud, login,
                     self.conf.glance.store if self.in_cloud else None)


class Again(NamedTuple):
    """What an application is built from once more, in a process that has none yet and
    has to log in itself.

    :ivar login: of the connection, where there was one
    :ivar image_store: in a cloud, the one that new parts go to, if it was chosen
    """

    path: Path
    files: Sequence[str] | None
    project: str | None
    cloud: str | None
    login: Mapping[str, Any] | None
    image_store: str | None

    @contextlib.contextmanager
    def opened(self) -> Iterator[Application]:
        connection = None
        if self.login is not None:
            from splitimage_driver.store.glance import http
            connection = http.connection(self.login)
        application = Application(self.path, self.files, self.project, self.cloud, connection)
        with contextlib.closing(application):
            if self.image_store:
                application.choose_image_store(self.image_store)
            yield application


def launch_elsewhere(again: Again, tell: Callable[[str | None], Any], wish: Wish,
                     source: str | None) -> Launched:
    """One launch of a batch."""
    with again.opened() as application:
        launched = application.servers.launch(wish, source=source, ready=tell)
    return msgspec.structs.replace(launched, plan=launched.plan.told())


def assemble_elsewhere(again: Again, request: Request) -> None:
    with again.opened() as application, application.images.assembled(request):
        pass


def _default() -> Path:
    """The user's own data directory, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "splitimage"
