"""An image service in memory, for the logic that goes by its API.

Its rules are the few of the real one that the logic depends on: who sees, lists
and changes what, what is protected, who may make public, that only shared images
have members. What is shown about Glance is shown by functional tests.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from splitimage_driver.store.glance.api import Description, Images

_KNOWN = {"id", "name", "status", "owner", "visibility", "os_hidden", "protected", "disk_format",
          "container_format", "min_disk", "min_ram", "size"}


class Killed(BaseException):
    """Instead of SIGKILL."""


class Refusal(Exception):
    def __init__(self, status: int, reason: str = "") -> None:
        super().__init__(reason)
        self.status = status


class FakeAnswer:
    def __init__(self, status: int, content: bytes = b"") -> None:
        self.status, self._content = status, content
        self.headers: Mapping[str, str] = {}

    def body(self) -> bytes:
        return self._content

    def chunks(self, size: int) -> Iterator[bytes]:
        yield from (self._content[start:start + size]
                    for start in range(0, len(self._content), size))

    def close(self) -> None:
        pass


class FakeGlance:
    """:ivar images: by id, as the API describes them
    :ivar members: of an image: status by project
    :ivar data: by image
    :ivar requests: that were made: method and path
    :ivar before: is called with each request; what it raises ends it
    :ivar page: of a list has so many images
    :ivar planner: answers what is nearest to a request; None: it does not plan
    """

    def __init__(self) -> None:
        self.images: dict[str, Description] = {}
        self.members: dict[str, dict[str, str]] = {}
        self.data: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.page = 1000
        #: One request at a time; what is called before it may wait for others.
        self.guard = threading.Lock()
        self.planner: Callable[[Any], Any] | None = None

    def user(self, project: str, *, admin: bool = False) -> Images:
        return Images(FakeUser(self, project, admin))

    def put(self, name: str, content: bytes) -> None:
        """Give an image these data, whatever it had."""
        self.data[name] = content
        self.images[name].update(size=len(content), os_hash_algo="sha512",
                                 os_hash_value=hashlib.sha512(content).hexdigest())

    def age(self, seconds: float, *images: str) -> None:
        """As if all that has happened to them had happened earlier.

        :param images: ids; none: all
        """
        for name in images or self.images:
            image = self.images[name]
            then = datetime.datetime.fromisoformat(image["updated_at"]).timestamp() - seconds
            image["updated_at"] = _told(then)
            if "splitimage_unreferenced" in image:
                image["splitimage_unreferenced"] = str(
                    float(image["splitimage_unreferenced"]) - seconds)

    def die_at(self, number: int) -> None:
        """Killed when the request of that number, from now on, is about to be
        made."""
        left = iter(range(number))

        def before(method: str, path: str) -> None:
            if next(left, None) is None:
                raise Killed

        self.before = before

    def live(self) -> None:
        self.before = lambda method, path: None


def _told(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class FakeUser:
    """The transport of one user."""

    where = "cloud in memory"

    def __init__(self, glance: FakeGlance, project: str, admin: bool) -> None:
        self.glance, self.project, self.admin = glance, project, admin

    def request(self, method: str, path: str, *, headers: Mapping[str, str],
                body: bytes | BinaryIO | None = None) -> FakeAnswer:
        self.glance.before(method, path)
        self.glance.requests.append((method, path))
        target, _, query = path.partition("?")
        words = [urllib.parse.unquote(word) for word in target.strip("/").split("/")]
        content = body if isinstance(body, bytes) or body is None else body.read()
        for name, pattern in _ROUTES:
            if method == name and len(words) == len(pattern) and all(
                    wanted in ("*", word) for wanted, word in zip(pattern, words, strict=True)):
                variables = [word for wanted, word in zip(pattern, words, strict=True)
                             if wanted == "*"]
                try:
                    with self.glance.guard:
                        found = getattr(self, _ROUTES[name, pattern])(
                            *variables, query=urllib.parse.parse_qs(query), content=content)
                except Refusal as refusal:
                    return FakeAnswer(refusal.status, str(refusal).encode())
                if isinstance(found, bytes):
                    return FakeAnswer(200, found)
                return FakeAnswer(200, json.dumps(found).encode())
        return FakeAnswer(404)

    # -- who may ---------------------------------------------------------------------

    def _sees(self, image: Description) -> bool:
        return (self.admin or image["owner"] == self.project
                or image["visibility"] in ("public", "community")
                or (image["visibility"] == "shared"
                    and self.project in self.glance.members.get(image["id"], {})))

    def _lists(self, image: Description) -> bool:
        if image["owner"] == self.project or image["visibility"] == "public":
            return True
        if image["visibility"] == "shared" and not self.admin:
            return self.glance.members.get(image["id"], {}).get(self.project) == "accepted"
        return self.admin and image["visibility"] != "community"

    def _visible(self, name: str) -> Description:
        image = self.glance.images.get(name)
        if image is None or not self._sees(image):
            raise Refusal(404)
        return image

    def _own(self, name: str) -> Description:
        image = self._visible(name)
        if not self.admin and image["owner"] != self.project:
            raise Refusal(403, "it is another's")
        return image

    def _changed(self, image: Description) -> None:
        image["updated_at"] = _told(time.time())

    # -- the API ---------------------------------------------------------------------

    def list(self, query: dict[str, list[str]], **_: Any) -> Any:
        asked = {name: values[0] for name, values in query.items()}
        hidden = asked.pop("os_hidden", "false") == "true"
        marker = asked.pop("marker", None)
        for name in ("limit", "sort_key", "sort_dir"):
            asked.pop(name, None)
        every = asked.get("visibility") == "all"
        if every:
            del asked["visibility"]
        found = [image for image in self.glance.images.values()
                 if image["os_hidden"] == hidden
                 and (self._lists(image) or (every and self._sees(image)))
                 and all(self._fits(image, name, value) for name, value in asked.items())]
        if marker:
            names = [image["id"] for image in found]
            found = found[names.index(marker) + 1:]
        answer: dict[str, Any] = {"images": found[:self.glance.page]}
        if len(found) > self.glance.page:
            given = {name: values[0] for name, values in query.items() if name != "marker"}
            answer["next"] = "/v2/images?" + urllib.parse.urlencode(
                given | {"marker": answer["images"][-1]["id"]})
        return answer

    @staticmethod
    def _fits(image: Description, name: str, value: str) -> bool:
        if value.startswith("in:"):
            return image.get(name) in value[3:].split(",")
        return image.get(name) == value

    def create(self, content: bytes, **_: Any) -> Any:
        image = json.loads(content)
        name = image.setdefault("id", str(uuid.uuid4()))
        if name in self.glance.images:
            raise Refusal(409)
        if image.get("visibility") == "public" and not self.admin:
            raise Refusal(403, "not public")
        created = _told(time.time())
        self.glance.images[name] = {
            "owner": self.project, "visibility": "shared", "protected": False, "status": "queued",
            "size": None, "created_at": created, "updated_at": created, **image}
        return self.glance.images[name]

    def plan(self, content: bytes, **_: Any) -> Any:
        if self.glance.planner is None:
            raise Refusal(404)
        return self.glance.planner(json.loads(content))

    def show(self, name: str, **_: Any) -> Any:
        return self._visible(name)

    def change(self, name: str, content: bytes, **_: Any) -> Any:
        image = self._own(name)
        changed = dict(image)
        for step in json.loads(content):
            key = step["path"][1:].replace("~1", "/").replace("~0", "~")
            if (step["op"] == "add") == (key in changed):
                raise Refusal(409, f"{step['op']} {key}")
            if step["op"] == "remove":
                del changed[key]
                continue
            if key == "visibility" and step["value"] == "public" and not self.admin:
                raise Refusal(403, "not public")
            if key not in _KNOWN and not isinstance(step["value"], str):
                raise Refusal(400, f"{key} is no text")
            changed[key] = step["value"]
        image.clear()
        image.update(changed)
        self._changed(image)
        return dict(image)

    def remove(self, name: str, **_: Any) -> Any:
        image = self._own(name)
        if image["protected"]:
            raise Refusal(403, "it is protected")
        del self.glance.images[name]
        self.glance.members.pop(name, None)
        self.glance.data.pop(name, None)
        return b""

    def upload(self, name: str, content: bytes, **_: Any) -> Any:
        image = self._own(name)
        if image["status"] != "queued":
            raise Refusal(409, image["status"])
        image["status"] = "active"
        self.glance.put(name, content)
        self._changed(image)
        return b""

    def download(self, name: str, **_: Any) -> Any:
        image = self._visible(name)
        if image["status"] == "deactivated" and not self.admin:
            raise Refusal(403, "it is deactivated")
        return self.glance.data[name]

    def deactivate(self, name: str, **_: Any) -> Any:
        return self._state(name, "deactivated")

    def reactivate(self, name: str, **_: Any) -> Any:
        return self._state(name, "active")

    def _state(self, name: str, wanted: str) -> bytes:
        image = self._own(name)
        if image["status"] not in ("active", "deactivated"):
            raise Refusal(403, "no such transition")
        image["status"] = wanted
        self._changed(image)
        return b""

    # -- members ---------------------------------------------------------------------

    def _shared(self, name: str) -> dict[str, str]:
        if self._visible(name)["visibility"] != "shared":
            raise Refusal(403, "Only shared images have members.")
        return self.glance.members.setdefault(name, {})

    def list_members(self, name: str, **_: Any) -> Any:
        return {"members": [{"member_id": project, "status": status}
                            for project, status in self._shared(name).items()]}

    def add_member(self, name: str, content: bytes, **_: Any) -> Any:
        self._own(name)
        members, project = self._shared(name), json.loads(content)["member"]
        if project in members:
            raise Refusal(409)
        members[project] = "pending"
        return {}

    def drop_member(self, name: str, project: str, **_: Any) -> Any:
        self._own(name)
        if self._shared(name).pop(project, None) is None:
            raise Refusal(404)
        return b""


_ROUTES: dict[tuple[str, tuple[str, ...]], str] = {
    ("GET", ("images",)): "list",
    ("POST", ("images",)): "create",
    ("POST", ("splitimage", "plan")): "plan",
    ("GET", ("images", "*")): "show",
    ("PATCH", ("images", "*")): "change",
    ("DELETE", ("images", "*")): "remove",
    ("PUT", ("images", "*", "file")): "upload",
    ("GET", ("images", "*", "file")): "download",
    ("POST", ("images", "*", "actions", "deactivate")): "deactivate",
    ("POST", ("images", "*", "actions", "reactivate")): "reactivate",
    ("GET", ("images", "*", "members")): "list_members",
    ("POST", ("images", "*", "members")): "add_member",
    ("DELETE", ("images", "*", "members", "*")): "drop_member",
}


def writes(requests: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the requests that change something."""
    return [(method, re.sub(r"\?.*", "", path)) for method, path in requests if method != "GET"]
