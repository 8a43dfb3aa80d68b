"""A transport that answers as it is told, for what an image service in memory
would not come up with by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from splitimage_driver.store.glance.api import Images


class Reply:
    """:param pieces: of the body; what is an error is raised in its place
    :ivar closed: whether its reader is done with it
    """

    def __init__(self, status: int, *pieces: bytes | Exception,
                 headers: Mapping[str, str] | None = None) -> None:
        self.status, self._pieces, self.headers = status, pieces, headers or {}
        self.closed = False

    def body(self) -> bytes:
        return b"".join(self.chunks(0))

    def chunks(self, size: int) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def close(self) -> None:
        self.closed = True


class Request(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


#: An answer, an error instead of one, or what makes either of a request.
Step = Reply | Exception | Callable[[Request], Reply]


class Scripted:
    """:ivar requests: that were made
    :ivar left: answers that nobody has asked for yet
    """

    project, where = "alpha", "cloud in a script"

    def __init__(self, *steps: Step) -> None:
        self.left = list(steps)
        self.requests: list[Request] = []

    def request(self, method: str, path: str, *, headers: Mapping[str, str],
                body: bytes | BinaryIO | None = None) -> Reply:
        content = body if isinstance(body, bytes) else body.read() if body is not None else b""
        self.requests.append(Request(method, path, headers, content))
        step = self.left.pop(0)
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, Reply) else step(self.requests[-1])

    @property
    def images(self) -> Images:
        return Images(self)

    @property
    def told(self) -> list[tuple[str, str]]:
        """Method and path of all requests."""
        return [(request.method, request.path) for request in self.requests]


def document(found: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(found).encode())
