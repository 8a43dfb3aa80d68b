"""``plan --catalog``: planning on files, without a store."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitimage_driver import exceptions
from splitimage_driver.cli.arguments import seconds, whole
from splitimage_driver.cli.columns import Amount, Column, Listing, Words, some
from splitimage_driver.cli.views.plans import lost

if TYPE_CHECKING:
    from splitimage_driver.model.catalog import FileSet
    from splitimage_driver.planning.difference import Pricing, Stored, Wanted

_RATES = ("bandwidth", "inject_rate", "inject_seconds", "remove_seconds", "alpha", "beta",
          "gamma", "delta")
_DEFAULT_EQUATION = "weighted"
#: With --explain.
TOP = 5


def rate(text: str) -> float:
    """Bytes a second: finite, above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate in bytes a second")
    return value


def factor(text: str) -> float:
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a weight, 0 or more")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("planning on files, without a store")
    group.add_argument("--catalog", type=Path, metavar="CATALOG.json",
                       help="the images that there are")
    group.add_argument("--requests", type=Path, metavar="REQUESTS.json",
                       help="what is asked for")
    group.add_argument("--batch", action="store_true",
                       help="the cheapest order for all of them: each image is made from a "
                            "stored one or from another of the batch")
    group.add_argument("--shared", action="store_true",
                       help="with --batch: also make images that nobody asked for where "
                            "several requests share them and it pays")
    group.add_argument("--top", type=whole(1), metavar="K",
                       help=f"with --explain: candidates to tell about (default: {TOP})")
    group.add_argument("--bandwidth", type=rate, metavar="BYTES/S",
                       help="of the network (default: 200e6)")
    group.add_argument("--inject-rate", type=rate, metavar="BYTES/S",
                       help="of the injection into a disk (default: 100e6)")
    group.add_argument("--inject-seconds", type=seconds, metavar="S",
                       help="to inject one file, besides its bytes (default: 0.001)")
    group.add_argument("--remove-seconds", type=seconds, metavar="S",
                       help="to remove one file (default: 0.0005)")
    group.add_argument("--publish-seconds", type=seconds, metavar="S",
                       help="with --batch: to publish each image that is made (default: 0)")
    for name, what in (("alpha", "the transfer"), ("beta", "the injection"),
                       ("gamma", "the removal"), ("delta", "the transport of files in excess")):
        group.add_argument(f"--{name}", type=factor, metavar="WEIGHT",
                           help=f"of {what}, in the equation weighted "
                                f"(default: {0 if name == 'delta' else 1})")


def check(parsed: argparse.Namespace, parser: argparse.ArgumentParser) -> bool:
    """Whether planning on files is asked for; what goes with it and what
    does not."""
    if parsed.top and not parsed.explain:
        parser.error("--top goes with --explain")
    if parsed.limit and not parsed.history:
        parser.error("--limit goes with --history")
    if parsed.history and (parsed.catalog or parsed.composite or parsed.explain):
        parser.error("--history goes with no COMPOSITE, --explain or --catalog")
    if parsed.catalog is None:
        needless = [name for name in ("requests", "batch", "shared", "publish_seconds",
                                      *_RATES) if getattr(parsed, name) not in (None, False)]
        if needless:
            parser.error(f"--{needless[0].replace('_', '-')} goes with --catalog")
        if parsed.composite is None and not parsed.history:
            parser.error("name a COMPOSITE, or give --history, or --catalog and --requests")
        return False
    if parsed.requests is None:
        parser.error("--catalog needs --requests")
    if parsed.composite is not None or parsed.parts or parsed.filesets or parsed.answers:
        parser.error("with --catalog all that is asked for stands in the file of --requests")
    if not parsed.batch and (parsed.shared or parsed.publish_seconds is not None):
        parser.error("--shared and --publish-seconds go with --batch")
    if parsed.batch and parsed.explain:
        parser.error("--explain does not go with --batch")
    return True


def fields(parsed: argparse.Namespace) -> Mapping[str, Any]:
    """:raises InvalidInput: :raises NothingToCompose:"""
    from splitimage_driver.planning import batch, steiner
    from splitimage_driver.planning.offline import Planner, answer, explained
    images, requests, parts = _read(parsed)
    planner = Planner(images, _pricing(parsed), expected=len(requests), parts=parts)
    if parsed.batch:
        if parsed.shared:
            found = steiner.plan(requests, planner)
            return {"total": Amount(found.total), "lower bound": Amount(found.lower_bound),
                    "steps": _steps(found.told()["steps"])}
        whole_batch = batch.plan(requests, planner)
        return {"total": Amount(whole_batch.total), "steps": _steps(whole_batch.told()["steps"])}
    if parsed.explain:
        top = parsed.top or TOP
        plans = [explained(r, planner.nearest(r, top)) for r in requests]
    else:
        plans = [answer(r, planner.nearest(r)) for r in requests]
    return {"plans": _plans(plans)}


def _read(parsed: argparse.Namespace,
          ) -> tuple[list[Stored], list[Wanted], Mapping[str, FileSet]]:
    from splitimage_driver.planning import catalog
    of_images, of_requests = f"catalog {parsed.catalog}", f"requests {parsed.requests}"
    stored = catalog.read_catalog(_bytes(parsed.catalog, of_images), of_images)
    wanted = catalog.read_requests(_bytes(parsed.requests, of_requests), of_requests)
    known = catalog.Library(stored.parts, of_images)
    images = known.images(stored.images)
    all_parts = catalog.Library(wanted.parts, of_requests, known=known)
    return images, all_parts.requests(wanted.requests), all_parts.parts


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise exceptions.InvalidInput(what=what, reason=error.strerror or str(error)) from error


def _pricing(parsed: argparse.Namespace) -> Pricing:
    from splitimage_driver.planning.cost import Rates
    from splitimage_driver.planning.difference import Pricing
    given = {name: getattr(parsed, name) for name in _RATES if getattr(parsed, name) is not None}
    return Pricing.of(parsed.cost or _DEFAULT_EQUATION, Rates(**given),
                      publish=parsed.publish_seconds or 0.0)


class _Cost(Amount):
    """Its total for people, all terms for programs."""

    def __init__(self, cost: Mapping[str, float] | None) -> None:
        super().__init__(cost["total"] if cost else None)
        self.terms = cost

    def machine_readable(self) -> Any:
        return self.terms


class _Few(Words):
    def human_readable(self) -> str:
        return some(self._value)


class _Considered(_Few):
    def human_readable(self) -> str:
        return "\n".join(f"{each['image']} ({_Cost(each['cost']).human_readable()}): "
                         f"{lost(each['lost'])}" for each in self._value)


def _plans(plans: Sequence[Mapping[str, Any]]) -> Listing:
    columns = [Column("request", lambda p: p["request"]), Column("match", lambda p: p["match"]),
               Column("image", lambda p: p["image"]), Column("cost", lambda p: _Cost(p["cost"])),
               Column("missing", lambda p: _Few(p["missing"])),
               Column("excess", lambda p: _Few(p["excess"]))]
    if any("considered" in p for p in plans):
        columns.append(Column("considered", lambda p: _Considered(p.get("considered", ()))))
    return Listing("plans", columns, plans)


class _Steps(Listing):
    """Programs get only what a step has."""

    def machine_readable(self) -> Any:
        return list(self.records)


def _steps(steps: Sequence[Mapping[str, Any]]) -> Listing:
    return _Steps("steps", (
        Column("image", lambda s: s["request"] if "request" in s else f"shared:{s['shared']}"),
        Column("from", lambda s: s["from"]), Column("cost", lambda s: Amount(s["cost"]))), steps)
