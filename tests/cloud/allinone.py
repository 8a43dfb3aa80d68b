"""All services as one: up, down, status."""

from __future__ import annotations

import concurrent.futures
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from tests.cloud import DIRECTORY, ROOT, CloudError, accounts, nova
from tests.cloud.compute import Compute
from tests.cloud.daemon import Daemon
from tests.cloud.database import Database
from tests.cloud.glance import Glance
from tests.cloud.keystone import Keystone
from tests.cloud.machines import STATE, Consoles, Libvirt, Machine
from tests.cloud.messages import Messages
from tests.cloud.network import Network
from tests.cloud.packages import Packages
from tests.cloud.placement import Placement
from tests.cloud.service import Endpoint, Service, Site
from tests.cloud.state import Settings

#: One that runs is asked this long before it counts as hung.
_STUCK = 20.0
#: What a person wants of the environment's programs.
_PROGRAMS = ("openstack", "splitimage")


def _silent(_: str) -> None:
    pass


def _stop(services: list[Service]) -> list[str]:
    """All of them side by side; names of what ran."""
    for service in services:
        service.forget()
    with concurrent.futures.ThreadPoolExecutor(len(services)) as pool:
        ran = pool.map(lambda service: service.end(), services)
        return [service.name for service, did in zip(services, ran, strict=True) if did]


class Cloud:
    """:param say: takes a line on what is being done"""

    def __init__(self, directory: Path = DIRECTORY, say: Callable[[str], None] = _silent) -> None:
        self.directory, self.say = directory, say
        self.directory.mkdir(parents=True, exist_ok=True)
        self.site = Site(directory)
        self._lock = filelock.FileLock(directory / "lock")

    @property
    def settings(self) -> Settings:
        return self.site.state.settings

    def services(self) -> list[Service]:
        """In the order in which they need each other."""
        images = [Database(self.site), Keystone(self.site),
                  *(Glance(self.site, number + 1) for number in range(self.settings.glance_apis))]
        if not self.settings.hosts:
            return images
        machines = self.machines()
        return [*images, *machines, Messages(self.site), Placement(self.site), Network(self.site),
                nova.Api(self.site), nova.Worker(self.site, nova.CONDUCTOR),
                nova.Worker(self.site, nova.SCHEDULER),
                *(on for machine in machines
                  for on in (Consoles(machine), Libvirt(machine), Compute(machine)))]

    def machines(self) -> list[Machine]:
        """The compute hosts."""
        return [Machine(self.site, number + 1) for number in range(self.settings.hosts)]

    def service(self, name: str) -> Service:
        return next(service for service in self.services() if service.name == name)

    def runs(self) -> bool:
        """Something of it does."""
        return any(service.daemon.pid is not None for service in self.services())

    def up(self, settings: Settings | None = None) -> list[str]:
        """Start what does not run, and again what is not to run as it does.

        :param settings: None: those of the last time
        :returns: names of the services started or stopped
        :raises CloudError: with the reason, and what a log says
        """
        with self._lock:
            self.site = Site(self.directory)  # as whoever had the lock left it
            self._install()
            if settings is not None and settings != self.settings:
                self.site.state.settings = settings
            self._links()
            return self._start()

    def installed(self) -> Packages:
        """Its packages, without anything being started.

        :raises CloudError: they cannot be installed
        """
        with self._lock:
            self._install()
            return self.site.packages

    def _install(self) -> None:
        if not self.site.packages.is_there:
            self.say("installing the packages")
            self.site.packages.install(self.directory / "install.log")

    def _start(self) -> list[str]:
        services = self.services()
        changed = [daemon.directory.name for daemon in self._strays(services) if daemon.stop()]
        if changed:
            self.say(f"stopped {', '.join(changed)}")
        for service in services:
            service.ensure_port()
        self.site.catalogue = [Endpoint(service.kind, service.name, service.endpoint)
                               for service in services if service.kind]
        for stage in sorted({service.stage for service in services}):
            changed += self._start_stage([s for s in services if s.stage == stage])
        return changed

    def _start_stage(self, services: list[Service]) -> list[str]:
        """Of services that can be prepared and started side by side."""
        started = [service for service in services if not self._works(service)]
        if started and (ran := _stop(started)):
            self.say(f"{', '.join(ran)} {'has' if len(ran) == 1 else 'have'} to be started anew")
        for service in started:
            service.configure()
        unprepared = [service for service in started if not service.is_prepared()]
        if unprepared:
            self.say(f"preparing {', '.join(service.name for service in unprepared)}")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for _ in pool.map(lambda service: service.prepare(), unprepared):
                pass
        for service in unprepared:
            service.set_prepared()
        if started:
            self.say(f"starting {', '.join(service.name for service in started)}")
        for first in (True, False):
            group = [service for service in services if service.first == first]
            for service in group:
                if service in started:
                    service.start()
            for service in group:
                if started:
                    service.wait()
                service.settle()
        return [service.name for service in started]

    def _works(self, service: Service) -> bool:
        if not service.is_current():
            return False
        end = time.monotonic() + _STUCK
        while not (ready := service.is_ready()) and time.monotonic() < end:
            time.sleep(0.5)
        return ready

    def down(self, purge: bool = False) -> list[str]:
        """End everything; what was stored stays for the next time.

        :param purge: it does not; only the packages do
        :returns: names of what ran
        """
        with self._lock:
            self.site = Site(self.directory)
            services = self.services()
            stopped = []
            for stage in sorted({service.stage for service in services}, reverse=True):
                stopped += _stop([s for s in services if s.stage == stage])
            stopped += [daemon.directory.name for daemon in self._strays(services)
                        if daemon.stop()]
            self.site.forget_kvm()
            if purge:
                for path in self.directory.iterdir():
                    if path.name in ("venv", "bin", "lock"):
                        continue
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
            return stopped

    def status(self) -> list[tuple[str, str, str]]:
        """Of each service: name, "up", "down" or "not ready", where it is."""
        return [(service.name,
                 "down" if service.daemon.pid is None
                 else "up" if service.is_ready() else "not ready", service.url)
                for service in self.services()]

    def shell_lines(self) -> tuple[str, str]:
        """What leads an ordinary ``openstack`` here."""
        return (f"export OS_CLIENT_CONFIG_FILE={accounts.clouds_file(self.site)} "
                f"OS_CLOUD={accounts.CLOUD}",
                f'export PATH="{self.directory / "bin"}:$PATH"')

    def _strays(self, services: list[Service]) -> Iterator[Daemon]:
        """Of services that were started with other settings."""
        wanted = {service.name for service in services}
        return (Daemon(path.parent, self.site.state.mark)
                for path in sorted(self.directory.glob("*/pid")) if path.parent.name not in wanted)

    def _links(self) -> None:
        """A directory for PATH with a client, and no other Python in it."""
        (self.directory / "bin").mkdir(exist_ok=True)
        for name in _PROGRAMS:
            link = self.directory / "bin" / name
            if not link.is_symlink():
                link.symlink_to(Path("..") / "venv" / "bin" / name)
        if self.settings.hosts:
            (self.directory / STATE).mkdir(exist_ok=True)
            self._link_driver()

    def _link_driver(self) -> None:
        """An editable package in another's directory is not seen there."""
        driver = ROOT / "nova" / "virt" / "splitimage"
        if self.settings.with_driver and not driver.is_dir():
            raise CloudError(f"{driver} is not there; --compute-driver stock does without")
        link = self.site.packages.library("nova") / "virt" / driver.name
        if not link.is_symlink():
            link.symlink_to(driver)
