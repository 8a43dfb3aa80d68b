"""Estimates of candidates, and which is the best."""

from __future__ import annotations

import itertools
import math
import time
import types

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model.candidate import BASE, COMPLETED, Candidate
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.plan import Estimate, Source, Target
from splitimage_driver.planning import nearest, weights
from splitimage_driver.planning.adaptive import Load
from splitimage_driver.planning.cost import Rates
from splitimage_driver.planning.weights import Host
from tests.unit.making import file, tree

RATES = Rates(bandwidth=100, inject_rate=50, inject_seconds=1, remove_seconds=0.25)


def candidate(name: str = "c", kind: str = COMPLETED, *, size: int = 1,
              fetch: int = 0) -> Candidate:
    return Candidate(id=name, name=name, kind=kind, disk="d", disk_size=size, virtual_size=1,
                     manifest="m", mounts=(), recipe="", fetch_bytes=fetch)


WANTED = tree(file("a", b"x" * 100), file("b", b"y" * 200))


def target(manifest: Manifest = WANTED, *, gone: str = "") -> Target:
    return Target(manifest=manifest, generated={}, sources={
        e.path: Source("blob " + e.path.decode(), e.path) for e in manifest
        if e.is_file and e.path != gone.encode()})


def estimate(there: Manifest, *, cost: str = "weighted", kind: str = COMPLETED, fetch: int = 0,
             gone: str = "", prepare: float = 4) -> Estimate:
    return nearest.estimate(
        candidate(kind=kind, fetch=fetch), there, target(gone=gone), cost=weights.equation(cost),
        rates=RATES, prepare=prepare,
        fetched=lambda blob: {"blob a": 1000, "blob b": 3000}[blob])[0]


A, B = WANTED.by_path[b"a"], WANTED.by_path[b"b"]
MORE = file("more", b"z" * 40)


@pytest.mark.parametrize(("there", "kind", "match"), [
    (WANTED, COMPLETED, "exact"), (WANTED, BASE, "exact"), (tree(), BASE, "base"),
    (tree(MORE), BASE, "base"), (tree(A), COMPLETED, "subset"),
    (tree(A, B, MORE), COMPLETED, "superset"), (tree(A, MORE), COMPLETED, "partial"),
])
def test_kinds_of_matches(there: Manifest, kind: str, match: str) -> None:
    assert estimate(there, kind=kind).match == match


def test_terms_in_seconds() -> None:
    """Missing: b, of 200 bytes; in excess: one file of 40."""
    found = estimate(tree(A, MORE), fetch=500)
    assert {t.name: t.value for t in found.terms} == pytest.approx({
        "download": 200 / 100, "inject": 1 + 200 / 50, "remove": 0.25,
        "fetch": (500 + 3000) / 100, "prepare": 4})
    assert found.cost == pytest.approx(2 + 5 + 0.25 + 35 + 4)
    assert (found.missing, found.missing_bytes, found.excess, found.excess_bytes) == (1, 200, 1,
                                                                                      40)
    assert (found.inject_bytes, found.fetch_bytes) == (200, 3500)


def test_distances_have_no_seconds_in_them() -> None:
    found = estimate(tree(A), cost="bytes", fetch=500)
    assert [(t.name, t.value, t.unit) for t in found.terms] == [("missing", 200.0, "bytes")]


def test_nothing_to_do_costs_only_what_is_fetched() -> None:
    assert estimate(WANTED).cost == 0
    assert estimate(WANTED, fetch=50).cost == pytest.approx(0.5)


def test_a_further_name_of_a_file_weighs_nothing() -> None:
    linked = tree(*(file(name, b"x" * 100, link="a") for name in "abc"))
    found, _ = nearest.estimate(candidate(), tree(), target(linked), cost=weights.equation("bytes"),
                                rates=RATES)
    assert (found.missing, found.missing_bytes, found.cost) == (3, 100, 100)


def test_what_cannot_be_had_is_refused_and_comes_last() -> None:
    found = estimate(tree(A), gone="b")
    assert found.cost == math.inf and "/b" in found.refused
    assert nearest.rank([found, estimate(tree())])[-1] is found
    assert estimate(tree(A, B), gone="b").refused == ""


