"""What one path, or one row of a file, is for each choice of the steps that
changed it.

A gold machine shows a file only as all steps together left it. A request may
leave some of them out; then the change of each later step is carried over to
what the earlier steps that are there have made.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from splitimage_driver.capture.draft import ALWAYS, When

T = TypeVar("T")
#: (before, after, onto): the step's change of one version made to another;
#: ``before`` and ``onto`` are None where there is nothing yet.
Patch = Callable[[T | None, T | None, T | None], T | None]

#: Earlier steps of which all choices are told; with more only the last
#: state, and the step alone.
MOST = 4


class Variants(Generic[T]):
    """The versions of one path or row.

    :param origin: the base's; None: it has none
    :param condition: parts whose presence means the first step's change
    :param first: what that made of it; None: removed
    """

    def __init__(self, origin: T | None, condition: When, first: T | None) -> None:
        self._conditions = [condition]
        self._known: dict[frozenset[int], T | None] = {
            frozenset(): origin, frozenset((0,)): first}

    def add(self, part: str, before: T | None, after: T | None,
            patch: Patch[T]) -> Iterator[tuple[When, T | None]]:
        """A later step's change, told by ``part``.

        :returns: (parts that must be there too, what it is then), the gold
            machine's own state first
        """
        number = len(self._conditions)
        every = frozenset(range(number))
        self._known[every | {number}] = after
        yield self._when(every) - {part}, after
        for choice in _choices(number):
            onto = self._known.get(choice)
            # What the step changed may not be there.
            value = None if onto is None and before is not None else patch(before, after, onto)
            self._known[choice | {number}] = value
            # Told also where it changes nothing: it has the last word about
            # what its steps say each for themselves.
            if value != onto or (choice and (0 in choice or self._known[frozenset()] is not None)):
                yield self._when(choice) - {part}, value
        self._conditions.append(frozenset((part,)))

    def _when(self, choice: frozenset[int]) -> When:
        return ALWAYS.union(*(self._conditions[number] for number in choice))


def _choices(number: int) -> Iterator[frozenset[int]]:
    """Sets of some, not all, of the first ``number`` steps."""
    if number > MOST:
        yield frozenset()
        return
    for size in range(number):
        yield from map(frozenset, itertools.combinations(range(number), size))
