"""Rates learnt from finished assemblies: pure estimators, no store, no clock.

Each rate is an exponentially weighted mean of logarithms: doubling and halving
weigh the same. What is measured is first cut to the bounds, and one
measurement moves a rate by a limited factor at most, so that neither a broken
clock nor a hostile record can spoil a plan. What was learnt long ago fades
into what is configured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from splitimage_driver.planning.cost import Rates

BANDWIDTH, INJECTION, REMOVAL, PREPARE = "bandwidth", "injection", "removal", "prepare"


class Bounds(msgspec.Struct, frozen=True):
    """What a rate may become, as factors of the configured one."""

    low: float = 1 / 100
    high: float = 100.0


class Learning(msgspec.Struct, frozen=True, kw_only=True):
    """:ivar share: of a new measurement, once there are several
    :ivar step: the largest factor by which one measurement differs
    :ivar half_life: seconds in which what was learnt loses half its weight
    """

    share: float = 0.5
    step: float = 8.0
    half_life: float = 7 * 86400.0
    bounds: Bounds = Bounds()


class Learnt(msgspec.Struct, frozen=True, kw_only=True):
    """One quantity, as a factor of the configured one.

    :ivar log: natural logarithm of the factor
    :ivar count: of measurements
    :ivar time: of the last one, seconds since the epoch
    """

    log: float = 0.0
    count: int = 0
    time: float = 0.0

    def updated(self, factor: float, time: float, learning: Learning) -> Learnt:
        """After another measurement; one that is no positive number changes
        nothing."""
        if not (math.isfinite(factor) and factor > 0 and math.isfinite(time)):
            return self
        bounds = learning.bounds
        measured = math.log(min(max(factor, bounds.low), bounds.high))
        step = math.log(learning.step)
        measured = min(max(measured, self.log - step), self.log + step)
        share = max(learning.share, 1 / (self.count + 1))
        return Learnt(log=self.log + share * (measured - self.log), count=self.count + 1,
                      time=max(time, self.time))

    def factor(self, now: float, learning: Learning) -> float:
        """As it is worth now, within the bounds."""
        age = max(0.0, now - self.time)
        faded = math.exp(self.log * 0.5 ** (age / learning.half_life))
        return min(max(faded, learning.bounds.low), learning.bounds.high)


class Assembly(msgspec.Struct, frozen=True, kw_only=True):
    """A finished assembly: what was done and the seconds it took; 0 where
    nothing of the kind was done.

    :ivar host_left: share of the host's speed that was left when it began;
        ``network_left`` likewise
    """

    time: float
    host_class: str = ""
    fetched_bytes: float = 0.0
    fetch_seconds: float = 0.0
    injected: float = 0.0
    injected_bytes: float = 0.0
    inject_seconds: float = 0.0
    removed: float = 0.0
    remove_seconds: float = 0.0
    prepare_seconds: float = 0.0
    host_left: float = 1.0
    network_left: float = 1.0

    @classmethod
    def of(cls, record: Mapping[str, object]) -> Assembly | None:
        """From the store's history of assemblies; None: it is not usable."""
        measured = record.get("measured")
        if not isinstance(measured, Mapping):
            return None
        return cls(
            time=_number(record.get("time")), host_class=str(record.get("host_class", "")),
            fetched_bytes=_number(measured.get("fetched_bytes")),
            fetch_seconds=_number(measured.get("fetch_seconds")),
            injected=_number(record.get("missing")),
            injected_bytes=_number(measured.get("injected_bytes")),
            inject_seconds=_number(measured.get("inject_seconds")),
            removed=_number(record.get("excess")),
            remove_seconds=_number(measured.get("remove_seconds")),
            prepare_seconds=_rest(measured),
            host_left=_number(record.get("host_left", 1.0)),
            network_left=_number(record.get("network_left", 1.0)))


