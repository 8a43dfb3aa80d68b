"""Completed images that servers of the cloud have, on whatever host: they stay."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.application import Application
from tests.cloud import accounts
from tests.functional.dying import until

if TYPE_CHECKING:
    from tests.functional.glancescene import Scene
    from tests.functional.novacloud import NovaCloud

pytest_plugins = ("tests.functional.cloud", "tests.functional.novacloud",
                  "tests.functional.glancescene")
pytestmark = [pytest.mark.accept]

MIB = 1 << 20
#: Seconds; none was used that lately.
SOON = 0.01


@pytest.fixture
def images(scene: Scene) -> list[str]:
    """The least recently used first."""
    scene.done("composite", "small", MIB, MIB)
    return [scene.done("image", name, MIB, "small") for name in ("first", "second", "third")]


@contextlib.contextmanager
def server(nova_cloud: NovaCloud, image: str) -> Iterator[Any]:
    """Of the plain member. What is in it does not matter, nor whether it starts."""
    compute = nova_cloud.alpha.compute
    flavor = min(compute.flavors(), key=lambda each: (each.disk, each.ram))
    made = compute.create_server(name="web", image_id=image, flavor_id=flavor.id,
                                 networks="none")
    try:
        until(lambda: compute.get_server(made.id).status in ("ACTIVE", "ERROR"), 300)
        yield made
    finally:
        compute.delete_server(made.id, force=False)
        compute.wait_for_delete(made, wait=120)


def left(scene: Scene) -> set[str]:
    return {image["id"] for image in scene.new("completed")}


def test_an_image_that_a_server_has_stays(scene: Scene, nova_cloud: NovaCloud,
                                          images: list[str]) -> None:
    first, second, third = images
    with server(nova_cloud, first) as made:
        with scene.store("elsewhere") as store:
            assert [image.id for image in store.prune_images(max_count=2)] == [second]
            with pytest.raises(exceptions.InUse, match="server web"):
                store.delete_image(first)
        compute = nova_cloud.alpha.compute
        if compute.get_server(made.id).status == "ACTIVE":
            compute.shelve_server(made.id)
            until(lambda: compute.get_server(made.id).status.startswith("SHELVED"), 300)
        with scene.store("elsewhere") as store:
            assert [image.id for image in store.prune_images(max_age=SOON)] == [third]
    assert left(scene) == {first}
    for image in nova_cloud.alpha.image.images(name="web-shelved"):
        nova_cloud.alpha.image.delete_image(image.id)
    with scene.store("elsewhere") as store:
        assert [image.id for image in store.prune_images(max_age=SOON)] == [first]


def test_the_command_line_asks_too(scene: Scene, nova_cloud: NovaCloud, images: list[str]) -> None:
    with server(nova_cloud, images[0]):
        command = nova_cloud.splitimage("alpha", scene.place / "here")
        told = command("image", "prune", "--max-count", "1")
        assert told.status == 0, told.err
        assert left(scene) == {images[0]}
        refused = command("image", "delete", images[0])
        assert refused.status == exceptions.InUse.exit_code
        assert "server web" in refused.err


def test_without_an_answer_nothing_goes(scene: Scene, images: list[str],
                                        tmp_path: Path) -> None:
    connection = accounts.connect(scene.clouds, "alpha")
    connection.config.config["compute_endpoint_override"] = "http://127.0.0.1:9/v2.1"
    with contextlib.closing(Application(tmp_path / "elsewhere", files=[os.devnull],
                                        connection=connection)) as application:
        assert application.store.prune_images(max_age=SOON) == []
        with pytest.raises(exceptions.CloudUnreachable):
            application.store.delete_image(images[0])
    assert left(scene) == set(images)
