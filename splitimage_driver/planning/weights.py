"""The rates and weights that a plan is made with."""

from __future__ import annotations

import abc
from typing import Any

import msgspec

from splitimage_driver import plugins
from splitimage_driver.planning.cost import Cost, Rates

COSTS, WEIGHTS = "splitimage.costs", "splitimage.weights"

#: (inject_rate in bytes a second, prepare in seconds) measured with hardware
#: virtualisation and without; options override them.
_MEASURED = {False: (100e6, 4.0), True: (15e6, 12.0)}


class Weighing(msgspec.Struct, frozen=True):
    """:ivar prepare: seconds that any assembly takes, whatever it does"""

    rates: Rates
    prepare: float


class Weights(abc.ABC):
    """Where rates and weights come from. Found in ``splitimage.weights``.

    :param options: the group ``[planning]``
    :param emulate: whether hardware virtualisation does not work here
    """

    def __init__(self, options: Any, *, emulate: bool) -> None:
        self.options, self.emulate = options, emulate

    @abc.abstractmethod
    def weighing(self) -> Weighing: ...


class Static(Weights):
    """The options' values; where one is unset, what was measured on hosts of
    this kind."""

    def weighing(self) -> Weighing:
        options = self.options
        rate, prepare = _MEASURED[self.emulate]
        return Weighing(
            rates=Rates(
                bandwidth=options.bandwidth,
                inject_rate=rate if options.inject_rate is None else options.inject_rate,
                inject_seconds=options.inject_seconds, remove_seconds=options.remove_seconds,
                alpha=options.alpha, beta=options.beta, gamma=options.gamma,
                delta=options.delta),
            prepare=prepare if options.prepare_seconds is None else options.prepare_seconds)


def chosen(options: Any, *, emulate: bool) -> Weighing:
    """By the plugin that ``[planning] weights`` names.

    :raises PluginLoadFailed: there is no such plugin
    """
    weights: Weights = plugins.load(WEIGHTS, options.weights)(options, emulate=emulate)
    return weights.weighing()


def equation(name: str) -> Cost:
    """:raises PluginLoadFailed: there is no such equation"""
    cost: Cost = plugins.load(COSTS, name)()
    return cost
