"""The filter in the pipeline of Glance's API.

It answers ``POST /v2/splitimage/plan``, and after a change of a composite it
brings the composite's parts in line. With an image that has never been complete
goes what is left of it in a store (:mod:`splitimage_driver.glance.leftovers`). All
other requests pass through untouched; so does the answer to a change, whatever
becomes of the parts: ``reconcile`` of the command line is the repair.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from oslo_log import log as logging

from splitimage_driver import conf as configuration
from splitimage_driver import exceptions
from splitimage_driver.capture.identity import Identity
from splitimage_driver.glance import leftovers, splitting
from splitimage_driver.glance import planner as planner_
from splitimage_driver.glance.catalogue import Catalogue
from splitimage_driver.glance.index import Index, Source
from splitimage_driver.glance.planner import Planner
from splitimage_driver.glance.ranking import Ranking
from splitimage_driver.glance.transport import ATTRIBUTES, Application, Environ, WsgiTransport
from splitimage_driver.model import properties
from splitimage_driver.planning import weights
from splitimage_driver.store.glance import access
from splitimage_driver.store.glance.api import Description, Images

LOG = logging.getLogger(__name__)

PLAN = "/v2/splitimage/plan"
MAX_BODY = 1 << 20
#: Of what is too long this much is taken all the same, so that the sender
#: comes to read the answer.
_DRAINED, _PIECE = 16 << 20, 1 << 16
_IMAGE = re.compile(r"/v2/images/([^/]+)"
                    r"(?:/(?P<members>members)(?:/[^/]*)?|/actions/(?P<action>[a-z]+))?/?\Z")
_REFUSED = (exceptions.InvalidInput, exceptions.UnknownPart, exceptions.RequirementMissing,
            exceptions.BadImage, exceptions.TooLarge)
_TITLES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
           500: "Internal Server Error", 503: "Service Unavailable"}
#: What the access of parts follows from, and what names them.
_FOLLOWED = ("owner", "status", "visibility", "protected", "splitimage_role",
             "splitimage_manifest", "splitimage_restore")

Start = Callable[..., Any]


class _Refusal(Exception):
    def __init__(self, status: int, reason: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(reason)
        self.status, self.headers = status, list(headers)


class _Change(NamedTuple):
    """What a request is about to change.

    :ivar before: the image, which is one of ours
    :ivar always: it shows in nothing of the image itself
    """

    before: Description
    always: bool


class Filter:
    """:param application: the rest of the pipeline
    :param database: Glance's
    """

    def __init__(self, application: Application, planner: Planner, database: Source) -> None:
        self.application, self.planner, self.database = application, planner, database

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        if environ.get("PATH_INFO", "").rstrip("/") == PLAN:
            return self._answered(environ, start)
        try:
            change = self._change(environ)
        except Exception:
            LOG.exception("it is not known what %s changes", environ.get("PATH_INFO"))
            change = None
        if change is None:
            return self.application(environ, start)
        return self._changed(change, environ, start)

    # -- plans --------------------------------------------------------------------------

    def _answered(self, environ: Environ, start: Start) -> Iterable[bytes]:
        status, headers = 200, list[tuple[str, str]]()
        try:
            document: Any = self._plan(environ)
        except _Refusal as error:
            status, headers, document = error.status, error.headers, str(error)
        except exceptions.NotFound as error:
            status, document = 404, str(error)
        except _REFUSED as error:
            status, document = 400, str(error)
        except exceptions.SplitImageError as error:
            LOG.warning("no plan can be made: %s", error)
            status, document = 503, str(error)
        except Exception:
            LOG.exception("no plan can be made")
            status, document = 500, "the plan failed; the log of the image service tells why"
        if status != 200:
            document = {"code": status, "title": _TITLES[status], "message": document}
        body = msgspec.json.encode(document)
        start(f"{status} {_TITLES[status]}", [
            ("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers])
        return [body]

    def _plan(self, environ: Environ) -> dict[str, Any]:
        if environ["REQUEST_METHOD"] != "POST":
            raise _Refusal(405, "a plan is asked for by POST", [("Allow", "POST")])
        asked = planner_.parsed(_body(environ))
        return self.planner.answer(asked, self._images(environ))

    def _images(self, environ: Environ) -> Images:
        """The rest of the pipeline, with the rights of who has sent this."""
        context = environ.get(ATTRIBUTES, {}).get("context")
        if context is None:
            raise _Refusal(503, "the filter splitimage has to come after Glance's context filter "
                                "in the pipeline")
        return Images(WsgiTransport(self.application, context, environ=environ))

    # -- changes ------------------------------------------------------------------------

    def _change(self, environ: Environ) -> _Change | None:
        """None: it changes nothing that others follow."""
        method = environ.get("REQUEST_METHOD", "")
        if method in ("GET", "HEAD"):
            return None
        found = _IMAGE.match(environ.get("PATH_INFO", ""))
        if found is None:
            return None
        members = found["members"] is not None
        if not (members or found["action"] in ("deactivate", "reactivate")
                or (found["action"] is None and method in ("PATCH", "DELETE"))):
            return None
        before = self._described(found[1])
        role = "" if before is None else before.get("splitimage_role")
        # What others refer to is protected; an image with a manifest of its
        # own is deleted by people.
        own = method == "DELETE" and not members and role in (properties.COMPLETED,
                                                              properties.PART)
        # Whose import was cut off has no role yet.
        split = method == "DELETE" and not members and _is_gold(before)
        if before is None or not (role == properties.COMPOSITE or own or split):
            return None
        return _Change(before, members)

    def _described(self, image: str) -> Description | None:
        return next(self.database.read([image]), None)

    def _changed(self, change: _Change, environ: Environ, start: Start) -> Iterable[bytes]:
        told: list[str] = []

        def begin(status: str, *more: Any) -> Any:
            told[:] = [status]
            return start(status, *more)

        answer = self.application(environ, begin)
        if told and told[0].startswith("2"):
            try:
                self._follow(change, environ)
            except exceptions.SplitImageError as error:
                LOG.warning("after a change of image %s: %s; `splitimage composite reconcile`"
                            " is the repair", change.before["id"], error)
            except Exception:
                LOG.exception("after a change of image %s", change.before["id"])
        return answer

    def _follow(self, change: _Change, environ: Environ) -> None:
        before = change.before
        after = self._described(before["id"])
        if before.get("splitimage_role") == properties.COMPOSITE or _is_gold(before):
            if change.always or _followed(before) != _followed(after):
                access.reconcile(self._images(environ), before["id"], last=before)
        elif after is None:
            self._drop_manifest(before, self._images(environ))

    def _drop_manifest(self, gone: Description, images: Images) -> None:
        """Of a completed image or part that is gone: nobody sees it otherwise."""
        name = properties.manifest(gone)
        try:
            manifest = images.get(name)
        except exceptions.NotFound:
            return
        if (manifest.get("owner") == gone["owner"]
                and properties.role(manifest) == properties.MANIFEST
                and manifest.get("splitimage_for") == gone["id"]):
            images.discard(name)


def _is_gold(image: Description | None) -> bool:
    """Whether its import was to split it."""
    return properties.SPLIT in (image or {})


def _followed(image: Description | None) -> Mapping[str, Any]:
    return {name: value for name, value in (image or {}).items()
            if name in _FOLLOWED or name.startswith("splitimage_part_")}


def _body(environ: Environ) -> bytes:
    try:
        length = int(environ.get("CONTENT_LENGTH") or "")
    except ValueError:
        raise _Refusal(400, "a request for a plan states its length") from None
    if length > MAX_BODY:
        left = min(length, _DRAINED)
        while left > 0 and (piece := environ["wsgi.input"].read(min(left, _PIECE))):
            left -= len(piece)
        raise _Refusal(400, f"a request for a plan has at most {MAX_BODY} bytes")
    body: bytes = environ["wsgi.input"].read(max(0, length))
    return body


def planner(options: Any, database: Source) -> Planner:
    """:param options: all option groups
    :raises PluginLoadFailed: there is no such equation
    """
    # Whatever host will assemble: the one in front is no measure.
    weighing = weights.Static(options.planning, weights.Host(emulate=False)).weighing()
    ranking = Ranking(weights.equation(options.planning.cost), weighing.rates, weighing.prepare)
    return Planner(Index(database), Catalogue(), ranking,
                   Identity(options.capture.exclude).digest_options())


def factory(_: Mapping[str, str], *, config_file: str = "") -> Callable[[Application], Filter]:
    """For paste.

    :param config_file: of this project, for ``[planning]``, ``[capture]`` and
        ``[split]``;
        "": the default places
    """
    from splitimage_driver.glance.database import Database
    options = configuration.load(files=[config_file] if config_file else None)
    database = Database()
    made = planner(options, database)
    splitting.tidy(options)
    # The requests that the filter makes itself pass through it, too.
    return lambda application: Filter(leftovers.over(application), made, database)