def _rest(measured: Mapping[object, object]) -> float:
    """Seconds of an assembly beside those for its files: starting the
    appliance, copying, publishing."""
    return _number(measured.get("assembly_seconds")) - sum(
        _number(measured.get(name)) for name in ("fetch_seconds", "inject_seconds",
                                                 "remove_seconds"))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Of a host, at the moment of planning.

    :ivar cpu: share in use, 0 to 1; ``memory`` and ``disk`` likewise
    :ivar transfers: in flight
    """

    cpu: float = 0.0
    memory: float = 0.0
    disk: float = 0.0
    transfers: int = 0

    @property
    def network(self) -> float:
        """Share of the bandwidth that is left for one more transfer."""
        return 1 / (1 + max(0, self.transfers))

    @property
    def host(self) -> float:
        """Share of the speed of work on disks that is left; never less than
        a tenth, as schedulers are fair."""
        busiest = max(_share(self.cpu), _share(self.disk))
        # Only a host that is nearly out of memory is slower for it.
        swapping = max(0.0, (_share(self.memory) - 0.9) * 10)
        return max(0.1, (1 - busiest) * (1 - 0.5 * swapping))


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0


class Model:
    """What was learnt of one class of hosts.

    :param configured: the rates that all factors are relative to
    :param prepare: configured seconds that any assembly takes
    """

    def __init__(self, configured: Rates, *, prepare: float = 0.0,
                 learning: Learning | None = None) -> None:
        self.configured, self.prepare = configured, prepare
        self.learning = learning or Learning()
        self.learnt: dict[str, Learnt] = {
            name: Learnt() for name in (BANDWIDTH, INJECTION, REMOVAL, PREPARE)}

    def learn(self, assembly: Assembly) -> None:
        """From one finished assembly. Quantities it did nothing of, or whose
        measurement is absurd, stay as they are."""
        c = self.configured
        # What the load of that moment took is none of the host's own speed.
        host, network = _share(assembly.host_left), _share(assembly.network_left)
        expected = {
            BANDWIDTH: (assembly.fetched_bytes / c.bandwidth,
                        assembly.fetch_seconds * network),
            INJECTION: (assembly.injected * c.inject_seconds
                        + assembly.injected_bytes / c.inject_rate, assembly.inject_seconds * host),
            REMOVAL: (assembly.removed * c.remove_seconds, assembly.remove_seconds * host),
            PREPARE: (self.prepare, assembly.prepare_seconds * host)}
        for name, (predicted, measured) in expected.items():
            # Also false for NaN.
            if predicted > 0 and measured > 0:
                self.learnt[name] = self.learnt[name].updated(measured / predicted,
                                                              assembly.time, self.learning)

    def rates(self, now: float, load: Load | None = None) -> Rates:
        """For a plan made now, on a host that is loaded so."""
        c, load = self.configured, load or Load()
        slower = {name: learnt.factor(now, self.learning) for name, learnt in self.learnt.items()}
        return msgspec.structs.replace(
            c, bandwidth=c.bandwidth / slower[BANDWIDTH] * load.network,
            inject_rate=c.inject_rate / slower[INJECTION] * load.host,
            inject_seconds=c.inject_seconds * slower[INJECTION] / load.host,
            remove_seconds=c.remove_seconds * slower[REMOVAL] / load.host)

    def preparation(self, now: float, load: Load | None = None) -> float:
        """Seconds that any assembly takes."""
        factor = self.learnt[PREPARE].factor(now, self.learning)
        return self.prepare * factor / (load or Load()).host


def learnt(history: Iterable[Mapping[str, object]], host_class: str, configured: Rates, *,
           prepare: float = 0.0, learning: Learning | None = None) -> Model:
    """The model of a class of hosts.

    :param history: of assemblies, the oldest first
    """
    model = Model(configured, prepare=prepare, learning=learning)
    for record in history:
        assembly = Assembly.of(record)
        if assembly is not None and assembly.host_class == host_class:
            model.learn(assembly)
    return model
