from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.functional import bootgold, smallgold
from tests.functional.command import Command


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
