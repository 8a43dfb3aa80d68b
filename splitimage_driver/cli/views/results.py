"""What an assembly or a launch has done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from splitimage_driver.cli.columns import (
    Amount,
    Column,
    Counted,
    Digest,
    Digests,
    Measured,
    Ports,
    Size,
    Words,
)
from splitimage_driver.cli.views.plans import unit
from splitimage_driver.cli.views.servers import State
from splitimage_driver.model.delivery import INJECT, STREAM

if TYPE_CHECKING:
    from splitimage_driver.model.plan import Plan
    from splitimage_driver.service import Assembled


def assembled(found: Plan, done: Assembled) -> dict[str, Any]:
    facts = done.facts
    return {
        "composite": found.request.composite, "request": Words(found.request.parts),
        "filesets": Digests(found.request.filesets), "parts": Words(found.parts),
        "match": found.estimate.match, "candidate": found.estimate.candidate.name,
        "predicted": Amount(found.estimate.cost, unit(found.estimate)),
        "fetched": Size(found.estimate.fetch_bytes),
        "injected": Size(found.estimate.inject_bytes if not found.exact else 0),
        "assembly": Amount(facts.get("assembly_seconds")),
        "image": done.image.name if done.image else "",
        "image id": done.image.id if done.image else "",
        "disk": Digest(done.disk), "measured": Measured(dict(facts)),
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
    Column("state", lambda r: State(r["server"]), long=True),
    Column("deliver", lambda r: STREAM if r["server"].layout else INJECT, long=True),
    Column("layout", lambda r: r["server"].layout.state if r["server"].layout else "", long=True),
    Column("composite", lambda r: r["plan"].request.composite, long=True),
    Column("request", lambda r: Words(r["plan"].request.parts), long=True),
    Column("filesets", lambda r: Digests(r["plan"].request.filesets), long=True),
    Column("parts", lambda r: Words(r["plan"].parts), long=True),
    Column("candidate id", lambda r: r["plan"].estimate.candidate.id, long=True),
    Column("predicted", lambda r: Amount(r["plan"].estimate.cost, unit(r["plan"].estimate)),
           long=True),
    Column("fetched", lambda r: Size(r["plan"].estimate.fetch_bytes), long=True),
    Column("image", lambda r: r["server"].image, long=True),
    Column("console", lambda r: f"{r['server'].directory}/console.log", long=True),
    Column("unknown paths", lambda r: Counted(r["unknown"]), long=True),
    Column("measured", lambda r: Measured(r["measured"]), long=True),
)
