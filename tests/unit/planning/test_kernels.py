"""The sums of the candidate index against sums of one document at a time."""

from __future__ import annotations

import numpy as np
import pytest

from splitimage_driver.planning import kernels
from splitimage_driver.planning.records import WORD

pytestmark = pytest.mark.must_show("planning", 1)


@pytest.mark.parametrize("seed", range(20))
def test_sums_in_planes_are_sums(seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = int(rng.integers(1, 9))
    depth = int(rng.integers(1, 13))
    sums = np.zeros(words * WORD, dtype=np.int64)
    planes = np.zeros((16, 16), dtype=np.uint64)
    carry = np.zeros(16, dtype=np.uint64)
    while True:
        number = int(rng.integers(1, 1 << rng.integers(1, depth + 1)))
        has = rng.random(len(sums)) < rng.random()
        if (sums + number * has).max() >= 1 << depth:
            break
        sums += number * has
        bits = np.packbits(has, bitorder="little").view(np.uint64)
        kernels.add(planes, depth, words, number, bits, carry)
    for least in {0, 1, int(sums.min()), int(np.median(sums)), int(sums.max()),
                  (1 << depth) - 1}:
        found = np.array([kernels.reaching(planes, depth, word, least)
                          for word in range(words)], dtype=np.uint64)
        assert np.array_equal(np.unpackbits(found.view(np.uint8), bitorder="little") > 0,
                              sums >= least)
    assert [kernels.sum_of(planes, depth, at // WORD, at % WORD)
            for at in range(len(sums))] == sums.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_whole_numbers_lose_no_more_than_they_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = np.exp(rng.normal(0, rng.uniform(0, 4), rng.integers(1, 60)))
    numbers, unit, lost = kernels.whole(weights)
    for _ in range(200):
        some = rng.random(len(weights)) < rng.random()
        assert weights[some].sum() <= unit * numbers[some].sum() + lost * (1 + 1e-9)
    # What is rounded down, and nothing else, is the worst of all.
    short = numbers * unit < weights
    assert (weights - unit * numbers)[short].sum() == pytest.approx(lost)
    assert lost < 0.03 * weights.sum()


@pytest.mark.parametrize("count", [1, 7, 5000])
def test_equal_weights_are_ones_and_lose_nothing(count: int) -> None:
    numbers, unit, lost = kernels.whole(np.full(count, 0.3))
    assert numbers.tolist() == [1] * count
    assert (unit, lost) == (0.3, 0.0)


@pytest.mark.parametrize("weight", [0.0, 5e-324, np.inf])
def test_weights_that_cannot_be_divided_are_lost_as_a_whole(weight: float) -> None:
    numbers, unit, lost = kernels.whole(np.array([weight, 0.0]))
    assert numbers.tolist() == [0, 0]
    assert (unit, lost) == (1.0, weight)


def test_no_weights_are_no_numbers() -> None:
    assert kernels.whole(np.zeros(0))[0].tolist() == []
