"""Segments of the candidate index, made of documents: compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

from splitimage_driver.planning.records import BITS, WINDOW, WORD, Segment

#: An element that one document of so many has, or more, gets a bit for each;
#: that takes no more than twice the room of postings.
_DENSE = 64


@njit(cache=True)
def _sign(start, rows, bit, files, sizes, signature, rare_count, rare_size):  # type: ignore[no-untyped-def]
    for document in range(len(start) - 1):
        for at in range(start[document], start[document + 1]):
            element = rows[at]
            place = bit[element]
            if place >= 0:
                signature[document] |= np.uint64(1) << np.uint64(63 - place)
            else:
                rare_count[document] += files[element]
                rare_size[document] += sizes[element]


@njit(cache=True)
def _reorder(start, rows, order, new_start, new_rows):  # type: ignore[no-untyped-def]
    at = 0
    for document in range(len(order)):
        new_start[document] = at
        for old in range(start[order[document]], start[order[document] + 1]):
            new_rows[at] = rows[old]
            at += 1
    new_start[len(order)] = at


@njit(cache=True)
def _post(start, rows, dense, bits, posting, postings):  # type: ignore[no-untyped-def]
    """Counting sort by element; documents come in order."""
    for document in range(len(start) - 1):
        for at in range(start[document], start[document + 1]):
            element = rows[at]
            if dense[element] < 0:
                postings[posting[element]] = document
                posting[element] += 1
            else:
                bits[dense[element], document // WORD] |= (
                    np.uint64(1) << np.uint64(document % WORD))
    for element in range(len(posting) - 1, 0, -1):
        posting[element] = posting[element - 1]
    posting[0] = 0


def build(start: np.ndarray, rows: np.ndarray, files: np.ndarray, sizes: np.ndarray,
          fetch: np.ndarray, alive: np.ndarray) -> tuple[Segment, np.ndarray, np.ndarray]:
    """A segment of these documents, the element of each bit, and the old
    number of each document."""
    documents, known = len(start) - 1, len(files)
    often = np.bincount(rows, minlength=known)
    top = np.argsort(-often, kind="stable")[:BITS]
    top = top[often[top] > 0]
    share = often[top] / max(1, documents)
    # The bits that tell most come first in the order: halves, of much weight.
    weight = (files[top] / max(1.0, files.mean()) + sizes[top] / max(1.0, sizes.mean()))
    top = top[np.argsort(-(share * (1 - share) * weight), kind="stable")]
    frequent = np.full(BITS, -1, dtype=np.int64)
    frequent[:len(top)] = top
    bit = np.full(known, -1, dtype=np.int8)
    bit[top] = np.arange(len(top))
    signature = np.zeros(documents, dtype=np.uint64)
    rare_count = np.zeros(documents, dtype=np.int64)
    rare_size = np.zeros(documents, dtype=np.int64)
    _sign(start, rows, bit, files, sizes, signature, rare_count, rare_size)
    order = np.argsort(signature, kind="stable")
    count, size = _totals(start, rows, files, sizes)
    load = count / max(1.0, count.mean()) + size / max(1.0, size.mean())
    order = order[np.lexsort((load[order], np.arange(documents) // WINDOW))]
    new_start, new_rows = np.empty_like(start), np.empty_like(rows)
    _reorder(start, rows, order, new_start, new_rows)
    common = np.flatnonzero(often * _DENSE >= max(1, documents))
    dense = np.full(known, -1, dtype=np.int32)
    dense[common] = np.arange(len(common))
    bits = np.zeros((len(common), -(-documents // WORD)), dtype=np.uint64)
    lengths = often.copy()
    lengths[common] = 0
    posting = np.zeros(known + 1, dtype=np.int64)
    np.cumsum(lengths, out=posting[1:])
    postings = np.empty(int(posting[-1]), dtype=np.uint32)
    _post(new_start, new_rows, dense, bits, posting, postings)
    signature, rare_count, rare_size = signature[order], rare_count[order], rare_size[order]
    count, size = count[order], size[order]
    words, windows = np.arange(0, documents, WORD), np.arange(0, documents, WINDOW)
    segment = Segment(new_start, new_rows, count, size, rare_count, rare_size, fetch[order],
                      alive[order], _split(signature), bit,
                      often.astype(np.int32), dense, bits, posting, postings,
                      np.minimum.reduceat(count, words).astype(np.float64),
                      np.minimum.reduceat(size, words).astype(np.float64),
                      _split(np.bitwise_or.reduceat(signature, windows)),
                      _split(np.bitwise_and.reduceat(signature, windows)),
                      np.minimum.reduceat(rare_count, windows).astype(np.float64),
                      np.minimum.reduceat(rare_size, windows).astype(np.float64),
                      int(count.max(initial=0)), int(size.max(initial=0)))
    return segment, frequent, order


def _split(signature: np.ndarray) -> np.ndarray:
    """Into bytes, the first bit's first."""
    return np.ascontiguousarray(signature.astype(">u8")).view(np.uint8).reshape(-1, BITS // 8)


@njit(cache=True)
def _totals(start, rows, files, sizes):  # type: ignore[no-untyped-def]
    documents = len(start) - 1
    count = np.zeros(documents, dtype=np.int64)
    size = np.zeros(documents, dtype=np.int64)
    for document in range(documents):
        for at in range(start[document], start[document + 1]):
            count[document] += files[rows[at]]
            size[document] += sizes[rows[at]]
    return count, size
