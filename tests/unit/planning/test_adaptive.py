"""Rates that are learnt: a network that congests and clears, and poison."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver.planning.adaptive import (
    BANDWIDTH,
    INJECTION,
    REMOVAL,
    Assembly,
    Learning,
    Load,
    Model,
    learnt,
)
from splitimage_driver.planning.cost import Amounts, Rates, Weighted, total

pytestmark = pytest.mark.must_show("planning", 4)

CONFIGURED = Rates()


class Choice(NamedTuple):
    """A candidate: what travels, and what is done on the host."""

    fetched: float
    amounts: Amounts


def choices(rng: random.Random) -> list[Choice]:
    """Some save transfers by work on the host, some the reverse."""
    size = rng.uniform(2e8, 2e9)
    found = []
    for share in (0.1, 0.4, 0.7, 1.0):
        # Little to fetch from near, where much has to be removed and injected.
        files = int(2000 + 40_000 * (1 - share) * rng.uniform(0.5, 1.5))
        found.append(Choice(size * share * rng.uniform(0.8, 1.2), Amounts(
            missing=files, missing_bytes=int(size * (1.1 - share)), excess=files // 2,
            excess_bytes=0)))
    return found


def seconds(choice: Choice, rates: Rates) -> float:
    host = msgspec.structs.replace(rates, alpha=0.0)
    return choice.fetched / rates.bandwidth + total(Weighted()(choice.amounts, host))


def truth(launch: int) -> Rates:
    """The network is congested for fifty launches of each hundred and fifty;
    this host is slower at injecting than configured."""
    phase = launch % 150
    depth = max(0.0, 1 - abs(phase - 75) / 25) if 50 <= phase < 100 else 0.0
    return msgspec.structs.replace(CONFIGURED, bandwidth=200e6 / 10 ** (1.3 * depth),
                                   inject_rate=60e6, inject_seconds=0.0017)


def finished(choice: Choice, rates: Rates, time: float, rng: random.Random) -> Assembly:
    def noisy(value: float) -> float:
        return value * rng.lognormvariate(0, 0.1)
    a = choice.amounts
    return Assembly(
        time=time, fetched_bytes=choice.fetched,
        fetch_seconds=noisy(choice.fetched / rates.bandwidth), injected=a.missing,
        injected_bytes=a.missing_bytes,
        inject_seconds=noisy(a.missing * rates.inject_seconds
                             + a.missing_bytes / rates.inject_rate),
        removed=a.excess, remove_seconds=noisy(a.excess * rates.remove_seconds))


@pytest.mark.parametrize("seed", range(10))
def test_it_is_within_five_per_cent_of_knowing_the_true_rates(seed: int) -> None:
    rng = random.Random(seed)
    model = Model(CONFIGURED)
    realised = {"adaptive": 0.0, "static": 0.0, "oracle": 0.0}
    for launch in range(470):
        now, rates, offered = launch * 600.0, truth(launch), choices(rng)
        used = {"adaptive": model.rates(now), "static": CONFIGURED, "oracle": rates}
        chosen = {who: min(offered, key=lambda c: seconds(c, used[who]))
                  for who in used}
        model.learn(finished(chosen["adaptive"], rates, now, rng))
        if launch >= 20:
            for who in realised:
                realised[who] += seconds(chosen[who], rates)
    assert realised["oracle"] <= realised["adaptive"] <= 1.05 * realised["oracle"]
    assert realised["adaptive"] < realised["static"]


anything = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.builds(Assembly, time=anything, fetched_bytes=anything,
                          fetch_seconds=anything, injected=anything, injected_bytes=anything,
                          inject_seconds=anything, removed=anything, remove_seconds=anything,
                          prepare_seconds=anything), max_size=30))
def test_no_measurement_moves_a_rate_beyond_its_bounds(poison: list[Assembly]) -> None:
    model = Model(CONFIGURED, prepare=4.0)
    for assembly in poison:
        model.learn(assembly)
    rates = model.rates(1e9)
    low, high = 1 / 100.001, 100.001
    for name in ("bandwidth", "inject_rate", "inject_seconds", "remove_seconds"):
        assert low <= getattr(rates, name) / getattr(CONFIGURED, name) <= high
    assert low <= model.preparation(1e9) / 4 <= high


def one(factor: float, time: float) -> Assembly:
    return Assembly(time=time, fetched_bytes=200e6, fetch_seconds=factor)


def test_one_absurd_measurement_is_soon_forgotten() -> None:
    model = Model(CONFIGURED)
    for time in range(10):
        model.learn(one(1.0, time))
    model.learn(one(1e9, 10))
    assert model.rates(10).bandwidth >= 200e6 / math.sqrt(Learning().step) * 0.999
    for time in range(11, 16):
        model.learn(one(1.0, time))
    assert model.rates(15).bandwidth == pytest.approx(200e6, rel=0.05)


def test_what_was_learnt_long_ago_fades() -> None:
    model = Model(CONFIGURED)
    for time in range(10):
        model.learn(one(4.0, time))
    assert model.rates(10).bandwidth == pytest.approx(50e6, rel=0.01)
    week = Learning().half_life
    assert model.rates(10 + week).bandwidth == pytest.approx(100e6, rel=0.01)
    assert model.rates(10 + 20 * week).bandwidth == pytest.approx(200e6, rel=0.01)


def test_what_was_not_done_is_not_learnt() -> None:
    model = Model(CONFIGURED)
    model.learn(one(2.0, 5.0))
    assert model.learnt[BANDWIDTH].count == 1
    assert model.learnt[BANDWIDTH].time == 5.0
    assert model.learnt[INJECTION].count == model.learnt[REMOVAL].count == 0


def test_the_load_of_the_moment_scales() -> None:
    model = Model(CONFIGURED)
    rates = model.rates(0, Load(cpu=0.5, transfers=1))
    assert rates.bandwidth == CONFIGURED.bandwidth / 2
    assert rates.inject_rate == CONFIGURED.inject_rate / 2
    assert rates.inject_seconds == CONFIGURED.inject_seconds * 2
    full = Load(cpu=7, memory=math.nan, disk=1, transfers=-3)
    assert (full.host, full.network) == (0.1, 1)
    assert Load(memory=1.0).host == pytest.approx(0.5)


def test_records_of_other_hosts_and_broken_ones_are_passed_by() -> None:
    def record(host_class: str, seconds: object) -> dict[str, object]:
        return {"time": 1.0, "host_class": host_class, "missing": 1000, "excess": 0,
                "measured": {"injected_bytes": 0.0, "inject_seconds": seconds}}
    history: list[dict[str, object]] = [
        record("kvm", 2.0), record("tcg", 50.0), record("kvm", "long"), {"time": 2.0},
        record("kvm", -1.0)]
    model = learnt(history, "kvm", CONFIGURED)
    assert model.learnt[INJECTION].count == 1
    assert model.rates(1.0).inject_seconds == pytest.approx(0.002)


def test_what_the_load_took_is_not_learnt() -> None:
    """Half of the host was left, so it took twice the time."""
    model, now = Model(CONFIGURED, prepare=4.0), 1000.0
    for _ in range(10):
        model.learn(Assembly(time=now, injected=100, injected_bytes=10**8, inject_seconds=2.2,
                             prepare_seconds=8.0, host_left=0.5))
    assert model.rates(now).inject_rate == pytest.approx(CONFIGURED.inject_rate)
    assert model.preparation(now) == pytest.approx(4)
    assert model.preparation(now, Load(cpu=0.5)) == pytest.approx(8)
