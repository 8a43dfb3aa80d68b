"""Trees that running guests lay, against those that are injected: the guest's
own program in a chroot, in random schedules."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from splitimage_driver.application import Application
from splitimage_driver.capture.identity import Identity
from splitimage_driver.model.candidate import BASE
from splitimage_driver.model.plan import Request
from tests.functional import chroot, trees
from tests.functional.lamp import NAMES, SUBSETS, named

pytest_plugins = ("tests.functional.lamp",)
pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
              pytest.mark.must_show("streams", 1)]
SCHEDULES = 20
#: Schedules from each completed image.
FEWER = 5
SAMPLE = ("apache", "php")

Native = Callable[[str], Application]


def laid(application: Application, chosen: tuple[str, ...], seed: int, place: Path,
         start: str) -> list[str]:
    """Stream a request in one schedule; the differences from its tree.

    :param start: name of the image that it has to start from
    """
    chance = random.Random(seed)
    store = application.store
    request = Request(composite="lamp", parts=chosen)
    with application.images.deliveries.streamed(request) as streamed:
        assert streamed.plan.estimate.candidate.name == start
        assert streamed.delivery is not None and streamed.plan.target is not None
        delivery = chroot.shuffled(streamed.delivery, chance)
        disk = store.path(streamed.disk)
        with trees.mounted(disk) as tree:
            with chroot.entered(tree) as inside:
                chroot.give(inside, delivery, store, place / "plan.squashfs")
                process = inside.start("--streams", str(chance.randint(1, 4)))
                holding = chroot.held_up(process, chance)
                told, _ = process.communicate(timeout=900)
                holding.join()
                reports = inside.reports()
            assert process.returncode == 0, told
            assert reports[-1]["event"] == "end" and reports[-1]["state"] == "complete", reports
            assert reports[-1]["kept_count"] == 0
            return trees.differences(
                tree.manifest(), streamed.plan.target.manifest, times=True,
                excludes=lambda e: chroot.is_own(e) or Identity().excludes(e))


@pytest.mark.parametrize("chosen", [pytest.param(c, marks=[] if c == SAMPLE else
                                                 pytest.mark.accept, id=named(c))
                                    for c in SUBSETS])
def test_one_schedule(native: Native, chosen: tuple[str, ...], tmp_path: Path) -> None:
    assert laid(native("steps"), chosen, 0, tmp_path, "lamp") == []


@pytest.mark.accept
@pytest.mark.parametrize("chosen", SUBSETS, ids=named)
def test_any_schedule(native: Native, chosen: tuple[str, ...], tmp_path: Path,
                      record_property: Callable[[str, object], None]) -> None:
    found = [laid(native("steps"), chosen, seed, tmp_path, "lamp")
             for seed in range(1, SCHEDULES + 1)]
    assert found == [[]] * SCHEDULES
    record_property(f"schedules without a difference, {named(chosen)}", len(found))


@pytest.fixture(params=NAMES)
def started(native: Native, request: pytest.FixtureRequest) -> Iterator[Application]:
    """With the completed image of one piece of software."""
    application = native("steps")
    images = trees.native(application)
    _, done = images.assemble(Request(composite="lamp", parts=(request.param,)))
    assert done.image is not None
    yield application
    application.store.delete_image(done.image.id)


@pytest.mark.accept
def test_from_a_completed_image(started: Application, tmp_path: Path,
                                record_property: Callable[[str, object], None]) -> None:
    image, = started.store.images()
    one = image.name.partition("+")[2]
    larger = [chosen for chosen in SUBSETS if one in chosen and len(chosen) > 1]
    assert len(larger) == 3
    for chosen in larger:
        found = [laid(started, chosen, seed, tmp_path, image.name) for seed in range(FEWER)]
        assert found == [[]] * FEWER
        record_property(f"{image.name} to {named(chosen)}, schedules", len(found))


@pytest.mark.accept
def test_nothing_in_excess_is_started_from(started: Application) -> None:
    """An image with more than was asked for is nearer, and no start."""
    image, = started.store.images()
    other = next(name for name in NAMES if name not in image.parts)
    with started.images.deliveries.streamed(Request(composite="lamp", parts=(other,))) as streamed:
        assert streamed.plan.estimate.candidate.kind == BASE
