"""Requests to the image API: repeated, understood, told."""

from __future__ import annotations

import io
import urllib.parse
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.store.glance import api
from splitimage_driver.store.glance.api import Images, Passing, said
from tests.imagerecords import Records
from tests.unit.store.glance.fake import FakeGlance
from tests.unit.store.glance.scripted import Reply, Request, Scripted, Step, document

ID = "11111111-2222-3333-4444-555555555555"
LOST = ConnectionError("connection reset by peer")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_PAUSE", 0.0)


# -- lists -------------------------------------------------------------------------


def test_a_list_goes_on_over_its_pages(glance: FakeGlance) -> None:
    images = glance.user("alpha")
    made = [images.create(f"image{n}", {}, hidden=False)["id"] for n in range(7)]
    glance.page = 2
    glance.requests.clear()
    assert [image["id"] for image in images.list()] == made
    assert len(glance.requests) == 4


def test_pages_follow_the_link_below_any_prefix() -> None:
    cloud = Scripted(
        document({"images": [{"id": "a"}], "next": "/image/v2/images?marker=a&limit=1"}),
        document({"images": [{"id": "b"}], "next": "https://x:9292/v2/images?marker=b"}),
        document({"images": []}))
    assert [image["id"] for image in cloud.images.list(owner="x")] == ["a", "b"]
    assert [path for _, path in cloud.told[1:]] == ["/images?marker=a&limit=1", "/images?marker=b"]


def test_a_list_is_asked_for_page_by_page() -> None:
    cloud = Scripted(document({"images": [{"id": "a"}], "next": "/v2/images?marker=a"}))
    assert next(iter(cloud.images.list()))["id"] == "a"
    assert len(cloud.requests) == 1


@pytest.mark.parametrize(("hidden", "asked"), [
    (False, ["false"]), (True, ["true"]), (None, ["false", "true"])])
def test_filters_are_sent_as_they_are(hidden: bool | None, asked: list[str]) -> None:
    cloud = Scripted(document({"images": []}), document({"images": []}))
    assert list(cloud.images.list(hidden=hidden, name="a&b=c d", owner="p/q")) == []
    queries = [urllib.parse.parse_qs(path.partition("?")[2]) for _, path in cloud.told]
    assert [query["os_hidden"][0] for query in queries] == asked
    assert {(query["name"][0], query["owner"][0]) for query in queries} == {("a&b=c d", "p/q")}


def test_an_odd_id_stays_within_its_path() -> None:
    cloud = Scripted(document({"id": ID}))
    cloud.images.get("a/../b?c#d")
    assert cloud.told == [("GET", "/images/a%2F..%2Fb%3Fc%23d")]


# -- changes -----------------------------------------------------------------------


