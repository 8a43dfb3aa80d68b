"""The rates and weights that a plan is made with."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from splitimage_driver import plugins
from splitimage_driver.model.plan import Quantity
from splitimage_driver.planning import adaptive
from splitimage_driver.planning.adaptive import Load
from splitimage_driver.planning.cost import Cost, Rates

COSTS, WEIGHTS = "splitimage.costs", "splitimage.weights"

#: (inject_rate in bytes a second, prepare in seconds) measured with hardware
#: virtualisation and without; options override them.
_MEASURED = {False: (100e6, 4.0), True: (15e6, 12.0)}


class Weighing(msgspec.Struct, frozen=True):
    """:ivar prepare: seconds that any assembly takes, whatever it does
    :ivar told: where the rates come from
    """

    rates: Rates
    prepare: float
    told: tuple[Quantity, ...] = ()


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What weights may ask about the host they are for.

    :ivar emulate: hardware virtualisation does not work here
    :ivar kind: the class of hosts that it belongs to; what is learnt on one
        of them holds for all
    :ivar history: of finished assemblies, the oldest first
    :ivar load: at this moment
    """

    emulate: bool
    kind: str = ""
    history: Callable[[], Iterable[Mapping[str, object]]] = tuple
    load: Callable[[], Load] = Load


class Weights(abc.ABC):
    """Where rates and weights come from. Found in ``splitimage.weights``.

    :param options: the group ``[planning]``
    """

    def __init__(self, options: Any, host: Host) -> None:
        self.options, self.host = options, host

    @abc.abstractmethod
    def weighing(self) -> Weighing: ...


class Static(Weights):
    """The options' values; where one is unset, what was measured on hosts of
    this kind."""

    def weighing(self) -> Weighing:
        options = self.options
        rate, prepare = _MEASURED[self.host.emulate]
        rates = Rates(
            bandwidth=options.bandwidth,
            inject_rate=rate if options.inject_rate is None else options.inject_rate,
            inject_seconds=options.inject_seconds, remove_seconds=options.remove_seconds,
            alpha=options.alpha, beta=options.beta, gamma=options.gamma, delta=options.delta)
        prepare = prepare if options.prepare_seconds is None else options.prepare_seconds
        return Weighing(rates, prepare, tuple(
            Quantity(name=name, unit=unit, configured=value, value=value)
            for name, unit, value, _ in _quantities(rates, prepare)))


class Adaptive(Static):
    """The configured rates, corrected by what finished assemblies took on
    hosts of this class, and scaled by the load of this host now."""

    def weighing(self) -> Weighing:
        static = super().weighing()
        model = adaptive.learnt(self.host.history(), self.host.kind, static.rates,
                                prepare=static.prepare)
        now, load = time.time(), self.host.load()
        rates, prepare = model.rates(now, load), model.preparation(now, load)
        told = []
        for before, (_, _, value, learnt) in zip(static.told, _quantities(rates, prepare),
                                                 strict=True):
            found = model.learnt[learnt]
            told.append(msgspec.structs.replace(
                before, learnt=found.factor(now, model.learning), count=found.count,
                time=found.time, value=value,
                bounds=(model.learning.bounds.low, model.learning.bounds.high),
                load=load.network if learnt == adaptive.BANDWIDTH else load.host))
        return Weighing(rates, prepare, tuple(told))


def _quantities(rates: Rates, prepare: float) -> tuple[tuple[str, str, float, str], ...]:
    """(name, unit, value, what it is learnt as)"""
    return (("bandwidth", "B/s", rates.bandwidth, adaptive.BANDWIDTH),
            ("inject_rate", "B/s", rates.inject_rate, adaptive.INJECTION),
            ("inject_seconds", "s", rates.inject_seconds, adaptive.INJECTION),
            ("remove_seconds", "s", rates.remove_seconds, adaptive.REMOVAL),
            ("prepare_seconds", "s", prepare, adaptive.PREPARE))


def chosen(options: Any, host: Host, plugin: str | None = None) -> Weighing:
    """By the plugin that ``[planning] weights`` names, or this one.

    :raises PluginLoadFailed: there is no such plugin
    """
    weights: Weights = plugins.load(WEIGHTS, plugin or options.weights)(options, host)
    return weights.weighing()


def equation(name: str) -> Cost:
    """:raises PluginLoadFailed: there is no such equation"""
    cost: Cost = plugins.load(COSTS, name)()
    return cost
