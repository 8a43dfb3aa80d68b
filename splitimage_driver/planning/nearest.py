"""The stored image that is cheapest to complete."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import msgspec

from splitimage_driver.model.candidate import BASE, Candidate
from splitimage_driver.model.entry import text
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.plan import Estimate, Target, Term, Work
from splitimage_driver.planning.cost import Amounts, Cost, Rates, total
from splitimage_driver.planning.difference import settled


def estimate(candidate: Candidate, tree: Manifest, target: Target, *, cost: Cost, rates: Rates,
             prepare: float = 0.0, fetched: Callable[[str], int] = lambda blob: 0,
             ) -> tuple[Estimate, Work]:
    """What it takes to turn ``candidate`` into ``target``.

    :param tree: the candidate's manifest
    :param prepare: seconds that any assembly takes
    :param fetched: bytes of a blob that are not on this host yet
    """
    work = Work(tree, target.manifest, target.sources, target.generated)
    # Bytes are those that travel: a further name of a file has none.
    amounts = msgspec.structs.replace(Amounts.of(work.missing, work.excess),
                                      missing_bytes=work.inject_bytes)
    blobs = {work.sources[e.path].blob for e in work.contents if e.path in work.sources}
    fetch = candidate.fetch_bytes + sum(fetched(blob) for blob in sorted(blobs))
    summands = terms(amounts, fetch, cost=cost, rates=rates, prepare=prepare)
    refused = ""
    if work.unobtainable:
        refused = f"the content of {text(work.unobtainable[0])} cannot be had"
    return Estimate(
        candidate=candidate, match=_match(candidate, amounts),
        cost=math.inf if refused else total(summands), terms=summands,
        missing=amounts.missing, missing_bytes=amounts.missing_bytes, excess=amounts.excess,
        excess_bytes=amounts.excess_bytes,
        inject_bytes=work.inject_bytes, fetch_bytes=fetch, refused=refused), work


def terms(amounts: Amounts, fetch: int, *, cost: Cost, rates: Rates,
          prepare: float = 0.0) -> tuple[Term, ...]:
    """Of a cost, what any assembly takes included.

    :param fetch: bytes
    """
    found = list(cost(amounts, rates))
    if cost.unit == "s":
        found.append(Term("fetch", fetch / rates.bandwidth))
        if amounts.missing or amounts.excess:
            found.append(Term("prepare", prepare))
    return tuple(found)


def _match(candidate: Candidate, amounts: Amounts) -> str:
    if not amounts.missing and not amounts.excess:
        return "exact"
    if candidate.kind == BASE:
        return "base"
    if not amounts.excess:
        return "subset"
    return "partial" if amounts.missing else "superset"


def order(found: Estimate) -> tuple[bool, float, int, int, str]:
    """The best first: an exact match, then the cost; ties go to fewer missing
    bytes, then to the smaller image, then to the lower id."""
    return (found.match != "exact", settled(found.cost), found.missing_bytes,
            found.candidate.disk_size, found.candidate.id)


def rank(estimates: Iterable[Estimate]) -> list[Estimate]:
    return sorted(estimates, key=order)
