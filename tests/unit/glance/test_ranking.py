"""Images are ranked by their parts."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from splitimage_driver.glance.ranking import Elements, Goal, Ranking, Source, Way, Weight
from splitimage_driver.planning import cost
from splitimage_driver.planning.cost import Amounts, Rates

RATES = Rates(bandwidth=100.0, inject_rate=50.0, inject_seconds=0.5, remove_seconds=0.25)
WEIGHTS = {"a": Weight(2, 1000), "b": Weight(4, 500), "c": Weight(8, 250), "d": Weight(1, 0)}


def ranking(equation: cost.Cost | None = None, prepare: float = 0.0) -> Ranking:
    return Ranking(equation or cost.Weighted(), RATES, prepare)


def source(name: str, elements: str, recipe: str = "other", size: int = 0) -> Source:
    return Source(name, Elements(elements), recipe, size)


def goal(elements: str, recipe: str = "wanted") -> Goal:
    return Goal(Elements(elements), recipe, WEIGHTS)


BASE = source("base", "", "")


@pytest.mark.parametrize(("image", "wanted", "match", "missing", "excess"), [
    (BASE, "ab", "base", "ab", ""), (BASE, "", "exact", "", ""),
    (source("i", "a"), "ab", "subset", "b", ""), (source("i", "abc"), "ab", "superset", "", "c"),
    (source("i", "ac"), "ab", "partial", "b", "c"),
    (source("i", "ab", "wanted"), "ab", "exact", "", ""),
    # Another edition of a part: not what is wanted, though it is called the same.
    (source("i", "ab"), "ab", "partial", "", "")])
def test_how_an_image_matches(image: Source, wanted: str, match: str, missing: str,
                              excess: str) -> None:
    [way] = ranking().ranked([image], goal(wanted))
    assert (way.match, way.missing, way.excess) == (match, Elements(missing), Elements(excess))


@pytest.mark.parametrize("equation", [
    cost.Download(), cost.Inject(), cost.Remove(), cost.Transport(), cost.Weighted(),
    cost.Count(), cost.Bytes()])
def test_the_cost_is_that_of_the_equation(equation: cost.Cost) -> None:
    [way] = ranking(equation, prepare=7.0).ranked([source("i", "cd")], goal("abd"))
    expected = cost.total(equation(Amounts(missing=6, missing_bytes=1500, excess=8,
                                           excess_bytes=250), RATES))
    assert way.cost == pytest.approx(expected + (7.0 if equation.unit == "s" else 0.0))
    assert way.missing_bytes == 1500


def test_an_exact_match_costs_nothing_and_comes_first() -> None:
    ways = ranking(prepare=7.0).ranked(
        [BASE, source("x", "ab"), source("z", "ab", "wanted")], goal("ab"))
    assert [(way.source.id, way.cost) for way in ways] == [("z", 0.0), ("x", 7.0),
                                                           ("base", ways[2].cost)]


def test_ties_go_to_the_smaller_image_then_to_the_lower_id() -> None:
    images = [source("c", "a", size=1), source("b", "a", size=2), source("a", "a", size=2)]
    for order in itertools.permutations(images):
        assert [way.source.id for way in ranking().ranked(order, goal("ab"))] == ["c", "a", "b"]


def test_an_element_that_nobody_knows_is_one_file_to_remove() -> None:
    [one, other] = ranking().ranked([source("i", "ax"), source("j", "a")], goal("a"))
    assert (one.source.id, other.source.id) == ("j", "i")
    assert other.cost == pytest.approx(RATES.remove_seconds)
    assert other.excess == {"x"}


def test_the_nearest_are_the_first_of_all() -> None:
    chance = random.Random(1)
    images = [source(f"{number:03}", "".join(chance.sample("abcdxyz", chance.randrange(8))),
                     size=chance.randrange(3)) for number in range(300)]
    wanted = goal("abd")
    every = ranking().ranked(images, wanted)
    assert ranking().nearest(images, wanted, 17) == every[:17]
    assert every == sorted(every, key=lambda way: way.order)


def _total(steps: list[Way]) -> float:
    return math.fsum(way.cost for way in steps)


def test_a_batch_is_the_cheapest_of_all_orders() -> None:
    chance = random.Random(2)
    plan = ranking(prepare=1.0)
    for _ in range(40):
        goals = [goal("".join(chance.sample("abcd", chance.randrange(1, 5))), f"r{number}")
                 for number in range(4)]
        stored = [plan.ranked([BASE, source("i", "c")], each)[0] for each in goals]
        groups = [chance.choice("xy") for _ in goals]
        steps = plan.batch(goals, stored, groups)
        made: set[int] = set()
        for step in steps:
            assert step.source is None or (step.source in made
                                           and groups[step.source] == groups[step.goal])
            made.add(step.goal)
        assert made == set(range(4))
        assert _total([step.way for step in steps]) == pytest.approx(
            _least(plan, goals, stored, groups))


def _least(plan: Ranking, goals: list[Goal], stored: list[Way], groups: list[str]) -> float:
    """By trying everything."""
    best = math.inf
    for choice in itertools.product(range(-1, len(goals)), repeat=len(goals)):
        if any(parent == node or (parent >= 0 and groups[parent] != groups[node])
               for node, parent in enumerate(choice)):
            continue
        if any(_turns(choice, node) for node in range(len(goals))):
            continue
        best = min(best, _total([
            stored[node] if parent < 0 else plan.ranked(
                [Source("", goals[parent].elements, goals[parent].recipe, 0)], goals[node])[0]
            for node, parent in enumerate(choice)]))
    return best


def _turns(choice: tuple[int, ...], node: int) -> bool:
    seen = set()
    while node >= 0:
        if node in seen:
            return True
        seen.add(node)
        node = choice[node]
    return False


def test_what_is_there_already_is_not_made_from_another() -> None:
    plan = ranking(prepare=1.0)
    goals = [goal("ab", "one"), goal("abc", "two")]
    stored = [plan.ranked([BASE, source("i", "ab", "one")], each)[0] for each in goals]
    steps = plan.batch(goals, stored, ["x", "x"])
    assert [(step.goal, step.source) for step in steps] == [(0, None), (1, None)]
    assert steps[0].way.cost == 0.0


def test_a_single_one_is_a_batch() -> None:
    plan = ranking()
    wanted = goal("ab")
    [step] = plan.batch([wanted], [plan.ranked([BASE], wanted)[0]], ["x"])
    assert (step.goal, step.source, step.way.source) == (0, None, BASE)
