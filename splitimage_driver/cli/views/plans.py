"""Plans: of one request, of a batch, and what they go by."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from splitimage_driver.cli.columns import (
    Amount,
    Column,
    Digest,
    Digests,
    Figure,
    Listing,
    Measured,
    Moment,
    Pairs,
    Size,
    Words,
    some,
)
from splitimage_driver.model.delivery import INJECT, STREAM

if TYPE_CHECKING:
    from splitimage_driver.model.plan import BatchStep, Estimate, Lost, Plan, Quantity
    from splitimage_driver.servers import Wish


def _terms(estimate: Estimate) -> Pairs:
    return _Terms({t.name: {"value": t.value, "unit": t.unit} for t in estimate.terms})


class _Terms(Pairs):
    def human_readable(self) -> str:
        return "\n".join(f"{name} {Amount(term['value'], term['unit']).human_readable()}"
                         for name, term in self._value.items())


def unit(estimate: Estimate) -> str:
    return estimate.terms[0].unit if estimate.terms else "s"


class _Files(Pairs):
    """How many files with how many bytes."""

    def __init__(self, files: int, size: int) -> None:
        super().__init__({"files": files, "bytes": size})

    def human_readable(self) -> str:
        files = self._value["files"]
        unit = "file" if files == 1 else "files"
        return (f"{files} {unit}\n{Size(self._value['bytes']).human_readable()}"
                if files else "")


class _Lost(Pairs):
    """The term and the files that made a candidate lose."""

    def __init__(self, lost: Lost | None) -> None:
        super().__init__(lost.told() if lost else {})

    def human_readable(self) -> str:
        return lost(self._value) if self._value else ""


def lost(told: Mapping[str, Any]) -> str:
    if told.get("reason"):
        return str(told["reason"])
    by = f"{told['term']} +{Amount(told['seconds'], told.get('unit', 's')).human_readable()}"
    if not told["files"]:
        return by
    more = f" and {told['more']} more" if told["more"] else ""
    return f"{by}\n{some(told['files'])}{more}"


CONSIDERED = (
    Column("candidate", lambda e: e["estimate"].candidate.name),
    Column("match", lambda e: e["estimate"].match),
    Column("cost", lambda e: Amount(e["estimate"].cost, unit(e["estimate"]))),
    Column("terms", lambda e: _terms(e["estimate"])),
    Column("missing", lambda e: _Files(e["estimate"].missing, e["estimate"].missing_bytes)),
    Column("excess", lambda e: _Files(e["estimate"].excess, e["estimate"].excess_bytes)),
    Column("lost by", lambda e: _Lost(e["estimate"].lost)),
    Column("rank", lambda e: e["rank"], long=True),
    Column("inject", lambda e: Size(e["estimate"].inject_bytes), long=True),
    Column("fetch", lambda e: Size(e["estimate"].fetch_bytes), long=True),
    Column("refused", lambda e: e["estimate"].refused, long=True),
    Column("kind", lambda e: e["estimate"].candidate.kind, long=True),
    Column("id", lambda e: e["estimate"].candidate.id, long=True),
    Column("disk", lambda e: Digest(e["estimate"].candidate.disk), long=True),
)


def considered(plan: Plan) -> Listing:
    """Every candidate, the best first; why one was refused is a column only
    where one was."""
    refused = any(e.refused for e in plan.considered)
    columns = [c._replace(long=False) if refused and c.name == "refused" else c
               for c in CONSIDERED]
    return Listing("candidates, the best first", columns,
                   [{"rank": rank, "estimate": e} for rank, e in enumerate(plan.considered, 1)])


def plan(found: Plan) -> dict[str, Any]:
    best = found.estimate
    return {
        "composite": found.request.composite, "request": Words(found.request.parts),
        "filesets": Digests(found.request.filesets), "parts": Words(found.parts),
        "match": best.match, "candidate": best.candidate.name,
        "candidate id": best.candidate.id, "equation": found.equation,
        "cost": Amount(best.cost, unit(best)), "terms": _terms(best),
        "missing": _Files(best.missing, best.missing_bytes),
        "excess": _Files(best.excess, best.excess_bytes),
        "inject": Size(best.inject_bytes), "fetch": Size(best.fetch_bytes),
        "recipe": Digest(found.recipe),
    }


BATCH = (
    Column("request", lambda r: r["title"]),
    Column("from", lambda r: r["source"]),
    Column("deliver", lambda r: r["deliver"]),
    Column("match", lambda r: r["estimate"].match),
    Column("cost", lambda r: Amount(r["estimate"].cost, unit(r["estimate"]))),
    Column("alone", lambda r: Amount(r["plan"].estimate.cost, unit(r["plan"].estimate))),
    Column("inject", lambda r: Size(r["estimate"].inject_bytes)),
    Column("missing", lambda r: _Files(r["estimate"].missing, r["estimate"].missing_bytes),
           long=True),
    Column("excess", lambda r: _Files(r["estimate"].excess, r["estimate"].excess_bytes),
           long=True),
    Column("requests", lambda r: Words([str(number) for number in r["requests"]]), long=True),
    Column("recipe", lambda r: Digest(r["plan"].recipe), long=True),
)


def batch(steps: Iterable[BatchStep], wishes: Sequence[Wish]) -> list[dict[str, Any]]:
    """In an order that can be executed."""
    def title(number: int) -> str:
        wish = wishes[number]
        return wish.name or "+".join((wish.request.composite, *wish.request.parts))

    def row(step: BatchStep) -> dict[str, Any]:
        first = step.requests[0]
        return {"title": title(first), "plan": step.plan, "estimate": step.estimate,
                "requests": step.requests,
                "deliver": STREAM if wishes[first].deliver == STREAM else INJECT,
                "source": step.estimate.candidate.name if step.source is None
                else f"request {step.source + 1}: {title(step.source)}"}

    return [row(step) for step in steps]


PLANNED = (
    Column("composite", lambda p: p.request.composite),
    Column("request", lambda p: Words(p.request.parts)),
    Column("match", lambda p: p.estimate.match),
    Column("candidate", lambda p: p.estimate.candidate.name),
    Column("cost", lambda p: Amount(p.estimate.cost, unit(p.estimate))),
    Column("missing", lambda p: _Files(p.estimate.missing, p.estimate.missing_bytes)),
    Column("excess", lambda p: _Files(p.estimate.excess, p.estimate.excess_bytes)),
    *(Column(name, functools.partial(lambda key, p: plan(p)[key], name), long=True)
      for name in ("filesets", "parts", "candidate id", "equation", "terms", "inject", "fetch",
                   "recipe")),
)


QUANTITIES = (
    Column("name", lambda q: q.name),
    Column("unit", lambda q: q.unit),
    Column("configured", lambda q: Figure(q.configured)),
    Column("learnt", lambda q: Figure(q.learnt if q.count else None, "{:.3g} x the time")),
    Column("load", lambda q: Figure(q.load, "{:.0%} left")),
    Column("used", lambda q: Figure(q.value)),
    Column("measurements", lambda q: q.count),
    Column("last", lambda q: Moment(q.time) if q.count else ""),
    Column("lowest", lambda q: Figure(q.bounds[0]), long=True),
    Column("highest", lambda q: Figure(q.bounds[1]), long=True),
)


def rates(found: Sequence[Quantity]) -> Listing:
    return Listing("rates", QUANTITIES, found)


HISTORY = (
    Column("time", lambda r: Moment(r["time"])),
    Column("request", lambda r: "+".join((r["composite"], *r["request"]))),
    Column("match", lambda r: r["match"]),
    Column("candidate", lambda r: r["candidate_name"]),
    Column("predicted", lambda r: Amount(r["cost"])),
    Column("measured", lambda r: Amount(r["measured"].get("assembly_seconds"))),
    Column("ratio", lambda r: Figure(_ratio(r["measured"].get("assembly_seconds"), r["cost"]),
                                     "{:.2f}")),
    Column("injected", lambda r: Size(r["inject_bytes"])),
    Column("equation", lambda r: r["equation"], long=True),
    Column("terms", lambda r: Measured(r["terms"]), long=True),
    Column("facts", lambda r: Measured(r["measured"]), long=True),
)


def history(found: Sequence[Mapping[str, Any]]) -> Listing:
    return Listing("launches, the newest first", HISTORY, found)


def _ratio(measured: float | None, predicted: float | None) -> float | None:
    return measured / predicted if measured and predicted else None