def made(name: str, cost: float, match: str = "partial", missing: int = 0,
         size: int = 0) -> Estimate:
    return Estimate(candidate=candidate(name, size=size), match=match, cost=cost, terms=(),
                    missing=1, missing_bytes=missing, excess=0, inject_bytes=0, fetch_bytes=0)


RANKED = [made("exact", 9, "exact"), made("cheap", 1, missing=9, size=9),
          made("fewer", 2, missing=1, size=9), made("small", 2, missing=2, size=1),
          made("a", 2, missing=2, size=2), made("b", 2, missing=2, size=2),
          made("never", math.inf)]


def test_exact_then_cost_then_bytes_then_size_then_name() -> None:
    for order in itertools.islice(itertools.permutations(RANKED), 0, None, 37):
        assert nearest.rank(order) == RANKED


# -- where rates come from ----------------------------------------------------------------


def options(**changed: object) -> types.SimpleNamespace:
    return types.SimpleNamespace(**{
        "weights": "static", "bandwidth": 1.0, "inject_rate": None, "inject_seconds": 3.0,
        "remove_seconds": 4.0, "alpha": 5.0, "beta": 6.0, "gamma": 7.0, "delta": 8.0,
        "prepare_seconds": None, **changed})


@pytest.mark.parametrize(("emulate", "rate", "prepare"), [(False, 100e6, 4), (True, 15e6, 12)])
def test_what_was_measured_where_nothing_is_set(emulate: bool, rate: float,
                                                prepare: float) -> None:
    found = weights.chosen(options(), Host(emulate=emulate))
    assert found.rates == Rates(bandwidth=1, inject_rate=rate, inject_seconds=3,
                                remove_seconds=4, alpha=5, beta=6, gamma=7, delta=8)
    assert found.prepare == prepare


def test_options_are_taken_over() -> None:
    found = weights.chosen(options(inject_rate=9.0, prepare_seconds=0.0), Host(emulate=True))
    assert (found.rates.inject_rate, found.prepare) == (9.0, 0.0)


def assembly(seconds: float, **changed: object) -> dict[str, object]:
    """A record of 10 files with 100 bytes each injected at the usual rate."""
    return {"time": time.time(), "host_class": "here", "missing": 10, "excess": 0, "measured": {
        "injected_bytes": 1000, "inject_seconds": seconds,
        "assembly_seconds": seconds + 8.0}, **changed}


@pytest.mark.must_show("planning", 4)
def test_what_finished_assemblies_took_corrects_the_options() -> None:
    predicted = 10 * 3.0 + 1000 / 1e3
    host = Host(emulate=False, kind="here", history=lambda: [
        assembly(2 * predicted), assembly(7 * predicted, host_class="elsewhere"),
        assembly(2 * predicted)], load=lambda: Load(cpu=0.5, transfers=1))
    found = weights.chosen(options(weights="adaptive", inject_rate=1e3), host)
    # Twice the time, and half of the host is left.
    assert found.rates.inject_seconds == pytest.approx(12, rel=1e-3)
    assert found.rates.inject_rate == pytest.approx(250, rel=1e-3)
    assert found.rates.bandwidth == 0.5
    assert found.prepare == pytest.approx(16, rel=1e-3)
    told = {quantity.name: quantity for quantity in found.told}
    injecting = told["inject_seconds"]
    assert (injecting.configured, injecting.count, injecting.load) == (3.0, 2, 0.5)
    assert injecting.learnt == pytest.approx(2, rel=1e-3)
    assert injecting.time == pytest.approx(time.time(), abs=60)
    assert injecting.bounds[0] < 1 < injecting.bounds[1]
    assert (told["bandwidth"].count, told["bandwidth"].value) == (0, 0.5)
    assert weights.chosen(options(inject_rate=1e3), host).rates.inject_seconds == 3
    assert weights.chosen(options(), host, "adaptive").rates.inject_seconds > 3


def test_unknown_plugins() -> None:
    with pytest.raises(exceptions.PluginLoadFailed, match="no-such"):
        weights.equation("no-such")
    with pytest.raises(exceptions.PluginLoadFailed, match="no-such"):
        weights.chosen(options(weights="no-such"), Host(emulate=False))
