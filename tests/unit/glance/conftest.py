from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from splitimage_driver import conf as configuration
from splitimage_driver.glance import filter as filter_
from splitimage_driver.glance.filter import Filter
from splitimage_driver.glance.index import Head
from splitimage_driver.glance.leftovers import Leftovers
from splitimage_driver.glance.planner import Planner
from splitimage_driver.glance.transport import ATTRIBUTES, Environ, WsgiTransport
from splitimage_driver.store.glance.api import Description, Images
from tests.stocked import Stock
from tests.unit.store.glance.fake import FakeGlance, FakeUser

_REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 409: "Conflict"}


class FakeDatabase:
    """What :class:`splitimage_driver.glance.database.Database` tells, of an image
    service in memory.

    :ivar asked: with which time
    :ivar read_ids: ids, of each question
    :ivar before: is called with each question
    """

    def __init__(self, glance: FakeGlance) -> None:
        self.glance = glance
        self.asked: list[datetime.datetime | None] = []
        self.read_ids: list[set[str]] = []
        self.before: Callable[[], None] = lambda: None
        self._known: set[str] = set()

    def heads(self, since: datetime.datetime | None) -> list[Head]:
        self.before()
        self.asked.append(since)
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)
        gone = self._known - self.glance.images.keys()
        found = [Head(name, now, True, None) for name in sorted(gone)]
        for image in self.glance.images.values():
            self._known.add(image["id"])
            updated = datetime.datetime.fromisoformat(image["updated_at"]).replace(tzinfo=None)
            if since is None or updated >= since:
                found.append(Head(image["id"], updated, False, image.get("splitimage_role")))
        return found

    def read(self, ids: Iterable[str]) -> Iterator[Description]:
        self.read_ids.append(set(ids))
        for name in sorted(self.read_ids[-1]):
            if name in self.glance.images:
                image = self.glance.images[name]
                created = datetime.datetime.fromisoformat(image["created_at"])
                yield {"size": None, **image, "created_at": created.replace(tzinfo=None)}

    def is_gone(self, image: str) -> bool:
        return image not in self.glance.images


class Api:
    """Glance's application, and the filter in front of it.

    :ivar stores: directories of its file stores
    """

    def __init__(self, glance: FakeGlance, planner: Planner, database: FakeDatabase) -> None:
        self.glance = glance
        self.stores: list[Path] = []
        self.filter = Filter(Leftovers(self.application, database, lambda: self.stores),
                             planner, database)

    def application(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        context = environ[ATTRIBUTES]["context"]
        path = environ["PATH_INFO"].removeprefix("/v2")
        if environ["QUERY_STRING"]:
            path += "?" + environ["QUERY_STRING"]
        content = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        answer = FakeUser(self.glance, context.project_id, context.is_admin).request(
            environ["REQUEST_METHOD"], path, headers={}, body=content)
        start(f"{answer.status} {_REASONS[answer.status]}", [])
        return [answer.body()]

    def user(self, project: str, *, admin: bool = False) -> WsgiTransport:
        """In front of the filter."""
        return WsgiTransport(self.filter, SimpleNamespace(project_id=project, is_admin=admin))

    def images(self, project: str, *, admin: bool = False) -> Images:
        return Images(self.user(project, admin=admin))

    def plan(self, project: str, **request: Any) -> Any:
        """:returns: the answer, or (status, reason)"""
        return self.posted(project, json.dumps(request).encode())

    def posted(self, project: str, body: bytes) -> Any:
        answer = self.user(project).request("POST", "/splitimage/plan", headers={}, body=body)
        found = json.loads(answer.body())
        return found if answer.status == 200 else (answer.status, found["message"])


@pytest.fixture
def glance() -> FakeGlance:
    return FakeGlance()


@pytest.fixture
def database(glance: FakeGlance) -> FakeDatabase:
    return FakeDatabase(glance)


@pytest.fixture
def planner(database: FakeDatabase) -> Planner:
    return filter_.planner(configuration.load(files=[]), database)


@pytest.fixture
def api(glance: FakeGlance, planner: Planner, database: FakeDatabase) -> Api:
    return Api(glance, planner, database)


@pytest.fixture
def alpha(glance: FakeGlance) -> Stock:
    return Stock(glance.user("alpha"))


@pytest.fixture
def beta(glance: FakeGlance) -> Stock:
    return Stock(glance.user("beta"))


@pytest.fixture
def admin(glance: FakeGlance) -> Stock:
    """May make public."""
    return Stock(glance.user("admin", admin=True))
