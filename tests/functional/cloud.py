"""The fixture ``cloud``: a real OpenStack for tests, see :mod:`tests.cloud`.

A test module asks for it with ``pytest_plugins = ("tests.functional.cloud",)``
and imports :class:`TestCloud` for its annotations only, so that pytest is the
first to import this module.

One that runs already is used and left running. There is one for the checkout:
tests that change what it runs with do so by :meth:`TestCloud.configured`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.cloud import accounts
from tests.cloud.allinone import Cloud
from tests.cloud.daemon import clean_environment
from tests.cloud.service import Service
from tests.cloud.state import Overrides
from tests.functional.command import Command, Done

if TYPE_CHECKING:
    from openstack.connection import Connection


class TestCloud:
    """:ivar directory: has all of its state: ``clouds.yaml``, ``GLANCE/log``,
        ``images/STORE``
    """

    __test__ = False

    def __init__(self, control: Cloud) -> None:
        self.control, self.directory = control, control.directory

    # -- as a client ------------------------------------------------------------------

    @functools.cached_property
    def admin(self) -> Connection:
        return self._connection(accounts.ADMIN)

    @functools.cached_property
    def alpha(self) -> Connection:
        """A plain member of the project alpha."""
        return self._connection("alpha")

    @functools.cached_property
    def beta(self) -> Connection:
        return self._connection("beta")

    def _connection(self, project: str) -> Connection:
        return accounts.connect(accounts.clouds_file(self.control.site), project)

    def environment(self, project: str = accounts.ADMIN) -> dict[str, str]:
        """For a client that shall act as the project's user."""
        return clean_environment() | {
            "OS_CLIENT_CONFIG_FILE": str(accounts.clouds_file(self.control.site)),
            "OS_CLOUD": accounts.names()[project],
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}"}

    def openstack(self, project: str, *words: str | Path, timeout: float = 300) -> Done:
        """The ordinary client; it finds no terminal and no input."""
        done = subprocess.run(
            [self.control.site.packages.program("openstack"), *map(str, words)],
            env=self.environment(project), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=timeout, text=True, errors="surrogateescape", check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    def splitimage(self, project: str, store: Path, *options: str | Path) -> Command:
        """The command ``splitimage`` with ``--os-cloud``.

        :param store: where it keeps what it has fetched
        """
        return Command(store, "--os-cloud", accounts.names()[project], *options,
                       env={"OS_CLIENT_CONFIG_FILE": str(accounts.clouds_file(self.control.site))})

    # -- as its operator ---------------------------------------------------------------

    def service(self, name: str) -> Service:
        """``keystone``, ``glance``, ``glance-2`` ...: its ``url``, ``directory``."""
        return self.control.service(name)

    def kill(self, name: str) -> None:
        """SIGKILL, the workers with their master: as if the host had."""
        assert self.service(name).daemon.kill(), f"{name} does not run"

    def up(self) -> list[str]:
        """Start again what was killed; names of what was started."""
        return self.control.up()

    @contextlib.contextmanager
    def configured(self, overrides: Overrides | None = None, *,
                   environment: Mapping[str, str] | None = None,
                   glance_apis: int | None = None,
                   glance_workers: int | None = None,
                   hosts: int | None = None,
                   compute_driver: str | None = None) -> Iterator[None]:
        """Runs with these settings within the block, with the former ones after
        it. Whoever reads a file that is changed is started again.

        :param overrides: by name of a file: ``glance-api.conf``,
            ``glance-image-import.conf``, ``glance-api-paste.ini``,
            ``keystone.conf``, ``nova.conf``, ``nova-compute-2.conf``; those of a
            file replace former ones of that file
        """
        former = self.control.settings
        wanted = {"glance_apis": glance_apis, "glance_workers": glance_workers, "hosts": hosts,
                  "compute_driver": compute_driver}
        try:
            self.control.up(msgspec.structs.replace(
                former, overrides={**former.overrides, **(overrides or {})},
                environment={**former.environment, **(environment or {})},
                **{name: value for name, value in wanted.items() if value is not None}))
            yield
        finally:
            self.control.up(former)


@pytest.fixture(scope="session")
def cloud() -> Iterator[TestCloud]:
    """A running cloud with Keystone and Glance; Nova if it runs already, see
    :mod:`tests.functional.novacloud`."""
    control = Cloud()
    former = control.settings
    # Also one that the sources have left behind, which is started again.
    was_up = control.runs()
    try:
        control.up(former if was_up else msgspec.structs.replace(former, hosts=0))
        yield TestCloud(control)
    finally:
        if not was_up:
            control.down()
