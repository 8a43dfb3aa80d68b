"""Values for people and for programs."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver.cli.columns import (
    Amount,
    Column,
    Digest,
    Digests,
    Id,
    Lines,
    Listing,
    Moment,
    Pairs,
    Ports,
    Size,
    Words,
    human,
    machine,
    plain,
    size,
)


@pytest.mark.parametrize(("count", "shown"), [
    (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"),
    (1 << 50, "1.0 PiB"), (5000 << 50, "5000.0 PiB"),
])
def test_sizes(count: int, shown: str) -> None:
    assert size(count) == shown
    assert machine(Size(count)) == count


@pytest.mark.parametrize(("value", "unit", "shown"), [
    (None, "s", ""), (0.0, "s", "0.0 s"), (12.34, "s", "12.3 s"), (0.0231, "s", "23 ms"),
    (0.00001, "s", "< 1 ms"), (math.inf, "s", "-"), (2048.0, "bytes", "2.0 KiB"),
    (17.0, "files", "17 files"),
])
def test_amounts(value: float | None, unit: str, shown: str) -> None:
    assert human(Amount(value, unit)) == shown


def test_an_infinite_amount_is_null_because_json_has_none() -> None:
    assert machine(Amount(math.inf)) is None
    json.dumps(machine(Amount(math.inf)), allow_nan=False)


@pytest.mark.parametrize(("value", "people", "program", "shell"), [
    (Words(["a", "b"]), "a, b", ["a", "b"], "a,b"),
    (Lines(["a", "b"]), "a\nb", ["a", "b"], "a,b"),
    (Digest("0123456789abcdef"), "0123456789ab", "0123456789abcdef", "0123456789abcdef"),
    (Id("0123456789abcdef"), "01234567", "0123456789abcdef", "0123456789abcdef"),
    (Digests(["0123456789abcdef"]), "0123456789ab", ["0123456789abcdef"], "0123456789abcdef"),
    (Ports({80: 4080, 22: 4022}), "22->4022, 80->4080", {"22": 4022, "80": 4080},
     '{"22": 4022, "80": 4080}'),
    (Size(2048), "2.0 KiB", 2048, 2048),
    (True, "yes", True, True), (None, "", None, ""), (5, 5, 5, 5),
    ("ring\x07", "ring\\x07", "ring\x07", "ring\\x07"),
    (Words(["ring\x07"]), "ring\\x07", ["ring\x07"], "ring\\x07"),
])
def test_values_by_reader(value: Any, people: Any, program: Any, shell: Any) -> None:
    assert human(value) == people
    assert machine(value) == program
    assert plain(value) == shell


def test_a_moment_is_local_time_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine(Moment(1e9)) == 1e9
    shown = human(Moment(1e9))
    assert shown[:8] == "2001-09-"
    assert shown[13:] == ":46:40"


def test_free_form_facts_are_lines() -> None:
    facts = {"firmware": "bios", "disk": {"size": 3 << 30, "lvm": [], "systems": [
        {"device": "/dev/sda1", "type": "ext4"}]}, "drivers": list("abcdefgh")}
    assert human(Pairs(facts)).splitlines() == [
        "firmware: bios", "disk.size: 3.0 GiB",
        "disk.systems.0: device /dev/sda1, type ext4",
        "drivers: a, b, c, d, e, f and 2 more"]
    assert machine(Pairs(facts)) == facts


def test_a_listing_is_records_for_programs() -> None:
    columns = (Column("name", lambda r: r[0]), Column("its size", lambda r: Size(r[1]), long=True))
    listing = Listing("things", columns, [("a", 1), ("b", 2048)])
    assert machine(listing) == [{"name": "a", "its_size": 1}, {"name": "b", "its_size": 2048}]


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(
    st.text(), inner, max_size=4) | st.lists(inner, max_size=4), max_leaves=12).map(
        lambda found: found if isinstance(found, dict) else {"it": found}))
def test_any_facts_can_be_shown_harmlessly(facts: dict[str, Any]) -> None:
    assert all(c.isprintable() or c == "\n" for c in human(Pairs(facts)))
