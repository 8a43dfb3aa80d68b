"""Requests within a process, against a small application."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from wsgiref.validate import validator

import pytest

from splitimage_driver import exceptions
from splitimage_driver.glance.transport import ATTRIBUTES, Environ, WsgiTransport
from splitimage_driver.store.glance.api import Images

CONTEXT = SimpleNamespace(project_id="alpha")
JSON = [("Content-Type", "application/json")]


class Application:
    """Answers what it was asked, or as it is told.

    :ivar seen: the environments
    """

    def __init__(self, answer: Callable[[Environ, Callable[..., Any]], Iterable[bytes]],
                 ) -> None:
        self.seen: list[Environ] = []
        self._answer = answer

    def __call__(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        self.seen.append(environ)
        return self._answer(environ, start)


def told(environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start("200 OK", JSON)
    return [json.dumps({"method": environ["REQUEST_METHOD"], "path": environ["PATH_INFO"],
                        "query": environ["QUERY_STRING"], "type": environ.get("CONTENT_TYPE"),
                        "accept": environ.get("HTTP_ACCEPT"), "body": body.decode()}).encode()]


def carry(answer: Callable[..., Any], **options: Any) -> tuple[WsgiTransport, Application]:
    application = Application(answer)
    return WsgiTransport(application, CONTEXT, **options), application


def test_a_request_reaches_the_application_with_the_context_of_the_caller() -> None:
    transport, application = carry(told)
    answer = transport.request(
        "POST", "/images/a%20b?limit=1", body=b"{}",
        headers={"Accept": "application/json", "Content-Type": "text/plain"})
    assert (answer.status, answer.headers) == (200, {"content-type": "application/json"})
    assert json.loads(answer.body()) == {
        "method": "POST", "path": "/v2/images/a b", "query": "limit=1", "type": "text/plain",
        "accept": "application/json", "body": "{}"}
    assert application.seen[0][ATTRIBUTES] == {"context": CONTEXT}
    assert transport.project == "alpha"


def test_a_request_is_one_as_the_specification_of_wsgi_has_it() -> None:
    def strict(environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", JSON)
        return [b"{}"]

    transport, _ = carry(validator(strict))
    for body in (None, b"{}", io.BytesIO(b"{}")):
        answer = transport.request("POST", "/images", headers={"Accept": "a"}, body=body)
        assert answer.body() == b"{}"


def test_only_what_belongs_to_the_user_is_taken_over_from_the_request_it_is_made_for() -> None:
    environ = {"REQUEST_METHOD": "DELETE", "HTTP_RANGE": "bytes=5-", "CONTENT_LENGTH": "7",
               "HTTP_HOST": "images.example", "keystone.token_info": {"token": {}},
               "wsgi.file_wrapper": open, ATTRIBUTES: {"context": None}}
    transport, application = carry(told, prefix="", environ=environ)
    transport.request("GET", "/images", headers={}).body()
    seen = application.seen[0]
    assert seen["PATH_INFO"] == "/images"
    assert seen["HTTP_HOST"] == "images.example"
    assert seen["keystone.token_info"] == {"token": {}}
    assert seen[ATTRIBUTES] == {"context": CONTEXT}
    assert not {"HTTP_RANGE", "CONTENT_LENGTH", "wsgi.file_wrapper"} & seen.keys()


class Counting(io.RawIOBase):
    """Bytes without end, and how many were read at most at once."""

    def __init__(self, size: int) -> None:
        self.left, self.most = size, 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0
        self.most = max(self.most, size)
        found = min(size, self.left)
        self.left -= found
        return b"x" * found

    def __len__(self) -> int:
        return self.left


def digested(environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
    """What Glance does with an upload: a piece at a time, to its end."""
    digest = hashlib.sha256()
    while piece := environ["wsgi.input"].read(1 << 16):
        digest.update(piece)
    start("200 OK", [])
    return [digest.hexdigest().encode()]


def test_an_upload_is_read_a_piece_at_a_time() -> None:
    transport, application = carry(digested)
    content = Counting(10 << 20)
    answer = transport.request("PUT", "/images/x/file", headers={},
                               body=content)  # type: ignore[arg-type]
    assert answer.body().decode() == hashlib.sha256(b"x" * (10 << 20)).hexdigest()
    assert content.most == 1 << 16
    assert application.seen[0]["CONTENT_LENGTH"] == str(10 << 20)


def test_the_length_of_a_file_is_told_from_where_it_is_read(tmp_path: Path) -> None:
    transport, application = carry(digested)
    (tmp_path / "disk").write_bytes(b"0123456789")
    with (tmp_path / "disk").open("rb") as file:
        file.seek(4)
        answer = transport.request("PUT", "/images/x/file", headers={}, body=file)
        assert answer.body().decode() == hashlib.sha256(b"456789").hexdigest()
    assert application.seen[0]["CONTENT_LENGTH"] == "6"


def test_of_a_stream_the_end_is_told_by_itself() -> None:
    transport, application = carry(digested)
    transport.request("PUT", "/images/x/file", headers={}, body=io.BytesIO(b"abc")).body()
    assert "CONTENT_LENGTH" not in application.seen[0]
    assert application.seen[0]["wsgi.input_terminated"] is True


class Body:
    """An answer's; knows whether it was closed."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces, self.closed = pieces, False

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        self.closed = True


