"""No completed image goes that a server of the cloud has, on whatever host."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import keystoneauth1.exceptions
import openstack.exceptions
import pytest

from splitimage_driver import exceptions
from splitimage_driver.store.glance import http
from splitimage_driver.store.glance.api import Description
from splitimage_driver.store.glance.store import GlanceStore
from tests.imagerecords import Records
from tests.unit.store.glance.conftest import Stores
from tests.unit.store.glance.fake import FakeGlance
from tests.unit.store.glance.test_completed import ids, new, shared, used


@pytest.fixture
def lamp(alpha: Records) -> Description:
    return alpha.composite("lamp", apache=alpha.part("apache"))


class Nova:
    """:ivar servers: image and name of each; None: there is no such service
    :ivar error: what asking it ends with
    :ivar asked: so often
    """

    def __init__(self) -> None:
        self.servers: list[tuple[str, str]] | None = []
        self.error: Exception | None = None
        self.asked = 0

    def __call__(self) -> Iterable[tuple[str, str]] | None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.servers


@pytest.fixture
def nova() -> Nova:
    return Nova()


@pytest.fixture
def store(alpha: Records, stores: Stores, nova: Nova) -> GlanceStore:
    return stores(alpha.images, servers=nova)


def made(alpha: Records, lamp: Description, glance: FakeGlance, count: int = 4) -> list[str]:
    """The least recently used first."""
    return [used(glance, shared(glance, alpha.completed(lamp), "private"), 1000 - number)["id"]
            for number in range(count)]


def test_those_that_servers_have_stay(store: GlanceStore, alpha: Records, lamp: Description,
                                      glance: FakeGlance, nova: Nova) -> None:
    images = made(alpha, lamp, glance)
    nova.servers = [(images[0], "web"), ("another image", "x"), (images[2], "db"),
                    (images[2], "db2")]
    assert ids(store.prune_images(max_count=1)) == [images[1], images[3]]
    assert nova.asked == 1, "not once for each image"
    with pytest.raises(exceptions.InUse, match="server db, server db2"):
        store.delete_image(images[2])
    nova.servers = []
    store.delete_image(images[2])
    assert ids(store.images()) == [images[0]]


def test_a_limit_that_is_met_by_a_new_image_keeps_them(
        alpha: Records, stores: Stores, lamp: Description, glance: FakeGlance,
        nova: Nova) -> None:
    store = stores(alpha.images, servers=nova, limits={"max_count": 2})
    images = made(alpha, lamp, glance, 3)
    nova.servers = [(images[0], "web")]
    saved = store.add_image(new(store, store.composite("lamp")))
    assert set(ids(store.images())) == {images[0], saved.id}


def test_a_full_quota_keeps_them(store: GlanceStore, alpha: Records, lamp: Description,
                                 glance: FakeGlance, nova: Nova) -> None:
    images = made(alpha, lamp, glance, 2)
    nova.servers = [(images[0], "web")]

    def before(method: str, path: str) -> None:
        if method == "PUT" and images[1] in glance.images:
            raise exceptions.QuotaExceeded(project="alpha", reason="full")

    glance.before = before
    saved = store.add_image(new(store, store.composite("lamp")))
    assert set(ids(store.images())) == {images[0], saved.id}


@pytest.mark.parametrize("error", [
    exceptions.CloudUnreachable(where="cloud", reason="gone"), ValueError("of another library")])
def test_where_servers_are_not_known_nothing_goes(
        alpha: Records, lamp: Description, glance: FakeGlance, nova: Nova, stores: Stores,
        error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    store = stores(alpha.images, servers=nova, limits={"max_count": 1})
    images = made(alpha, lamp, glance, 3)
    nova.error = error
    assert store.prune_images(max_count=1) == []
    assert "no completed image is deleted" in caplog.text
    with pytest.raises((exceptions.CloudUnreachable, exceptions.CloudFailed)):
        store.delete_image(images[0])
    saved = store.add_image(new(store, store.composite("lamp")))
    assert set(ids(store.images())) == {*images, saved.id}

    def full(method: str, path: str) -> None:
        if method == "PUT":
            raise exceptions.QuotaExceeded(project="alpha", reason="full")

    another = new(store, store.composite("lamp"))
    glance.before = full
    with pytest.raises(exceptions.QuotaExceeded):
        store.add_image(another)
    assert set(ids(store.images())) == {*images, saved.id}


@pytest.mark.parametrize("visibility", ["public", "shared", "community"])
def test_one_that_others_see_goes_only_when_it_is_named(
        store: GlanceStore, alpha: Records, lamp: Description, glance: FakeGlance,
        nova: Nova, visibility: str) -> None:
    """Nobody tells the servers that they have."""
    image = shared(glance, alpha.completed(lamp), visibility)
    used(glance, image, 1000)
    assert store.prune_images(max_age=10) == []
    nova.servers = None  # a cloud without servers
    glance.images[image["id"]]["visibility"] = visibility
    assert ids(store.prune_images(max_age=10)) == [image["id"]]
    nova.servers = []
    another = shared(glance, alpha.completed(lamp), visibility)
    store.delete_image(another["id"])
    assert another["id"] not in glance.images


def test_one_that_somebody_came_for_meanwhile_stays(
        store: GlanceStore, alpha: Records, lamp: Description, glance: FakeGlance) -> None:
    images = made(alpha, lamp, glance, 3)
    listed: list[str] = []

    def before(method: str, path: str) -> None:
        listed.append(path)
        if path == f"/images/{images[0]}":
            glance.live()
            used(glance, glance.images[images[0]], 0)

    glance.before = before
    assert ids(store.prune_images(max_count=1)) == [images[1]]


def test_nobody_is_asked_where_there_is_nothing_to_delete(
        store: GlanceStore, nova: Nova) -> None:
    assert store.prune_images(max_count=1) == []
    assert nova.asked == 0


# -- the compute service -----------------------------------------------------------------


class Connection:
    """Of openstacksdk, as far as it is used.

    :param answers: of the compute service, one after the other
    """

    def __init__(self, *answers: Any, endpoint: Any = "http://nova/v2.1") -> None:
        self.answers, self.asked = list(answers), list[Any]()
        self.current_project_id = "p1"
        self.image = None
        self.config = SimpleNamespace(name="mine", config={},
                                      get_session_endpoint=lambda service: _given(endpoint))
        self.compute = SimpleNamespace(get=self._get)

    def _get(self, path: str, **options: Any) -> Any:
        self.asked.append((path, options["params"]))
        return _given(self.answers.pop(0))

    def servers(self) -> Any:
        return http.HttpTransport(self, 5).servers()


def _given(found: Any) -> Any:
    if isinstance(found, Exception):
        raise found
    return found


def answer(*servers: dict[str, Any], status: int = 200) -> Any:
    return SimpleNamespace(status_code=status, json=lambda: {"servers": list(servers)},
                           content=b"it says no")


def server(number: int, image: Any) -> dict[str, Any]:
    return {"id": f"s{number}", "name": f"server{number}" if number else "", "image": image}


def test_all_pages_of_servers_are_read() -> None:
    cloud = Connection(answer(server(1, {"id": "i1"}), server(2, "")),
                       answer(server(3, None), server(0, {"id": "i2"})), answer())
    assert cloud.servers() == [("i1", "server1"), ("i2", "s0")]
    assert {path for path, _ in cloud.asked} == {"/servers/detail"}
    assert [params.get("marker") for _, params in cloud.asked] == [None, "s2", "s0"]


@pytest.mark.parametrize("endpoint", [None, ""])
def test_a_cloud_without_a_compute_service_has_no_servers(endpoint: str | None) -> None:
    assert Connection(endpoint=endpoint).servers() is None


@pytest.mark.parametrize(("given", "error"), [
    (answer(status=403), exceptions.NotPermitted), (answer(status=503), exceptions.CloudFailed),
    (SimpleNamespace(status_code=200, json=dict), exceptions.CloudFailed),
    (answer({"id": "x", "image": "text"}), exceptions.CloudFailed),
    (keystoneauth1.exceptions.ConnectFailure("refused"), exceptions.CloudUnreachable),
    (keystoneauth1.exceptions.Unauthorized("who"), exceptions.NotPermitted),
    (openstack.exceptions.SDKException("odd"), exceptions.CloudUnreachable)])
def test_a_compute_service_that_does_not_tell_is_an_error(
        given: Any, error: type[exceptions.SplitImageError]) -> None:
    with pytest.raises(error):
        Connection(given).servers()


def test_whoever_cannot_tell_whether_there_is_one_is_an_error() -> None:
    with pytest.raises(exceptions.CloudUnreachable):
        Connection(endpoint=keystoneauth1.exceptions.ConnectFailure("refused")).servers()
