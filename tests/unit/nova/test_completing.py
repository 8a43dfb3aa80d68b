from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.assembly import disks
from splitimage_driver.model.composite import Answer, answered
from splitimage_driver.model.delivery import AUTO, STREAM
from splitimage_driver.model.plan import Request
from splitimage_driver.nova import completing
from splitimage_driver.nova.completing import Start
from splitimage_driver.nova.laying import Made
from splitimage_driver.nova.request import Wanted

LAMP, MADE = "0a" * 16, "0b" * 16
GIB = 2**30


class Lamp:
    """A store with one composite and an image that was completed from
    it, and the service that would assemble.

    :ivar asked: requests to assemble
    :ivar start: id of the image that a server starts from to lay the rest; "":
        the base
    :ivar delivery: that rest
    :ivar streams: requests that were streamed
    :ivar laid: what was given to a server to lay
    """

    def __init__(self, *, default: tuple[str, ...] = (), exact: bool = False,
                 forbidden: bool = False, start: str = "", delivery: str = "rest") -> None:
        self.default, self.exact, self.forbidden = default, exact, forbidden
        self.start, self.delivery = start, delivery or None
        self.asked: list[Request] = []
        self.streams: list[Request] = []
        self.laid: list[tuple[Any, Made, Made]] = []
        self.seeded: list[tuple[str, Path]] = []

    # -- of the store ---------------------------------------------------------------------

    def default_parts(self, composite: str) -> tuple[str, ...]:
        assert composite == LAMP
        return self.default

    def image(self, name: str) -> Any:
        if name != MADE:
            raise exceptions.NotFound(kind="image", name=name, where="here")
        return types.SimpleNamespace(composite=LAMP, parts=("apache",), filesets=())

    def composite(self, name: str) -> Any:
        assert name == LAMP
        return types.SimpleNamespace(id=LAMP)

    def path(self, digest: str) -> Path:
        return Path("/objects", digest)

    # -- of the service -------------------------------------------------------------------

    @contextlib.contextmanager
    def assembled(self, request: Request, *, fetch: bool,
                  largest: int) -> Iterator[tuple[Any, Any]]:
        assert not fetch, "Nova fetches what it needs by itself"
        assert largest == 4 * GIB
        self.asked.append(request)
        yield (types.SimpleNamespace(exact=self.exact),
               types.SimpleNamespace(image=types.SimpleNamespace(id=MADE), disk="d1"))

    @property
    def deliveries(self) -> Any:
        return self

    def way(self, request: Request, wish: str) -> str:
        return STREAM if wish == AUTO else wish

    @contextlib.contextmanager
    def streamed(self, request: Request, *, fetch: bool) -> Iterator[Any]:
        assert not fetch, "Nova fetches what it starts from by itself"
        self.streams.append(request)
        yield types.SimpleNamespace(image=self.start, delivery=self.delivery)

    # -- of Nova's driver ---------------------------------------------------------------------

    def complete(self, parts: tuple[str, ...] | None, *filesets: str, image: str = LAMP,
                 role: str = "composite", answers: tuple[Answer, ...] = (),
                 deliver: str = "") -> str:
        application: Any = types.SimpleNamespace(store=self, images=self)
        return completing.complete(
            application, Start(image=image, role=role, disk_bytes=4 * GIB,
                               wanted=Wanted(parts, filesets, answers, deliver)),
            check=self.check, seed=lambda image, disk: self.seeded.append((image, disk)),
            lay=lambda *given: self.laid.append(given))

    def check(self) -> None:
        if self.forbidden:
            raise exceptions.InvalidInput(what="the server", reason="it is another project's")


def test_what_was_assembled_here_is_kept_for_nova() -> None:
    lamp = Lamp()
    assert lamp.complete(("apache", "php"), "site") == MADE
    assert lamp.asked == [Request(composite=LAMP, parts=("apache", "php"), filesets=("site",))]
    assert lamp.seeded == [(MADE, Path("/objects/d1"))]


def test_the_tenants_answers_are_the_requests() -> None:
    lamp, answers = Lamp(), (answered("/etc/motd", "replace"),)
    lamp.complete(("apache",), "site", answers=answers)
    assert [request.answers for request in lamp.asked] == [answers]


