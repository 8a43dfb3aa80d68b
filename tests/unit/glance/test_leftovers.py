"""With an image that has never been complete goes what is left of it in a store."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from splitimage_driver.glance import leftovers
from splitimage_driver.glance.leftovers import Leftovers
from splitimage_driver.glance.transport import Environ
from splitimage_driver.store.glance import collector
from splitimage_driver.store.glance.api import Description
from tests.imagerecords import Records
from tests.stocked import Stock
from tests.unit.glance.conftest import Api, FakeDatabase
from tests.unit.store.glance.fake import FakeGlance

IMAGE = "0f9a3c5e-17d2-4b68-8a41-c2de90b7f613"
CREATED = datetime.datetime(2026, 11, 20, 12, 30)  # as the database tells it: in UTC


class Service:
    """Glance in front of one image, with two file stores.

    :ivar image: None: there is none
    :ivar answer: to each request
    :ivar gone: is it, after that
    """

    def __init__(self, place: Path) -> None:
        self.stores = [place / "fast", place / "second"]
        for store in self.stores:
            store.mkdir()
        self.image: Description | None = {"id": IMAGE, "status": "saving", "created_at": CREATED}
        self.answer, self.gone = "204 No Content", True
        self.asked: list[Environ] = []

    def read(self, ids: Iterable[str]) -> Iterator[Description]:
        if self.image is not None and IMAGE in [each.lower() for each in ids]:
            yield self.image

    def is_gone(self, image: str) -> bool:
        assert image == IMAGE
        return self.gone

    def file(self, name: str = IMAGE, *, store: int = 0, age: float = 0) -> Path:
        """:param age: seconds before the image"""
        path = self.stores[store] / name
        path.write_bytes(b"half")
        then = CREATED.replace(tzinfo=datetime.UTC).timestamp() - age
        os.utime(path, (then, then))
        return path

    def application(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        self.asked.append(environ)
        start(self.answer, [("X-Own", "yes")])
        return []

    def request(self, method: str = "DELETE", path: str = f"/v2/images/{IMAGE}") -> None:
        """It passes untouched, and so does the answer."""
        environ: Environ = {"REQUEST_METHOD": method, "PATH_INFO": path}
        told: list[Any] = []
        Leftovers(self.application, self, lambda: self.stores)(
            environ, lambda *words: told.extend(words))
        assert told == [self.answer, [("X-Own", "yes")]]
        assert self.asked[-1] is environ


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


# -- what goes -----------------------------------------------------------------------


@pytest.mark.parametrize("status", ["queued", "saving", "uploading", "importing"])
def test_of_an_image_that_was_never_complete_nothing_is_left(service: Service,
                                                             status: str) -> None:
    service.image = {"id": IMAGE, "status": status, "created_at": CREATED}
    left = [service.file(store=0), service.file(store=1)]
    other = service.file("1f9a3c5e-17d2-4b68-8a41-c2de90b7f613")
    service.request()
    assert [path.exists() for path in left] == [False, False]
    assert other.exists()


@pytest.mark.parametrize("path", [f"/v2/images/{IMAGE}/", f"/images/{IMAGE}",
                                  f"/v2/images/{IMAGE.upper()}"])
def test_however_it_is_asked_for(service: Service, path: str) -> None:
    left = service.file()
    service.request(path=path)
    assert not left.exists()


def test_where_nothing_is_left_nothing_happens(service: Service) -> None:
    service.stores.append(service.stores[0] / "no directory")
    service.request()


def test_one_that_is_being_written_goes_too(service: Service) -> None:
    """Whoever uploads goes on until Glance tells that the image is gone."""
    with service.file().open("ab") as upload:
        service.request()
        upload.write(b"other half")
    assert list(service.stores[0].iterdir()) == []


# -- what stays ----------------------------------------------------------------------


@pytest.mark.parametrize("status", ["active", "deactivated", "pending_delete", "deleted"])
def test_what_was_complete_is_glances_own_affair(service: Service, status: str) -> None:
    service.image = {"id": IMAGE, "status": status, "created_at": CREATED}
    left = service.file()
    service.request()
    assert left.exists()


@pytest.mark.parametrize(("answer", "gone"), [
    ("403 Forbidden", False), ("404 Not Found", True), ("500 Internal Server Error", True),
    ("204 No Content", False)])  # the last: its data will be deleted later
def test_as_long_as_it_is_not_gone_with_all_its_data_it_stays(
        service: Service, answer: str, gone: bool) -> None:
    service.answer, service.gone = answer, gone
    left = service.file()
    service.request()
    assert left.exists()


@pytest.mark.parametrize(("method", "path"), [
    ("PATCH", f"/v2/images/{IMAGE}"), ("GET", f"/v2/images/{IMAGE}"),
    ("DELETE", f"/v2/images/{IMAGE}/members/x"), ("DELETE", f"/v2/images/{IMAGE}/tags/x"),
    ("DELETE", f"/v2/stores/fast/{IMAGE}"), ("DELETE", "/v2/images"),
    ("DELETE", f"/v2/images/{IMAGE}\n")])
def test_no_other_request_removes_it(service: Service, method: str, path: str) -> None:
    left = service.file()
    service.request(method, path)
    assert left.exists()


def test_what_is_not_known_is_not_touched(service: Service) -> None:
    service.image = None
    left = service.file()
    service.request()
    assert left.exists()


@pytest.mark.parametrize("name", ["..", "../other", "", IMAGE + "\n", IMAGE + ".qcow2", "x" * 36])
def test_a_name_that_is_no_id_leads_nowhere(service: Service, monkeypatch: pytest.MonkeyPatch,
                                            name: str) -> None:
    service.image = {"id": name, "status": "saving", "created_at": CREATED}
    monkeypatch.setattr(service, "is_gone", lambda _: True)
    other = service.stores[0].parent / "other"
    other.write_bytes(b"x")
    left = [service.file(), other]
    if name.startswith((IMAGE, "x")):
        left.append(service.file(name))
    service.request()
    assert all(path.exists() for path in left)


def test_only_files_are_removed(service: Service) -> None:
    whose = service.stores[0].parent / "other"
    whose.write_bytes(b"x")
    (service.stores[0] / IMAGE).symlink_to(whose)
    (service.stores[1] / IMAGE).mkdir()
    service.request()
    assert whose.exists()
    assert all((store / IMAGE).exists() for store in service.stores)


def test_what_is_older_than_the_image_is_not_of_its_upload(service: Service) -> None:
    older, clocks = service.file(store=0, age=61), service.file(store=1, age=59)
    service.request()
    assert (older.exists(), clocks.exists()) == (True, False)


# -- what fails ----------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["read", "is_gone"])
def test_a_failure_does_not_show(service: Service, monkeypatch: pytest.MonkeyPatch,
                                 caplog: pytest.LogCaptureFixture, broken: str) -> None:
    def fail(*_: Any) -> Any:
        raise OSError("the database is gone")

    monkeypatch.setattr(service, broken, fail)
    left = service.file()
    service.request()
    assert left.exists()
    [record] = caplog.records
    assert "the database is gone" in (record.exc_text or "")


def test_a_store_that_fails_keeps_no_other_from_being_tidied(
        service: Service, caplog: pytest.LogCaptureFixture) -> None:
    service.stores.insert(0, service.stores[0] / "file" / "below")
    (service.stores[1] / "file").write_bytes(b"x")
    left = service.file(store=2)
    service.request()
    assert not left.exists()
    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "stays: [Errno 20]" in record.getMessage()


# -- where it is ---------------------------------------------------------------------


def store(one: str | None = None, several: list[str] | None = None) -> Any:
    return SimpleNamespace(store_conf=SimpleNamespace(
        filesystem_store_datadir=one, filesystem_store_datadirs=several))


def test_directories_are_those_that_glance_has_been_told() -> None:
    assert leftovers.directories([
        store("/srv/images"), store(several=["/a:200", "/b", " /c : 5 ", "/d:", "/e:f:-1"]),
        store()]) == [Path(each) for each in ("/srv/images", "/a", "/b", "/c", "/d", "/e:f")]


# -- behind the filter ---------------------------------------------------------------


def test_a_part_that_goes_with_its_import_takes_its_file_along(
        api: Api, alpha: Stock, glance: FakeGlance, tmp_path: Path) -> None:
    """The filter's own requests are no exception."""
    api.stores.append(tmp_path)
    image = alpha.images.create("lamp", {"splitimage_split": "web=apache2"}, hidden=False)["id"]
    glance.images[image]["status"] = "importing"
    part = Records(alpha.images).part("web", holder=image)["id"]
    glance.images[part]["status"] = "saving"
    for name in (image, part):
        (tmp_path / name).write_bytes(b"half")
    api.images("alpha").delete(image)
    assert part not in glance.images
    assert list(tmp_path.iterdir()) == []


def test_what_the_collector_removes_takes_its_file_along(
        api: Api, alpha: Stock, glance: FakeGlance, database: FakeDatabase,
        tmp_path: Path) -> None:
    api.stores.append(tmp_path)
    part = Records(alpha.images).part("web")["id"]
    glance.images[part]["status"] = "saving"
    (tmp_path / part).write_bytes(b"half")
    glance.age(7200)
    collector.collect(api.images("alpha"), "alpha", grace=3600)
    assert part not in glance.images
    assert list(tmp_path.iterdir()) == []
