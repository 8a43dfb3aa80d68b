"""Imports into the test cloud by the ordinary client, and what they leave.

A test module asks for the fixtures with ``pytest_plugins``, and imports
:class:`Importer` for its annotations only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from splitimage_driver import exceptions
from splitimage_driver.store.glance import access
from splitimage_driver.store.glance.api import Description, Images
from tests.cloud import glance
from tests.functional import smallgold
from tests.functional.glanceusers import images

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud

_LOCK = "os_glance_import_task"


class Left(NamedTuple):
    """What there is of a project's, and of all, in Glance.

    :ivar images: ids, hidden ones too
    :ivar staged: names of files
    :ivar stored: objects of all stores
    :ivar work: of splits, on the host
    """

    images: frozenset[str]
    staged: frozenset[str]
    stored: frozenset[str]
    work: frozenset[str]


class Importer:
    """:param project: whose user acts"""

    def __init__(self, cloud: TestCloud, project: str = "alpha") -> None:
        self.cloud, self.project = cloud, project
        self.begun: list[str] = []

    @property
    def images(self) -> Images:
        return images(getattr(self.cloud, self.project))

    @property
    def work(self) -> Path:
        """Where splits have their scratch directories."""
        return self.cloud.service(glance.NAME).directory / "splitting" / "tmp"

    def begin(self, name: str, disk: Path, *options: str, disk_format: str = "qcow2",
              **said: str) -> str:
        """``openstack image create --import``; returns the image's id."""
        words = [word for key, value in said.items() for word in ("--property", f"{key}={value}")]
        done = self.cloud.openstack(
            self.project, "image", "create", "-f", "json", "--import", "--disk-format",
            disk_format, "--container-format", "bare", "--file", disk, *words, *options, name)
        image = str(done.json["id"])
        self.begun.append(image)
        return image

    def end(self, image: str) -> Description:
        """The image, once Glance has let go of it."""
        self.until(lambda: _LOCK not in self.images.get(image))
        return self.images.get(image)

    def run(self, name: str, disk: Path, *options: str, **said: str) -> Description:
        said.setdefault("splitimage_split", smallgold.SPLIT)
        return self.end(self.begin(name, disk, *options, **said))

    @staticmethod
    def until(condition: Callable[[], Any], pause: float = 0.5) -> Any:
        """What it gives, once that is true."""
        end = time.monotonic() + 600
        while not (found := condition()):
            assert time.monotonic() < end, "it never came"
            time.sleep(pause)
        return found

    def told(self, image: str) -> str:
        """By the task of its import."""
        return str(self.images._json("show tasks", "GET", f"/images/{image}/tasks")
                   ["tasks"][0]["message"])

    def stored_for(self, image: str) -> list[Description]:
        return [each for each in self.images.list(hidden=True, status="active")
                if each.get("splitimage_for") == image]

    def left(self) -> Left:
        folder = self.cloud.service(glance.NAME).site.directory / "images"
        return Left(frozenset(each["id"] for each in self.images.list(hidden=None)),
                    _files(folder / "os_glance_staging_store"),
                    frozenset().union(*(_files(folder / store) for store in glance.STORES)),
                    _files(self.work))

    def remove(self) -> None:
        """All that was imported, and what only that needs."""
        for image in self.begun:
            try:
                self.images.discard(image)
            except exceptions.NotFound:
                continue
        self.begun.clear()
        access.collect(self.images, self.images.project, grace=0)
        access.collect(self.images, self.images.project, grace=0)


def _files(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in folder.glob("*"))


@pytest.fixture(scope="session")
def finished_gold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smallgold.finished(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def imports(cloud: TestCloud) -> Iterator[Importer]:
    importer = Importer(cloud)
    importer.remove()  # what other tests have left to the grace time
    yield importer
    importer.remove()
