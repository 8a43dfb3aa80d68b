"""The fixture ``scene``: clients of the cloud's image service behind a proxy, and
a count of all that the service has.

A test module asks for it with ``pytest_plugins`` beside the cloud's fixture.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from splitimage_driver.application import Application
from splitimage_driver.store.glance import collector
from splitimage_driver.store.glance.api import Images
from splitimage_driver.store.glance.http import HttpTransport
from splitimage_driver.store.glance.store import GlanceStore
from tests.cloud import accounts
from tests.functional import proxy
from tests.functional.dying import until
from tests.functional.glancework import Work
from tests.functional.proxy import Proxy, Trouble

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud

PROJECT = "alpha"
#: Of the service's stores, the reserved ones included: all that are files.
File = tuple[str, str]


class Scene:
    """:ivar proxy: that clients reach the service through
    :ivar place: directories of the hosts are below it
    """

    def __init__(self, cloud: TestCloud, proxy: Proxy, place: Path) -> None:
        self.cloud, self.proxy, self.place = cloud, proxy, place
        self.name = accounts.names()[PROJECT]
        self.clouds = place / "clouds.yaml"
        known = yaml.safe_load(accounts.clouds_file(cloud.control.site).read_text())
        known["clouds"][self.name] |= {"image_endpoint_override": f"{proxy.url}/v2",
                                       "image_api_version": "2"}
        self.clouds.write_text(yaml.safe_dump(known))
        self.images_before, self.files_before = self.images(), self.files()

    # -- clients ------------------------------------------------------------------------

    def start(self, *words: str | int, host: str = "one", **options: Any) -> Work:
        """A client at work, see :mod:`tests.functional.glancework`.

        :param options: of the group ``[glance]``
        """
        return Work(self.place / host, self.clouds, self.name, *words,
                    options={"stall": 3, "timeout": 20} | options)

    def done(self, *words: str | int, host: str = "one", **options: Any) -> Any:
        """Likewise, with its result."""
        with self.start(*words, host=host, **options) as work:
            return work.success()

    @contextlib.contextmanager
    def store(self, host: str = "here", *, admin: bool = False,
              **options: Any) -> Iterator[GlanceStore]:
        """A client in this process."""
        application = Application(
            self.place / host, files=[os.devnull],
            connection=accounts.connect(self.clouds, accounts.ADMIN if admin else PROJECT))
        for name, value in {"stall": 3, "timeout": 20, **options}.items():
            application.conf.set_override(name, value, "glance")
        with contextlib.closing(application):
            assert isinstance(application.store, GlanceStore)
            yield application.store

    @functools.cached_property
    def alpha(self) -> Images:
        """Not through the proxy."""
        return Images(HttpTransport(self.cloud.alpha, 60))

    # -- what there is ------------------------------------------------------------------

    @functools.cached_property
    def _admin(self) -> Images:
        return Images(HttpTransport(self.cloud.admin, 60))

    def images(self) -> dict[str, dict[str, Any]]:
        """Of all projects, hidden or not, by id."""
        return {image["id"]: image
                for image in self._admin.list(hidden=None, visibility="all")}

    def files(self) -> set[File]:
        """Of the image service: store and name."""
        root = self.cloud.directory / "images"
        return {(str(path.parent.relative_to(root)), path.name)
                for path in root.rglob("*") if path.is_file()}

    def new(self, role: str = "") -> list[dict[str, Any]]:
        """Images since the beginning of the test, of one role."""
        return [image for name, image in self.images().items()
                if name not in self.images_before
                and role in ("", image.get("splitimage_role"))]

    def visible(self) -> set[str]:
        """Names of what ``openstack image list`` shows of it."""
        known = {image["name"] for image in self.images_before.values()}
        return {row["Name"] for row in self.cloud.openstack(
            PROJECT, "image", "list", "-f", "json").json} - known

    def names(self) -> tuple[list[str], list[str], list[str]]:
        """Composites, parts and completed images by the project's lists, on a
        host that knows nothing yet."""
        with self.store("fresh") as store:
            return ([each.name for each in store.composites()],
                    [each.name for each in store.parts()],
                    [each.name for each in store.images(owner=store.project)])

    def writes(self, held: Trouble) -> str:
        """Wait until an upload stands still, and the service has written some of
        it; returns the image's id."""
        image = held.wait().split("/")[-2]
        file = self.cloud.directory / "images" / "fast" / image
        until(lambda: file.exists() and file.stat().st_size > 0)
        return image

    def collect(self) -> list[str]:
        """What the collector removes; whoever was at work is dead."""
        return [each.role for each in collector.collect(
            self.alpha, self.alpha.project, grace=0)]

    def emptied(self) -> set[File]:
        """Delete all that the project shows, then what the collector finds;
        returns files that are left. No image may be."""
        with self.store("emptying") as store:
            for image in store.images(owner=store.project):
                store.delete_image(image.id)
            for composite in store.composites():
                store.delete_composite(composite.id)
        self.collect()
        assert not self.new()
        return self.files() - self.files_before

    def clear(self) -> None:
        for image in self.new():
            with contextlib.suppress(Exception):
                self._admin.discard(image["id"])
        root = self.cloud.directory / "images"
        for where, name in self.files() - self.files_before:
            (root / where / name).unlink(missing_ok=True)


@pytest.fixture
def scene(cloud: TestCloud, tmp_path: Path) -> Iterator[Scene]:
    with proxy.between(cloud.service("glance").url) as between:
        made = Scene(cloud, between, tmp_path)
        try:
            yield made
        finally:
            cloud.up()
            made.clear()