def test_a_download_is_taken_a_piece_at_a_time_and_closed() -> None:
    taken = []

    def pieces() -> Iterator[bytes]:
        for number in range(4):
            taken.append(number)
            yield b"12345678"

    body = Body(pieces())

    def answer(_: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        start("206 Partial Content", [("Content-Length", "32")])
        return body

    transport, _ = carry(answer)
    found = transport.request("GET", "/images/x/file", headers={"Range": "bytes=1-"})
    chunks = found.chunks(5)
    assert next(piece for piece in chunks if piece) == b"12345"
    assert taken == [0]
    assert b"".join(chunks) == b"678" + b"12345678" * 3
    found.close()
    assert (found.status, body.closed) == (206, True)


def test_an_answer_that_begins_with_its_first_piece() -> None:
    def late(_: Environ, start: Callable[..., Any]) -> Iterator[bytes]:
        start("200 OK", [])(b"written ")
        yield b"and "
        yield b"returned"

    assert carry(late)[0].request("GET", "/", headers={}).body() == b"written and returned"


def failing(pieces: int) -> Callable[..., Iterable[bytes]]:
    def answer(_: Environ, start: Callable[..., Any]) -> Iterator[bytes]:
        start("200 OK", [("Content-Length", "9")])
        yield from [b"abc"] * pieces
        if pieces < 2:
            raise OSError("the store is gone")

    return answer


@pytest.mark.parametrize("pieces", [1, 2])
def test_an_answer_that_ends_early_is_a_broken_connection(pieces: int) -> None:
    transport, _ = carry(failing(pieces))
    with pytest.raises(ConnectionError, match="ends early"):
        transport.request("GET", "/", headers={}).body()


@pytest.mark.parametrize(("answer", "words"), [
    (lambda *_: 1 / 0, "ZeroDivisionError"), (lambda *_: [], "no answer"), (failing(0), "store")])
def test_an_application_that_fails_is_no_answer(answer: Callable[..., Any], words: str) -> None:
    transport, _ = carry(answer)
    with pytest.raises(ConnectionError, match=words):
        transport.request("GET", "/", headers={})


def test_the_image_api_speaks_over_it() -> None:
    def absent(_: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        start("404 Not Found", [("Content-Type", "text/html")])
        return [b"<html><title>404</title>none</html>"]

    with pytest.raises(exceptions.NotFound):
        Images(carry(absent)[0]).get("x")
    assert Images(carry(told)[0]).get("x")["path"] == "/v2/images/x"
