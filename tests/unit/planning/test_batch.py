"""Batches: the total against networkx, the steps against what they claim."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import networkx
import pytest

from splitimage_driver import exceptions
from splitimage_driver.planning import batch, steiner
from splitimage_driver.planning.batch import Batch
from splitimage_driver.planning.cost import Rates
from splitimage_driver.planning.difference import Comparison, Pricing, Stored, Wanted
from splitimage_driver.planning.offline import Planner
from tests.unit.planning import catalogs
from tests.unit.planning.catalogs import EQUATION_NAMES, Document, Slow

pytestmark = pytest.mark.must_show("planning", 2)


def problem(seed: int, most: int) -> tuple[list[Stored], list[Wanted], Pricing, float]:
    """With the least total by networkx over costs computed the slow way."""
    rng = random.Random(seed)
    stored, wanted = catalogs.documents(rng, images=8, files=30,
                                        requests=rng.randint(1, most))
    stored["images"] += [{"id": f"base-{os}", "os": os, "files": []}
                         for os in ("debian", "rocky")]
    rates, equation = catalogs.rates(rng), EQUATION_NAMES[seed % 5]
    publish = rng.choice((0.0, rng.uniform(0, 5)))
    slow = Slow(stored, equation, rates)
    graph = networkx.DiGraph()

    def arc(source: object, target: str, image: Document, request: Document) -> None:
        if image["os"] != request["os"]:
            return
        weight = slow.cost(image, request)[0]
        if slow.match(image, request) != "exact":
            weight += Fraction(publish)
        before = graph.get_edge_data(source, target)
        if before is None or weight < before["weight"]:
            graph.add_edge(source, target, weight=weight)

    for request in wanted["requests"]:
        for image in stored["images"]:
            arc(0, request["id"], image, request)
        for other in wanted["requests"]:
            if other is not request:
                arc(other["id"], request["id"], other, request)
    tree = networkx.minimum_spanning_arborescence(graph)
    total = sum(data["weight"] for _, _, data in tree.edges(data=True))
    images, requests = catalogs.resolved(stored, wanted)
    return images, requests, Pricing.of(equation, rates, publish=publish), float(total)


def check(found: Batch, images: list[Stored], requests: list[Wanted], pricing: Pricing) -> None:
    """Each step is possible when it comes, and costs what it says."""
    there = {f"image:{image.id}": image for image in images}
    for step in found.steps:
        done = Comparison.of(there[step.source], step.wanted, pricing)
        cost = done.cost if done.match == "exact" else done.cost + pricing.publish
        if not step.source.startswith("image:"):
            cost -= done.fetch
        assert step.cost == pytest.approx(cost, rel=1e-11, abs=1e-12)
        name = "shared" if step.shared else "request"
        there[f"{name}:{step.wanted.id}"] = step.wanted.stored()
    assert sorted(s.wanted.id for s in found.steps if not s.shared) == sorted(
        r.id for r in requests)
    assert found.total == pytest.approx(math.fsum(s.cost for s in found.steps))


@pytest.mark.parametrize("seed", range(120))
def test_the_total_is_the_least_there_is(seed: int) -> None:
    images, requests, pricing, total = problem(seed, 60 if seed % 20 == 0 else 12)
    found = batch.plan(requests, Planner(images, pricing))
    check(found, images, requests, pricing)
    assert found.total == pytest.approx(total, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("seed", range(120))
def test_shared_images_never_cost_more_and_never_less_than_the_bound(seed: int) -> None:
    images, requests, pricing, total = problem(seed, 10)
    found = steiner.plan(requests, Planner(images, pricing))
    check(found, images, requests, pricing)
    assert found.total <= total * (1 + 1e-10) + 1e-12
    assert found.lower_bound <= found.total
    assert 0 <= steiner.bound(requests, Planner(images, pricing)) <= found.total * (1 + 1e-10)


def files(*names: str) -> list[Document]:
    return [{"path": n, "size": 10**8, "digest": "d"} for n in names]


def planner_and_requests(*trees: str, images: tuple[str, ...] = ("",),
                         publish: float = 0.0) -> tuple[Planner, list[Wanted]]:
    stored, wanted = catalogs.resolved(
        {"images": [{"id": f"i{n}", "os": "debian", "files": files(*tree)}
                    for n, tree in enumerate(images)]},
        {"requests": [{"id": f"r{n}", "os": "debian", "files": files(*tree)}
                      for n, tree in enumerate(trees)]})
    return Planner(stored, Pricing.of("remove", Rates(), publish=publish)), wanted


def test_an_image_that_several_share_is_made_where_it_pays() -> None:
    planner, requests = planner_and_requests("abcdeX", "abcdeY", "abcdeZ")
    plain = batch.plan(requests, planner)
    found = steiner.plan(requests, planner)
    # Removing one file is cheap, so the shared image saves just that; with
    # what is dear to remove it would be more.
    assert found.total < plain.total
    assert found.told()["steps"][0]["shared"] == "1"
    assert found.told()["steps"][0]["files"] == ["a", "b", "c", "d", "e"]
    assert found.lower_bound == pytest.approx(found.total)  # so it is the best
    dear, requests = planner_and_requests("abcdeX", "abcdeY", "abcdeZ", publish=1.0)
    assert [s.shared for s in steiner.plan(requests, dear).steps] == [False] * 3


def test_an_equal_request_is_made_once() -> None:
    planner, requests = planner_and_requests("ab", "abc", "ab", "ab", publish=2.0)
    told = batch.plan(requests, planner).told()["steps"]
    assert [(s["request"], s["from"]) for s in told] == [
        ("r0", "image:i0"), ("r2", "request:r0"), ("r3", "request:r0"), ("r1", "request:r0")]
    assert [s["cost"] for s in told][1:3] == [0, 0]
    assert told[0]["cost"] == pytest.approx(2 + 2 * (1.5 + 0.001))


def test_what_is_stored_is_neither_made_nor_published() -> None:
    planner, requests = planner_and_requests("ab", "abc", images=("", "ab"), publish=2.0)
    told = batch.plan(requests, planner).told()
    assert told["steps"][0] == {"request": "r0", "from": "image:i1", "cost": 0}
    assert told["total"] == pytest.approx(2 + 1.501)


def test_without_an_image_of_its_system_a_request_cannot_be_made() -> None:
    planner, requests = planner_and_requests("a", images=())
    with pytest.raises(exceptions.NothingToCompose, match=r"request r0: .* debian"):
        batch.plan(requests, planner)
    assert batch.plan([], planner).told() == {"total": 0.0, "steps": []}
