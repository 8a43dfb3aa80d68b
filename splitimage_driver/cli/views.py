"""Records as people and programs see them: which columns and fields there are."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cliff.columns import FormattableColumn

from splitimage_driver.cli.columns import (
    Amount,
    Column,
    Digest,
    Digests,
    Figure,
    Id,
    Lines,
    Listing,
    Moment,
    Pairs,
    Ports,
    Size,
    Words,
    some,
)
from splitimage_driver.model.delivery import INJECT, STREAM
from splitimage_driver.model.entry import text
from splitimage_driver.model.layout import FAILED, REMOVE

if TYPE_CHECKING:
    from splitimage_driver.model.candidate import Image
    from splitimage_driver.model.composite import Composite
    from splitimage_driver.model.layout import Layout
    from splitimage_driver.model.part import Part
    from splitimage_driver.model.plan import BatchStep, Estimate, Lost, Plan, Quantity
    from splitimage_driver.model.server import Server
    from splitimage_driver.servers import Wish
    from splitimage_driver.service import Assembled
    from splitimage_driver.store.base import Store

# -- composites --------------------------------------------------------------------

COMPOSITES = (
    Column("name", lambda c: c.name),
    Column("id", lambda c: c.id, long=True),
    Column("system", lambda c: c.system.name),
    Column("parts", lambda c: Words(c.visible())),
    Column("conflicts", lambda c: len(c.conflicts)),
    Column("base size", lambda c: Size(c.base.disk_size)),
    Column("public", lambda c: c.public, long=True),
    Column("owner", lambda c: c.owner, long=True),
    Column("created", lambda c: Moment(c.created), long=True),
)

_PARTS_OF = (
    Column("name", lambda p: p["name"]),
    Column("kind", lambda p: p["ref"].kind),
    Column("requires", lambda p: Words(p["ref"].requires)),
    Column("size", lambda p: Size(p["part"].size)),
    Column("files", lambda p: p["part"].files),
    Column("packages", lambda p: _Counted(p["part"].packages)),
    Column("stored size", lambda p: Size(p["part"].blob_size), long=True),
    Column("completes", lambda p: Words(p["ref"].completes), long=True),
    Column("id", lambda p: Digest(p["ref"].id), long=True),
)


class _Counted(Words):
    """A list that only programs get in full."""

    def human_readable(self) -> str:
        return str(len(self._value))


def composite(found: Composite, store: Store, *, hidden: bool = False) -> dict[str, Any]:
    """:param hidden: dependency parts too"""
    parts = [{"name": name, "ref": ref, "part": store.part(ref.id, owner=found.owner)}
             for name, ref in sorted(found.parts.items()) if hidden or not ref.hidden]
    left_out = len(found.parts) - len(parts)
    return {
        "name": found.name, "id": found.id, "system": found.system.name,
        "architecture": found.system.architecture, "packaging": found.system.packaging,
        "base": Digest(found.base.disk), "base size": Size(found.base.disk_size),
        "disk size": Size(found.base.virtual_size),
        "owner": found.owner, "public": found.public, "created": Moment(found.created),
        "dependency parts": sum(ref.hidden for ref in found.parts.values()),
        "notes": Lines(found.notes), "hardware": Pairs(found.hardware),
        "parts": Listing(
            f"parts ({left_out} dependency parts come along by themselves: --all)"
            if left_out else "parts", _PARTS_OF, parts),
        "conflicts": Listing(
            "conflicts (launches of these parts are refused until all are answered: "
            "conflict resolve)" if found.conflicts else "conflicts", CONFLICTS, conflicts(found)),
    }


# -- conflicts -----------------------------------------------------------------------

CONFLICTS = (
    Column("path", lambda c: text(c["path"])),
    Column("parts", lambda c: Words(c["parts"])),
    Column("reason", lambda c: c["reason"]),
    Column("answer", lambda c: c["answer"]),
)


def conflicts(found: Composite) -> list[dict[str, Any]]:
    """The open ones, then those that are answered."""
    still = [{"path": c.path, "parts": c.parts, "reason": c.reason, "answer": ""}
             for c in found.conflicts]
    return still + [{"path": a.path, "parts": a.parts, "reason": "",
                     "answer": f"{a.action} {a.part}".strip()} for a in found.answers]


# -- parts ---------------------------------------------------------------------------

PARTS = (
    Column("name", lambda p: p.name),
    Column("kind", lambda p: p.kind),
    Column("id", lambda p: Digest(p.id)),
    Column("size", lambda p: Size(p.size)),
    Column("stored size", lambda p: Size(p.blob_size)),
    Column("files", lambda p: p.files),
    Column("packages", lambda p: _Counted(p.packages), long=True),
    Column("blob", lambda p: Digest(p.blob), long=True),
    Column("public", lambda p: p.public, long=True),
    Column("owner", lambda p: p.owner, long=True),
    Column("created", lambda p: Moment(p.created), long=True),
)


def part(found: Part) -> dict[str, Any]:
    return {**{c.name: c.value(found) for c in PARTS}, "id": found.id, "blob": found.blob,
            "packages": Lines(found.packages)}


# -- completed images ------------------------------------------------------------------

class _Names:
    """Of the records' composites, looked up all together when one is shown:
    tables leave them out."""

    def __init__(self, records: Sequence[Any], store: Store) -> None:
        self._records, self._store = records, store

    @functools.cached_property
    def _found(self) -> Mapping[str, str]:
        return self._store.composite_names({r.composite for r in self._records})

    def __getitem__(self, composite: str) -> str:
        return self._found.get(composite, composite)


class _Named(NamedTuple):
    """A record that can name its composite."""

    record: Any
    names: _Names

    @property
    def composite(self) -> str:
        return self.names[self.record.composite]


def with_composites(records: Iterable[Any], store: Store) -> list[_Named]:
    records = list(records)
    names = _Names(records, store)
    return [_Named(r, names) for r in records]


IMAGES = (
    Column("name", lambda i: i.record.name),
    Column("id", lambda i: Id(i.record.id)),
    Column("size", lambda i: Size(i.record.disk_size)),
    Column("last used", lambda i: Moment(i.record.last_used)),
    Column("booted", lambda i: i.record.booted, long=True),
    Column("parts", lambda i: Words(i.record.parts), long=True),
    Column("filesets", lambda i: Digests(i.record.filesets), long=True),
    Column("composite", lambda i: i.composite, long=True),
    Column("disk", lambda i: Digest(i.record.disk), long=True),
    Column("disk size", lambda i: Size(i.record.virtual_size), long=True),
    Column("recipe", lambda i: Digest(i.record.recipe), long=True),
    Column("public", lambda i: i.record.public, long=True),
    Column("owner", lambda i: i.record.owner, long=True),
    Column("created", lambda i: Moment(i.record.created), long=True),
)


def image(found: Image, store: Store) -> dict[str, Any]:
    [named] = with_composites([found], store)
    return {**{c.name: c.value(named) for c in IMAGES}, "id": found.id, "disk": found.disk,
            "recipe": found.recipe}


# -- servers -----------------------------------------------------------------------------

def _state(found: Server) -> str:
    """What runs, and how far its layout is."""
    if found.layout is None or found.complete:
        return found.state
    return f"{found.state}, {_laying(found.layout)}"


def _laying(layout: Layout) -> str:
    if layout.state == FAILED:
        return "layout failed"
    return f"{'removing' if layout.mode == REMOVE else 'laying'} {layout.percent} %"


class _State(FormattableColumn[str]):
    """Programs get the server's own state alone: the layout's is a column."""

    def __init__(self, found: Server) -> None:
        super().__init__(found.state)
        self._shown = _state(found)

    def human_readable(self) -> str:
        return self._shown


SERVERS = (
    Column("name", lambda s: s.record.name),
    Column("id", lambda s: s.record.id),
    Column("state", lambda s: _State(s.record)),
    Column("ports", lambda s: Ports(s.record.ports)),
    Column("parts", lambda s: Words(s.record.parts)),
    Column("filesets", lambda s: Digests(s.record.filesets), long=True),
    Column("layout", lambda s: s.record.layout.state if s.record.layout else "", long=True),
    Column("laid percent", lambda s: s.record.layout.percent if s.record.layout else 100,
           long=True),
    Column("composite", lambda s: s.composite, long=True),
    Column("image", lambda s: Id(s.record.image), long=True),
    Column("disk", lambda s: Digest(s.record.disk), long=True),
    Column("pid", lambda s: s.record.pid, long=True),
    Column("directory", lambda s: s.record.directory, long=True),
    Column("owner", lambda s: s.record.owner, long=True),
    Column("created", lambda s: Moment(s.record.created), long=True),
)


def server(found: Server, store: Store) -> dict[str, Any]:
    [named] = with_composites([found], store)
    return {**{c.name: c.value(named) for c in SERVERS}, "image": found.image,
            **(layout(found.layout) if found.layout is not None else {})}


def layout(found: Layout) -> dict[str, Any]:
    """What a server lays, or has laid last."""
    more = found.kept_count - len(found.kept)
    return {
        "layout": "refused" if found.refused else found.state,
        "layout mode": found.mode,
        "laid percent": found.percent, "laid": Size(found.done), "to lay": Size(found.size),
        "layout parts": Words(found.parts), "layout filesets": Digests(found.filesets),
        "failed": Pairs(dict(found.failed)),
        "kept": Lines([*found.kept, *([f"and {more} more"] if more > 0 else [])])}


# -- plans ---------------------------------------------------------------------------------

def _terms(estimate: Estimate) -> Pairs:
    return _Terms({t.name: {"value": t.value, "unit": t.unit} for t in estimate.terms})


class _Terms(Pairs):
    def human_readable(self) -> str:
        return "\n".join(f"{name} {Amount(term['value'], term['unit']).human_readable()}"
                         for name, term in self._value.items())


def _unit(estimate: Estimate) -> str:
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
    Column("cost", lambda e: Amount(e["estimate"].cost, _unit(e["estimate"]))),
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
        "cost": Amount(best.cost, _unit(best)), "terms": _terms(best),
        "missing": _Files(best.missing, best.missing_bytes),
        "excess": _Files(best.excess, best.excess_bytes),
        "inject": Size(best.inject_bytes), "fetch": Size(best.fetch_bytes),
        "recipe": Digest(found.recipe),
    }


# -- what was done ---------------------------------------------------------------------------

class _Measured(Pairs):
    """Facts by name: ``..._bytes`` and ``..._seconds`` say their unit."""

    def human_readable(self) -> str:
        return "\n".join(f"{name.rpartition('_')[0] or name}: {_with_unit(name, value)}"
                         for name, value in self._value.items())


def _with_unit(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return Size(int(value)).human_readable()
    return Amount(value, "s" if name.endswith("_seconds") else "").human_readable().strip()


def assembled(found: Plan, done: Assembled) -> dict[str, Any]:
    facts = done.facts
    return {
        "composite": found.request.composite, "request": Words(found.request.parts),
        "filesets": Digests(found.request.filesets), "parts": Words(found.parts),
        "match": found.estimate.match, "candidate": found.estimate.candidate.name,
        "predicted": Amount(found.estimate.cost, _unit(found.estimate)),
        "fetched": Size(found.estimate.fetch_bytes),
        "injected": Size(found.estimate.inject_bytes if not found.exact else 0),
        "assembly": Amount(facts.get("assembly_seconds")),
        "image": done.image.name if done.image else "",
        "image id": done.image.id if done.image else "",
        "disk": Digest(done.disk), "measured": _Measured(dict(facts)),
    }


LAUNCHED: tuple[Column, ...] = (
    Column("name", lambda r: r["server"].name),
    Column("ports", lambda r: Ports(r["server"].ports)),
    Column("match", lambda r: r["plan"].estimate.match),
    Column("candidate", lambda r: r["plan"].estimate.candidate.name),
    Column("injected", lambda r: Size(r["plan"].estimate.inject_bytes
                                      if r["server"].layout is None else 0)),
    Column("assembly", lambda r: Amount(r["measured"].get("assembly_seconds"))),
    Column("answered", lambda r: Amount(r["measured"].get("answer_seconds"))),
    Column("id", lambda r: r["server"].id, long=True),
    Column("state", lambda r: _State(r["server"]), long=True),
    Column("deliver", lambda r: STREAM if r["server"].layout else INJECT, long=True),
    Column("layout", lambda r: r["server"].layout.state if r["server"].layout else "", long=True),
    Column("composite", lambda r: r["plan"].request.composite, long=True),
    Column("request", lambda r: Words(r["plan"].request.parts), long=True),
    Column("filesets", lambda r: Digests(r["plan"].request.filesets), long=True),
    Column("parts", lambda r: Words(r["plan"].parts), long=True),
    Column("candidate id", lambda r: r["plan"].estimate.candidate.id, long=True),
    Column("predicted", lambda r: Amount(r["plan"].estimate.cost, _unit(r["plan"].estimate)),
           long=True),
    Column("fetched", lambda r: Size(r["plan"].estimate.fetch_bytes), long=True),
    Column("image", lambda r: r["server"].image, long=True),
    Column("console", lambda r: f"{r['server'].directory}/console.log", long=True),
    Column("unknown paths", lambda r: _Counted(r["unknown"]), long=True),
    Column("measured", lambda r: _Measured(r["measured"]), long=True),
)

BATCH = (
    Column("request", lambda r: r["title"]),
    Column("from", lambda r: r["source"]),
    Column("deliver", lambda r: r["deliver"]),
    Column("match", lambda r: r["estimate"].match),
    Column("cost", lambda r: Amount(r["estimate"].cost, _unit(r["estimate"]))),
    Column("alone", lambda r: Amount(r["plan"].estimate.cost, _unit(r["plan"].estimate))),
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
    Column("cost", lambda p: Amount(p.estimate.cost, _unit(p.estimate))),
    Column("missing", lambda p: _Files(p.estimate.missing, p.estimate.missing_bytes)),
    Column("excess", lambda p: _Files(p.estimate.excess, p.estimate.excess_bytes)),
    *(Column(name, functools.partial(lambda key, p: plan(p)[key], name), long=True)
      for name in ("filesets", "parts", "candidate id", "equation", "terms", "inject", "fetch",
                   "recipe")),
)


# -- rates and what was predicted ----------------------------------------------------------

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
    Column("terms", lambda r: _Measured(r["terms"]), long=True),
    Column("facts", lambda r: _Measured(r["measured"]), long=True),
)


def history(found: Sequence[Mapping[str, Any]]) -> Listing:
    return Listing("launches, the newest first", HISTORY, found)


def _ratio(measured: float | None, predicted: float | None) -> float | None:
    return measured / predicted if measured and predicted else None
