"""Values that people and programs read differently: a table says 1.5 GiB,
JSON says 1610612736."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cliff.columns import FormattableColumn

from splitimage_driver.cli import terminal

#: Keys of free-form facts that are known to be bytes.
_IN_BYTES = ("size", "memory")
#: How many items of a list in a cell people want to read.
_FEW = 6
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class Column(NamedTuple):
    """:ivar value: of a record
    :ivar long: left out of tables unless asked for; programs get it always
    """

    name: str
    value: Callable[[Any], Any]
    long: bool = False


def size(count: float) -> str:
    """Bytes in the unit that suits."""
    units = iter(_UNITS)
    unit = next(units)
    while count >= 1024 and unit != _UNITS[-1]:
        count, unit = count / 1024, next(units)
    return f"{count:.0f} {unit}" if unit == _UNITS[0] else f"{count:.1f} {unit}"


class Size(FormattableColumn[int]):
    def human_readable(self) -> str:
        return size(self._value)


class Amount(FormattableColumn[float | None]):
    """A number with its unit; infinite ones are null in JSON, which has none."""

    def __init__(self, value: float | None, unit: str = "s") -> None:
        super().__init__(value)
        self.unit = unit

    def human_readable(self) -> str:
        if self._value is None:
            return ""
        if math.isinf(self._value):
            return "-"
        if self.unit == "bytes":
            return size(self._value)
        if self.unit != "s":
            return f"{self._value:g} {self.unit}"
        if self._value >= 0.1 or self._value == 0:
            return f"{self._value:.1f} s"
        return f"{self._value * 1000:.0f} ms" if self._value >= 0.0005 else "< 1 ms"

    def machine_readable(self) -> float | None:
        return None if self._value is None or math.isinf(self._value) else self._value


class Figure(FormattableColumn[float | None]):
    """A number as ``shown`` formats it; None: nothing."""

    def __init__(self, value: float | None, shown: str = "") -> None:
        super().__init__(value)
        self._shown = shown

    def human_readable(self) -> str:
        if self._value is None:
            return ""
        return (self._shown or ("{:,.0f}" if self._value >= 1000 else "{:.4g}")).format(
            self._value)


class Moment(FormattableColumn[float]):
    """Seconds since the epoch; local time for people."""

    def human_readable(self) -> str:
        local = datetime.datetime.fromtimestamp(self._value, tz=datetime.UTC).astimezone()
        return local.strftime("%Y-%m-%d %H:%M:%S")


class Digest(FormattableColumn[str]):
    """A sha256: its first digits tell enough to people."""

    digits = 12

    def human_readable(self) -> str:
        return self._value[:self.digits]


class Id(Digest):
    """A random id, likewise."""

    digits = 8


class Words(FormattableColumn[list[Any]]):
    def __init__(self, value: Iterable[Any], separator: str = ", ") -> None:
        super().__init__([machine(item) for item in value])
        self.separator = separator

    def human_readable(self) -> str:
        return self.separator.join(map(str, self._value))


class Counted(Words):
    """A list that only programs get in full."""

    def human_readable(self) -> str:
        return str(len(self._value))


class Digests(Words):
    """Several of them."""

    def human_readable(self) -> str:
        return self.separator.join(digest[:Digest.digits] for digest in self._value)


class Lines(Words):
    def __init__(self, value: Iterable[Any]) -> None:
        super().__init__(value, "\n")


class Pairs(FormattableColumn[dict[str, Any]]):
    """A mapping, one line a key; nested ones by dotted keys."""

    def human_readable(self) -> str:
        return "\n".join(f"{key}: {shown}" for key, shown in _flat(self._value))


def _flat(value: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    for key, inner in value.items():
        items = inner if isinstance(inner, (list, tuple)) else ()
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{above}{key}.")
        elif any(isinstance(item, Mapping) for item in items):
            for number, item in enumerate(items):
                yield f"{above}{key}.{number}", ", ".join(
                    f"{k} {v}" for k, v in _flat({"": item} if not isinstance(item, Mapping)
                                                 else item))
        elif items:
            yield above + key, some(items)
        elif not isinstance(inner, (list, tuple)):
            in_bytes = key in _IN_BYTES and isinstance(inner, int)
            yield above + key, size(inner) if in_bytes else str(inner)


class Measured(Pairs):
    """Facts by name: ``..._bytes`` and ``..._seconds`` say their unit."""

    def human_readable(self) -> str:
        return "\n".join(f"{name.rpartition('_')[0] or name}: {_with_unit(name, value)}"
                         for name, value in self._value.items())


def _with_unit(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return Size(int(value)).human_readable()
    return Amount(value, "s" if name.endswith("_seconds") else "").human_readable().strip()


def some(items: Sequence[Any]) -> str:
    """The first few of many."""
    more = len(items) - _FEW
    return ", ".join(map(str, items[:_FEW])) + (f" and {more} more" if more > 0 else "")


class Ports(FormattableColumn[dict[str, int]]):
    """Guest port to port of this host."""

    def __init__(self, value: Mapping[int, int]) -> None:
        super().__init__({str(guest): host for guest, host in sorted(value.items())})

    def human_readable(self) -> str:
        return ", ".join(f"{guest}->{host}" for guest, host in self._value.items())


class Listing(FormattableColumn[list[dict[str, Any]]]):
    """A list of records within a single object: a table of its own below
    the object's.

    :param title: stands above that table
    """

    def __init__(self, title: str, columns: Sequence[Column], records: Iterable[Any]) -> None:
        self.title, self.columns, self.records = title, tuple(columns), list(records)
        super().__init__([{key(c.name): machine(c.value(r)) for c in self.columns}
                          for r in self.records])

    def human_readable(self) -> str:
        return f"{len(self.records)}"


def key(name: str) -> str:
    """A column's name for programs."""
    return name.replace(" ", "_")


def machine(value: Any) -> Any:
    return value.machine_readable() if isinstance(value, FormattableColumn) else value


def human(value: Any) -> Any:
    """What a table shows: harmless text, right-aligned numbers."""
    if isinstance(value, FormattableColumn):
        return terminal.printable(value.human_readable())
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return terminal.printable(value) if isinstance(value, str) else value


def plain(value: Any) -> Any:
    """What a shell, a spreadsheet or a pipe gets: raw numbers, lists with
    commas, harmless text."""
    import json
    value = machine(value)
    if value is None:
        return ""
    if isinstance(value, (list, tuple)) and not any(isinstance(v, (dict, list)) for v in value):
        return terminal.printable(",".join(map(str, value)))
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value)
    return terminal.printable(value) if isinstance(value, str) else value
