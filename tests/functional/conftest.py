from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional import bootgold, dying, smallgold
from tests.functional.command import Command

# A shell starts what is to run in the background deaf to SIGINT, and so would
# be the commands that are to answer it here.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def small_gold(tmp_path_factory: pytest.TempPathFactory) -> smallgold.Gold:
    return smallgold.build(tmp_path_factory.mktemp("smallgold"))


@pytest.fixture(scope="session")
def small_store(small_gold: smallgold.Gold, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the small gold machine captured as composite ``small``;
    for reading only."""
    path = tmp_path_factory.mktemp("smallstore") / "store"
    done = Command(path)("capture", smallgold.NAME, *small_gold.arguments)
    assert done.status == 0, done.err
    return path


@pytest.fixture
def fresh_store(small_store: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(small_store, tmp_path / "store", symlinks=True))


@pytest.fixture(scope="session")
def boot_gold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the bootable gold machine is, see :mod:`tests.functional.bootgold`."""
    place = tmp_path_factory.mktemp("bootgold")
    bootgold.build(place)
    return place


@pytest.fixture(scope="session")
def captured(boot_gold: Path,
             tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dying.Moments]:
    """A store with the bootable gold machine captured, for reading only, and
    every moment of that capture."""
    place = tmp_path_factory.mktemp("captured")
    return place / "store", dying.moments_of(place / "store", bootgold.capture(boot_gold),
                                             place / "copy")


@pytest.fixture(scope="session")
def assembled(captured: tuple[Path, dying.Moments],
              tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dying.Moments]:
    """A store with one completed image, too, for reading only, and every
    moment of its assembly."""
    place = tmp_path_factory.mktemp("assembled")
    shutil.copytree(captured[0], place / "store")
    return place / "store", dying.moments_of(
        place / "store", bootgold.assemble(*bootgold.PAIR), place / "copy")


@pytest.fixture
def boot_store(captured: tuple[Path, dying.Moments], tmp_path: Path) -> Iterator[Path]:
    """A copy of the captured store that a test may change; servers go with it."""
    yield from _copy(captured[0], tmp_path)


@pytest.fixture
def completed_store(assembled: tuple[Path, dying.Moments], tmp_path: Path) -> Iterator[Path]:
    """Likewise with the image of the parts ``bootgold.PAIR``."""
    yield from _copy(assembled[0], tmp_path)


def _copy(store: Path, place: Path) -> Iterator[Path]:
    path = Path(shutil.copytree(store, place / "store"))
    yield path
    dying.delete_servers(path)
