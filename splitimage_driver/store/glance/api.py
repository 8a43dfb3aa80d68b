"""The image API (v2), whatever carries the requests: a cloud's endpoint, or the
API process that this runs in.

Every request but that for data may be repeated: images are created under ids
that are chosen here, at random, so that a second try meets the first.
"""

from __future__ import annotations

import html
import json
import re
import threading
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Protocol

import msgspec
import tenacity
from oslo_log import log as logging

from splitimage_driver import exceptions

LOG = logging.getLogger(__name__)

#: An image as the API describes it.
Description = dict[str, Any]

ACTIVE, QUEUED, SAVING, IMPORTING, DEACTIVATED = (
    "active", "queued", "saving", "importing", "deactivated")
PUBLIC, COMMUNITY, SHARED, PRIVATE = "public", "community", "shared", "private"
#: What may be repeated after an answer like this.
_PASSING = frozenset({429, 500, 502, 503, 504})
_ATTEMPTS, _PAUSE = 4, 0.5
#: Seconds after which nothing is tried again: each attempt may take as long as
#: the transport waits.
PATIENCE = 30.0
#: Changes of an image that are tried while others change it, too.
_ROUNDS = 5
_PAGE = 1000
_PATCH = "application/openstack-images-v2.1-json-patch"
#: What the API says of its store, with the status of an exceeded quota.
_FULL = "storage media is full"
#: What it says of too many properties, with that status, too: no room helps there.
_TOO_MANY = "image properties"
_TAG = re.compile(r"<title>.*?</title>|<[^>]*>", re.DOTALL)


class Answer(Protocol):
    """:ivar status: of HTTP
    :ivar headers: names in lower case
    """

    status: int
    headers: Mapping[str, str]

    def body(self) -> bytes:
        """All of it."""

    def chunks(self, size: int) -> Iterator[bytes]:
        """As it arrives. :raises ConnectionError: it ends early"""

    def close(self) -> None: ...


class Transport(Protocol):
    """Carries requests for one user.

    :ivar project: id of the user's project
    :ivar where: for messages
    """

    project: str
    where: str

    def request(self, method: str, path: str, *, headers: Mapping[str, str],
                body: bytes | BinaryIO | None = None) -> Answer:
        """:param path: below the version, with the query, e.g. ``/images?limit=1``
        :raises ConnectionError: no answer
        :raises SplitImageError: it cannot be asked at all
        """


