"""What one stored image costs for one request, in whole numbers first.

Files and bytes are counted; seconds are one fixed expression over
these counts. So the same plan has the same total wherever it is computed,
here or in the compiled index. Costs are compared after :func:`settled`, so
that what is equal on paper is a tie whatever the order of its sums.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from splitimage_driver import exceptions
from splitimage_driver.model.catalog import File
from splitimage_driver.planning.cost import Rates

EXACT, BASE, SUBSET, SUPERSET, PARTIAL, NONE = (
    "exact", "base", "subset", "superset", "partial", "none")
#: Name of an equation to its weights (alpha, beta, gamma, delta); of the last
#: they come from the rates.
EQUATIONS: Mapping[str, tuple[float, float, float, float] | None] = {
    "download": (1, 0, 0, 0), "inject": (1, 1, 0, 0), "remove": (1, 1, 1, 0),
    "transport": (1, 1, 1, 1), "weighted": None,
}


def settled(seconds: float) -> float:
    """Rounded to 40 significant bits (Veltkamp's splitting): costs that are
    within 1e-12 of each other are equal."""
    wide = seconds * 8193.0
    return wide - (wide - seconds) if math.isfinite(wide) else seconds


class Pricing(NamedTuple):
    """An equation with its rates, ready to be applied.

    :ivar publish: seconds for each image that a batch makes
    """

    bandwidth: float
    inject_rate: float
    inject_seconds: float
    remove_seconds: float
    alpha: float
    beta: float
    gamma: float
    delta: float
    publish: float = 0.0

    @classmethod
    def of(cls, equation: str, rates: Rates, *, publish: float = 0.0) -> Pricing:
        """:raises InvalidInput: not one of the equations (1) to (5)"""
        if equation not in EQUATIONS:
            raise exceptions.InvalidInput(
                what=f"cost {equation}",
                reason=f"a catalogue is planned by one of {', '.join(EQUATIONS)}")
        weights = EQUATIONS[equation]
        if weights is None:
            weights = (rates.alpha, rates.beta, rates.gamma, rates.delta)
        return cls(rates.bandwidth, rates.inject_rate, rates.inject_seconds,
                   rates.remove_seconds, *weights, publish)


class Charge(NamedTuple):
    """A part of a request that takes a time of its own to inject, whatever
    its files are, as soon as one of them is missing.
    """

    seconds: float
    paths: frozenset[str]


class Stored(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """An image that can be completed.

    :ivar files: by path, beyond the operating system
    :ivar parts: names, where it is made of parts
    """

    id: str
    os: str
    files: Mapping[str, File]
    parts: tuple[str, ...] = ()
    fetch_bytes: int = 0

    @functools.cached_property
    def size(self) -> int:
        """Bytes: the sum over its files."""
        return sum(f.size for f in self.files.values())


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A request: files by path, beyond the operating system."""

    id: str
    os: str
    files: Mapping[str, File]
    parts: tuple[str, ...] = ()
    charges: tuple[Charge, ...] = ()

    def stored(self) -> Stored:
        """The image that fulfils it."""
        return Stored(id=self.id, os=self.os, files=self.files, parts=self.parts)


class Amounts(NamedTuple):
    """:ivar missing: files
    :ivar injected: of these, the ones that are charged by the file
    :ivar charged: seconds for parts that are charged as a whole, summed in
        the request's order
    """

    missing: int
    missing_bytes: int
    injected: int
    injected_bytes: int
    charged: float
    excess: int
    excess_bytes: int


class Terms(NamedTuple):
    """Seconds, weights included."""

    download: float
    inject: float
    remove: float
    transport: float

    @property
    def total(self) -> float:
        return self.download + self.inject + self.remove + self.transport


def missing(image: Stored, request: Wanted) -> list[str]:
    """Paths to write: not in the image, or with another content there."""
    have = image.files
    return [path for path, file in request.files.items()
            if path not in have or have[path].digest != file.digest]


def excess(image: Stored, request: Wanted) -> list[str]:
    """Paths to remove: in the image only."""
    wanted = request.files
    return [path for path in image.files if path not in wanted]


def amounts(image: Stored, request: Wanted) -> Amounts:
    lacking = missing(image, request)
    unwanted = excess(image, request)
    size = sum(request.files[path].size for path in lacking)
    by_file, time = lacking, 0.0
    if request.charges:
        absent = set(lacking)
        whole: set[str] = set()
        for charge in request.charges:
            whole |= charge.paths
            if not absent.isdisjoint(charge.paths):
                time += charge.seconds
        by_file = [path for path in lacking if path not in whole]
    return Amounts(
        missing=len(lacking), missing_bytes=size, injected=len(by_file),
        injected_bytes=sum(request.files[path].size for path in by_file), charged=time,
        excess=len(unwanted), excess_bytes=sum(image.files[path].size for path in unwanted))


def terms(found: Amounts, fetch_bytes: int, pricing: Pricing) -> Terms:
    """The index evaluates the same expression: see ``kernels.evaluate``."""
    p = pricing
    return Terms(
        p.alpha * (found.missing_bytes / p.bandwidth) + fetch_bytes / p.bandwidth,
        p.beta * (found.injected * p.inject_seconds + found.injected_bytes / p.inject_rate
                  + found.charged),
        p.gamma * (found.excess * p.remove_seconds),
        p.delta * (found.excess_bytes / p.bandwidth))


def match(image: Stored, found: Amounts) -> str:
    if not found.missing and not found.excess:
        return EXACT
    if not image.files:
        return BASE
    if not found.excess:
        return SUBSET
    return PARTIAL if found.missing else SUPERSET


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One image held against one request.

    :ivar fetch: the seconds of ``terms.download`` that bring the image itself
    """

    image: Stored
    request: Wanted
    amounts: Amounts
    terms: Terms
    fetch: float = 0.0

    @classmethod
    def of(cls, image: Stored, request: Wanted, pricing: Pricing) -> Comparison:
        found = amounts(image, request)
        return cls(image=image, request=request, amounts=found,
                   terms=terms(found, image.fetch_bytes, pricing),
                   fetch=image.fetch_bytes / pricing.bandwidth)

    @property
    def match(self) -> str:
        return match(self.image, self.amounts)

    @property
    def missing(self) -> list[str]:
        return sorted(missing(self.image, self.request))

    @property
    def excess(self) -> list[str]:
        return sorted(excess(self.image, self.request))

    @property
    def cost(self) -> float:
        return self.terms.total

    @property
    def order(self) -> tuple[bool, float, int, int, str]:
        """The best first: an exact match, then the cost; ties go to fewer
        missing bytes, then to the smaller image (the sum of its files'
        sizes), then to the lower id."""
        return (self.match != EXACT, settled(self.cost), self.amounts.missing_bytes,
                self.image.size, self.image.id)
