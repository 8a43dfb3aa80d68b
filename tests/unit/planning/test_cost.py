"""The equations, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver.planning import weights
from splitimage_driver.planning.cost import Amounts, Rates, total
from tests.unit.making import directory, file, symlink

#: 3 missing files of 600 bytes, 2 in excess of 300 bytes.
AMOUNTS = Amounts(missing=3, missing_bytes=600, excess=2, excess_bytes=300)
#: S = 600 / 200 = 3 s; I = 3 * 0.5 + 600 / 100 = 7.5 s; R = 2 * 0.25 = 0.5 s;
#: T = 300 / 200 = 1.5 s
RATES = Rates(bandwidth=200, inject_rate=100, inject_seconds=0.5, remove_seconds=0.25,
              alpha=2, beta=3, gamma=4, delta=0)
S, INJECT, R, T = 3.0, 7.5, 0.5, 1.5


@pytest.mark.parametrize(("name", "unit", "terms"), [
    ("download", "s", {"download": S}),
    ("inject", "s", {"download": S, "inject": INJECT}),
    ("remove", "s", {"download": S, "inject": INJECT, "remove": R}),
    ("transport", "s", {"download": S, "inject": INJECT, "remove": R, "transport": T}),
    ("weighted", "s", {"download": 2 * S, "inject": 3 * INJECT, "remove": 4 * R}),
    ("count", "files", {"missing": 3.0}),
    ("bytes", "bytes", {"missing": 600.0}),
])
def test_terms_by_hand(name: str, unit: str, terms: dict[str, float]) -> None:
    found = weights.equation(name)(AMOUNTS, RATES)
    assert {t.name: t.value for t in found} == pytest.approx(terms)
    assert {t.unit for t in found} == {unit}
    assert total(found) == pytest.approx(math.fsum(terms.values()))


def test_a_transport_weight_adds_its_term() -> None:
    weighted = weights.equation("weighted")
    found = weighted(AMOUNTS, Rates(bandwidth=200, inject_rate=100, delta=10))
    assert found[-1].name == "transport" and found[-1].value == pytest.approx(10 * T)


def test_weights_of_one_make_the_sum_of_the_third_equation() -> None:
    rates = Rates(bandwidth=200, inject_rate=100)
    assert weights.equation("weighted")(AMOUNTS, rates) == weights.equation("remove")(
        AMOUNTS, rates)


_count = st.integers(0, 10**6)


@given(_count, _count, _count, _count)
def test_costs_are_never_negative_and_grow_with_what_is_missing(
        missing: int, size: int, excess: int, excess_size: int) -> None:
    for name in "download", "inject", "remove", "transport", "weighted", "count", "bytes":
        cost, rates = weights.equation(name), Rates()
        less = total(cost(Amounts(missing=missing, missing_bytes=size, excess=excess,
                                  excess_bytes=excess_size), rates))
        more = total(cost(Amounts(missing=missing + 1, missing_bytes=size + 1, excess=excess,
                                  excess_bytes=excess_size), rates))
        assert 0 <= less < more


def test_removal_is_cheaper_than_injection() -> None:
    """A superset beats a subset, out of the costs alone."""
    cost, rates = weights.equation("weighted"), Rates()
    lacking = Amounts(missing=100, missing_bytes=10**6, excess=0, excess_bytes=0)
    too_much = Amounts(missing=0, missing_bytes=0, excess=100, excess_bytes=10**6)
    assert total(cost(too_much, rates)) < total(cost(lacking, rates))


def test_amounts_of_entries() -> None:
    assert Amounts.of([file("a", b"12345"), directory("d"), symlink("l", "a")],
                      [file("x", b"12")]) == Amounts(
        missing=3, missing_bytes=5, excess=1, excess_bytes=2)
