"""Tenants of the test cloud who store what they like through the plain API.

A test module asks for it with ``pytest_plugins`` beside the cloud's fixture."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from splitimage_driver.store.glance.api import Images
from splitimage_driver.store.glance.http import HttpTransport
from tests.imagerecords import Records

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud

#: Of a connection, what its user stores.
Stores = Callable[[Any], Records]


def images(connection: Any) -> Images:
    return Images(HttpTransport(connection, 60))


@pytest.fixture(scope="session")
def empty_disk(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A qcow2 that Glance takes."""
    path = tmp_path_factory.mktemp("disk") / "disk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    return path.read_bytes()


@pytest.fixture
def stores(cloud: TestCloud, empty_disk: bytes) -> Iterator[Stores]:
    """What they store goes at the end."""
    every: list[Records] = []

    def of(connection: Any) -> Records:
        every.append(Records(images(connection), empty_disk))
        return every[-1]

    yield of
    for each in every:
        each.images = images(cloud.admin)
        each.remove()


@pytest.fixture
def alpha(cloud: TestCloud, stores: Stores) -> Records:
    return stores(cloud.alpha)


@pytest.fixture
def beta(cloud: TestCloud, stores: Stores) -> Records:
    return stores(cloud.beta)


@pytest.fixture
def admin(cloud: TestCloud) -> Images:
    return images(cloud.admin)
