"""Plans and exact matches in a real Glance with 500 composites and 5,000
completed images.

``SPLITIMAGE_BENCHMARK_COMPLETED`` sets how many there are (5000); a tenth as
many composites. They are made and removed through the API, which takes minutes.
Seconds are those of the client: with its connection, the check of its token, and
whatever else runs on the machine. A plain request for an image is told beside.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from splitimage_driver.store.glance.api import ACTIVE, Description, Images
from splitimage_driver.store.glance.http import HttpTransport
from tests.benchmarks.results import Results
from tests.cloud import glance
from tests.stocked import LAMP, Stock, digest

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud

pytest_plugins = ("tests.functional.cloud",)
pytestmark = pytest.mark.must_show("glance", 4)

COMPLETED = int(os.environ.get("SPLITIMAGE_BENCHMARK_COMPLETED", "5000"))
COMPOSITES = COMPLETED // 10
#: Of one composite alone.
MANY = COMPLETED // 10
ROUNDS, BOUND, CURRENT = 300, 0.100, 2.0
#: Clients that store side by side.
_CLIENTS = 8
Note = Callable[[str, object], None]
PLAN, EXACT, PLAIN = "plan by the filter", "exact match by a list call", "plain GET of an image"


def choice(chance: random.Random) -> list[str]:
    """Parts of a request, with what they require."""
    named = chance.sample(["apache", "mysql", "php"], chance.randrange(1, 4))
    return sorted({*named, *(each for name in named for each in LAMP[name].requires)})


class Bench:
    """:ivar composites: of alpha's and public ones; the first has very many images
    :ivar images: of alpha's: id and recipe
    """

    def __init__(self, cloud: TestCloud) -> None:
        self.cloud = cloud
        self.alpha, self.beta, self.admin = (
            Stock(Images(HttpTransport(connection, 300.0)))
            for connection in (cloud.alpha, cloud.beta, cloud.admin))
        self.chance = random.Random(4)
        self.composites: list[Description] = []

    def fill(self) -> None:
        """One composite in five is public; of an image in five somebody else is
        the owner."""
        self.composites = each_of(COMPOSITES, lambda number: (
            self.alpha.composite(f"c{number}") if number % 5 else
            self.admin.composite(f"c{number}", visibility="public")))
        wanted = []
        for number in range(COMPLETED):
            composite = self.composites[0 if number < MANY else
                                        self.chance.randrange(COMPOSITES)]
            stock = self.beta if number % 5 == 0 else self.alpha
            # Of one composite most are other editions: a project has not many
            # that are the same.
            recipe = digest() if self.chance.random() < 0.7 else None
            wanted.append((stock, composite, choice(self.chance), recipe))
        each_of(COMPLETED, lambda number: wanted[number][0].completed(
            *wanted[number][1:3], wanted=wanted[number][3]))

    def plan(self, api: int = 1, **request: Any) -> Any:
        answer = self.cloud.alpha.session.post(
            self.cloud.service(glance.name(api)).url + "/v2/splitimage/plan", json=request)
        return answer.json()

    def exact(self, composite: str, recipe: str) -> list[Description]:
        """The one list call of a client."""
        return list(self.alpha.images.list(
            hidden=True, owner=self.alpha.project, status=ACTIVE, splitimage_role="completed",
            splitimage_composite=composite, splitimage_recipe=recipe))

    def clear(self) -> None:
        for stock in (self.alpha, self.beta, self.admin):
            stock.clear()


def each_of(count: int, work: Callable[[int], Any]) -> list[Any]:
    with concurrent.futures.ThreadPoolExecutor(_CLIENTS) as pool:
        return list(pool.map(work, range(count)))


def timed(work: Callable[..., Any], *words: Any, **more: Any) -> float:
    began = time.perf_counter()
    work(*words, **more)
    return time.perf_counter() - began


def told(seconds: Iterable[float]) -> str:
    """Median and 99th percentile."""
    found = sorted(seconds)
    return (f"{statistics.median(found) * 1e3:.0f} ms, "
            f"{found[int(0.99 * (len(found) - 1))] * 1e3:.0f} ms at the 99th percentile")


@pytest.fixture(scope="module")
def bench(cloud: TestCloud, results: Results) -> Iterator[Bench]:
    with cloud.configured(glance_apis=2):
        made = Bench(cloud)
        try:
            results.note("storing all images", timed(made.fill))
            yield made
        finally:
            made.clear()


def resident(cloud: TestCloud) -> float:
    """MiB of the largest process of the first API."""
    pids = cloud.service(glance.NAME).daemon.processes()
    return max(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf(
        "SC_PAGE_SIZE") for pid in pids) / 2**20


def processor(cloud: TestCloud) -> float:
    """Seconds that the processes of the first API have computed."""
    found = 0
    for pid in cloud.service(glance.NAME).daemon.processes():
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        found += int(words[11]) + int(words[12])
    return found / os.sysconf("SC_CLK_TCK")


def test_plans_and_exact_matches(bench: Bench, results: Results, record_property: Note) -> None:
    record_property("stored", f"{COMPOSITES} composites, {COMPLETED} completed images")
    bench.cloud.kill(glance.NAME)
    bench.cloud.up()
    bench.alpha.images.get(bench.composites[0]["id"])
    before = resident(bench.cloud)
    first = timed(bench.plan, composite=bench.composites[0]["id"], parts=["mysql"])
    record_property("first plan after Glance has started", f"{first:.1f} s")
    cold = [timed(bench.plan, composite=each["id"], parts=["mysql"])
            for each in bench.composites]
    record_property("first plan for a composite", told(cold))
    record_property("memory of the API for all of it",
                    f"{resident(bench.cloud) - before:.0f} MiB more than {before:.0f} MiB")
    seconds: dict[str, list[float]] = {PLAN: [], EXACT: [], PLAIN: []}
    for _ in range(ROUNDS):  # by turns, so that all meet the same other work
        composite = bench.chance.choice(bench.composites)
        parts = choice(bench.chance)
        seconds[PLAN].append(timed(bench.plan, composite=composite["id"], parts=parts))
        answer = bench.plan(composite=composite["id"], parts=parts)
        seconds[EXACT].append(timed(bench.exact, composite["id"], answer["recipe"]))
        seconds[PLAIN].append(timed(bench.alpha.images.get, composite["id"]))
    for name, found in seconds.items():
        record_property(name, told(found))
        results.note(name, statistics.median(found))
    before = processor(bench.cloud)
    for composite in bench.composites[1:1 + ROUNDS]:
        bench.plan(composite=composite["id"], parts=choice(bench.chance))
    spent = (processor(bench.cloud) - before) / min(ROUNDS, COMPOSITES - 1)
    record_property("of a plan, computed in Glance", f"{spent * 1e3:.0f} ms")
    many = [timed(bench.plan, composite=bench.composites[0]["id"], limit=64,
                  parts=choice(bench.chance)) for _ in range(30)]
    record_property(f"plan over {MANY} images of one composite, 64 of them told", told(many))
    batch = [{"composite": bench.composites[0]["id"], "parts": choice(bench.chance), "limit": 1}
             for _ in range(64)]
    batch += [{"composite": bench.chance.choice(bench.composites)["id"],
               "parts": choice(bench.chance), "limit": 1} for _ in range(64)]
    record_property("plan of 128 requests", f"{timed(bench.plan, requests=batch):.1f} s")
    assert results.median(PLAN) < BOUND
    assert results.median(EXACT) < BOUND


def test_the_index_is_current(bench: Bench, record_property: Note) -> None:
    """A change through one API, seen through the other, however many images
    there are."""
    seconds = []
    composite = next(each for each in bench.composites if each["owner"] == bench.alpha.project)
    for _ in range(20):
        bench.plan(api=2, composite=composite["id"], parts=["mysql"])
        recipe = digest()
        image = bench.alpha.completed(composite, ["mysql"], wanted=recipe)
        began = time.monotonic()
        while bench.plan(api=2, composite=composite["id"], parts=["mysql"],
                         recipe=recipe)["image"] != image:
            assert time.monotonic() - began < CURRENT
        seconds.append(time.monotonic() - began)
        bench.alpha.images.delete(image)
        began = time.monotonic()
        while bench.plan(api=2, composite=composite["id"], parts=["mysql"],
                         recipe=recipe)["image"] == image:
            assert time.monotonic() - began < CURRENT
        seconds.append(time.monotonic() - began)
    record_property("index current after a change through another API, answer included",
                    told(seconds))
