"""Logging in, and what is told when that fails."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keystoneauth1.exceptions
import keystoneauth1.loading
import openstack
import openstack.exceptions
import pytest
import requests

from splitimage_driver import exceptions
from splitimage_driver.store.glance import http

REFUSED = ("Unable to establish connection to http://k/v3: HTTPConnectionPool(host='k', port=1): "
           "Max retries exceeded with url: /v3 (Caused by NewConnectionError(\"x: Failed to "
           "establish a new connection: [Errno 111] Connection refused\"))")


class Connection:
    """Of openstacksdk, as far as it is used.

    :param project: its id, or what asking for it raises
    :param request: what a request to the image service does
    """

    def __init__(self, project: Any = "p1", *, name: str = "mine",
                 request: Callable[..., Any] | None = None, auth_url: str = "http://k/v3") -> None:
        self.config = SimpleNamespace(name=name, config={
            "auth": {"auth_url": auth_url, "password": "secret"}, "region_name": "R"})
        self.image = SimpleNamespace(request=request)
        self._project = project

    @property
    def current_project_id(self) -> str | None:
        if isinstance(self._project, Exception):
            raise self._project
        found: str | None = self._project
        return found


@pytest.mark.parametrize(("raised", "error", "said"), [
    (keystoneauth1.exceptions.ConnectFailure(REFUSED), exceptions.CloudUnreachable,
     "cloud mine does not answer: Unable to establish connection to http://k/v3 "
     "(Connection refused)"),
    (keystoneauth1.exceptions.DiscoveryFailure("no versions"), exceptions.CloudUnreachable,
     "cloud mine does not answer: no versions"),
    (keystoneauth1.exceptions.EndpointNotFound("none in R"), exceptions.CloudUnreachable,
     "cloud mine does not answer: none in R"),
    (openstack.exceptions.ServiceDisabledException("no image here"), exceptions.CloudUnreachable,
     "cloud mine does not answer: no image here"),
    (openstack.exceptions.NotSupported("no supported versions"), exceptions.CloudUnreachable,
     "cloud mine does not answer: no supported versions"),
    (keystoneauth1.exceptions.Unauthorized("who are you"), exceptions.NotPermitted,
     "cloud mine does not permit to log in: who are you (HTTP 401)"),
    (keystoneauth1.exceptions.InternalServerError("database is locked"), exceptions.CloudFailed,
     "cloud mine failed to log in: database is locked (HTTP 500)"),
])
def test_who_cannot_log_in_is_told_why(raised: Exception,
                                       error: type[exceptions.SplitImageError],
                                       said: str) -> None:
    with pytest.raises(error) as caught:
        http.HttpTransport(Connection(raised), 5)
    assert str(caught.value) == said


def test_a_login_without_a_project_is_refused() -> None:
    with pytest.raises(exceptions.InvalidInput, match="names no project"):
        http.HttpTransport(Connection(None), 5)


@pytest.mark.parametrize("name", ["", "defaults", "envvars"])
def test_a_cloud_without_a_name_is_told_by_its_place(name: str) -> None:
    assert http.HttpTransport(Connection(name=name), 5).where == "cloud at http://k/v3"


def test_a_request_is_the_users() -> None:
    asked: list[Any] = []

    def request(*words: Any, **options: Any) -> Any:
        asked.append((words, options))
        return SimpleNamespace(status_code=201, headers={"X-One": "1"}, content=b"yes",
                               iter_content=lambda size: iter([b"y", b"es"]), close=lambda: None)

    transport = http.HttpTransport(Connection(request=request), 5)
    answer = transport.request("PUT", "/images/x/file", headers={"A": "b"}, body=b"data")
    assert (answer.status, answer.headers["x-one"], answer.body()) == (201, "1", b"yes")
    assert b"".join(answer.chunks(1)) == b"yes"
    [(words, options)] = asked
    assert words == ("/images/x/file", "PUT")
    assert options["headers"] == {"A": "b"}
    assert options["data"] == b"data"
    assert options["timeout"] == 5
    assert options["raise_exc"] is False
    assert options["stream"] is True


@pytest.mark.parametrize(("raised", "error"), [
    (keystoneauth1.exceptions.ConnectFailure(REFUSED), ConnectionError),
    (requests.exceptions.ReadTimeout("read timed out"), ConnectionError),
    (ConnectionResetError("reset"), ConnectionError),
    (keystoneauth1.exceptions.Unauthorized("expired"), exceptions.NotPermitted),
    (openstack.exceptions.ServiceDiscoveryException("no proxy"), exceptions.CloudUnreachable),
])
def test_a_request_that_fails_tells_whether_it_can_be_repeated(raised: Exception,
                                                               error: type[Exception]) -> None:
    def request(*_: Any, **__: Any) -> Any:
        raise raised

    with pytest.raises(error):
        http.HttpTransport(Connection(request=request), 5).request("GET", "/images", headers={})


class Expiring:
    """Requests of a login that has expired, up to the second one."""

    def __init__(self) -> None:
        self.asked, self.renewed = 0, 0

    def request(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        return SimpleNamespace(status_code=401 if self.asked == 1 else 200, headers={},
                               close=lambda: None)

    def invalidate(self) -> None:
        self.renewed += 1


def test_a_login_that_another_thread_renews_is_used() -> None:
    """keystoneauth gives up where another thread was the first to notice."""
    connection = Connection()
    connection.image = expiring = Expiring()  # type: ignore[assignment]
    answer = http.HttpTransport(connection, 5).request("POST", "/images", headers={}, body=b"{}")
    assert (answer.status, expiring.asked, expiring.renewed) == (200, 2, 0)


def test_contents_are_not_sent_again_from_where_they_were_left() -> None:
    connection = Connection()
    connection.image = expiring = Expiring()  # type: ignore[assignment]
    with pytest.raises(ConnectionError, match="login has expired"):
        http.HttpTransport(connection, 5).request("PUT", "/images/x/file", headers={},
                                                  body=io.BytesIO(b"data"))
    assert (expiring.asked, expiring.renewed) == (1, 1)


def test_an_answer_that_breaks_off_is_a_broken_connection() -> None:
    def pieces(_size: int) -> Any:
        yield b"y"
        raise requests.exceptions.ChunkedEncodingError("it ended early")

    def request(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(status_code=200, headers={}, iter_content=pieces)

    answer = http.HttpTransport(Connection(request=request), 5).request(
        "GET", "/images/x/file", headers={})
    chunks = answer.chunks(1)
    assert next(chunks) == b"y"
    with pytest.raises(ConnectionError, match="ended early"):
        next(chunks)


@pytest.mark.parametrize(("raised", "said"), [
    (openstack.exceptions.ConfigException("Cloud x was not found."),
     "cloud x: Cloud x was not found."),
    (keystoneauth1.exceptions.MissingRequiredOptions([keystoneauth1.loading.Opt("auth-url")]),
     "cloud x: Auth plugin requires parameters which were not given: auth_url"),
])
def test_a_cloud_that_is_not_described_is_bad_input(raised: Exception, said: str,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(**_: Any) -> Any:
        raise raised

    monkeypatch.setattr(openstack, "connect", connect)
    with pytest.raises(exceptions.InvalidInput) as caught:
        http.connect("x", timeout=5)
    assert str(caught.value) == said


def test_another_process_logs_in_as_the_same() -> None:
    """With a copy: the connection itself cannot travel."""
    made = openstack.connect(load_yaml_config=False, load_envvars=False, region_name="R", auth={
        "auth_url": "http://127.0.0.1:9/v3", "username": "u", "password": "secret",
        "project_name": "p", "user_domain_id": "default", "project_domain_id": "default"})
    made.config.config["cloud"] = "as it is called in a file that is not read again"
    settings = http.settings(made)
    assert pickle.dumps(settings)
    again = http.connection(settings)
    assert again.config.config["auth"] == made.config.config["auth"]
    assert again.config.config["region_name"] == "R"
