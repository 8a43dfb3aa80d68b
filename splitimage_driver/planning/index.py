"""The candidate index: the exact nearest images among very many.

Images are sets of elements. An element is a part of the library that the
index knows, or a single file; an image's elements never overlap, so sums over
elements are sums over files, whatever the mixture. Equal sets are one document
with several members. New documents are kept in a small list that is read in
full, and move into a sorted segment (:mod:`splitimage_driver.planning.kernels`)
when it is full; segments are merged when one is not much smaller than its
neighbour.

Not for use by several threads at once.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from splitimage_driver import exceptions
from splitimage_driver.model.catalog import File, FileSet
from splitimage_driver.planning import difference
from splitimage_driver.planning.difference import Pricing, Wanted
from splitimage_driver.planning.elements import Elements
from splitimage_driver.planning.records import Best, Query
from splitimage_driver.planning.segments import Shelf

_SCHEMA = 1
#: Documents that a query finds room for at first.
_FOUND = 1024


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """Of a saved index: all but its arrays."""

    schema: int
    parts: dict[str, FileSet]
    singles: list[File]
    systems: list[str]
    names: list[list[str]]
    fetch: dict[str, int]


class Nearest(NamedTuple):
    """:ivar total: seconds
    :ivar missing_bytes: to be written
    :ivar size: of the image, in bytes
    """

    id: str
    exact: bool
    total: float
    missing_bytes: int
    size: int


class Effort(NamedTuple):
    """What the last query took, for those who measure: documents evaluated,
    postings and words of bits read."""

    evaluated: int
    postings: int
    words: int


class CandidateIndex:
    """:param parts: the library: images and requests that name parts mean these"""

    def __init__(self, parts: Mapping[str, FileSet] | None = None) -> None:
        self.elements = Elements(parts or {})
        self.effort = Effort(0, 0, 0)
        self._shelves: dict[str, Shelf] = {}
        #: Id to its system, document and bytes to fetch.
        self._images: dict[str, tuple[str, int]] = {}
        self._fetch: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._images)

    def __contains__(self, name: str) -> bool:
        return name in self._images

    # -- changes --------------------------------------------------------------------

    def add(self, name: str, system: str, *, parts: Sequence[str] = (),
            files: Iterable[File] = (), fetch_bytes: int = 0) -> None:
        """Add an image made of parts, of files, or of both.

        :raises AlreadyExists: there is an image of that id
        :raises InvalidInput: a part is unknown, or a path is there twice with
            different contents
        """
        if name in self._images:
            raise exceptions.AlreadyExists(kind="image", name=name, where="the index")
        row = self.elements.row(name, parts, files)
        self._add(name, system, row, fetch_bytes)

    def _add(self, name: str, system: str, row: np.ndarray, fetch_bytes: int) -> None:
        shelf = self._shelf(system)
        document = shelf.find(row)
        if document is None:
            document = shelf.new(row, self.elements)
        shelf.join(document, name)
        self._images[name] = (system, document)
        if fetch_bytes:
            self._fetch[name] = fetch_bytes
        self._refresh(shelf, document)

    def extend(self, system: str, names: Sequence[str], start: np.ndarray,
               parts: np.ndarray) -> None:
        """Add many images that are made of parts only.

        :param start: where the parts of each begin in ``parts``; one more at
            the end
        :param parts: numbers of parts, in the order of the library
        """
        if self.elements.overlapping:
            library = self.elements.names
            for number, name in enumerate(names):
                self.add(name, system, parts=[
                    library[part] for part in parts[start[number]:start[number + 1]]])
            return
        shelf = self._shelf(system)
        for name, document in zip(names, shelf.fill(start, parts.astype(np.uint32),
                                                    self.elements), strict=True):
            if name in self._images:
                raise exceptions.AlreadyExists(kind="image", name=name, where="the index")
            shelf.join(document, name)
            self._images[name] = (system, document)

    def remove(self, name: str) -> None:
        """:raises NotFound: there is no such image"""
        found = self._images.pop(name, None)
        if found is None:
            raise exceptions.NotFound(kind="image", name=name, where="the index")
        system, document = found
        self._fetch.pop(name, None)
        shelf = self._shelves[system]
        shelf.leave(document, name)
        self._refresh(shelf, document)

    def _refresh(self, shelf: Shelf, document: int) -> None:
        members = shelf.members(document)
        least = min((self._fetch.get(m, 0) for m in members), default=0) if self._fetch else 0
        shelf.update(document, alive=bool(members), fetch=least)

    def _shelf(self, system: str) -> Shelf:
        return self._shelves.setdefault(system, Shelf())

    # -- queries --------------------------------------------------------------------

    def nearest(self, request: Wanted, pricing: Pricing, k: int = 1) -> list[Nearest]:
        """The ``k`` best images of the request's system, the best first, in
        the order of :attr:`splitimage_driver.planning.difference.Comparison.order`."""
        shelf = self._shelves.get(request.os)
        if shelf is None:
            return []
        shelf.settle(self.elements)
        room = max(_FOUND, 2 * k)
        with self.elements.query(request, pricing) as query:
            while True:
                best = Best(np.empty((k, 4)), np.empty((room, 2), dtype=np.int64),
                                    np.zeros(6, dtype=np.int64))
                shelf.search(query, best)
                if best.state[2] == 0:
                    break
                # More ties than there was room for.
                room = 2 * int(best.state[1] + best.state[2])
            self.effort = Effort(*best.state[3:].tolist())
            found = list(self._ranked(shelf, query, best, pricing))
        found.sort(key=lambda n: (not n.exact, difference.settled(n.total), n.missing_bytes,
                                  n.size, n.id))
        return found[:k]

    def _ranked(self, shelf: Shelf, query: Query, best: Best,
                pricing: Pricing) -> Iterator[Nearest]:
        have = int(best.state[0])
        last = tuple(best.key[have - 1]) if have else ()
        for segment, place in best.found[:best.state[1]].tolist():
            inexact, total, missing_bytes, size, document = shelf.evaluate(segment, place, query)
            if (inexact, difference.settled(total), missing_bytes, size) > last:
                continue  # better ones came later
            members = shelf.members(document)
            least = min(self._fetch.get(m, 0) for m in members) if self._fetch else 0
            for name in members:
                more = self._fetch.get(name, 0) if self._fetch else 0
                if more != least:
                    _, total, *_ = shelf.evaluate(segment, place, query, fetch=more)
                yield Nearest(name, not inexact, total, missing_bytes, size)
                if more != least:
                    _, total, *_ = shelf.evaluate(segment, place, query)

    # -- saved and loaded ---------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write all of it beside ``path``, then in its place."""
        parts = {name: self.elements.parts[name] for name in self.elements.names}
        shelves = list(self._rows())
        head = _Head(schema=_SCHEMA, parts=parts, singles=self.elements.singles(),
                     systems=[system for system, *_ in shelves],
                     names=[names for _, names, *_ in shelves], fetch=self._fetch)
        encoded = np.frombuffer(msgspec.msgpack.encode(head), dtype=np.uint8)
        arrays: dict[str, Any] = {"head": encoded}
        for number, (_, _, start, rows) in enumerate(shelves):
            arrays[f"start{number}"], arrays[f"rows{number}"] = start, rows
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with beside.open("wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> CandidateIndex:
        """:raises InvalidInput: it is not a saved index, or damaged"""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                head = msgspec.msgpack.decode(arrays["head"].tobytes(), type=_Head)
                if head.schema != _SCHEMA:
                    raise ValueError(f"schema {head.schema} is not known")
                index = cls(head.parts)
                for file in head.singles:
                    index.elements.single(file)
                for number, system in enumerate(head.systems):
                    index._restore(system, head.names[number], arrays[f"start{number}"],
                                   arrays[f"rows{number}"], head.fetch)
                return index
        except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile, EOFError,
                msgspec.DecodeError) as error:
            raise exceptions.InvalidInput(what=f"index {path}", reason=str(error)) from error

    def _rows(self) -> Iterator[tuple[str, list[str], np.ndarray, np.ndarray]]:
        """By system: ids, where their elements begin, and these."""
        for system in sorted(self._shelves):
            shelf = self._shelves[system]
            names = [n for n, (s, _) in self._images.items() if s == system]
            rows = [shelf.row(self._images[n][1]) for n in names]
            start = np.zeros(len(rows) + 1, dtype=np.int64)
            np.cumsum([len(row) for row in rows], out=start[1:])
            yield system, names, start, (np.concatenate(rows) if rows
                                         else np.empty(0, dtype=np.uint32))

    def _restore(self, system: str, names: Sequence[str], start: np.ndarray, rows: np.ndarray,
                 fetch: Mapping[str, int]) -> None:
        if (len(start) != len(names) + 1 or start[0] != 0 or start[-1] != len(rows)
                or (np.diff(start) < 0).any()
                or (len(rows) and rows.max() >= len(self.elements))):
            raise ValueError("its arrays do not fit together")
        shelf = self._shelf(system)
        for name, document in zip(names, shelf.fill(start, rows, self.elements), strict=True):
            shelf.join(document, name)
            self._images[name] = (system, document)
        for name in set(names) & fetch.keys():
            self._fetch[name] = fetch[name]
        for name in set(names) & fetch.keys():
            self._refresh(shelf, self._images[name][1])
