"""The equation and the rates that a plan is made with."""

from __future__ import annotations

from typing import Any

from stevedore import driver
from stevedore.exception import NoMatches

from splitimage_driver import exceptions
from splitimage_driver.planning.cost import Cost, Rates

#: (inject_rate in bytes a second, prepare in seconds) measured with hardware
#: virtualisation and without; options override them.
_MEASURED = {False: (100e6, 4.0), True: (15e6, 15.0)}


def chosen(options: Any, emulate: bool, name: str | None = None) -> tuple[Cost, Rates, float]:
    """(equation, rates, seconds any assembly takes) by the group ``planning``.

    :param name: of an equation, in place of the configured one
    :raises PluginLoadFailed: there is no such equation
    """
    rate, prepare = _MEASURED[emulate]
    rates = Rates(
        bandwidth=options.bandwidth,
        inject_rate=rate if options.inject_rate is None else options.inject_rate,
        inject_seconds=options.inject_seconds, remove_seconds=options.remove_seconds,
        alpha=options.alpha, beta=options.beta, gamma=options.gamma, delta=options.delta)
    if options.prepare_seconds is not None:
        prepare = options.prepare_seconds
    return equation(name or options.cost), rates, prepare


def equation(name: str) -> Cost:
    """:raises PluginLoadFailed: no plugin of that name, or it does not load"""
    def failed(manager: object, entry_point: object, error: BaseException) -> None:
        raise exceptions.PluginLoadFailed(namespace="splitimage.costs", name=name,
                                          reason=str(error))

    try:
        manager: driver.DriverManager[Any] = driver.DriverManager(
            "splitimage.costs", name, invoke_on_load=True, on_load_failure_callback=failed)
    except NoMatches as error:
        raise exceptions.PluginLoadFailed(namespace="splitimage.costs", name=name,
                                          reason="no such plugin is installed") from error
    found = manager.driver
    assert isinstance(found, Cost)  # noqa: S101 (invoked on load)
    return found
