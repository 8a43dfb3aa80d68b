"""The fixture ``mini``: a composite in the cloud whose servers tell on their console
which parts they have, and what they have written before.

A test module asks for it with ``pytest_plugins`` beside those of the cloud.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from demo import gold
from splitimage_driver.model import properties
from tests.functional import bootgold, tinyguest
from tests.functional.command import Command

if TYPE_CHECKING:
    from tests.functional.novacloud import Host, NovaCloud

PROJECT = "alpha"
#: Of the tests that need no more than one combination.
PARTS = ("apache", "php")
_BOOT = re.compile(r"boot number (\d+).*?it serves ([^\r\n]*)", re.DOTALL)


class Mini:
    """:ivar id: of the composite
    :ivar command: ``splitimage`` as its owner
    """

    def __init__(self, cloud: NovaCloud, command: Command, name: str) -> None:
        self.cloud, self.command, self.name = cloud, command, name
        self.id: str = command("composite", "show", name, "-f", "json").json["id"]
        self._made: list[Any] = []

    # -- servers --------------------------------------------------------------------------

    def create(self, *parts: str, image: str = "", filesets: str = "", **more: Any) -> Any:
        """A server with these parts, asked for.

        :param image: another one than the composite
        :param filesets: as a tenant writes it
        """
        metadata = {"splitimage:parts": ",".join(parts)} if parts else {}
        if filesets:
            metadata["splitimage:filesets"] = filesets
        server = self.cloud.create(image or self.id, metadata=metadata | more.pop("metadata", {}),
                                   **more)
        self._made.append(server)
        return server

    def adopt(self, server: str) -> Any:
        """One that was made in another way. :param server: id"""
        compute: Any = self.cloud.alpha.compute
        self._made.append(compute.get_server(server))
        return self._made[-1]

    def boot(self, *parts: str, **more: Any) -> Any:
        """One that is ACTIVE."""
        return self.cloud.wait(self.create(*parts, **more),
                               project=more.get("project", PROJECT))

    def tells(self, server: Any, boot: int, *, project: str = PROJECT) -> set[str]:
        """The parts that it has at its boot of that number. It counts on its own
        disk, so that the number tells that what it wrote is still there."""
        found: set[str] | None = None

        def told() -> bool:
            nonlocal found
            for number, parts in _BOOT.findall(self.cloud.console(server, project=project)):
                if int(number) == boot:
                    found = set(parts.split()) - {"index.html"}
            return found is not None

        assert self.cloud.until(told), self.cloud.console(server, project=project)
        assert found is not None
        return found

    def image_of(self, server: Any) -> str:
        """Id of the image that Nova shows."""
        compute: Any = self.cloud.admin.compute
        return str(compute.get_server(server.id).image.id)

    def host(self, server: Any) -> Host:
        return self.cloud.host(self.cloud.where(server))

    def reboot(self, server: Any) -> None:
        self.cloud.act(server, "reboot", {"type": "HARD"})
        self.cloud.wait(server)

    def forget(self, *hosts: Host) -> None:
        """Nova's caches of images are empty."""
        for host in hosts or self.cloud.hosts:
            for path in host.base.glob("*") if host.base.exists() else ():
                path.unlink()

    # -- images ---------------------------------------------------------------------------

    def snapshot(self, server: Any) -> Any:
        """An image that a user makes of a server."""
        image: Any = self.cloud.alpha.image
        name = f"snapshot-{time.monotonic_ns()}"
        self.cloud.act(server, "createImage", {"name": name})
        assert self.cloud.until(lambda: (found := image.find_image(name))
                                and found.status == "active")
        self.cloud.wait(server, self.cloud.status(server))
        return image.find_image(name)

    def completed(self, project: str = PROJECT) -> list[dict[str, Any]]:
        """Completed images of a project, finished or not."""
        connection = self.cloud.user(project)
        answer = connection.image.get("/images", params={
            "splitimage_role": properties.COMPLETED, "owner": connection.current_project_id,
            "visibility": "all", "os_hidden": "true", "limit": "500"})
        shown: list[dict[str, Any]] = answer.json()["images"]
        return shown

    def assemblies(self, host: Host) -> int:
        """How often nova-compute of that host has put an image together."""
        return host.log.read_text(errors="replace").count("assembled: ")

    # -- the end --------------------------------------------------------------------------

    def clear(self) -> None:
        """Away with the servers."""
        self.cloud.delete(*self._made)
        self._made.clear()

    def remove(self) -> None:
        """And with all images."""
        self.clear()
        for image in self.completed():
            with contextlib.suppress(Exception):
                self.cloud.admin.image.delete_image(image["id"])
        self.command("composite", "delete", self.name)


def _captured(cloud: NovaCloud, place: Path, *, lays: bool) -> Iterator[Mini]:
    bootgold.build(place / "gold", lays=lays)
    command = cloud.splitimage(PROJECT, place / "store")
    name = f"{'laying' if lays else 'mini'}-{time.time():.0f}"
    done = command(*bootgold.capture(place / "gold", name), timeout=900)
    assert done.status == 0, done.err
    made = Mini(cloud, command, name)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def composite(nova_cloud: NovaCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mini]:
    """Captured once; the first to ask for it pays half a minute."""
    yield from _captured(nova_cloud, tmp_path_factory.mktemp("mini"), lays=False)


@pytest.fixture(scope="session")
def laying_composite(nova_cloud: NovaCloud,
                     tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mini]:
    """Likewise; its servers can be given parts to lay while they run."""
    yield from _captured(nova_cloud, tmp_path_factory.mktemp("laying"), lays=True)


@pytest.fixture
def mini(composite: Mini) -> Iterator[Mini]:
    """Its servers go at the end of the test; completed images stay."""
    yield composite
    composite.clear()


@pytest.fixture
def laying(laying_composite: Mini) -> Iterator[Mini]:
    yield laying_composite
    laying_composite.clear()


def lamp(place: Path) -> tuple[Path, list[str]]:
    """The demonstration's gold machine: the disk of its base in that directory, and
    the words that lead a capture to its steps."""
    tars = gold.build_steps(gold.CACHE, gold.LAMP)
    disk = gold.bios_disk(tars[gold.BASE], place / "gold.qcow2")
    steps = {gold.BASE: disk, **{step.name: tars[step.name] for step in gold.LAMP}}
    return disk, [word for name, path in steps.items() for word in ("--step", f"{name}={path}")]


def packages(disk: Path, directory: Path) -> set[str]:
    """Those that dpkg knows on a disk of such a server.

    :param disk: qcow2, standalone
    :param directory: for a copy
    """
    raw = directory / f"{disk.name}.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, raw], check=True)
    status = subprocess.run(
        ["debugfs", "-R", "cat /var/lib/dpkg/status", f"{raw}?offset={tinyguest.ROOT_OFFSET}"],
        check=True, capture_output=True, text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}).stdout
    raw.unlink()
    return set(re.findall(r"^Package: (\S+)$", status, re.MULTILINE)) - {"base-files"}
