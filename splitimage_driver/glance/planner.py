"""Answers which stored image is nearest to a request, and what is missing.

What the index and the catalogue know belongs to everybody; what is told of it is
only what Glance has shown the caller in the course of this very answer, and of
that only what DESIGN.md lets be built on: composites of the caller's own, public
ones, and shared ones that he has accepted; images of the caller's own, and
public ones of the composite's owner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.glance.catalogue import Catalogue, Sheet
from splitimage_driver.glance.index import Completed, Index, record
from splitimage_driver.glance.ranking import Elements, Goal, Ranking, Source, Way
from splitimage_driver.model import properties
from splitimage_driver.model.composite import MAX_PARTS, recipe
from splitimage_driver.store.glance import api, holdings
from splitimage_driver.store.glance.api import Description, Images

#: Few enough that a batch of them is solved without a compiler.
MAX_REQUESTS = 128
#: Candidates that are told of one request, and of each in a list.
_MOST, _MOST_IN_LIST = 256, 16
#: Ids in one list call.
_CHUNK = 100
#: Looked at beyond what is asked for, in place of those that Glance does not
#: show to the caller any more.
_SPARE = 4

_Name = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,62}\Z")]
_Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """:ivar composite: id or name
    :ivar parts: names; what they require comes with them
    :ivar filesets: digests of the caller's own
    :ivar recipe: whose image is exactly what is wanted; "": what follows from
        the composite and these parts without any answer or option of the caller
    :ivar limit: candidates to tell of; more than 256, in a list 16, are not
    """

    composite: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    parts: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=MAX_PARTS)] = ()
    filesets: Annotated[tuple[_Digest, ...], msgspec.Meta(max_length=MAX_PARTS)] = ()
    recipe: _Digest | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] = 5


class Requests(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    requests: Annotated[tuple[Request, ...],
                        msgspec.Meta(min_length=1, max_length=MAX_REQUESTS)]


def parsed(body: bytes) -> Request | Requests:
    """:raises InvalidInput: neither one request nor a list"""
    try:
        document = msgspec.json.decode(body)
        if isinstance(document, dict) and "requests" in document:
            return msgspec.convert(document, type=Requests)
        return msgspec.convert(document, type=Request)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise exceptions.InvalidInput(what="the request", reason=str(error)) from error


class _Wanted(NamedTuple):
    """A request, resolved.

    :ivar image: the composite's, as Glance shows it to the caller
    :ivar parts: names, with all that is required
    """

    request: Request
    image: Description
    sheet: Sheet
    parts: tuple[str, ...]
    goal: Goal


class Planner:
    """:param options: what of a recipe is this operator's own, see
        :meth:`splitimage_driver.capture.identity.Identity.digest_options`
    """

    def __init__(self, index: Index, catalogue: Catalogue, ranking: Ranking,
                 options: Sequence[str] = ()) -> None:
        self.index, self.catalogue, self.ranking = index, catalogue, ranking
        self.options = tuple(options)

    def answer(self, asked: Request | Requests, images: Images) -> dict[str, Any]:
        """:param images: the API with the rights of the caller
        :raises NotFound: a composite or file set, for the caller
        :raises InvalidInput: several composites have that name
        :raises UnknownPart: :raises RequirementMissing:
        :raises BadImage: a composite is not as this project makes them
        """
        self.index.refresh()
        view = _View(self, images)
        if isinstance(asked, Request):
            wanted = view.wanted(asked)
            return self._told(wanted, view.ways([wanted])[0])
        return self._batch([view.wanted(each) for each in asked.requests], view)

    def _batch(self, wanted: Sequence[_Wanted], view: _View) -> dict[str, Any]:
        ways = view.ways(wanted)
        # Those that want the same image are one.
        distinct: dict[tuple[str, str], list[int]] = {}
        for number, each in enumerate(wanted):
            distinct.setdefault((each.image["id"], each.goal.recipe), []).append(number)
        same = list(distinct.values())
        first = [numbers[0] for numbers in same]
        steps = self.ranking.batch([wanted[n].goal for n in first], [ways[n][0] for n in first],
                                   [wanted[n].image["id"] for n in first])
        return {
            "plans": [self._told(each, found)
                      for each, found in zip(wanted, ways, strict=True)],
            "steps": [{**_way(step.way), "requests": same[step.goal],
                       "image": step.way.source.id if step.source is None else None,
                       "request": None if step.source is None else first[step.source]}
                      for step in steps]}

    def _told(self, wanted: _Wanted, ways: Sequence[Way]) -> dict[str, Any]:
        return {"composite": wanted.image["id"], "parts": wanted.parts,
                "filesets": sorted(wanted.request.filesets), "recipe": wanted.goal.recipe,
                "unit": self.ranking.unit, **_way(ways[0]),
                "candidates": [{**_way(way), "size": way.source.size} for way in ways]}


def _way(way: Way) -> dict[str, Any]:
    return {"image": way.source.id, "match": way.match, "cost": way.cost,
            "missing": sorted(way.missing), "excess": sorted(way.excess)}


class _View:
    """What one caller is shown, for one answer."""

    def __init__(self, planner: Planner, images: Images) -> None:
        self.index, self.catalogue = planner.index, planner.catalogue
        self.ranking, self.options = planner.ranking, planner.options
        self.images = images
        self._composites: dict[str, tuple[Description, Sheet]] = {}
        #: Completed images as they were ranked, and as Glance shows them; None:
        #: it does not.
        self._ranked_as: dict[str, Completed] = {}
        self._shown: dict[str, Description | None] = {}

    # -- what is wanted -----------------------------------------------------------------

    def wanted(self, request: Request) -> _Wanted:
        if request.composite not in self._composites:
            image = self._composite(request.composite)
            self._composites[request.composite] = (
                image, self.catalogue.composite(self.images, image))
        image, sheet = self._composites[request.composite]
        parts = sheet.record.closure(request.parts)
        filesets = {digest: self._fileset(digest) for digest in sorted(set(request.filesets))}
        weights = {**sheet.weights, **filesets}
        name = request.recipe or recipe(
            sheet.record.base.disk, [*(sheet.record.parts[part].id for part in parts), *filesets],
            sheet.record.applying(parts), self.options)
        return _Wanted(request, image, sheet, parts,
                       Goal(frozenset((*parts, *filesets)), name, weights))

    def _composite(self, name: str) -> Description:
        found = self._by_id(name) if properties.IMAGE_ID.match(name) else None
        found = found or self._by_name(name)
        if found is None:
            raise exceptions.NotFound(kind="composite", name=name, where=self.images.where)
        if found["status"] != api.ACTIVE:
            raise properties.bad(found, f"it is {found['status']}")
        return found

    def _by_id(self, image: str) -> Description | None:
        try:
            found = self.images.get(image)
        except (exceptions.NotFound, exceptions.NotPermitted):
            return None
        if found.get("splitimage_role") != properties.COMPOSITE:
            return None
        return found if holdings.usable(self.images, found) else None

    def _by_name(self, name: str) -> Description | None:
        """An own one before a public one; nobody is given a shared one by the
        choice of a name."""
        known = [each for each in self.index.named(name) if each.shown]
        own = [each for each in known if each.owner == self.images.project]
        public = [each for each in known if each.visibility == api.PUBLIC]
        for some in (own, public):
            found = [image for image in map(self._by_id, (each.id for each in some)) if image]
            if len(found) > 1:
                raise exceptions.ambiguous("composite", name, (image["id"] for image in found))
            if found:
                return found[0]
        return None

    def _fileset(self, digest: str) -> Any:
        for each in self.index.filesets(digest, self.images.project):
            try:
                image = self.images.get(each.id)
            except (exceptions.NotFound, exceptions.NotPermitted):
                continue
            if record(image) == each:
                return self.catalogue.fileset(self.images, image)
        raise exceptions.NotFound(kind="file set", name=digest, where=self.images.where)

    # -- what is there ------------------------------------------------------------------

    def ways(self, wanted: Sequence[_Wanted]) -> list[list[Way]]:
        """The best candidates of each: at least one, for there is the base."""
        most = _MOST if len(wanted) == 1 else _MOST_IN_LIST
        limits = [min(each.request.limit, most) for each in wanted]
        ranked = [self._ranked(each) for each in wanted]
        self._look(way.source.id for found, limit in zip(ranked, limits, strict=True)
                   for way in found[:limit + _SPARE])
        return [self._allowed(*each) for each in zip(wanted, ranked, limits, strict=True)]

    def _ranked(self, wanted: _Wanted) -> list[Way]:
        image = wanted.image
        completed = self.index.completed(
            image["id"], wanted.sheet.record.base.manifest, project=self.images.project,
            owner=str(image["owner"]))
        self._ranked_as.update((each.id, each) for each in completed)
        sources = [Source(image["id"], Elements(), "", int(image.get("size") or 0))]
        sources += (Source(each.id, each.elements, each.recipe, each.size) for each in completed)
        return self.ranking.ranked(sources, wanted.goal)

    def _allowed(self, wanted: _Wanted, ranked: Sequence[Way], limit: int) -> list[Way]:
        found: list[Way] = []
        for start in range(0, len(ranked), limit + _SPARE):
            some = ranked[start:start + limit + _SPARE]
            self._look(way.source.id for way in some)
            found += (way for way in some if self._is_as_known(way.source.id, wanted))
            if len(found) >= limit:
                break
        return found[:limit]

    def _look(self, ids: Iterable[str]) -> None:
        """Ask Glance about these, all at once."""
        unknown = sorted({image for image in ids if image in self._ranked_as
                          and image not in self._shown})
        for start in range(0, len(unknown), _CHUNK):
            some = unknown[start:start + _CHUNK]
            self._shown.update(dict.fromkeys(some))
            for hidden in {self._ranked_as[image].hidden for image in some}:
                for image in self.images.list(hidden=hidden, id=f"in:{','.join(some)}"):
                    self._shown[image["id"]] = image

    def _is_as_known(self, image: str, wanted: _Wanted) -> bool:
        """What Glance shows now is what was ranked."""
        if image == wanted.image["id"]:
            return True
        shown = self._shown.get(image)
        try:
            return shown is not None and record(shown) == self._ranked_as[image]
        except exceptions.BadImage:
            return False
