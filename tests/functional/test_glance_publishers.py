"""Several who publish the same completed image, and quotas that have no room."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from splitimage_driver import exceptions
from splitimage_driver.store.glance import api
from tests.functional.dying import until

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud
    from tests.functional.glancescene import Scene

pytest_plugins = ("tests.functional.cloud", "tests.functional.glancescene")
pytestmark = [pytest.mark.must_show("glance", 3), pytest.mark.accept]

MIB = 1 << 20
DISK, MIDDLE = 4 * MIB, 2 * MIB
IMAGE = ("image", "done", DISK, "small")
DATA = r"/file$"
#: Seconds; a publisher looks every second.
STALL, LOOKS = 3, 8


@pytest.fixture
def composite(scene: Scene) -> str:
    found: str = scene.done("composite", "small", MIB, MIB)
    return found


def looks(scene: Scene) -> int:
    """How often somebody has looked who publishes the same."""
    return sum("splitimage_recipe" in head for head in scene.proxy.heads)


def published_once(scene: Scene, image: str) -> None:
    assert [(each["id"], each["status"]) for each in scene.new("completed")] == [
        (image, api.ACTIVE)]
    manifests = [each["splitimage_for"] for each in scene.new("manifest")]
    images = {each["id"] for each in scene.new()}
    assert manifests.count(image) == 1
    assert images.issuperset(manifests), "none of the others' manifests is left"
    assert scene.emptied() == set()


@pytest.mark.parametrize("second", ["one", "two"], ids=["processes", "hosts"])
def test_the_same_is_published_once(scene: Scene, composite: str, second: str) -> None:
    held = scene.proxy.holds("PUT", DATA, after=MIDDLE)
    with scene.start(*IMAGE, host="one", stall=STALL) as leader:
        held.wait()
        before = looks(scene)
        with scene.start(*IMAGE, host=second, stall=STALL) as other:
            # Far beyond the time after which one that is dead is taken over.
            until(lambda: looks(scene) >= before + LOOKS)
            assert len(scene.new("completed")) == 2
            held.release()
            made = leader.success()
            assert other.success() == made
    assert len(held.met) == 1, "it went up once"
    published_once(scene, made)


def test_a_dead_leader_is_taken_over(scene: Scene, composite: str) -> None:
    held = scene.proxy.holds("PUT", DATA, after=MIDDLE)
    with scene.start(*IMAGE, host="one", stall=STALL) as leader:
        dead = held.wait().split("/")[-2]
        before = looks(scene)
        with scene.start(*IMAGE, host="two", stall=STALL) as other:
            until(lambda: looks(scene) > before)
            leader.kill()
            held.release(cut=True)
            made = other.success()
    assert made != dead
    published_once(scene, made)


def test_a_leader_that_was_taken_for_dead_uses_the_others_image(
        scene: Scene, composite: str) -> None:
    held = scene.proxy.holds("PUT", DATA, after=MIDDLE)
    with scene.start(*IMAGE, host="one", stall=STALL) as leader:
        held.wait()
        leader.process.send_signal(signal.SIGSTOP)
        made = scene.done(*IMAGE, host="two", stall=STALL)
        leader.process.send_signal(signal.SIGCONT)
        held.release()
        assert leader.success() == made
    published_once(scene, made)


# -- announced ---------------------------------------------------------------------------

@pytest.fixture
def place(tmp_path: Path) -> Path:
    found = tmp_path / "assemblies"
    found.mkdir()
    return found


def assemblies(place: Path) -> int:
    return len(list(place.glob("[0-9]*")))


@pytest.mark.parametrize("second", ["one", "two"], ids=["processes", "hosts"])
def test_the_same_is_assembled_once(scene: Scene, composite: str, place: Path,
                                    second: str) -> None:
    make = ("make", "done", DISK, "small", str(place))
    with scene.start(*make, host="one", stall=STALL) as leader:
        until(lambda: assemblies(place) == 1)
        with scene.start(*make, host=second, stall=STALL) as other:
            if second == "two":
                until(lambda: len(scene.new("completed")) == 2)
            # Far beyond the time after which one that is dead is taken over.
            time.sleep(3 * STALL)
            assert assemblies(place) == 1
            (place / "go").touch()
            made = leader.success()
            assert other.success() == made
    assert assemblies(place) == 1
    published_once(scene, made)


def test_hosts_that_begin_at_once_assemble_once(scene: Scene, composite: str,
                                                place: Path) -> None:
    (place / "go").touch()
    with contextlib.ExitStack() as stack:
        works = [stack.enter_context(scene.start(
            "make", "done", DISK, "small", str(place), host=str(number), stall=STALL))
            for number in range(4)]
        made = {work.success() for work in works}
    assert assemblies(place) == len(made) == 1
    published_once(scene, made.pop())


def test_one_that_is_killed_while_it_assembles_is_taken_over(
        scene: Scene, composite: str, place: Path) -> None:
    make = ("make", "done", DISK, "small", str(place))
    with scene.start(*make, host="one", stall=STALL) as leader:
        until(lambda: assemblies(place) == 1)
        with scene.start(*make, host="two", stall=STALL) as other:
            until(lambda: len(scene.new("completed")) == 2)
            leader.kill()
            until(lambda: assemblies(place) == 2)
            (place / "go").touch()
            made = other.success()
    published_once(scene, made)


def test_one_that_is_interrupted_takes_its_record_back(scene: Scene, composite: str,
                                                       place: Path) -> None:
    with scene.start("make", "done", DISK, "small", str(place)) as work:
        until(lambda: assemblies(place) == 1)
        assert len(scene.new("completed")) == 1
        work.kill(signal.SIGTERM)
    assert scene.new("completed") == []


@pytest.mark.parametrize("moment", ["assembly", "manifest", "upload"])
@pytest.mark.parametrize("who", ["project", "administrator"])
def test_what_a_killed_host_has_begun_goes_when_it_is_back(
        scene: Scene, composite: str, place: Path, moment: str, who: str) -> None:
    before = {image["id"] for image in scene.new()}
    if moment != "assembly":
        held = scene.proxy.holds("PUT", DATA, after=100 if moment == "manifest" else MIDDLE)
        (place / "go").touch()
    with scene.start("make", "done", DISK, "small", str(place), host="one") as work:
        if moment == "assembly":
            until(lambda: assemblies(place) == 1)
        else:
            held.wait()
        work.kill()
    if moment != "assembly":
        held.release(cut=True)
    assert len(scene.new()) == len(before) + (1 if moment == "assembly" else 2)
    with scene.store(host="two"):
        assert len(scene.new()) > len(before), "another host knows nothing of it"
    with scene.store(host="one", admin=who == "administrator") as store:
        if who == "administrator":
            assert len(scene.new()) > len(before), "it is another project's"
            store.discard_leftovers()
    assert {image["id"] for image in scene.new()} == before
    assert scene.emptied() == set()


# -- quotas ------------------------------------------------------------------------------

def quota(scene: Scene, room: int) -> dict[str, dict[str, dict[str, str]]]:
    """So many bytes more than the project has."""
    used = sum(image["size"] or 0 for image in scene.images().values()
               if image["owner"] == scene.alpha.project)
    return {"glance-api.conf": {"DEFAULT": {"user_storage_quota": f"{used + room}B"}}}


def names(scene: Scene) -> set[str]:
    return set(scene.names()[2])


def test_a_full_quota_costs_the_least_recently_used(scene: Scene, cloud: TestCloud,
                                                    composite: str) -> None:
    for name in ("first", "second", "third"):
        scene.done("image", name, DISK, "small")
    with scene.store() as store:
        store.touch_image(store.image("first").id)
    with cloud.configured(quota(scene, DISK // 2)):
        scene.done("image", "fourth", DISK, "small")
    assert names(scene) == {"first", "fourth"}
    assert scene.emptied() == set()


def test_the_only_image_makes_room_for_the_next(scene: Scene, cloud: TestCloud,
                                                composite: str) -> None:
    scene.done("image", "first", DISK, "small")
    with cloud.configured(quota(scene, DISK // 2)):
        scene.done("image", "second", DISK, "small")
    assert names(scene) == {"second"}
    assert scene.emptied() == set()


@pytest.mark.parametrize("words", [("image", "done", 40 * MIB, "small"),
                                   ("composite", "large", 20 * MIB, MIB),
                                   ("composite", "large", MIB, 40 * MIB)],
                         ids=["image", "part", "base"])
def test_a_quota_without_room_is_one_clear_error(
        scene: Scene, cloud: TestCloud, composite: str, tmp_path: Path,
        words: tuple[str | int, ...]) -> None:
    before = {image["id"] for image in scene.new()}
    with cloud.configured(quota(scene, 4 * MIB)), scene.start(*words) as client:
        status, said = client.failure()
    assert status == exceptions.QuotaExceeded.exit_code
    assert said.startswith("QuotaExceeded: project ")
    assert "storage quota" in said
    assert {image["id"] for image in scene.new()} == before, "nothing is left, at once"
    assert scene.emptied() == set()