def test_an_exact_match_is_left_to_nova() -> None:
    lamp = Lamp(exact=True)
    assert lamp.complete(("apache",)) == MADE
    assert lamp.seeded == []


@pytest.mark.parametrize("parts", [None, ()])
def test_without_parts_it_is_the_system(parts: tuple[str, ...] | None) -> None:
    lamp = Lamp()
    assert lamp.complete(parts) == LAMP
    assert lamp.asked == []


def test_the_image_says_what_nobody_else_does() -> None:
    lamp = Lamp(default=("apache",))
    lamp.complete(None)
    lamp.complete(None, "site")
    assert lamp.complete(()) == LAMP
    assert [(each.parts, each.filesets) for each in lamp.asked] == [
        (("apache",), ()), (("apache",), ("site",))]


def test_a_completed_image_is_booted_as_it_is_unless_parts_are_named() -> None:
    lamp = Lamp(default=("apache",))
    assert lamp.complete(None, image=MADE, role="completed") == MADE
    assert lamp.asked == []
    lamp.complete(("php",), image=MADE, role="completed")
    assert lamp.asked == [Request(composite=LAMP, parts=("php",))]
    assert lamp.complete((), image=MADE, role="completed") == LAMP


def test_another_projects_completed_image_is_no_way_to_its_composite() -> None:
    lamp = Lamp()
    with pytest.raises(exceptions.NotFound):
        lamp.complete(("php",), image="0c" * 16, role="completed")


def test_nothing_is_put_together_for_whom_it_may_not_be() -> None:
    lamp = Lamp(default=("apache",), forbidden=True)
    for parts in None, ("php",):
        with pytest.raises(exceptions.InvalidInput, match="another project's"):
            lamp.complete(parts)
    assert lamp.asked == []
    assert lamp.complete(()) == LAMP, "which is no work"


@pytest.mark.parametrize("deliver", [STREAM, AUTO])
def test_a_server_that_lays_its_parts_starts_from_the_nearest_image(deliver: str) -> None:
    lamp = Lamp(start=MADE)
    assert lamp.complete(("apache", "php"), "site", deliver=deliver) == MADE
    assert lamp.streams == [Request(composite=LAMP, parts=("apache", "php"), filesets=("site",))]
    assert lamp.laid == [("rest", Made(composite=LAMP, parts=("apache",)),
                          Made(composite=LAMP, parts=("apache", "php"), filesets=("site",)))]
    assert lamp.asked == [], "nothing is put together here"


def test_or_from_the_base() -> None:
    lamp = Lamp()
    assert lamp.complete(("php",), deliver=STREAM) == LAMP
    assert lamp.laid == [("rest", Made(composite=LAMP), Made(composite=LAMP, parts=("php",)))]


def test_where_nothing_is_missing_nothing_is_laid() -> None:
    lamp = Lamp(start=MADE, delivery="")
    assert lamp.complete(("apache",), deliver=STREAM) == MADE
    assert lamp.laid == []
    assert lamp.complete((), deliver=STREAM) == LAMP
    assert len(lamp.streams) == 1


def test_nothing_is_streamed_for_whom_it_may_not_be() -> None:
    lamp = Lamp(forbidden=True)
    with pytest.raises(exceptions.InvalidInput, match="another project's"):
        lamp.complete(("php",), deliver=STREAM)
    assert lamp.streams == []


def test_a_disk_is_put_there_as_a_whole(tmp_path: Path) -> None:
    disk, target, scratch = tmp_path / "disk", tmp_path / "base" / "name", tmp_path / "scratch"
    for directory in (target.parent, scratch):
        directory.mkdir()
    disk.write_bytes(b"disk" * 5000)
    disk.chmod(0o400)
    completing.seed(disk, target, scratch=scratch, raw=False)
    assert target.read_bytes() == disk.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o644
    assert not list(scratch.iterdir())


def test_where_nova_has_raw_images_it_is_one(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, str]] = []

    def convert(source: Path, source_format: str, destination: Path, out_format: str) -> None:
        done.append((source_format, out_format))
        destination.write_bytes(b"raw")

    monkeypatch.setattr(disks, "convert", convert)
    completing.seed(tmp_path / "disk", tmp_path / "target", scratch=tmp_path / ".", raw=True)
    assert done == [("qcow2", "raw")]
    assert (tmp_path / "target").read_bytes() == b"raw"