class Passing(Exception):
    """An answer that may be another one soon."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}".strip())


class Images:
    """:param transport: who asks whom

    :ivar stopping: once it is set, transfers end at their next piece
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.stopping = threading.Event()

    @property
    def project(self) -> str:
        return self.transport.project

    @property
    def where(self) -> str:
        return self.transport.where

    # -- descriptions -----------------------------------------------------------------

    def list(self, *, hidden: bool | None = False, **filters: str) -> Iterator[Description]:
        """:param hidden: those only; None: both
        :param filters: as the API has them, the oldest first
        """
        if hidden is None:
            yield from self.list(hidden=False, **filters)
            yield from self.list(hidden=True, **filters)
            return
        query = urllib.parse.urlencode({
            "limit": _PAGE, "sort_key": "created_at", "sort_dir": "asc",
            "os_hidden": str(hidden).lower(), **filters})
        path = f"/images?{query}"
        while path:
            page = self._json("list images", "GET", path)
            yield from page["images"]
            following = page.get("next", "")
            path = following[following.index("/images"):] if following else ""

    def get(self, image: str) -> Description:
        """:raises NotFound: none, or not visible"""
        found: Description = self._json("show an image", "GET", f"/images/{_quoted(image)}",
                                        image=image)
        return found

    def create(self, name: str, properties: Mapping[str, str], *, disk_format: str = "raw",
               hidden: bool = True, image: str = "", **attributes: Any) -> Description:
        """A record without data.

        :param image: its id; "": a new one
        :param attributes: further ones that the API knows: ``visibility``,
            ``protected``, ``min_disk``
        """
        image = image or str(uuid.uuid4())
        wanted = {"id": image, "name": name, "disk_format": disk_format,
                  "container_format": "bare", "os_hidden": hidden, **attributes, **properties}
        try:
            found: Description = self._json("create an image", "POST", "/images", wanted)
        except exceptions.AlreadyExists:  # of an attempt whose answer was lost
            found = self.get(image)
            if found["owner"] != self.project or found["status"] != QUEUED:
                raise
        return found

    def update(self, image: str, changes: Mapping[str, Any], *,
               known: Description | None = None, insist: bool = False) -> Description:
        """:param changes: attributes and properties; None removes one
        :param known: the image as it is, where that is at hand
        :param insist: whatever others have changed since
        :raises AlreadyExists: others have changed what this changes
        """
        known = self.get(image) if known is None else known
        for left in reversed(range(_ROUNDS)):
            patch = _patch(known, changes)
            if not patch:
                break
            try:
                known = self._json("change an image", "PATCH", f"/images/{_quoted(image)}", patch,
                                   image=image, headers={"Content-Type": _PATCH})
                break
            except exceptions.AlreadyExists:
                # Perhaps of an attempt whose answer was lost.
                known = self.get(image)
                if not _patch(known, changes):
                    break
                if not left or not insist:
                    raise
        return known

    def delete(self, image: str) -> None:
        """:raises NotFound: :raises NotPermitted: it is protected, or another's"""
        try:
            self._send("delete an image", "DELETE", f"/images/{_quoted(image)}", image=image)
        except exceptions.CloudRefused:
            # For a moment, or for ever if Glance fails just then, it is there as
            # a deleted one.
            if self.get(image)["status"] != "deleted":
                raise

    def discard(self, image: str) -> None:
        """Delete it, protected or not; no matter if it is not there."""
        try:
            self.update(image, {"protected": False})
            self.delete(image)
        except exceptions.NotFound:
            LOG.debug("image %s is gone already", image)

    def deactivate(self, image: str, *, back: bool = False) -> None:
        action = "reactivate" if back else "deactivate"
        self._send(f"{action} an image", "POST", f"/images/{_quoted(image)}/actions/{action}",
                   image=image)

    # -- members ----------------------------------------------------------------------

    def members(self, image: str) -> dict[str, str]:
        """Status by project: ``pending``, ``accepted`` or ``rejected``."""
        found = self._json("list the members of an image", "GET",
                           f"/images/{_quoted(image)}/members", image=image)
        return {each["member_id"]: each["status"] for each in found["members"]}

    def add_member(self, image: str, project: str) -> None:
        try:
            self._send("share an image", "POST", f"/images/{_quoted(image)}/members",
                       {"member": project}, image=image)
        except exceptions.AlreadyExists:
            LOG.debug("image %s is shared with %s already", image, project)

    def remove_member(self, image: str, project: str) -> None:
        try:
            self._send("unshare an image", "DELETE",
                       f"/images/{_quoted(image)}/members/{_quoted(project)}", image=image)
        except exceptions.NotFound:
            LOG.debug("image %s is not shared with %s", image, project)

    # -- data -------------------------------------------------------------------------

    def put(self, image: str, content: BinaryIO, *, store: str = "") -> None:
        """Upload once. :raises ConnectionError: :raises Passing:"""
        headers = {"Content-Type": "application/octet-stream"}
        if store:
            headers["X-Image-Meta-Store"] = store
        answer = self.transport.request("PUT", f"/images/{_quoted(image)}/file",
                                        headers=headers, body=content)
        self._judged(answer, "upload an image", image).close()

    def open(self, image: str, *, start: int = 0) -> Answer:
        """Begin a download; closing is the caller's.

        :param start: bytes to leave out; an answer of 200 has them all the same
        :raises ConnectionError: :raises Passing:
        """
        headers = {"Accept": "application/octet-stream"}
        if start:
            headers["Range"] = f"bytes={start}-"
        answer = self.transport.request("GET", f"/images/{_quoted(image)}/file", headers=headers)
        if answer.status == 204:
            raise exceptions.CloudFailed(where=self.where, what="download an image",
                                         reason=f"image {image} has no data")
        return self._judged(answer, "download an image", image)

    # -- requests ---------------------------------------------------------------------

    def ask(self, path: str, document: Any) -> Any:
        """Another resource's answer to a document; None: there is no such
        resource."""
        try:
            return self._json("plan", "POST", path, document)
        except exceptions.NotFound:
            return None

    def _json(self, what: str, method: str, path: str, document: Any = None, *, image: str = "",
              headers: Mapping[str, str] | None = None) -> Any:
        body = self._send(what, method, path, document, image=image, headers=headers)
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise exceptions.CloudFailed(where=self.where, what=what,
                                         reason=f"its answer is no JSON: {error}") from error

    def _send(self, what: str, method: str, path: str, document: Any = None, *, image: str = "",
              headers: Mapping[str, str] | None = None) -> bytes:
        sent = {"Accept": "application/json", **(headers or {})}
        body = None
        if document is not None:
            body = json.dumps(document).encode()
            sent.setdefault("Content-Type", "application/json")
        retry = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(_ATTEMPTS) | tenacity.stop_after_delay(PATIENCE),
            wait=tenacity.wait_exponential(_PAUSE),
            retry=tenacity.retry_if_exception_type((ConnectionError, Passing)), reraise=True)
        try:
            for attempt in retry:
                with attempt:
                    answer = self.transport.request(method, path, headers=sent, body=body)
                    if method == "DELETE" and answer.status == 404 and (
                            attempt.retry_state.attempt_number > 1):
                        answer.close()
                        return b""  # an attempt whose answer was lost did it
                    return self._judged(answer, what, image).body()
        except ConnectionError as error:
            raise exceptions.CloudUnreachable(where=self.where, reason=str(error)) from error
        except Passing as error:
            raise exceptions.CloudFailed(where=self.where, what=what,
                                         reason=str(error)) from error
        raise AssertionError  # a retry ends with a result or an error

    def _judged(self, answer: Answer, what: str, image: str) -> Answer:
        """The answer, if it is a good one."""
        status = answer.status
        if 200 <= status < 300:
            return answer
        try:
            reason = said(answer.body())
        except ConnectionError:  # whoever did not read the request may not end the answer, too
            reason = ""
        finally:
            answer.close()
        reason = reason or f"HTTP status {status}"
        told = {"where": self.where, "what": what, "reason": reason}
        if status in (404, 410):
            raise exceptions.NotFound(kind="image", name=image or "resource", where=self.where)
        if status in _PASSING:
            raise Passing(status, reason)
        if status in (401, 403):
            raise exceptions.NotPermitted(**told)
        if status == 409:
            raise exceptions.AlreadyExists(kind="image or state", name=image or reason,
                                           where=self.where)
        if status == 413 and _FULL in reason:
            raise exceptions.ServiceFull(where=self.where, reason=reason)
        if status == 413 and _TOO_MANY not in reason:
            raise exceptions.QuotaExceeded(project=self.project, reason=reason)
        raise exceptions.CloudRefused(**told)


def said(body: bytes) -> str:
    """The reason in an error's page, in one line."""
    text = body[:65536].decode(errors="replace")
    if text.lstrip().startswith("{"):
        try:
            told = msgspec.json.decode(text)
            text = str(told.get("message") or told.get("error", {}).get("message") or text)
        except (msgspec.DecodeError, AttributeError):
            LOG.debug("an error's page is no JSON")
    return " ".join(html.unescape(_TAG.sub(" ", text)).split())[:500]


def _patch(known: Description, changes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is left to be changed of an image."""
    patch: list[dict[str, Any]] = []
    for name, value in changes.items():
        path = "/" + name.replace("~", "~0").replace("/", "~1")
        if value is None:
            if name in known:
                patch.append({"op": "remove", "path": path})
        elif known.get(name) != value:
            patch.append({"op": "replace" if name in known else "add",
                          "path": path, "value": value})
    return patch


def _quoted(word: str) -> str:
    return urllib.parse.quote(word, safe="")
