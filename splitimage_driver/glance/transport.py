"""Requests to the image API without a network: from within its own process.

They pass through Glance's own application as those of the user whose context
they carry. So every rule of Glance holds for them: visibility, policies,
protection, quotas, and what it checks of the content.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from splitimage_driver.glance import leftovers

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

#: Where webob keeps an attribute that was set on a request: that is how the
#: context gets from one layer of Glance to the next.
ATTRIBUTES = "webob.adhoc_attrs"
#: Of the request that others are made for: what an upload may need, to go on
#: after the token has expired, and who is told to have asked.
_INHERITED = ("keystone.token_auth", "keystone.token_info", "api.version", "REMOTE_ADDR",
              "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "wsgi.url_scheme", "HTTP_HOST",
              "SCRIPT_NAME")


class _Answer:
    def __init__(self, status: str, headers: Iterable[tuple[str, str]], first: bytes,
                 rest: Iterator[bytes], close: Callable[[], None]) -> None:
        self.status = int(status.partition(" ")[0])
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in headers}
        self._first, self._rest, self._close = first, rest, close

    def body(self) -> bytes:
        try:
            return b"".join(self._pieces())
        finally:
            self.close()

    def chunks(self, size: int) -> Iterator[bytes]:
        for piece in self._pieces():
            for start in range(0, len(piece), size):
                yield piece[start:start + size]

    def _pieces(self) -> Iterator[bytes]:
        length = self.headers.get("content-length")
        found = len(self._first)
        try:
            yield self._first
            for piece in self._rest:
                found += len(piece)
                yield piece
        except Exception as error:  # whatever a store raises
            raise ConnectionError(f"the answer ends early: {error}") from error
        if length is not None and found < int(length):
            raise ConnectionError(f"the answer ends early: {found} bytes of {length}")

    def close(self) -> None:
        self._close()


class WsgiTransport:
    """Carries requests for the user of a context.

    :param application: of Glance
    :param context: a ``glance.context.RequestContext``
    :param prefix: of paths: the application of a pipeline wants the version in
        them, the one of :func:`router` does not
    :param environ: of the request that these are made for; None: of none
    """

    where = "the image service"

    def __init__(self, application: Application, context: Any, *, prefix: str = "/v2",
                 environ: Mapping[str, Any] | None = None) -> None:
        self._application, self._prefix = application, prefix
        self.context = context
        self.project = str(context.project_id or "")
        self._inherited = {name: environ[name] for name in _INHERITED
                           if environ is not None and name in environ}

    def request(self, method: str, path: str, *, headers: Mapping[str, str],
                body: bytes | BinaryIO | None = None) -> _Answer:
        environ = self._environ(method, path, headers, body)
        started: list[Any] = []
        written: list[bytes] = []

        def start(status: str, headers: list[tuple[str, str]],
                  _: Any = None) -> Callable[[bytes], None]:
            started[:] = [status, headers]
            return written.append

        try:
            found = self._application(environ, start)
            rest = iter(found)
            # An application may begin its answer with the first piece only.
            while not started:
                piece = next(rest, None)
                if piece is None:
                    break
                written.append(piece)
        except Exception as error:  # as a server does that catches it
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        if not started:
            raise ConnectionError("no answer")
        return _Answer(started[0], started[1], b"".join(written), rest,
                       getattr(found, "close", lambda: None))

    def _environ(self, method: str, path: str, headers: Mapping[str, str],
                 body: bytes | BinaryIO | None) -> Environ:
        path, _, query = path.partition("?")
        environ: Environ = {
            "SCRIPT_NAME": "", "SERVER_NAME": "localhost", "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", **self._inherited,
            "REQUEST_METHOD": method, "QUERY_STRING": query,
            "PATH_INFO": urllib.parse.unquote(self._prefix + path, "latin-1"),
            "wsgi.version": (1, 0), "wsgi.errors": sys.stderr, "wsgi.multithread": True,
            "wsgi.multiprocess": True, "wsgi.run_once": False,
            ATTRIBUTES: {"context": self.context}}
        for name, value in headers.items():
            key = name.upper().replace("-", "_")
            environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
        if body is None:
            environ["wsgi.input"] = io.BytesIO()
            return environ
        environ["wsgi.input"] = io.BytesIO(body) if isinstance(body, bytes) else body
        length = _length(body)
        if length is None:
            environ["wsgi.input_terminated"] = True
        else:
            environ["CONTENT_LENGTH"] = str(length)
        return environ


def _length(body: bytes | BinaryIO) -> int | None:
    """Bytes that will be read; None: it will be seen."""
    if hasattr(body, "__len__"):
        return len(body)
    with contextlib.suppress(OSError, AttributeError):
        return os.fstat(body.fileno()).st_size - body.tell()
    return None


@functools.cache
def router() -> Application:
    """Glance's API by itself, for work that outlives a request. It serves
    paths without a version."""
    from glance.api.v2.router import API
    found: Application = API.factory({})
    return found


def within(context: Any) -> WsgiTransport:
    """For the user of a context, wherever in Glance that is met."""
    return WsgiTransport(leftovers.over(router()), context, prefix="")
