"""Planning on files, against the obvious way."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from splitimage_driver import exceptions
from splitimage_driver.planning import catalog, cost, explanation
from splitimage_driver.planning.cost import Rates
from splitimage_driver.planning.difference import Pricing
from splitimage_driver.planning.offline import Planner, answer, explained
from tests.unit.planning import catalogs
from tests.unit.planning.catalogs import EQUATION_NAMES, Slow

pytestmark = pytest.mark.must_show("planning", 1)


@pytest.mark.parametrize("block", range(20))
def test_the_best_is_that_of_brute_force(block: int) -> None:
    """A thousand catalogues in all, each by one of the equations."""
    for seed in range(block * 50, block * 50 + 50):
        rng = random.Random(seed)
        stored, wanted = catalogs.documents(rng, requests=2)
        equation, rates = EQUATION_NAMES[seed % 5], catalogs.rates(rng)
        images, requests = catalogs.resolved(stored, wanted)
        planner = Planner(images, Pricing.of(equation, rates))
        slow = Slow(stored, equation, rates)
        by_id = {image["id"]: image for image in stored["images"]}
        for request, document in zip(requests, wanted["requests"], strict=True):
            told = answer(request, planner.nearest(request))
            if not any(image["os"] == request.os for image in stored["images"]):
                assert (told["match"], told["image"]) == ("none", None)
                continue
            total, allowed = slow.best(stored["images"], document)
            assert told["cost"]["total"] == pytest.approx(total, rel=1e-11, abs=1e-15), seed
            assert told["image"] in allowed, seed
            assert told["match"] == slow.match(by_id[told["image"]], document)
            have, want = slow.tree(by_id[told["image"]]), slow.tree(document)
            assert told["missing"] == sorted(
                p for p, f in want.items() if p not in have or have[p]["digest"] != f["digest"])
            assert told["excess"] == sorted(have.keys() - want.keys())


def test_terms_are_those_of_the_equations_and_sum_up() -> None:
    rng = random.Random(5)
    stored, wanted = catalogs.documents(rng)
    for part in stored["parts"].values():
        if isinstance(part, dict):
            del part["inject_seconds"]
    rates = catalogs.rates(rng)
    images, requests = catalogs.resolved(stored, wanted)
    compared = 0
    for name, equation in (("download", cost.Download), ("inject", cost.Inject),
                           ("remove", cost.Remove), ("transport", cost.Transport),
                           ("weighted", cost.Weighted)):
        planner = Planner(images, Pricing.of(name, rates))
        for request in requests:
            for found in planner.nearest(request, 5):
                amounts = cost.Amounts(
                    missing=found.amounts.missing, missing_bytes=found.amounts.missing_bytes,
                    excess=found.amounts.excess, excess_bytes=found.amounts.excess_bytes)
                for term in equation()(amounts, rates):
                    fetch = found.fetch if term.name == "download" else 0.0
                    assert getattr(found.terms, term.name) == pytest.approx(term.value + fetch)
                    compared += 1
                assert sum(found.terms) == pytest.approx(found.cost)
    assert compared > 30


def file(path: str, size: Any = 1, digest: str = "d", **more: Any) -> dict[str, Any]:
    return {"path": path, "size": size, "digest": digest, **more}


def image(name: str = "i", *files: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": name, "os": "debian", **({} if "parts" in more else {"files": files}), **more}


def planned(images: list[dict[str, Any]], request: dict[str, Any], *, equation: str = "remove",
            parts: dict[str, Any] | None = None, rates: Rates | None = None, top: int = 9) -> Any:
    stored, wanted = catalogs.resolved({"images": images, "parts": parts or {}},
                                       {"requests": [{"id": "r", "os": "debian", **request}]})
    planner = Planner(stored, Pricing.of(equation, rates or Rates()))
    return explained(wanted[0], planner.nearest(wanted[0], top))


def test_each_kind_of_match() -> None:
    wanted = {"files": [file("a"), file("b")]}
    assert planned([image()], wanted)["match"] == "base"
    assert planned([image("i", file("a"), file("b"))], wanted)["match"] == "exact"
    assert planned([image("i", file("a"))], wanted)["match"] == "subset"
    assert planned([image("i", file("a"), file("b"), file("c"))], wanted)["match"] == "superset"
    assert planned([image("i", file("a"), file("c"))], wanted)["match"] == "partial"
    assert planned([image()], {"files": []})["match"] == "exact"
    assert planned([image(os="rocky")], wanted)["match"] == "none"


def test_another_content_is_written_over_and_not_removed() -> None:
    told = planned([image("i", file("a", digest="old"))], {"files": [file("a", digest="new")]})
    assert (told["missing"], told["excess"], told["match"]) == (["a"], [], "subset")


def test_ties_go_to_fewer_missing_bytes_then_to_the_smaller_image_then_to_the_lower_id() -> None:
    wanted = {"files": [file("a", 4), file("b", 2)]}
    free = Rates(alpha=0, beta=0, gamma=0)
    images = [image("z", file("a", 4), file("c", 1)), image("y", file("a", 4), file("c", 1)),
              image("x", file("a", 4), file("c", 9)), image("w", file("b", 2))]
    told = planned(images, wanted, equation="weighted", rates=free)
    assert [told["image"], *(c["image"] for c in told["considered"])] == ["y", "z", "x", "w"]
    assert [c["lost"]["reason"] for c in told["considered"]] == [
        "equal cost, higher id", "equal cost, larger image", "equal cost, more missing bytes"]


def test_costs_that_are_equal_on_paper_are_a_tie() -> None:
    rates = Rates(inject_seconds=0.1, remove_seconds=0.1)
    images = [image("a", *(file(f"x{n}", 0) for n in range(3))),
              image("b", *(file(f"x{n}", 0) for n in range(2)), file("w", 0))]
    told = planned(images, {"files": [file("w", 0)]}, rates=rates)
    assert told["image"] == "b"
    images = [image("b", file("x", 0), file("y", 0)), image("a", file("w", 0), file("x", 0),
                                                            file("y", 0), file("z", 0))]
    told = planned(images, {"files": [file("w", 0)]}, rates=rates)
    assert told["image"] == "a"


def test_an_exact_match_comes_first_even_if_it_has_to_be_fetched() -> None:
    images = [image("a", file("x", 10)), image("b", file("x", 10), file("y", 1),
                                               fetch_bytes=10**12)]
    told = planned(images, {"files": [file("x", 10), file("y", 1)]})
    assert told["image"] == "b"
    assert told["cost"]["total"] == told["cost"]["download"] == 10**12 / 200e6
    assert told["considered"][0]["lost"]["reason"] == "an exact match comes first"


def test_a_parts_own_time_takes_the_place_of_its_files() -> None:
    parts = {"p": {"files": [file("a", 10), file("b", 10)], "inject_seconds": 7},
             "q": [file("c", 10)]}
    rates = Rates(bandwidth=10, inject_rate=5, inject_seconds=1)
    told = planned([image()], {"parts": ["p", "q"]}, parts=parts, rates=rates, equation="inject")
    assert told["cost"] == {"total": 13, "download": 3, "inject": 7 + 1 + 2, "remove": 0,
                            "transport": 0}
    told = planned([image("i", file("b", 10))], {"parts": ["p", "q"]}, parts=parts, rates=rates,
                   equation="inject")
    assert told["cost"]["inject"] == 7 + 1 + 2
    told = planned([image("i", parts=["p"])], {"parts": ["p", "q"]}, parts=parts, rates=rates,
                   equation="inject")
    assert told["cost"]["inject"] == 3


def test_losers_are_told_the_term_and_the_files() -> None:
    images = [image("best", file("a", 10**9)), image("lacks"),
              image("has", file("a", 10**9), *(file(f"x{n}", n) for n in range(7))),
              image("far", file("a", 10**9), fetch_bytes=10**10)]
    told = planned(images, {"files": [file("a", 10**9), file("b", 5)]})
    lost = {c["image"]: c["lost"] for c in told["considered"]}
    assert (lost["lacks"]["term"], lost["lacks"]["files"]) == ("inject", ("a",))
    assert lost["has"]["term"] == "remove"
    assert (lost["has"]["files"], lost["has"]["more"]) == (("x6", "x5", "x4", "x3", "x2"), 2)
    assert lost["has"]["seconds"] == pytest.approx(7 * 0.0005)
    assert lost["far"]["term"] == explanation.FETCH


def loaded(stored: Any, wanted: Any) -> None:
    catalogs.resolved(stored, wanted)


NO_REQUESTS: dict[str, Any] = {"requests": []}


@pytest.mark.parametrize(("images", "place"), [
    ([image(), image("j", file("a"), file("b", -1))], "$.images[1].files[1].size"),
    ([image("j", file("a", 1.5))], "$.images[0].files[0].size"),
    ([image("j", file("a", 1 << 60))], "$.images[0].files[0].size"),
    ([image("j", file("a", True))], "$.images[0].files[0].size"),
    ([image("j", file("a", sise=1))], "$.images[0].files[0]"),
    ([image(colour="red")], "$.images[0]"),
    ([image("j", file("a"), file("b"), file("a"))], "$.images[0].files[2].path"),
    ([image("j"), image("k"), image("j")], "$.images[2].id"),
    ([image(fetch_bytes=-1)], "$.images[0].fetch_bytes"),
    ([image(parts=["nope"])], "$.images[0].parts[0]"),
    ([image(parts=["p", "p"])], "$.images[0].parts[1]"),
    ([image(parts=["p", "other"])], "$.images[0].parts[1]"),
    ([{"id": "i", "os": "debian"}], "$.images[0]"),
    ([{"id": "i", "os": "debian", "files": [], "parts": []}], "$.images[0]"),
    ([{"id": "i", "files": []}], "$.images[0]"),
])
def test_an_error_names_the_place(images: list[Any], place: str) -> None:
    parts = {"p": [file("a")], "other": [file("a", digest="e")]}
    with pytest.raises(exceptions.InvalidInput) as error:
        loaded({"images": images, "parts": parts}, NO_REQUESTS)
    message = str(error.value)
    assert message.startswith("catalog: ")
    assert f"at `{place}`" in message
    assert "\n" not in message
    assert error.value.exit_code == 15


@pytest.mark.parametrize(("text", "place"), [
    ('{"images": [],\n "parts": {"p": {"files": [], "inject_seconds": NaN}}}',
     "line 2, column 49"),
    ('{"images": [],\n "parts": {"p": {"files": [], "inject_seconds": -1}}}',
     "$.parts[...].inject_seconds"),
    ('{"images": [],\n "parts": {"p": [], "q": [], "p": []}}', "$.parts"),
    ('{"images": [], "parts": {"p": [{"path": "a", "size": 1, "digest": ""},'
     ' {"path": "a", "size": 1, "digest": ""}]}}', '$.parts["p"][1].path'),
    ('{"images": []', "$"), ("[]", "$"), ("{}", "$"), ('{"images": [], "more": 1}', "$"),
])
def test_so_it_does_for_what_is_hardly_json(text: str, place: str) -> None:
    with pytest.raises(exceptions.InvalidInput) as error:
        found = catalog.read_catalog(text.encode(), "catalog")
        catalog.Library(found.parts, "catalog")
    assert place in str(error.value)


def test_requests_may_bring_parts_and_use_those_of_the_catalogue() -> None:
    stored = {"images": [image(parts=["p"])], "parts": {"p": [file("a")]}}
    wanted = {"requests": [{"id": "r", "os": "debian", "parts": ["p", "q"]}],
              "parts": {"q": [file("b")]}}
    _, requests = catalogs.resolved(stored, wanted)
    assert set(requests[0].files) == {"a", "b"}
    wanted["parts"] = {"q": [file("b")], "p": [file("a", 2)]}
    with pytest.raises(exceptions.InvalidInput, match='parts\\["p"\\]'):
        catalogs.resolved(stored, wanted)


def test_answers_are_json() -> None:
    told = planned([image("i", file("a"))], {"files": [file("b")]})
    assert json.loads(json.dumps(told)) == msgspec.json.decode(msgspec.json.encode(told))


def test_only_the_five_equations_plan_a_catalogue() -> None:
    with pytest.raises(exceptions.InvalidInput, match="download, inject, remove"):
        Pricing.of("count", Rates())
