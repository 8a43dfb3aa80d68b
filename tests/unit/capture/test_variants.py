from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver.capture.variants import MOST, Variants

Words = frozenset[str]


def patched(before: Words | None, after: Words | None, onto: Words | None) -> Words | None:
    """Versions are sets of words; a change adds and takes some away."""
    if before is None or after is None or onto is None:
        return after
    return (onto | (after - before)) - (before - after)


steps = st.lists(st.none() | st.tuples(st.frozensets(st.sampled_from("abcd")),
                                       st.frozensets(st.sampled_from("abcd"))),
                 min_size=1, max_size=MOST + 1)


def changed(step: tuple[Words, Words] | None, there: Words | None) -> Words | None:
    """What a step makes of a version; None removes it, or leaves it away."""
    return None if step is None or there is None else (there | step[0]) - step[1]


@given(st.frozensets(st.sampled_from("abcd")), steps)
def test_each_choice_of_steps_is_as_if_only_they_had_been(
        origin: Words, told: list[tuple[Words, Words] | None]) -> None:
    """Where each step's change does not depend on the others'."""
    versions = [origin]
    done = []  # (name, its change in the gold machine)
    for number, step in enumerate(told):
        after = changed(step, versions[-1])
        if after != versions[-1]:
            done.append((f"s{number}", step))
            versions.append(after)  # type: ignore[arg-type]
        if after is None:
            break
    if not done:
        return
    claims: list[tuple[frozenset[str], Words | None]] = [
        (frozenset({done[0][0]}), versions[1])]
    variants = Variants(origin, frozenset({done[0][0]}), versions[1])
    for number, (name, _) in enumerate(done[1:], 1):
        claims += [(when | {name}, value) for when, value in
                   variants.add(name, versions[number], versions[number + 1], patched)]
    names = [name for name, _ in done]
    for chosen in itertools.chain.from_iterable(
            itertools.combinations(names, size) for size in range(len(names) + 1)):
        met = [claim for claim in claims if claim[0] <= frozenset(chosen)]
        best = [value for when, value in met if not any(when < other for other, _ in met)]
        assert len(set(best)) <= 1
        # As a change of the gold machine: what it added and took away there.
        expected: Words | None = origin
        for name in chosen:
            number = names.index(name)
            expected = None if expected is None else patched(
                versions[number], versions[number + 1], expected)
        assert (best[0] if best else origin) == expected


def test_what_a_step_changed_in_anothers_file_needs_that() -> None:
    variants: Variants[str] = Variants(None, frozenset({"a"}), "made by a")
    assert list(variants.add("b", "made by a", "by b", lambda *_: "never asked")) == [
        (frozenset({"a"}), "by b")]
    third = dict(variants.add("c", "by b", "by c", lambda before, after, onto: f"{onto}, c"))
    assert third == {frozenset({"a", "b"}): "by c", frozenset({"a"}): "made by a, c"}


def test_what_is_made_again_needs_nobody() -> None:
    variants: Variants[str] = Variants("base's", frozenset({"a"}), None)
    assert dict(variants.add("b", None, "anew", lambda before, after, onto: after)) == {
        frozenset({"a"}): "anew", frozenset(): "anew"}


def test_of_many_steps_only_all_and_one_alone_are_told() -> None:
    variants: Variants[str] = Variants("0", frozenset({"s0"}), "1")
    for number in range(1, MOST + 2):
        found = list(variants.add(f"s{number}", str(number), str(number + 1),
                                  lambda before, after, onto: after))
        assert found[0][0] == {f"s{n}" for n in range(number)}
        assert len(found) == (2**number if number <= MOST else 2)
