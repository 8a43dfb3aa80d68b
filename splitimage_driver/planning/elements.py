"""Elements of images, parts and single files, and what a request shares with
them."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from splitimage_driver import exceptions
from splitimage_driver.model.catalog import File, FileSet
from splitimage_driver.planning.difference import Pricing, Wanted
from splitimage_driver.planning.records import Query


class _Share:
    """What an element and a request have in common.

    ``gains`` are files and bytes not to be transferred, files and bytes not to
    be injected one by one, files and bytes not in excess; ``touches`` the
    number of files by charge of the request.
    """

    __slots__ = ("gains", "touches")

    def __init__(self) -> None:
        self.gains = [0, 0, 0, 0, 0, 0]
        self.touches: dict[int, int] = {}


class Elements:
    """:param parts: the library; its parts are the first elements"""

    def __init__(self, parts: Mapping[str, FileSet]) -> None:
        self.names = list(parts)
        self.parts = dict(parts)
        self.numbers = {name: number for number, name in enumerate(self.names)}
        #: Files of each element.
        self.contents: list[tuple[File, ...]] = []
        self._singles: dict[tuple[str, str, int], int] = {}
        self._by_path: dict[str, list[tuple[int, File]]] = defaultdict(list)
        self._overlaps: dict[int, set[int]] = defaultdict(set)
        self._common: dict[int, list[tuple[int, int, int, int, int]]] = {}
        room = max(16, 2 * len(parts))
        self.files = np.zeros(room, dtype=np.int64)
        self.sizes = np.zeros(room, dtype=np.int64)
        self._place = np.full(room, -1, dtype=np.int32)
        for part in parts.values():
            self._new(part.files)
        for entries in self._by_path.values():
            if len(entries) > 1:
                numbers = {number for number, _ in entries}
                for number in numbers:
                    self._overlaps[number] |= numbers - {number}

    def __len__(self) -> int:
        return len(self.contents)

    @property
    def overlapping(self) -> bool:
        """Whether some parts share paths."""
        return bool(self._overlaps)

    def _new(self, files: tuple[File, ...]) -> int:
        number = len(self.contents)
        if number == len(self.files):
            more = np.zeros(number, dtype=np.int64)
            self.files = np.concatenate([self.files, more])
            self.sizes = np.concatenate([self.sizes, more])
            self._place = np.concatenate([self._place, np.full(number, -1, dtype=np.int32)])
        self.contents.append(files)
        self.files[number] = len(files)
        self.sizes[number] = sum(f.size for f in files)
        for file in files:
            self._by_path[file.path].append((number, file))
        return number

    def single(self, file: File) -> int:
        """The element that is just this file."""
        key = (file.path, file.digest, file.size)
        number = self._singles.get(key)
        if number is None:
            for part, _ in self._by_path.get(file.path, ()):
                # What it has in common with others changes.
                self._common.pop(part, None)
            number = self._singles[key] = self._new((file,))
        return number

    def singles(self) -> list[File]:
        """Files that are elements, in the order of their numbers."""
        return [self.contents[number][0] for number in self._singles.values()]

    def row(self, name: str, parts: Sequence[str], files: Iterable[File]) -> np.ndarray:
        """An image's elements, sorted; none overlaps another.

        :raises InvalidInput: an unknown part; a path with two contents
        """
        row: set[int] = set()
        loose: list[File] = []
        for part in parts:
            number = self.numbers.get(part)
            if number is None:
                raise exceptions.InvalidInput(what=f"image {name}",
                                              reason=f"there is no part {part}")
            if self._overlaps and not row.isdisjoint(self._overlaps.get(number, ())):
                loose += self.contents[number]
            else:
                row.add(number)
        loose += files
        for file in loose:
            for number, other in self._by_path.get(file.path, ()):
                if number in row:
                    if (other.digest, other.size) != (file.digest, file.size):
                        raise exceptions.InvalidInput(
                            what=f"image {name}", reason=f"path {file.path} is there twice")
                    break
            else:
                row.add(self.single(file))
        return np.array(sorted(row), dtype=np.uint32)

    # -- requests -------------------------------------------------------------------

    @contextlib.contextmanager
    def query(self, request: Wanted, pricing: Pricing) -> Iterator[Query]:
        """The request as the kernels take it; one at a time."""
        shares, wanted = self._shared(request)
        elements = np.fromiter(shares, dtype=np.int64, count=len(shares))
        gains = np.array([s.gains for s in shares.values()], dtype=np.int64).reshape(-1, 6)
        charge = np.array([c.seconds for c in request.charges], dtype=np.float64)
        charge_files = np.array([len(c.paths) for c in request.charges], dtype=np.int64)
        p = pricing
        weight = (p.alpha * gains[:, 1] / p.bandwidth
                  + p.beta * (gains[:, 2] * p.inject_seconds + gains[:, 3] / p.inject_rate)
                  + p.gamma * gains[:, 4] * p.remove_seconds
                  + p.delta * gains[:, 5] / p.bandwidth)
        starts, touched, touches = [0], [], []
        for at, share in enumerate(shares.values()):
            for number, files in share.touches.items():
                touched.append(number)
                touches.append(files)
                # No more than its share of what the whole would save.
                weight[at] += p.beta * charge[number] * files / charge_files[number]
            starts.append(len(touched))
        most = (p.alpha * wanted[1] / p.bandwidth
                + p.beta * (wanted[2] * p.inject_seconds + wanted[3] / p.inject_rate
                            + float(charge.sum())))
        self._place[elements] = np.arange(len(elements))
        try:
            yield Query(elements, self._place, gains, np.array(wanted, dtype=np.int64), weight,
                        np.array(starts, dtype=np.int64), np.array(touched, dtype=np.int64),
                        np.array(touches, dtype=np.int64), charge, charge_files, self.files,
                        self.sizes, np.array(pricing, dtype=np.float64), float(most))
        finally:
            self._place[elements] = -1

    def _shared(self, request: Wanted) -> tuple[dict[int, _Share], tuple[int, int, int, int]]:
        numbers = [self.numbers.get(part, -1) for part in request.parts]
        if numbers and min(numbers) >= 0 and not (self._overlaps and any(
                not self._overlaps.get(n, set()).isdisjoint(numbers) for n in numbers)):
            return self._by_parts(request, numbers)
        return self._by_files(request)

    def _by_parts(self, request: Wanted, numbers: Sequence[int],
                  ) -> tuple[dict[int, _Share], tuple[int, int, int, int]]:
        """Parts that share no path: what they have in common with elements
        adds up, and is remembered."""
        shares: dict[int, _Share] = defaultdict(_Share)
        files = size = by_file = by_file_size = charge = 0
        for number in numbers:
            part = self.parts[self.names[number]]
            charged = part.inject_seconds is not None and bool(part.files)
            files += int(self.files[number])
            size += int(self.sizes[number])
            if not charged:
                by_file += int(self.files[number])
                by_file_size += int(self.sizes[number])
            for element, same, same_size, met, met_size in self._met(number):
                share = shares[element]
                gains = share.gains
                gains[0] += same
                gains[1] += same_size
                if not charged:
                    gains[2] += same
                    gains[3] += same_size
                elif same:
                    share.touches[charge] = same
                gains[4] += met
                gains[5] += met_size
            charge += charged
        return shares, (files, size, by_file, by_file_size)

    def _met(self, number: int) -> list[tuple[int, int, int, int, int]]:
        """By element that shares paths with a part: files and bytes that are
        the same, files and bytes of the element at these paths."""
        found = self._common.get(number)
        if found is None:
            met: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
            for file in self.contents[number]:
                for element, other in self._by_path[file.path]:
                    counts = met[element]
                    if other.digest == file.digest:
                        counts[0] += 1
                        counts[1] += file.size
                    counts[2] += 1
                    counts[3] += other.size
            found = self._common[number] = [(e, c[0], c[1], c[2], c[3]) for e, c in met.items()]
        return found

    def _by_files(self, request: Wanted,
                  ) -> tuple[dict[int, _Share], tuple[int, int, int, int]]:
        shares: dict[int, _Share] = defaultdict(_Share)
        charges: dict[str, list[int]] = defaultdict(list)
        for number, charge in enumerate(request.charges):
            for path in charge.paths:
                charges[path].append(number)
        size = by_file = by_file_size = 0
        for path, file in request.files.items():
            charged = charges.get(path, ())
            size += file.size
            if not charged:
                by_file += 1
                by_file_size += file.size
            for element, other in self._by_path.get(path, ()):
                share = shares[element]
                gains = share.gains
                gains[4] += 1
                gains[5] += other.size
                if other.digest != file.digest:
                    continue
                gains[0] += 1
                gains[1] += file.size
                if not charged:
                    gains[2] += 1
                    gains[3] += file.size
                for number in charged:
                    share.touches[number] = share.touches.get(number, 0) + 1
        return shares, (len(request.files), size, by_file, by_file_size)
