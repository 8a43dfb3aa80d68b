"""The demonstration's gold machine, captured, for tests of trees.

``native`` is the project's own capture and assembly with the host's kernel in
the place of the appliance, which the tests of trees show to make the same.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from demo import gold as gold_machines
from splitimage_driver.application import Application
from splitimage_driver.capture import conflicts
from splitimage_driver.capture.machine import Gold
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.plan import Target
from splitimage_driver.planning import target
from tests.functional import trees

SOFTWARE = {step.name: step.packages for step in gold_machines.LAMP}
NAMES = tuple(SOFTWARE)
SUBSETS = [chosen for size in range(1, 4) for chosen in itertools.combinations(NAMES, size)]


class Lamp(NamedTuple):
    """The gold machine.

    :ivar trees: of the disk after each step
    :ivar packages: likewise what dpkg lists
    :ivar verified: what ``dpkg -V`` says of the last one
    :ivar expected: the packages of each choice of software, by apt
    """

    disks: dict[str, Path]
    tars: dict[str, Path]
    trees: dict[str, Manifest]
    packages: dict[str, list[str]]
    verified: list[str]
    expected: dict[tuple[str, ...], list[str]]


@pytest.fixture(scope="session")
def lamp() -> Lamp:
    tars = gold_machines.build_steps(gold_machines.CACHE, gold_machines.LAMP)
    disks = gold_machines.machine()
    found: dict[str, Manifest] = {}
    listed: dict[str, list[str]] = {}
    for name, disk in disks.items():
        with trees.mounted(disk) as tree:
            found[name], listed[name] = tree.manifest(), trees.packages(tree)
            if name == NAMES[-1]:
                assert trees.audit(tree) == ""
                verified, status = trees.verify(tree), tree.read("var/lib/dpkg/status")
    with trees.mounted(disks["base"]) as tree:
        expected = {chosen: trees.expected_packages(
            tree, status, [package for name in chosen for package in SOFTWARE[name]])
            for chosen in SUBSETS}
    # apt agrees with what happened.
    for number, name in enumerate(NAMES, 1):
        assert expected[NAMES[:number]] == listed[name]
    return Lamp(disks, tars, found, listed, verified, expected)


def gold(lamp: Lamp, splitter: str) -> Gold:
    if splitter == "steps":
        return Gold(disk=lamp.disks["base"], steps=tuple((n, lamp.tars[n]) for n in NAMES))
    return Gold(disk=lamp.disks[NAMES[-1]], software=SOFTWARE)


def _stores(place: Callable[[], Path], capture: Callable[[Application, str], object],
            ) -> Iterator[Callable[[str], Application]]:
    """Gives a store with the machine captured, by splitter, each made once."""
    made: dict[str, Application] = {}

    def store(splitter: str) -> Application:
        if splitter not in made:
            application = Application(place() / "store")
            capture(application, splitter)
            made[splitter] = application
        return made[splitter]

    yield store
    for application in made.values():
        shutil.rmtree(application.path)


@pytest.fixture(scope="session")
def by_appliance(lamp: Lamp, tmp_path_factory: pytest.TempPathFactory,
                 ) -> Iterator[Callable[[str], Application]]:
    """Stores with the machine captured by the appliance, by splitter."""
    yield from _stores(lambda: tmp_path_factory.mktemp("lamp"), lambda application, splitter:
                       application.images.capture("lamp", gold(lamp, splitter)))


@pytest.fixture(scope="session")
def native(lamp: Lamp, tmp_path_factory: pytest.TempPathFactory,
           ) -> Iterator[Callable[[str], Application]]:
    """The same without an appliance; no image stays in these after a test."""
    yield from _stores(lambda: tmp_path_factory.mktemp("native"), lambda application, splitter:
                       trees.native(application).capture("lamp", gold(lamp, splitter)))


def composite(application: Application) -> Composite:
    return application.store.composite("lamp")


def base_tree(application: Application) -> Manifest:
    return application.store.manifest(composite(application).base.manifest)


def lay(application: Application, *names: str, order: tuple[str, ...] | None = None) -> Target:
    """The tree of a request, its parts laid in ``order``."""
    lamp = composite(application)
    parts = [conflicts.laid(lamp, name, application.store)
             for name in order or lamp.closure(names)]
    found = target.lay(base_tree(application), parts, shared=lamp.shared,
                       restore=conflicts.restore_of(lamp, application.store),
                       answers=lamp.answers, read=conflicts.reader(application.store))
    assert found.conflicts == ()
    return found


def named(chosen: tuple[str, ...]) -> str:
    return "+".join(chosen)
