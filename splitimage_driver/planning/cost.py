"""The cost equations (1) to (5) and two plain distances.

All times are in seconds. For a missing file of ``size`` bytes

    S = size / bandwidth                       to transfer it
    I = inject_seconds + size / inject_rate    to inject it

and for a file in excess

    R = remove_seconds                         to remove it
    T = size / bandwidth                       to transport it

The equations are those of the splitting method's description: download (1),
inject (2), remove (3), transport (4), and their weighted sum (5).
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Iterator

import msgspec

from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.plan import Term


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar bandwidth: bytes a second
    :ivar inject_rate: bytes a second
    :ivar inject_seconds: per file
    :ivar remove_seconds: per file
    :ivar alpha: weight of S; beta of I, gamma of R, delta of T
    """

    bandwidth: float = 200e6
    inject_rate: float = 100e6
    inject_seconds: float = 0.001
    remove_seconds: float = 0.0005
    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 1.0
    delta: float = 0.0


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate lacks and has too much, in files and bytes."""

    missing: int
    missing_bytes: int
    excess: int
    excess_bytes: int

    @classmethod
    def of(cls, missing: Iterable[FileEntry], excess: Iterable[FileEntry]) -> Amounts:
        missing, excess = tuple(missing), tuple(excess)
        return cls(missing=len(missing), missing_bytes=sum(e.size for e in missing),
                   excess=len(excess), excess_bytes=sum(e.size for e in excess))


class Cost(abc.ABC):
    """An equation. Found by stevedore in ``splitimage.costs``.

    :cvar unit: of the terms and of their sum
    """

    unit = "s"

    @abc.abstractmethod
    def terms(self, amounts: Amounts, rates: Rates) -> Iterator[tuple[str, float]]:
        """The summands, by name."""

    def __call__(self, amounts: Amounts, rates: Rates) -> tuple[Term, ...]:
        return tuple(Term(name, value, self.unit) for name, value in self.terms(amounts, rates))


def total(terms: Iterable[Term]) -> float:
    return math.fsum(term.value for term in terms)


def transfer(amounts: Amounts, rates: Rates) -> float:
    """Sum over the missing files of S."""
    return amounts.missing_bytes / rates.bandwidth


def injection(amounts: Amounts, rates: Rates) -> float:
    """Sum over the missing files of I."""
    return amounts.missing * rates.inject_seconds + amounts.missing_bytes / rates.inject_rate


def removal(amounts: Amounts, rates: Rates) -> float:
    """Sum over the files in excess of R."""
    return amounts.excess * rates.remove_seconds


def transport(amounts: Amounts, rates: Rates) -> float:
    """Sum over the files in excess of T."""
    return amounts.excess_bytes / rates.bandwidth


class Download(Cost):
    """Equation (1)."""

    def terms(self, amounts: Amounts, rates: Rates) -> Iterator[tuple[str, float]]:
        yield "download", transfer(amounts, rates)


class Inject(Download):
    """Equation (2)."""

    def terms(self, amounts: Amounts, rates: Rates) -> Iterator[tuple[str, float]]:
        yield from super().terms(amounts, rates)
        yield "inject", injection(amounts, rates)


class Remove(Inject):
    """Equation (3)."""

    def terms(self, amounts: Amounts, rates: Rates) -> Iterator[tuple[str, float]]:
        yield from super().terms(amounts, rates)
        yield "remove", removal(amounts, rates)


class Transport(Remove):
    """Equation (4)."""

    def terms(self, amounts: Amounts, rates: Rates) -> Iterator[tuple[str, float]]:
        yield from super().terms(amounts, rates)
        yield "transport", transport(amounts, rates)


class Weighted(Cost):
    """Equation (5)."""

    def terms(self, amounts: Amounts, rates: Rates) -> Iterator[tuple[str, float]]:
        yield "download", rates.alpha * transfer(amounts, rates)
        yield "inject", rates.beta * injection(amounts, rates)
        yield "remove", rates.gamma * removal(amounts, rates)
        if rates.delta:
            yield "transport", rates.delta * transport(amounts, rates)


class Count(Cost):
    """Number of missing files."""

    unit = "files"

    def terms(self, amounts: Amounts, rates: Rates) -> Iterator[tuple[str, float]]:
        yield "missing", float(amounts.missing)


class Bytes(Cost):
    """Bytes of missing files."""

    unit = "bytes"

    def terms(self, amounts: Amounts, rates: Rates) -> Iterator[tuple[str, float]]:
        yield "missing", float(amounts.missing_bytes)
