"""Parts on their way to and from the image service: side by side against one by
one, and against the ordinary client.

The service runs on this host and shares its processors: it has one worker
process, which hashes twice what comes in. So what is measured is work, not a
network's latency. Rounds alternate, ratios are those of medians;
``SPLITIMAGE_ROUNDS`` sets how many there are (3).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from splitimage_driver.application import Application
from splitimage_driver.store.glance.store import GlanceStore
from tests.benchmarks.results import Results
from tests.cloud import accounts
from tests.functional import glancework
from tests.functional.glancework import Work

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud
    from tests.functional.glancescene import Scene

pytest_plugins = ("tests.functional.cloud", "tests.functional.glancescene")
pytestmark = [pytest.mark.must_show("glance", 5), pytest.mark.accept]

MIB = 1 << 20
ROUNDS = int(os.environ.get("SPLITIMAGE_ROUNDS", "3"))
PARTS, SIZE = 4, 64 * MIB
LARGE = 512 * MIB
PARALLEL, SERIAL = "four parts up, in parallel", "four parts up, one by one"
OURS, PLAIN = "part down, this project's client", "part down, openstack image save"
Note = Callable[[str, object], None]


@contextlib.contextmanager
def opened(cloud: TestCloud, place: Path, parallel: int) -> Iterator[GlanceStore]:
    application = Application(place, files=[os.devnull], connection=cloud.alpha)
    application.conf.set_override("parallel", parallel, "glance")
    with contextlib.closing(application):
        assert isinstance(application.store, GlanceStore)
        yield application.store


def uploads(scene: Scene, name: str, parallel: int) -> float:
    """Seconds until the last part is there, and what refers to it."""
    with opened(scene.cloud, scene.place / name, parallel) as store:
        ready = [glancework.adopted(store, f"{name}-{number}", SIZE) for number in range(PARTS)]
        began = time.monotonic()
        parts = {part.name: store.add_part(part, manifest, pending=True)
                 for part, manifest in ready}
        store.describe_composite(glancework.described(
            store, name, parts, next(iter(parts.values())), "0" * 64, 0))
        taken = time.monotonic() - began
    scene.clear()
    return taken


def test_parts_go_up_side_by_side(scene: Scene, results: Results,
                                  record_property: Note) -> None:
    uploads(scene, "warm", PARTS)
    for number in range(ROUNDS):
        results.note(SERIAL, uploads(scene, f"serial-{number}", 1))
        results.note(PARALLEL, uploads(scene, f"parallel-{number}", PARTS))
    ratio = results.ratio(PARALLEL, SERIAL, "at most 1")
    record_property("four parts, parallel / one by one", f"{ratio:.2f}")
    assert ratio <= 1


def test_a_part_comes_as_fast_as_by_the_ordinary_client(
        scene: Scene, cloud: TestCloud, results: Results, record_property: Note) -> None:
    with opened(cloud, scene.place / "source", 1) as store:
        glancework.part(store, "large", LARGE, sparse=True)
    image = next(each["id"] for each in scene.new("part"))
    for number in range(ROUNDS):
        saved = scene.place / "saved"
        began = time.monotonic()
        done = cloud.openstack("alpha", "image", "save", "--file", saved, image)
        results.note(PLAIN, time.monotonic() - began)
        assert done.status == 0, done.err
        began = time.monotonic()
        with Work(scene.place / f"host-{number}", accounts.clouds_file(cloud.control.site),
                  scene.name, "fetch-part", "large", options={}) as work:
            path, _ = work.success()
        results.note(OURS, time.monotonic() - began)
        assert Path(path).stat().st_size == saved.stat().st_size == LARGE
        saved.unlink()
        Path(path).unlink()
    ratio = results.ratio(OURS, PLAIN, "at most 1.25")
    record_property("part, this project / openstack image save", f"{ratio:.2f}")
    assert ratio <= 1.25