def changed(changes: dict[str, Any], known: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The patch that is sent; None: nothing is."""
    cloud = Scripted(document({"id": ID}))
    cloud.images.update(ID, changes, known=known)
    if not cloud.requests:
        return None
    (request,) = cloud.requests
    assert (request.method, request.path) == ("PATCH", f"/images/{ID}")
    assert request.headers["Content-Type"] == "application/openstack-images-v2.1-json-patch"
    found: list[dict[str, Any]] = request.document
    return found


@pytest.mark.parametrize(("changes", "known", "patch"), [
    ({"a": "1"}, {}, [{"op": "add", "path": "/a", "value": "1"}]),
    ({"a": "1"}, {"a": "0"}, [{"op": "replace", "path": "/a", "value": "1"}]),
    ({"a": None}, {"a": "0"}, [{"op": "remove", "path": "/a"}]),
    ({"a": "1", "b": "2", "c": None}, {"a": "1", "b": "1", "c": "x", "d": "kept"},
     [{"op": "replace", "path": "/b", "value": "2"}, {"op": "remove", "path": "/c"}]),
    ({"protected": False}, {"protected": True},
     [{"op": "replace", "path": "/protected", "value": False}]),
    ({"a/b~c": "1"}, {}, [{"op": "add", "path": "/a~1b~0c", "value": "1"}]),
    ({"a": "1"}, {"a": "1"}, None), ({"a": None}, {}, None), ({}, {"a": "1"}, None)])
def test_only_what_differs_is_changed(changes: dict[str, Any], known: dict[str, Any],
                                      patch: list[dict[str, Any]] | None) -> None:
    assert changed(changes, known) == patch


def test_an_image_that_is_not_at_hand_is_looked_at_first() -> None:
    cloud = Scripted(document({"id": ID, "a": "0"}), document({"id": ID, "a": "1"}))
    assert cloud.images.update(ID, {"a": "1"})["a"] == "1"
    assert [method for method, _ in cloud.told] == ["GET", "PATCH"]


# -- answers that are lost ---------------------------------------------------------


@pytest.mark.parametrize("first", [LOST, *(Reply(status, b"busy") for status in (
    429, 500, 502, 503, 504))])
def test_what_passes_is_asked_again(first: Step) -> None:
    cloud = Scripted(first, first, document({"id": ID}))
    assert cloud.images.get(ID) == {"id": ID}
    assert len(cloud.requests) == 3


def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    cloud = Scripted(Reply(200, b'{"id":', LOST), document({"id": ID}))
    assert cloud.images.get(ID) == {"id": ID}


def test_what_does_not_pass_is_told() -> None:
    with pytest.raises(exceptions.CloudUnreachable, match="connection reset by peer"):
        Scripted(*[LOST] * 4).images.get(ID)
    refusal = Reply(503, b"<html><title>Service Unavailable</title>database is locked</html>")
    with pytest.raises(exceptions.CloudFailed, match="503 database is locked"):
        Scripted(*[refusal] * 4).images.get(ID)


def test_a_creation_whose_answer_was_lost_is_found(glance: FakeGlance) -> None:
    """Glance has made it, under the id that was chosen here."""
    images = glance.user("alpha")
    transport = images.transport
    lost = iter([True])

    class Losing:
        project, where = transport.project, transport.where

        def request(self, method: str, path: str, **told: Any) -> Any:
            found = transport.request(method, path, **told)
            if method == "POST" and next(lost, False):
                raise LOST
            return found

    made = Images(Losing()).create("apache", {"splitimage_role": "part"})
    assert made["splitimage_role"] == "part"
    assert list(glance.images) == [made["id"]]


@pytest.mark.parametrize("there", [{"owner": "beta", "status": "queued"},
                                   {"owner": "alpha", "status": "active"}])
def test_an_id_that_is_taken_is_not_taken_over(there: dict[str, str]) -> None:
    cloud = Scripted(Reply(409, b"exists"), document({"id": ID, **there}))
    with pytest.raises(exceptions.AlreadyExists):
        cloud.images.create("apache", {}, image=ID)


def test_an_id_that_is_taken_by_what_cannot_be_seen_is_told() -> None:
    with pytest.raises(exceptions.NotFound):
        Scripted(Reply(409), Reply(404)).images.create("apache", {}, image=ID)


def test_a_deletion_whose_answer_was_lost_has_been_done() -> None:
    cloud = Scripted(LOST, Reply(404))
    cloud.images.delete(ID)
    assert cloud.left == []
    with pytest.raises(exceptions.NotFound):
        Scripted(Reply(404)).images.delete(ID)


def test_a_change_whose_answer_was_lost_has_been_done() -> None:
    """Glance refuses to remove what is not there any more."""
    cloud = Scripted(LOST, Reply(409, b"Property a does not exist."),
                     document({"id": ID, "b": "2"}))
    assert cloud.images.update(ID, {"a": None, "b": "2"}, known={"a": "1"}) == {"id": ID, "b": "2"}


def test_a_change_that_somebody_else_made_impossible_is_told() -> None:
    cloud = Scripted(Reply(409, b"Property a does not exist."), document({"id": ID, "b": "3"}))
    with pytest.raises(exceptions.AlreadyExists):
        cloud.images.update(ID, {"a": None, "b": "2"}, known={"a": "1"})


def test_a_change_that_counts_whatever_others_do_is_made_all_the_same() -> None:
    cloud = Scripted(Reply(409, b"Property b already present."), document({"id": ID, "b": "3"}),
                     document({"id": ID, "b": "2"}))
    assert cloud.images.update(ID, {"b": "2"}, known={}, insist=True)["b"] == "2"
    assert [request.document[0]["op"] for request in cloud.requests
            if request.method == "PATCH"] == ["add", "replace"]
    with pytest.raises(exceptions.AlreadyExists):
        Scripted(*[Reply(409, b"no"), document({"id": ID})] * 5).images.update(
            ID, {"b": "2"}, known={}, insist=True)


def test_data_are_sent_and_asked_for_once() -> None:
    """Whoever sends them knows where to go on."""
    for step, error in ((LOST, ConnectionError), (Reply(503), Passing)):
        with pytest.raises(error):
            Scripted(step).images.put(ID, io.BytesIO(b"data"))
        with pytest.raises(error):
            Scripted(step).images.open(ID)


# -- data --------------------------------------------------------------------------


@pytest.mark.parametrize(("store", "headers"), [
    ("", {"Content-Type": "application/octet-stream"}),
    ("second", {"Content-Type": "application/octet-stream", "X-Image-Meta-Store": "second"})])
def test_data_go_to_the_store_that_was_chosen(store: str, headers: dict[str, str]) -> None:
    cloud = Scripted(Reply(204))
    cloud.images.put(ID, io.BytesIO(b"data"), store=store)
    assert cloud.requests == [Request("PUT", f"/images/{ID}/file", headers, b"data")]


def test_a_download_begins_where_it_is_told() -> None:
    cloud = Scripted(Reply(200, b"all"), Reply(206, b"rest"))
    assert cloud.images.open(ID).body() == b"all"
    assert cloud.images.open(ID, start=7).body() == b"rest"
    assert [request.headers.get("Range") for request in cloud.requests] == [None, "bytes=7-"]


def test_an_image_without_data_is_told() -> None:
    with pytest.raises(exceptions.CloudFailed, match=f"image {ID} has no data"):
        Scripted(Reply(204)).images.open(ID)


# -- refusals ----------------------------------------------------------------------


@pytest.mark.parametrize(("status", "error"), [
    (400, exceptions.CloudRefused), (401, exceptions.NotPermitted),
    (403, exceptions.NotPermitted), (404, exceptions.NotFound), (405, exceptions.CloudRefused),
    (409, exceptions.AlreadyExists), (410, exceptions.NotFound),
    (413, exceptions.QuotaExceeded), (415, exceptions.CloudRefused),
    (302, exceptions.CloudRefused)])
def test_a_refusal_is_told_at_once(status: int, error: type[exceptions.SplitImageError]) -> None:
    reply = Reply(status, b"<h1>No</h1> because &lt;so&gt;")
    cloud = Scripted(reply)
    with pytest.raises(error) as raised:
        cloud.images.get(ID)
    assert len(cloud.requests) == 1
    assert reply.closed
    if error in (exceptions.CloudRefused, exceptions.NotPermitted, exceptions.QuotaExceeded):
        assert "No because <so>" in str(raised.value)


def test_a_full_store_is_no_quota() -> None:
    with pytest.raises(exceptions.ServiceFull, match="has no room: Image storage"):
        Scripted(Reply(413, b"Image storage media is full: no space")).images.get(ID)


def test_too_many_properties_are_no_lack_of_room() -> None:
    """Deleting others would not help."""
    said = b"The limit has been exceeded on the number of allowed image properties."
    with pytest.raises(exceptions.CloudRefused, match="allowed image properties"):
        Scripted(Reply(413, said)).images.get(ID)


def test_a_refusal_without_reason_tells_its_number() -> None:
    with pytest.raises(exceptions.CloudRefused, match="HTTP status 418"):
        Scripted(Reply(418)).images.get(ID)


def test_an_answer_that_is_no_json_is_told() -> None:
    with pytest.raises(exceptions.CloudFailed, match="its answer is no JSON"):
        Scripted(Reply(200, b"<html>a proxy</html>")).images.get(ID)


@pytest.mark.parametrize(("body", "told"), [
    (b"", ""), (b"plain", "plain"), (b"  two\n\n lines ", "two lines"),
    (b"<html><head><title>403 Forbidden</title></head><body><h1>403 Forbidden</h1>\n"
     b"You are not <b>authorized</b><br /></body></html>", "403 Forbidden You are not authorized"),
    (b'{"message": "quota &amp; more<br /><br />\\n", "code": "413"}', "quota & more"),
    (b'{"error": {"code": 401, "message": "who are you"}}', "who are you"),
    (b'{"error": "text"}', '{"error": "text"}'), (b'{"a": 1}', '{"a": 1}'), (b"{", "{"),
    (b'{"message": null}', '{"message": null}'), (b"\xff\xfe", "\ufffd\ufffd"),
    (b"x" * 10**6, "x" * 500)])
def test_the_reason_is_one_line_of_text(body: bytes, told: str) -> None:
    assert said(body) == told


# -- the rest ----------------------------------------------------------------------


def test_what_is_discarded_may_be_protected_or_gone(alpha: Records, glance: FakeGlance) -> None:
    part = alpha.part()
    assert part["protected"]
    alpha.images.discard(part["id"])
    assert part["id"] not in glance.images
    alpha.images.discard(part["id"])


def test_what_cannot_be_discarded_is_told(alpha: Records, beta: Records,
                                          glance: FakeGlance) -> None:
    glance.user("admin", admin=True).update(alpha.part()["id"], {"visibility": "public"})
    with pytest.raises(exceptions.NotPermitted):
        beta.images.discard(alpha.made[-1])


def test_members_are_added_and_removed_once(alpha: Records, glance: FakeGlance) -> None:
    part = alpha.part()["id"]
    for _ in range(2):
        alpha.images.add_member(part, "beta")
        assert alpha.images.members(part) == {"beta": "pending"}
    for _ in range(2):
        alpha.images.remove_member(part, "beta")
        assert alpha.images.members(part) == {}


def test_another_resource_may_not_be_there() -> None:
    cloud = Scripted(document({"candidates": []}), Reply(404))
    assert cloud.images.ask("/splitimage/plan", {"parts": ["a"]}) == {"candidates": []}
    assert cloud.requests[0].document == {"parts": ["a"]}
    assert cloud.images.ask("/splitimage/plan", {}) is None
