"""Planning over a catalogue: no store, no disk, nothing but the files' names,
sizes and digests."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from splitimage_driver.model.catalog import FileSet
from splitimage_driver.planning import difference, explanation
from splitimage_driver.planning.difference import Comparison, Pricing, Stored, Wanted

if TYPE_CHECKING:
    from splitimage_driver.planning.index import CandidateIndex

#: From this many pairs of image and request on, building an index pays.
_WORTH_AN_INDEX = 2_000_000


class Planner:
    """:param images: all that can be completed
    :param pricing: the equation and its rates
    :param expected: requests that will be asked for: many pay for an index
    :param parts: what the names of parts mean; makes an index smaller
    """

    def __init__(self, images: Iterable[Stored], pricing: Pricing, *, expected: int = 1,
                 parts: Mapping[str, FileSet] | None = None) -> None:
        self.pricing, self._parts = pricing, parts or {}
        self._images: dict[str, list[Stored]] = defaultdict(list)
        self._contents: dict[str, frozenset[tuple[str, str]]] = {}
        for image in images:
            self._images[image.os].append(image)
        self._by_id = {image.id: image for of in self._images.values() for image in of}
        self._index: CandidateIndex | None = None
        if len(self._by_id) * expected >= _WORTH_AN_INDEX:
            self._index = self._indexed()

    def _indexed(self) -> CandidateIndex:
        from splitimage_driver.planning.index import CandidateIndex
        index = CandidateIndex(self._parts)
        for image in self._by_id.values():
            by_part = bool(image.parts) and self._parts.keys() >= set(image.parts)
            index.add(image.id, image.os, parts=image.parts if by_part else (),
                      files=() if by_part else image.files.values(),
                      fetch_bytes=image.fetch_bytes)
        return index

    def images(self, system: str) -> Sequence[Stored]:
        """All of an operating system."""
        return self._images.get(system, ())

    def contents(self, system: str) -> frozenset[tuple[str, str]]:
        """(path, digest) of all files that some image of a system has."""
        if system not in self._contents:
            self._contents[system] = frozenset(
                (f.path, f.digest) for image in self.images(system)
                for f in image.files.values())
        return self._contents[system]

    def nearest(self, request: Wanted, k: int = 1) -> list[Comparison]:
        """The ``k`` best images of the request's system, the best first."""
        if self._index is not None:
            return [Comparison.of(self._by_id[found.id], request, self.pricing)
                    for found in self._index.nearest(request, self.pricing, k)]
        found = (Comparison.of(image, request, self.pricing)
                 for image in self._images.get(request.os, ()))
        return heapq.nsmallest(k, found, key=lambda c: c.order)

    def cheapest(self, request: Wanted) -> Comparison | None:
        """The one that is cheapest to make and publish the request's image
        from, no matter whether it is exact; None: there is no image."""
        if self._index is not None:
            nearest = self.nearest(request)
            # Only an exact match can come first without being the cheapest.
            if not nearest or nearest[0].match != difference.EXACT or not nearest[0].cost:
                return nearest[0] if nearest else None
        found = (Comparison.of(image, request, self.pricing)
                 for image in self._images.get(request.os, ()))
        return min(found, key=lambda c: (made(c, self.pricing), *c.order[2:]), default=None)


def made(found: Comparison, pricing: Pricing) -> float:
    """Seconds to make an image and publish it; one that is there already is
    neither made nor published."""
    return found.cost if found.match == difference.EXACT else found.cost + pricing.publish


def answer(request: Wanted, found: Sequence[Comparison]) -> dict[str, Any]:
    """A plan as it is told.

    :param found: the candidates, the best first; empty: there is none
    """
    if not found:
        return {"request": request.id, "match": difference.NONE, "image": None, "cost": None,
                "missing": sorted(request.files), "excess": []}
    best = found[0]
    return {"request": request.id, "match": best.match, "image": best.image.id,
            "cost": cost(best), "missing": best.missing, "excess": best.excess}


def explained(request: Wanted, found: Sequence[Comparison]) -> dict[str, Any]:
    """With every candidate that lost, and by what."""
    told = answer(request, found)
    told["considered"] = [
        {"image": each.image.id, "match": each.match, "cost": cost(each),
         "lost": explanation.lost(found[0], each).told()}
        for each in found[1:]]
    return told


def cost(found: Comparison) -> Mapping[str, float]:
    """In seconds; ``download`` has the bytes of the image itself that are
    not on this host yet."""
    return {"total": found.cost, **found.terms._asdict()}
