from __future__ import annotations

import itertools
import random

import msgspec
import pytest

from splitimage_driver.planning import waiting
from splitimage_driver.planning.waiting import (
    PATIENCE,
    Choice,
    Entered,
    Forecast,
    Item,
    Limits,
    choose,
    entered,
    forecast,
    remaining,
)

ONE, TWO = Limits(1), Limits(2)
#: Files of parts; everything takes 4 seconds and one for each file.
SIZES = {"a": 10, "b": 20, "c": 40}


def item(name: str, **fields: object) -> Item:
    """``name`` is of the parts that it wants."""
    values: dict[str, object] = {
        "id": name, "kin": "mine", "running": False,
        "seconds": 4.0 + sum(SIZES.get(part, 0) for part in name)}
    return Item(**(values | fields))  # type: ignore[arg-type]


def running(name: str, left: float, **fields: object) -> Item:
    return item(name, running=True, seconds=left, **fields)


def ways(items: list[Item]) -> dict[tuple[str, str], float]:
    """Removing takes a tenth of injecting."""
    return {(one.id, two.id): 4.0 + sum(SIZES[p] for p in set(two.id) - set(one.id))
            + sum(SIZES[p] for p in set(one.id) - set(two.id)) / 10
            for one, two in itertools.permutations(items, 2) if one.kin == two.kin}


def order(items: list[Item], limits: Limits = ONE) -> list[tuple[str, str]]:
    """All of them, one after the other: (what, from what)."""
    costs, left, found = ways(items), list(items), list[tuple[str, str]]()
    stored = {each.id: "" for each in items}
    while left:
        choice = choose(left, costs, limits)
        assert choice is not None
        found.append((choice.item, stored[choice.item]))
        for each in left:
            if costs.get((choice.item, each.id), each.seconds) < each.seconds:
                stored[each.id] = choice.item
        left = waiting.ended(left, costs, choice.item)
    return found


def test_alone_one_begins_at_once() -> None:
    assert choose([item("a")], {}, ONE) == Choice("a", ())
    assert choose([], {}, ONE) is None
    assert choose([running("a", 3), item("b")], {}, ONE) is None


@pytest.mark.parametrize("arrival", list(itertools.permutations(["a", "ab", "abc"])))
def test_kin_are_made_from_each_other(arrival: tuple[str, ...]) -> None:
    assert order([item(name) for name in arrival]) == [("a", ""), ("ab", "a"), ("abc", "ab")]


def test_it_is_cheaper_to_remove_than_to_inject() -> None:
    """In order of arrival b would be injected twice."""
    assert order([item("a"), item("b"), item("ab")]) == [("a", ""), ("ab", "a"), ("b", "ab")]


def test_it_costs_as_little_as_any_order() -> None:
    chosen = random.Random(7)
    for _ in range(30):
        names = chosen.sample(["a", "b", "c", "ab", "ac", "bc", "abc"], 4)
        items = [item(name) for name in names]
        costs = ways(items)
        stored = {each.id: each.seconds for each in items}

        def spent(way: list[str], stored: dict[str, float] = stored,
                  costs: dict[tuple[str, str], float] = costs) -> float:
            return sum(min([stored[name], *(costs[other, name] for other in way[:number])])
                       for number, name in enumerate(way))

        found = spent([name for name, _ in order(items)])
        assert found == pytest.approx(min(map(spent, map(list, itertools.permutations(names)))))


def test_strangers_come_in_order_of_arrival() -> None:
    items = [item("b", kin="x"), item("a", kin="y"), item("ab", kin="y"), item("c", kin="x")]
    assert [name for name, _ in order(items)] == ["b", "a", "ab", "c"]
    # Whoever the first is to be made from has its turn.
    items = [item("ab", kin="x"), item("c", kin="y"), item("a", kin="x")]
    assert choose(items, ways(items), ONE) == Choice("a", ("ab", "c"))


def test_one_is_never_made_from_a_strangers() -> None:
    costs = {("a", "ab"): 0.0}
    for other in item("a", kin="other"), running("a", 0.0, kin="other"):
        found = entered([item("ab")], costs)
        assert found == {"ab": Entered("", 34.0)}
        assert choose([item("ab"), other], costs, TWO) == Choice("ab", ())


@pytest.mark.parametrize(("left", "source"), [(1.0, "a"), (9.9, "a"), (10.0, ""), (14.0, "")])
def test_waiting_for_one_that_runs_must_be_worth_it(left: float, source: str) -> None:
    items = [running("a", left), item("ab")]
    costs = ways(items)
    assert entered(items, costs)["ab"].source == source
    assert (choose(items, costs, TWO) is None) is (source == "a")
    # What runs is late: it is not waited for without end.
    assert choose(waiting.ended(items, {}, "a"), costs, TWO) == Choice("ab", ())


def test_who_waits_for_one_that_runs_leaves_the_place_to_others() -> None:
    items = [running("a", 1.0), item("ab"), item("c", kin="other"), item("abc")]
    costs = ways(items)
    # abc is to be made from ab, which waits.
    assert choose(items, costs, TWO) == Choice("c", ())
    assert choose([each for each in items if each.id != "c"], costs, TWO) is None


def test_what_takes_longer_than_predicted() -> None:
    assert [remaining(10, elapsed) for elapsed in (-5, 0, 4, 10, 13)] == [10, 10, 6, 0, 3]


def test_nobody_is_overtaken_for_ever() -> None:
    """Others come that each would best be made before it, one after the other."""
    first = item("abc")
    for number in range(PATIENCE + 1):
        other = msgspec.structs.replace(item("a"), id=f"a{number}")
        costs = {(other.id, first.id): 1.0}
        choice = choose([first, other], costs, ONE)
        assert choice is not None
        if number < PATIENCE:
            assert choice == Choice(other.id, (first.id,))
            first = msgspec.structs.replace(first, overtaken=first.overtaken + 1)
    assert choice == Choice(first.id, ())
    # Nor does it wait for one that runs, or leave a place to those before it.
    items = [item("c", kin="other"), running("ab", 0.0), first]
    assert choose(items, ways(items), TWO) == Choice(first.id, ("c",))


def test_who_does_not_fit_waits() -> None:
    limits = Limits(3, room=100)
    items = [running("a", 50.0, room=60), item("b", room=50, kin="x"), item("c", room=40, kin="y")]
    assert choose(items, {}, limits) == Choice("c", ("b",))
    assert choose([items[0], items[1]], {}, limits) is None
    assert choose(items[1:], {}, limits) == Choice("b", ())
    late = msgspec.structs.replace(items[1], overtaken=PATIENCE)
    assert choose([items[0], late, items[2]], {}, limits) is None


def test_a_forecast() -> None:
    items = [running("a", 2.0), item("abc"), item("ab"), item("c", kin="other")]
    costs = ways(items)
    assert forecast(items, costs, ONE) == {
        "a": Forecast("", 2.0), "ab": Forecast("a", 26.0), "abc": Forecast("ab", 70.0),
        "c": Forecast("", 114.0)}
    # With two places the other one does not wait.
    assert forecast(items, costs, TWO) == {
        "a": Forecast("", 2.0), "ab": Forecast("a", 26.0), "c": Forecast("", 44.0),
        "abc": Forecast("ab", 70.0)}
    assert forecast([item("a", room=2)], {}, Limits(1, room=1)) == {}
