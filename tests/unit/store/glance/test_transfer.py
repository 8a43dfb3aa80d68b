"""Contents up and down, over connections that break."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import requests

from splitimage_driver import exceptions, progress
from splitimage_driver.store.glance import api, transfer
from splitimage_driver.store.glance.transfer import Interrupted
from tests.unit.store.glance.scripted import Reply, Request, Scripted, Step, document

ID = "11111111-2222-3333-4444-555555555555"
DATA = bytes(range(256)) * 40
HALF = len(DATA) // 2
LOST = ConnectionError("connection reset by peer")
BUSY = Reply(503, b"busy")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_PAUSE", 0.0)
    monkeypatch.setattr(transfer, "_PAUSE", 0.0)
    monkeypatch.setattr(transfer, "PIECE", 1000)


def image(data: bytes = DATA, algorithm: str = "sha512", **said: Any) -> dict[str, Any]:
    """As Glance describes it once it has these data."""
    return {"id": ID, "status": "active", "size": len(data), "os_hash_algo": algorithm,
            "os_hash_value": hashlib.new(algorithm, data).hexdigest(), **said}


def state(status: str) -> Reply:
    return document({"id": ID, "status": status, "size": None, "os_hash_algo": None})


# -- down --------------------------------------------------------------------------


def whole(request: Request) -> Reply:
    """A store that reads from an offset."""
    start = int(request.headers["Range"][6:-1]) if "Range" in request.headers else 0
    return Reply(206 if start else 200, DATA[start:])


def from_the_beginning(request: Request) -> Reply:
    """A store that does not, and says so by 200."""
    return Reply(200, DATA[:700], DATA[700:])


def cut(at: int) -> Any:
    """Breaks off after the byte of that number."""
    def answer(request: Request) -> Reply:
        start = int(request.headers["Range"][6:-1]) if "Range" in request.headers else 0
        return Reply(206 if start else 200, DATA[start:at], LOST)
    return answer


class Fetched:
    def __init__(self, place: Path, *steps: Step, described: dict[str, Any] | None = None,
                 **wanted: Any) -> None:
        self.path, self.cloud = place / "data", Scripted(*steps)
        self.path.unlink(missing_ok=True)
        transfer.download(self.cloud.images, described or image(), self.path, **wanted)

    @property
    def ranges(self) -> list[str | None]:
        return [request.headers.get("Range") for request in self.cloud.requests]


def test_data_arrive(tmp_path: Path) -> None:
    found = Fetched(tmp_path, whole, sha256=hashlib.sha256(DATA).hexdigest(), limit=len(DATA))
    assert found.path.read_bytes() == DATA


@pytest.mark.parametrize("algorithm", ["sha512", "sha256", "sha384", "blake2b"])
def test_they_are_held_against_the_services_own_hash(tmp_path: Path, algorithm: str) -> None:
    Fetched(tmp_path, whole, described=image(algorithm=algorithm))
    with pytest.raises(exceptions.DigestMismatch, match=f"image {ID}"):
        Fetched(tmp_path, Reply(200, DATA[:-1] + b"x"), described=image(algorithm=algorithm))


@pytest.mark.parametrize("algorithm", [None, "md5", "whirlpool"])
def test_a_hash_that_is_not_known_is_no_obstacle(tmp_path: Path, algorithm: str | None) -> None:
    described = image() | {"os_hash_algo": algorithm}
    Fetched(tmp_path, whole, described=described)
    with pytest.raises(exceptions.DigestMismatch):
        Fetched(tmp_path, whole, described=described, sha256="0" * 64)


def test_a_download_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    found = Fetched(tmp_path, cut(HALF), BUSY, cut(HALF + 10), whole)
    assert found.path.read_bytes() == DATA
    assert found.ranges == [None, f"bytes={HALF}-", f"bytes={HALF}-", f"bytes={HALF + 10}-"]


def test_a_store_that_cannot_begins_again(tmp_path: Path) -> None:
    found = Fetched(tmp_path, cut(HALF), from_the_beginning)
    assert found.path.read_bytes() == DATA


@pytest.mark.parametrize("status", [400, 416])
def test_a_store_that_refuses_a_range_is_asked_for_all(tmp_path: Path, status: int) -> None:
    found = Fetched(tmp_path, cut(HALF), Reply(status, b"no range"), from_the_beginning)
    assert found.path.read_bytes() == DATA
    assert found.ranges == [None, f"bytes={HALF}-", None]


@pytest.mark.parametrize("status", [400, 416])
def test_a_refusal_of_all_of_it_is_told(tmp_path: Path, status: int) -> None:
    with pytest.raises(exceptions.CloudRefused, match="no range"):
        Fetched(tmp_path, Reply(status, b"no range"))


def test_an_end_that_comes_too_early_is_a_break(tmp_path: Path) -> None:
    """As of a proxy that closes what has a length nobody told."""
    found = Fetched(tmp_path, Reply(200, DATA[:HALF]), whole)
    assert found.path.read_bytes() == DATA
    assert found.ranges == [None, f"bytes={HALF}-"]


def test_answers_are_closed(tmp_path: Path) -> None:
    replies = [Reply(200, DATA[:HALF], LOST), Reply(206, DATA[HALF:])]
    Fetched(tmp_path, *replies)
    assert all(reply.closed for reply in replies)


def test_who_sends_nothing_several_times_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(exceptions.CloudUnreachable, match="connection reset"):
        Fetched(tmp_path, *[LOST] * 5)
    with pytest.raises(exceptions.CloudFailed, match="failed to download an image: 503 busy"):
        Fetched(tmp_path, *[BUSY] * 5)


def test_as_long_as_something_comes_it_goes_on(tmp_path: Path) -> None:
    steps = [cut(at) for at in range(100, len(DATA), 100)]
    assert len(steps) > 50
    assert Fetched(tmp_path, *steps, whole).path.read_bytes() == DATA


def test_what_is_longer_than_allowed_is_not_read_on(tmp_path: Path) -> None:
    rest = Reply(200, bytes(600), bytes(600), AssertionError("read on"))
    with pytest.raises(exceptions.TooLarge, match="1200 > 1000 bytes"):
        Fetched(tmp_path, rest, limit=1000)
    assert (tmp_path / "data").stat().st_size <= 1000
    assert rest.closed


def test_what_goes_on_beyond_its_size_is_not_what_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(exceptions.DigestMismatch):
        Fetched(tmp_path, Reply(200, DATA, b"more"))


def test_an_image_that_goes_meanwhile_is_told(tmp_path: Path) -> None:
    with pytest.raises(exceptions.NotFound):
        Fetched(tmp_path, cut(HALF), Reply(404))


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        transfer.download(Scripted(whole).images, image(), there)
    assert there.read_bytes() == b"precious"


def test_progress_counts_each_byte_once(tmp_path: Path) -> None:
    events: list[progress.Event] = []
    with progress.listening(events.append):
        Fetched(tmp_path, cut(HALF), from_the_beginning)
    assert {(event.operation, event.total) for event in events} == {("download", len(DATA))}
    assert events[-1].done
    assert events[-1].current == len(DATA)


def test_a_small_image_is_read_in_one_go(tmp_path: Path) -> None:
    cloud = Scripted(whole, whole)
    assert transfer.read(cloud.images, image(), tmp_path, limit=len(DATA)) == DATA
    with pytest.raises(exceptions.TooLarge):
        transfer.read(cloud.images, image(), tmp_path, limit=10)
    assert list(tmp_path.iterdir()) == []


# -- up ----------------------------------------------------------------------------


@pytest.fixture
def content(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(DATA)
    return path


def test_data_are_sent(content: Path) -> None:
    cloud = Scripted(Reply(204), document(image()))
    assert transfer.upload(cloud.images, ID, content, store="second")["status"] == "active"
    assert cloud.requests[0].body == DATA
    assert cloud.requests[0].headers["X-Image-Meta-Store"] == "second"


@pytest.mark.parametrize("algorithm", ["sha512", "sha256", "blake2b"])
def test_what_was_stored_is_held_against_what_was_sent(content: Path, algorithm: str) -> None:
    cloud = Scripted(Reply(204), document(image(DATA, algorithm)))
    transfer.upload(cloud.images, ID, content)
    for first in (Reply(204), LOST):
        cloud = Scripted(first, document(image(DATA[:-1], algorithm)))
        with pytest.raises(exceptions.DigestMismatch):
            transfer.upload(cloud.images, ID, content)


@pytest.mark.parametrize("algorithm", [None, "whirlpool"])
def test_a_service_without_a_known_hash_is_believed(content: Path, algorithm: str | None) -> None:
    cloud = Scripted(Reply(204), document(image() | {"os_hash_algo": algorithm}))
    assert transfer.upload(cloud.images, ID, content)["id"] == ID


@pytest.mark.parametrize("first", [LOST, BUSY])
def test_an_upload_begins_again_where_the_record_is_free(content: Path, first: Step) -> None:
    cloud = Scripted(first, state("queued"), Reply(204), document(image()))
    transfer.upload(cloud.images, ID, content)
    assert [(request.method, request.body) for request in cloud.requests] == [
        ("PUT", DATA), ("GET", b""), ("PUT", DATA), ("GET", b"")]


def test_an_upload_whose_answer_was_lost_is_done(content: Path) -> None:
    cloud = Scripted(LOST, document(image()))
    assert transfer.upload(cloud.images, ID, content)["status"] == "active"


def test_the_service_is_given_time_to_come_back(content: Path) -> None:
    """A look asks four times by itself."""
    cloud = Scripted(LOST, *[LOST] * 9, state("queued"), Reply(204), document(image()))
    transfer.upload(cloud.images, ID, content)
    assert cloud.left == []


def test_a_service_that_does_not_come_back_is_told(content: Path) -> None:
    with pytest.raises(exceptions.CloudUnreachable):
        transfer.upload(Scripted(*[LOST] * 21).images, ID, content)


def test_an_upload_that_breaks_every_time_is_given_up(content: Path) -> None:
    steps: list[Step] = []
    for _ in range(4):
        steps += [LOST, state("queued")]
    with pytest.raises(exceptions.CloudUnreachable, match="connection reset"):
        transfer.upload(Scripted(*steps, LOST).images, ID, content)
    with pytest.raises(exceptions.CloudFailed, match="failed to upload an image: 503 busy"):
        transfer.upload(Scripted(*steps, BUSY).images, ID, content)


@pytest.mark.parametrize("steps", [
    (LOST, *[state("saving")] * 5), (LOST, state("killed")), (LOST, state("deleted")),
    (LOST, Reply(404)), (BUSY, state("saving"), state("killed")), (Reply(409, b"saving"),),
    (Reply(404, b"no image"),), (Reply(410, b"gone meanwhile"),), (Reply(204), Reply(404))])
def test_a_record_that_cannot_be_used_any_more_is_told(content: Path, steps: tuple[Step, ...],
                                                       ) -> None:
    cloud = Scripted(*steps)
    with pytest.raises(Interrupted):
        transfer.upload(cloud.images, ID, content)
    assert cloud.left == []


@pytest.mark.parametrize(("status", "error"), [
    (413, exceptions.QuotaExceeded), (403, exceptions.NotPermitted),
    (415, exceptions.CloudRefused)])
def test_what_is_refused_is_not_tried_again(content: Path, status: int,
                                            error: type[Exception]) -> None:
    cloud = Scripted(Reply(status, b"no"))
    with pytest.raises(error):
        transfer.upload(cloud.images, ID, content)
    assert len(cloud.requests) == 1


# -- no more ------------------------------------------------------------------------


def test_what_is_wanted_no_more_ends_at_its_next_piece(tmp_path: Path, content: Path) -> None:
    """It is not tried again."""
    scripted = Scripted(whole)
    images = scripted.images
    images.stopping.set()
    with pytest.raises(exceptions.Cancelled):
        transfer.download(images, image(), tmp_path / "file")
    with pytest.raises(exceptions.Cancelled):
        transfer.upload(images, ID, content)


def test_the_length_is_believed(content: Path) -> None:
    """Else the contents go up in frames of their own, one by one."""
    cloud = Scripted(Reply(204), state("active"))
    bodies: list[Any] = []
    request = cloud.request

    def seen(method: str, path: str, **more: Any) -> Reply:
        if method == "PUT":
            bodies.append(requests.utils.super_len(more["body"]))
        return request(method, path, **more)

    cloud.request = seen  # type: ignore[method-assign]
    transfer.upload(cloud.images, ID, content)
    assert bodies == [content.stat().st_size]
