"""The import plugin, as far as it needs no Glance."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import conf as configuration
from splitimage_driver import exceptions
from splitimage_driver.glance import splitting
from splitimage_driver.glance.splitting import Order
from splitimage_driver.model import properties
from splitimage_driver.store.glance.api import Description, Images
from splitimage_driver.store.local import LocalStore
from splitimage_driver.workers import DONE, FAILED, Message
from tests.imagerecords import Records
from tests.unit.store.glance.fake import FakeGlance

DISK, WORK = Path("/srv/staging/1f"), Path("/srv/splitting")


def gold(**said: Any) -> Description:
    return {"id": "1f", "name": "lamp", "owner": "alpha", "visibility": "shared",
            "disk_format": "raw", "container_format": "bare", "splitimage_split": "web=apache2",
            **said}


@pytest.fixture
def alpha() -> Images:
    return FakeGlance().user("alpha")


def started(images: Images, **said: Any) -> Description:
    """A gold disk on its way in."""
    return images.create("lamp", {"splitimage_split": "web=apache2", **said}, hidden=False)


# -- what is asked for ----------------------------------------------------------------


def test_an_order_is_read() -> None:
    assert splitting.order(gold(splitimage_split_1="db=mariadb", splitimage_error="before",
                                visibility="public", hw_disk_bus="scsi"), "alpha") == Order(
        image="1f", name="lamp", owner="alpha", public=True, disk_format="raw",
        software={"web": ("apache2",), "db": ("mariadb",)},
        former={"splitimage_split": "web=apache2", "splitimage_split_1": "db=mariadb"})


@pytest.mark.parametrize(("said", "reason"), [
    ({"name": None}, "composite name ''"),
    ({"name": "LAMP machine"}, "composite name 'LAMP machine'"),
    ({"name": "x" * 60}, "part name"),  # no room for the rest part's
    ({"container_format": "ova"}, "a gold disk is bare"),
    ({"disk_format": "vmdk"}, "a gold disk is raw or qcow2"),
    ({"splitimage_split": "base=linux"}, "it means the operating system"),
    ({"splitimage_role": "composite"}, "property splitimage_role"),
    ({"splitimage_part_web": "x"}, "property splitimage_part_web"),
    ({"img_signature": "x"}, "does not fit the base"),
    ({"owner": "beta"}, "only the image's own project"),
])
def test_what_cannot_be_is_refused(said: dict[str, Any], reason: str) -> None:
    with pytest.raises(exceptions.InvalidInput) as caught:
        splitting.order(gold(**said), "alpha")
    assert reason in str(caught.value)


# -- what Glance has --------------------------------------------------------------------


def test_a_name_is_free_unless_a_finished_composite_has_it(alpha: Images) -> None:
    own = started(alpha)
    wanted = splitting.order(gold(**own), "alpha")
    Records(alpha).begun("lamp")
    splitting.free_name(alpha, wanted)
    Records(alpha).composite("lamp")
    with pytest.raises(exceptions.AlreadyExists):
        splitting.free_name(alpha, wanted)


def test_what_was_stored_for_a_failed_import_goes(alpha: Images) -> None:
    image, records = started(alpha), Records(alpha)
    other = records.part("db", holder=records.composite("other")["id"])
    part = records.part("web", holder=image["id"])
    records.manifest(image["id"])
    splitting.retract(alpha, image["id"], "alpha")
    left = {each["id"] for each in alpha.list(hidden=True)}
    assert other["id"] in left
    assert not {part["id"], part["splitimage_manifest"]} & left
    assert not [each for each in alpha.list(hidden=True) if
                each.get("splitimage_for") == image["id"]]


def test_but_not_what_another_composite_has_come_to_share(alpha: Images) -> None:
    image, records = started(alpha), Records(alpha)
    part = records.part("web", holder=image["id"])
    records.composite("other", web=part)
    splitting.retract(alpha, image["id"], "alpha")
    assert alpha.get(part["id"])
    assert alpha.get(properties.manifest(part))


def test_nothing_of_another_project_goes() -> None:
    glance = FakeGlance()
    alpha, beta = glance.user("alpha"), glance.user("beta")
    image = started(alpha)
    part = Records(beta).part("web", holder=image["id"])
    splitting.retract(alpha, image["id"], "alpha")
    assert beta.get(part["id"])


# -- the process ------------------------------------------------------------------------


class Working:
    """In the place of a worker.

    :param ends: whether it does by itself
    """

    title = "it"

    def __init__(self, last: Message, *, ends: bool = True) -> None:
        self.last, self.ended, self.joined = last, threading.Event(), False
        if ends:
            self.ended.set()

    def receive(self) -> Message | None:
        assert self.ended.wait(30)
        return self.last

    def end(self) -> None:
        self.ended.set()

    def join(self) -> None:
        self.joined = True


def test_the_error_of_the_process_is_the_split_s() -> None:
    working = Working(Message(FAILED, exceptions.NoOperatingSystem(path=DISK)))
    with pytest.raises(exceptions.NoOperatingSystem):
        splitting.result(working, 60)  # type: ignore[arg-type]
    assert working.joined


def test_a_split_that_takes_too_long_is_ended() -> None:
    working = Working(Message(FAILED, exceptions.WorkerLost(what="it", status=143)), ends=False)
    with pytest.raises(exceptions.SplitTimeout):
        splitting.result(working, 0.01)  # type: ignore[arg-type]
    assert working.joined


def test_one_that_is_done_at_the_last_moment_is_done() -> None:
    working = Working(Message(DONE, None), ends=False)
    splitting.result(working, 0.01)  # type: ignore[arg-type]


def test_the_python_of_this_environment_is_used(tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    own, other = tmp_path / "bin" / "python3", tmp_path / "other" / "python3.11"
    for place in (own, other):
        place.parent.mkdir()
        place.touch(0o755)
    server = str(tmp_path / "bin" / "uwsgi")
    monkeypatch.setattr(sys, "executable", server)
    assert splitting.find_python(server) == str(own)
    assert splitting.find_python(str(other)) == str(other)
    monkeypatch.setattr(sys, "executable", None)  # within some servers
    assert splitting.find_python(None) == str(own)
    own.unlink()
    with pytest.raises(exceptions.ToolMissing):
        splitting.find_python(None)


# -- what is told ------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "told"), [
    (exceptions.NoOperatingSystem(path=DISK), "no operating system found in the gold disk"),
    (exceptions.StoreFull(path=WORK / "tmp/3c/gold", needed=10, available=2),
     "no room in the store of the image service: needs 10 bytes, has 2"),
    (exceptions.UnsafeDisk(path=DISK, reason="it has a backing file"),
     "the gold disk is refused: it has a backing file; "
     "flatten it first: qemu-img convert -O qcow2 IN OUT"),
    (exceptions.ToolFailed(tool="x", status="1", reason="a\n  b"), "x failed (1): a b"),
])
def test_a_reason_has_one_line_and_no_path_of_the_host(
        error: exceptions.SplitImageError, told: str) -> None:
    assert splitting.told(error, DISK, WORK) == told


def test_a_reason_fits_into_a_property() -> None:
    error = exceptions.ToolFailed(tool="x", status="1", reason="\N{EURO SIGN}" * 200)
    told = splitting.told(error, DISK, WORK)
    assert 250 < len(told.encode()) <= properties.MAX_VALUE


# -- what is left ------------------------------------------------------------------------


def test_what_a_killed_split_has_left_goes(tmp_path: Path) -> None:
    conf = configuration.load(files=[])
    conf.set_override("directory", str(tmp_path / "splitting"), group="split")
    splitting.tidy(conf)
    assert not (tmp_path / "splitting").exists()  # no split, no directory
    LocalStore(tmp_path / "splitting", conf.store).close()
    left = tmp_path / "splitting" / "tmp" / "3c"
    left.mkdir()
    (left / "base.qcow2").touch()
    splitting.tidy(conf)
    assert list(left.parent.iterdir()) == []


def test_that_nothing_can_be_tidied_stops_nothing(tmp_path: Path) -> None:
    conf = configuration.load(files=[])
    conf.set_override("directory", str(tmp_path), group="split")
    (tmp_path / "tmp").touch()
    splitting.tidy(conf)
    assert (tmp_path / "tmp").is_file()
