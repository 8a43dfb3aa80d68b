from __future__ import annotations

import itertools

import pytest

from splitimage_driver import exceptions
from splitimage_driver.model import composite as composites
from splitimage_driver.model import part as parts_
from splitimage_driver.model.composite import Answer, Base, Composite, PartRef, System, recipe


def ref(*requires: str, kind: str = parts_.SOFTWARE, completes: tuple[str, ...] = ()) -> PartRef:
    return PartRef(id="00", kind=kind, requires=requires, completes=completes,
                   hidden=kind == parts_.DEPENDENCY)


def composite(**parts: PartRef) -> Composite:
    return Composite(
        name="lamp", id="1", owner="p", created=0.0,
        system=System("debian", "12", "Debian 12", "x86_64"),
        base=Base("d", 1, 1, "m", ()), parts=parts, restore="r")


LAMP = composite(
    apache=ref("shared"), mysql=ref(), php=ref("shared", "opt"),
    shared=ref("deeper", kind=parts_.DEPENDENCY), deeper=ref(kind=parts_.DEPENDENCY),
    opt=ref(kind=parts_.DEPENDENCY),
    rest=ref(kind=parts_.REST, completes=("apache", "mysql", "php")))


@pytest.mark.parametrize(("named", "parts"), [
    ([], ()), (["mysql"], ("mysql",)), (["apache"], ("apache", "deeper", "shared")),
    (["php", "php"], ("deeper", "opt", "php", "shared")),
    (["mysql", "rest"], ("mysql", "rest")),
    (["php", "apache", "mysql"],
     ("apache", "deeper", "mysql", "opt", "php", "rest", "shared"))])
def test_closure(named: list[str], parts: tuple[str, ...]) -> None:
    for order in itertools.permutations(named):
        assert LAMP.closure(order) == parts


def test_parts_may_require_each_other() -> None:
    assert composite(a=ref("b"), b=ref("a")).closure(["a"]) == ("a", "b")


def test_unknown_parts_are_told_what_there_is() -> None:
    with pytest.raises(exceptions.UnknownPart, match=r"no part nginx \(it has: apache, mysql, php"):
        LAMP.closure(["apache", "nginx"])
    with pytest.raises(exceptions.UnknownPart, match="it has: none"):
        composite().closure(["x"])


def test_a_requirement_that_is_not_here() -> None:
    with pytest.raises(exceptions.RequirementMissing, match="a requires gone"):
        composite(a=ref("gone")).closure(["a"])


def test_dependency_parts_are_not_for_users() -> None:
    assert LAMP.visible() == ["apache", "mysql", "php", "rest"]


ANSWERS = [Answer(b"etc/motd", ("a", "b"), "keep"),
           Answer(b"etc/issue", ("a", "b"), "replace", "b")]


def test_a_recipe_does_not_depend_on_any_order() -> None:
    found = {recipe("base", parts, answers, options)
             for parts in itertools.permutations(["p1", "p2", "p3"])
             for answers in itertools.permutations(ANSWERS)
             for options in itertools.permutations(["x", "y"])}
    assert len(found) == 1


def test_every_ingredient_changes_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_rules(number: int) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(composites, "RULES", number)
            return recipe("base", ["p"])

    found = [recipe("base", ["p"]), recipe("other", ["p"]), recipe("base", ["p", "q"]),
             recipe("base", []), recipe("base", ["p"], ANSWERS[:1]),
             recipe("base", ["p"], ANSWERS[1:]), recipe("base", ["p"], (), ["x"]),
             recipe("base", ["p", "x"]), with_rules(composites.RULES + 1)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("other", [
    Answer(b"etc/motd2", ("a", "b"), "keep"), Answer(b"etc/motd", ("a", "c"), "keep"),
    Answer(b"etc/motd", ("a", "b"), "concatenate"), Answer(b"etc/motd", ("a", "b"), "keep", "a"),
    Answer(b"etc/motd", ("a", "b"), "keep", content=b"x")])
def test_every_field_of_an_answer_is_in_its_digest(other: Answer) -> None:
    assert other.digest != ANSWERS[0].digest
