"""``devstack/exercise.sh``, against the test cloud: all that it needs of DevStack is
a cloud with this project in it, and the ordinary client."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.functional import smallgold

if TYPE_CHECKING:
    from tests.functional.novacloud import NovaCloud

pytest_plugins = ("tests.functional.cloud", "tests.functional.novacloud")
pytestmark = pytest.mark.accept

EXERCISE = Path(__file__).resolve().parents[2] / "devstack/exercise.sh"


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smallgold.finished(tmp_path_factory.mktemp("finished"))


def left(nova_cloud: NovaCloud) -> set[str]:
    """The project's images and servers, but for what the image service collects by
    itself later."""
    kept = {image.name for hidden in (False, True)
            for image in nova_cloud.alpha.image.images(is_hidden=hidden)
            if image.properties.get("splitimage_role") not in ("part", "manifest")}
    return {str(name) for name in kept | {one.name for one in nova_cloud.alpha.compute.servers()}}


@pytest.fixture
def nothing_stays(nova_cloud: NovaCloud) -> Iterator[None]:
    before = left(nova_cloud)
    yield
    assert left(nova_cloud) == before


def exercise(nova_cloud: NovaCloud, **said: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [EXERCISE],
        env={**os.environ, **nova_cloud.environment("alpha"), "SPLITIMAGE_FLAVOR": "tiny",
             "SPLITIMAGE_SOFTWARE": smallgold.SPLIT, **said},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1800, check=False)


@pytest.mark.usefixtures("nothing_stays")
def test_two_servers_are_of_one_completed_image(nova_cloud: NovaCloud, gold: Path) -> None:
    done = exercise(nova_cloud, SPLITIMAGE_GOLD=str(gold), SPLITIMAGE_PARTS="web,php")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS: both servers are of one completed image" in done.stdout
    assert "php,web" in done.stdout, "what is in it is told"


@pytest.mark.usefixtures("nothing_stays")
def test_it_tells_why_a_server_fails_and_cleans_up(nova_cloud: NovaCloud, gold: Path) -> None:
    done = exercise(nova_cloud, SPLITIMAGE_GOLD=str(gold), SPLITIMAGE_PARTS="web,nosuch")
    assert done.returncode == 1
    assert "no part nosuch" in done.stderr


@pytest.mark.usefixtures("nothing_stays")
def test_it_tells_why_an_import_fails(nova_cloud: NovaCloud, gold: Path) -> None:
    done = exercise(nova_cloud, SPLITIMAGE_GOLD=str(gold), SPLITIMAGE_SOFTWARE="web=nosuchd",
                    SPLITIMAGE_PARTS="web")
    assert done.returncode == 1
    assert "no package named nosuchd" in done.stderr
