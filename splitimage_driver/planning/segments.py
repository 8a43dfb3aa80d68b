"""The documents of one operating system: sorted segments, and a short list of
new ones that is read in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from splitimage_driver.planning import building, kernels
from splitimage_driver.planning.records import WINDOW, WORD, Best, Query, Scratch, Segment

if TYPE_CHECKING:
    from splitimage_driver.planning.elements import Elements

#: New documents, before they are sorted.
_FRESH = 4096
#: A segment is merged into the one before it unless that is so much larger.
_RATIO = 4
#: Number of the list of new documents among the segments.
_NEW = -1


class _Sorted(NamedTuple):
    """:ivar documents: the number of each place"""

    segment: Segment
    frequent: np.ndarray
    documents: np.ndarray


class _Fresh:
    """New documents, in order of arrival."""

    def __init__(self) -> None:
        self.used = 0
        self.start = np.zeros(_FRESH + 1, dtype=np.int64)
        self.rows = np.empty(64 * _FRESH, dtype=np.uint32)
        self.files, self.size, self.fetch = (np.zeros(_FRESH, dtype=np.int64) for _ in range(3))
        self.alive = np.zeros(_FRESH, dtype=np.uint8)
        self.documents = np.zeros(_FRESH, dtype=np.int64)

    def append(self, document: int, row: np.ndarray, elements: Elements) -> int:
        place = self.used
        first = int(self.start[place])
        last = first + len(row)
        if last > len(self.rows):
            self.rows = np.concatenate([self.rows, np.empty(last, dtype=np.uint32)])
        self.rows[first:last] = row
        self.start[place + 1] = last
        self.files[place] = elements.files[row].sum()
        self.size[place] = elements.sizes[row].sum()
        self.documents[place] = document
        self.used += 1
        return place


class Shelf:
    """All documents of one system, numbered as they come."""

    def __init__(self) -> None:
        self._sorted: list[_Sorted] = []
        self._fresh = _Fresh()
        self._members: list[str | list[str]] = []
        #: Segment (or _NEW) and place of each document.
        self._segment = np.zeros(_FRESH, dtype=np.int32)
        self._place = np.zeros(_FRESH, dtype=np.int32)
        #: Hash of a row to its document; on a collision the next number.
        self._known: dict[int, int] = {}
        self._scratch = self._make_scratch(_FRESH)

    @staticmethod
    def _make_scratch(documents: int) -> Scratch:
        return Scratch(
            tried=np.full(8, -1, dtype=np.int64), sums=np.zeros(documents),
            touched=np.zeros(WINDOW, dtype=np.int64), exact=np.zeros((8, 256)),
            upper=np.zeros((8, 256)), lower=np.zeros((8, 256)),
            counts=np.zeros(64, dtype=np.int64),
            planes=np.zeros((64, WINDOW // WORD), dtype=np.uint64),
            bits=np.zeros(WINDOW // WORD, dtype=np.uint64),
            carry=np.zeros(WINDOW // WORD, dtype=np.uint64),
            waste=np.zeros(WINDOW // WORD))

    # -- documents ------------------------------------------------------------------

    def find(self, row: np.ndarray) -> int | None:
        """The document that has just these elements."""
        key = hash(row.tobytes())
        while (document := self._known.get(key)) is not None:
            if np.array_equal(self.row(document), row):
                return document
            key += 1
        return None

    def row(self, document: int) -> np.ndarray:
        number, place = int(self._segment[document]), int(self._place[document])
        held = self._fresh if number == _NEW else self._sorted[number].segment
        found: np.ndarray = held.rows[held.start[place]:held.start[place + 1]]
        return found

    def new(self, row: np.ndarray, elements: Elements) -> int:
        """A document that is not there yet, without members."""
        if self._fresh.used == _FRESH:
            self.settle(elements)
        document = self._register(row)
        self._segment[document] = _NEW
        self._place[document] = self._fresh.append(document, row, elements)
        return document

    def _register(self, row: np.ndarray) -> int:
        document = len(self._members)
        self._members.append([])
        if document == len(self._segment):
            self._segment = np.concatenate([self._segment, self._segment])
            self._place = np.concatenate([self._place, self._place])
        key = hash(row.tobytes())
        while key in self._known:
            key += 1
        self._known[key] = document
        return document

    def fill(self, start: np.ndarray, rows: np.ndarray, elements: Elements) -> list[int]:
        """Many at once, members to come: the document of each. Rows need not
        be sorted."""
        documents = []
        fresh: list[int] = []
        lengths: list[int] = []
        pieces: list[np.ndarray] = []
        pending: dict[bytes, int] = {}
        for at in range(len(start) - 1):
            row = np.sort(rows[start[at]:start[at + 1]])
            content = row.tobytes()
            found = pending.get(content)
            if found is None and self._sorted:
                found = self.find(row)
            if found is None:
                found = pending[content] = len(self._members) + len(fresh)
                fresh.append(found)
                lengths.append(len(row))
                pieces.append(row)
            documents.append(found)
        del pending
        if not fresh:
            return documents
        for row in pieces:
            self._register(row)
        starts = np.zeros(len(pieces) + 1, dtype=np.int64)
        np.cumsum(lengths, out=starts[1:])
        together = np.concatenate(pieces)
        del pieces
        self._seal(starts, together, np.zeros(len(fresh), dtype=np.int64),
                   np.ones(len(fresh), dtype=np.uint8), np.array(fresh, dtype=np.int64),
                   elements)
        return documents

    def join(self, document: int, name: str) -> None:
        members = self._members[document]
        if isinstance(members, str):
            self._members[document] = [members, name]
        elif members:
            members.append(name)
        else:
            self._members[document] = name

    def leave(self, document: int, name: str) -> None:
        members = self._members[document]
        if isinstance(members, str):
            self._members[document] = []
        else:
            members.remove(name)

    def members(self, document: int) -> list[str]:
        members = self._members[document]
        return [members] if isinstance(members, str) else members

    def update(self, document: int, *, alive: bool, fetch: int) -> None:
        number, place = int(self._segment[document]), int(self._place[document])
        held = self._fresh if number == _NEW else self._sorted[number].segment
        held.alive[place] = alive
        held.fetch[place] = fetch

    # -- segments -------------------------------------------------------------------

    def settle(self, elements: Elements) -> None:
        """Sort the new documents once they are many."""
        fresh = self._fresh
        if fresh.used < _FRESH:
            return
        self._fresh = _Fresh()
        self._seal(fresh.start, fresh.rows[:fresh.start[-1]], fresh.fetch, fresh.alive,
                   fresh.documents, elements)

    def _seal(self, start: np.ndarray, rows: np.ndarray, fetch: np.ndarray, alive: np.ndarray,
              documents: np.ndarray, elements: Elements) -> None:
        while self._sorted and len(self._sorted[-1].documents) < _RATIO * len(documents):
            before = self._sorted.pop()
            s = before.segment
            start = np.concatenate([s.start, start[1:] + s.start[-1]])
            rows = np.concatenate([s.rows, rows])
            fetch = np.concatenate([s.fetch, fetch])
            alive = np.concatenate([s.alive, alive])
            documents = np.concatenate([before.documents, documents])
        known = len(elements)
        segment, frequent, order = building.build(
            start, rows, elements.files[:known], elements.sizes[:known], fetch, alive)
        documents = documents[order]
        while len(self._segment) < len(self._members):
            self._segment = np.concatenate([self._segment, self._segment])
            self._place = np.concatenate([self._place, self._place])
        self._segment[documents] = len(self._sorted)
        self._place[documents] = np.arange(len(documents))
        self._sorted.append(_Sorted(segment, frequent, documents.astype(np.int32)))
        if len(self._scratch.sums) < len(documents):
            self._scratch = self._make_scratch(len(documents))

    # -- queries --------------------------------------------------------------------

    def search(self, query: Query, best: Best) -> None:
        """Offer what can be among the best."""
        scratch = self._ready(query)
        for number, held in enumerate(self._sorted):
            kernels.search(number, held.segment, held.frequent, query, best, scratch)
        f = self._fresh
        if f.used:
            kernels.scan(_NEW, f.start, f.rows, f.files, f.size, f.fetch, f.alive, 0, f.used,
                         query, best, scratch)

    def evaluate(self, number: int, place: int, query: Query, *,
                 fetch: int | None = None) -> tuple[bool, float, int, int, int]:
        """Inexact or not, total, missing bytes, size; and the document."""
        held: _Fresh | Segment = self._fresh
        documents = self._fresh.documents
        if number != _NEW:
            held, documents = self._sorted[number].segment, self._sorted[number].documents
        inexact, total, missing = kernels.evaluate(
            held.start[place], held.start[place + 1], held.rows, held.files[place],
            held.size[place], held.fetch[place] if fetch is None else np.int64(fetch), query,
            self._ready(query).counts)
        return bool(inexact), float(total), int(missing), int(held.size[place]), int(
            documents[place])

    def _ready(self, query: Query) -> Scratch:
        if len(query.charge) > len(self._scratch.counts):
            self._scratch = self._scratch._replace(
                counts=np.zeros(2 * len(query.charge), dtype=np.int64))
        return self._scratch
