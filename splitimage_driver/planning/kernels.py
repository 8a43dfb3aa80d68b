"""The compiled half of the candidate index: imported when an index is built.

A *document* is a set of elements (parts, or single files); elements are
numbered. The 64 most frequent elements of a segment are bits of a signature,
of which documents are sorted, so that blocks of neighbours agree in the bits
that matter most; the others have posting lists. A query looks at windows of
documents, the most promising first, and passes by what a bound excludes:

    cost >= all that is missing - gains of frequent elements (by the union and
    the intersection of a block's signatures) - gains of rare ones (summed from
    posting lists) + the block's least rare excess
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

BITS, BLOCK, WINDOW = 64, 64, 16384
#: Postings of the rarest elements that are looked at for a first good bound,
#: and how many of the documents there are tried.
_FIRST, _TRIED = 4096, 8


class Segment(NamedTuple):
    """Documents in the order of their signatures.

    :ivar start: where a document's elements begin in ``rows``; one more
    :ivar files: how many a document has; ``size`` the bytes of these
    :ivar rare_count: of its rare elements; ``rare_size`` likewise
    :ivar fetch: bytes of its disk that are not here
    :ivar bit: of an element in the signature, -1: none
    :ivar posting: where an element's documents begin in ``postings``
    :ivar union: of the signatures of a block; ``common`` their intersection
    :ivar least_count: of ``rare_count`` in a block; ``least_size`` likewise
    :ivar window_union: the same of windows, and so on
    :ivar most_count: the largest of ``files``; ``most_size`` the largest size
    """

    start: np.ndarray
    rows: np.ndarray
    files: np.ndarray
    size: np.ndarray
    rare_count: np.ndarray
    rare_size: np.ndarray
    fetch: np.ndarray
    alive: np.ndarray
    signature: np.ndarray
    bit: np.ndarray
    posting: np.ndarray
    postings: np.ndarray
    union: np.ndarray
    common: np.ndarray
    least_count: np.ndarray
    least_size: np.ndarray
    window_union: np.ndarray
    window_common: np.ndarray
    window_least_count: np.ndarray
    window_least_size: np.ndarray
    most_count: int
    most_size: int


class Query(NamedTuple):
    """:ivar elements: that share a path with the request
    :ivar place: of an element in ``elements``, -1 for all others
    :ivar gains: by element of the query: files and bytes that need not be
        transferred, files and bytes that need not be injected, files and
        bytes that are not in excess
    :ivar wanted: files, bytes, injected files and their bytes of the request
    :ivar weight: seconds that an element saves at most
    :ivar touch_start: by element: where its charges begin in ``touched``, with
        the number of files in ``touches``
    :ivar charge: seconds of each charge; ``charge_files`` how many it has
    :ivar files: of each element known; ``sizes`` their bytes
    :ivar pricing: see :class:`splitimage_driver.planning.difference.Pricing`
    :ivar most: seconds if all is missing
    """

    elements: np.ndarray
    place: np.ndarray
    gains: np.ndarray
    wanted: np.ndarray
    weight: np.ndarray
    touch_start: np.ndarray
    touched: np.ndarray
    touches: np.ndarray
    charge: np.ndarray
    charge_files: np.ndarray
    files: np.ndarray
    sizes: np.ndarray
    pricing: np.ndarray
    most: float


class Best(NamedTuple):
    """The best found so far.

    :ivar key: exact or not, cost, missing bytes, size; sorted
    :ivar found: segment and document of all that were among the best when
        they were met
    :ivar state: how many keys, how many found, how many did not fit,
        documents evaluated, postings read, blocks read
    """

    key: np.ndarray
    found: np.ndarray
    state: np.ndarray


class Scratch(NamedTuple):
    """Kept between queries; ``sums`` and ``counts`` are all zero then."""

    tried: np.ndarray
    sums: np.ndarray
    touched: np.ndarray
    exact: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    counts: np.ndarray


@njit(cache=True)
def evaluate(start, stop, rows, count, size, fetch, q, counts):  # type: ignore[no-untyped-def]
    """Exactly as ``difference.terms``, in the same order of operations.

    :returns: not exact, total, missing bytes
    """
    g0 = g1 = g2 = g3 = g4 = g5 = 0
    charged = len(q.charge) > 0
    for at in range(start, stop):
        place = q.place[rows[at]]
        if place >= 0:
            g0 += q.gains[place, 0]
            g1 += q.gains[place, 1]
            g2 += q.gains[place, 2]
            g3 += q.gains[place, 3]
            g4 += q.gains[place, 4]
            g5 += q.gains[place, 5]
            if charged:
                for touch in range(q.touch_start[place], q.touch_start[place + 1]):
                    counts[q.touched[touch]] += q.touches[touch]
    time = 0.0
    if charged:
        for charge in range(len(q.charge)):
            if counts[charge] < q.charge_files[charge]:
                time += q.charge[charge]
            counts[charge] = 0
    p = q.pricing
    missing, missing_bytes = q.wanted[0] - g0, q.wanted[1] - g1
    excess = count - g4
    download = p[4] * (missing_bytes / p[0]) + fetch / p[0]
    inject = p[5] * ((q.wanted[2] - g2) * p[2] + (q.wanted[3] - g3) / p[1] + time)
    remove = p[6] * (excess * p[3])
    transport = p[7] * ((size - g5) / p[0])
    return missing > 0 or excess > 0, download + inject + remove + transport, missing_bytes


@njit(cache=True)
def offer(number, document, inexact, total, missing_bytes, size, best):  # type: ignore[no-untyped-def]
    """Keep a document if it is among the best."""
    wide = total * 8193.0
    total = wide - (wide - total)
    key, state = best.key, best.state
    have, room = state[0], len(key)
    place = have
    while place > 0:
        other = key[place - 1]
        if inexact != other[0]:
            less = inexact < other[0]
        elif total != other[1]:
            less = total < other[1]
        elif missing_bytes != other[2]:
            less = missing_bytes < other[2]
        else:
            less = size < other[3]
        if not less:
            break
        place -= 1
    if place == room:
        other = key[room - 1]
        if not (inexact == other[0] and total == other[1] and missing_bytes == other[2]
                and size == other[3]):
            return
    else:
        for at in range(min(have, room - 1), place, -1):
            key[at, 0] = key[at - 1, 0]
            key[at, 1] = key[at - 1, 1]
            key[at, 2] = key[at - 1, 2]
            key[at, 3] = key[at - 1, 3]
        key[place, 0], key[place, 1] = inexact, total
        key[place, 2], key[place, 3] = missing_bytes, size
        state[0] = min(have + 1, room)
    if state[1] < len(best.found):
        best.found[state[1], 0], best.found[state[1], 1] = number, document
        state[1] += 1
    else:
        state[2] += 1


@njit(cache=True)
def limit(best):  # type: ignore[no-untyped-def]
    """The cost that a document must not exceed to be among the best."""
    if best.state[0] < len(best.key):
        return np.inf
    worst = best.key[len(best.key) - 1]
    # Only further exact ones could be better than an exact one.
    return worst[1] if worst[0] > 0 else 0.0


@njit(cache=True)
def scan(number, start, rows, count, size, fetch, alive, first, last, q, best, scratch):  # type: ignore[no-untyped-def]
    """Evaluate all documents from ``first`` to ``last``."""
    for document in range(first, last):
        if alive[document]:
            inexact, total, missing_bytes = evaluate(
                start[document], start[document + 1], rows, count[document], size[document],
                fetch[document], q, scratch.counts)
            best.state[3] += 1
            offer(number, document, inexact, total, missing_bytes, size[document], best)


@njit(cache=True)
def _try(number, document, s, q, best, scratch):  # type: ignore[no-untyped-def]
    for at in range(_TRIED):
        if scratch.tried[at] == document:
            return
    if s.alive[document]:
        inexact, total, missing_bytes = evaluate(
            s.start[document], s.start[document + 1], s.rows, s.files[document],
            s.size[document], s.fetch[document], q, scratch.counts)
        best.state[3] += 1
        offer(number, document, inexact, total, missing_bytes, s.size[document], best)


@njit(cache=True)
def _tables(s, q, frequent, scratch):  # type: ignore[no-untyped-def]
    """By byte of a signature and its value: the seconds it saves; the same of
    what it saves at most in a union, and wastes at least in an intersection."""
    p = q.pricing
    each, byte = p[6] * p[3], p[7] / p[0]
    value = np.zeros(64)
    for bit in range(64):
        element = frequent[bit]
        if element >= 0:
            place = q.place[element] if element < len(q.place) else -1
            value[bit] = -(each * q.files[element] + byte * q.sizes[element])
            if place >= 0:
                value[bit] += q.weight[place]
    for at in range(8):
        for pattern in range(256):
            exact = upper = lower = 0.0
            for bit in range(8):
                if pattern & (128 >> bit):
                    v = value[at * 8 + bit]
                    exact += v
                    if v > 0:
                        upper += v
                    else:
                        lower += v
            scratch.exact[at, pattern] = exact
            scratch.upper[at, pattern] = upper
            scratch.lower[at, pattern] = lower


@njit(cache=True)
def _bound(union, common, at, scratch):  # type: ignore[no-untyped-def]
    upper, lower = scratch.upper, scratch.lower
    return (upper[0, union[at, 0]] + upper[1, union[at, 1]] + upper[2, union[at, 2]]
            + upper[3, union[at, 3]] + upper[4, union[at, 4]] + upper[5, union[at, 5]]
            + upper[6, union[at, 6]] + upper[7, union[at, 7]]
            + lower[0, common[at, 0]] + lower[1, common[at, 1]] + lower[2, common[at, 2]]
            + lower[3, common[at, 3]] + lower[4, common[at, 4]] + lower[5, common[at, 5]]
            + lower[6, common[at, 6]] + lower[7, common[at, 7]])


@njit(cache=True)
def _frequent(document, s, scratch):  # type: ignore[no-untyped-def]
    exact, signature = scratch.exact, s.signature
    return (exact[0, signature[document, 0]] + exact[1, signature[document, 1]]
            + exact[2, signature[document, 2]] + exact[3, signature[document, 3]]
            + exact[4, signature[document, 4]] + exact[5, signature[document, 5]]
            + exact[6, signature[document, 6]] + exact[7, signature[document, 7]])


@njit(cache=True)
def _begin(number, s, q, lists, rare, best, scratch):  # type: ignore[no-untyped-def]
    """Try the documents that share the rarest elements: if one is near, its
    cost excludes nearly all others."""
    sums, touched = scratch.sums, scratch.touched
    scratch.tried[:] = -1
    met = 0
    for which in range(rare):
        element, weight = q.elements[lists[which]], q.weight[lists[which]]
        first, last = s.posting[element], s.posting[element + 1]
        if met + last - first > _FIRST:
            if met > 0:
                break
            last = first + _FIRST
        for at in range(first, last):
            document = s.postings[at]
            if sums[document] == 0.0:
                touched[met] = document
                met += 1
            sums[document] += weight
        best.state[4] += last - first
    p = q.pricing
    each, byte = p[6] * p[3], p[7] / p[0]
    most = 0.0
    for at in range(met):
        most = max(most, sums[touched[at]])
    kept = 0
    for at in range(met):
        document = touched[at]
        if sums[document] < 0.5 * most:
            sums[document] = 0.0
            continue
        touched[kept] = document
        kept += 1
        # What else is known tells equals apart.
        sums[document] += _frequent(document, s, scratch) - (
            each * s.rare_count[document] + byte * s.rare_size[document])
    for turn in range(_TRIED):
        top = -1
        for at in range(kept):
            if touched[at] >= 0 and (top < 0 or sums[touched[at]] > sums[touched[top]]):
                top = at
        if top < 0:
            break
        document = touched[top]
        sums[document] = 0.0
        touched[top] = -1
        _try(number, document, s, q, best, scratch)
        scratch.tried[turn] = document
    for at in range(kept):
        if touched[at] >= 0:
            sums[touched[at]] = 0.0


@njit(cache=True)
def _from(s, element, document):  # type: ignore[no-untyped-def]
    """The first posting of an element that is not before a document."""
    low, high = s.posting[element], s.posting[element + 1]
    while low < high:
        middle = (low + high) >> 1
        if s.postings[middle] < document:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def search(number, s, frequent, q, best, scratch):  # type: ignore[no-untyped-def]
    """Offer to ``best`` every document that can be among the best.

    :param number: of the segment
    :param frequent: the element of each bit of a signature
    """
    documents = len(s.files)
    p = q.pricing
    each, byte = p[6] * p[3], p[7] / p[0]
    _tables(s, q, frequent, scratch)
    # Rare elements of the query, the rarest first.
    lists = np.empty(len(q.elements), dtype=np.int64)
    lengths = np.empty(len(q.elements), dtype=np.int64)
    rare, all_rare = 0, 0.0
    for place in range(len(q.elements)):
        element = q.elements[place]
        if element < len(s.bit) and s.bit[element] < 0 and q.weight[place] > 0.0:
            length = s.posting[element + 1] - s.posting[element]
            if length > 0:
                lists[rare], lengths[rare] = place, length
                rare += 1
                all_rare += q.weight[place]
    order = np.argsort(lengths[:rare])
    lists = lists[:rare][order]
    _begin(number, s, q, lists, rare, best, scratch)

    windows = len(s.window_least_count)
    promise = np.empty(windows)
    for window in range(windows):
        promise[window] = (
            _bound(s.window_union, s.window_common, window, scratch)
            - each * s.window_least_count[window] - byte * s.window_least_size[window])
    slack = 1e-11 * (q.most + each * s.most_count + byte * s.most_size)
    sums, touched = scratch.sums, scratch.touched
    block_bound, block_net = np.empty(WINDOW // BLOCK), np.empty(WINDOW // BLOCK)

    for window in np.argsort(-promise):
        # Savings that a document needs to be among the best.
        need = q.most - limit(best) - slack
        if promise[window] + all_rare < need:
            break
        first = window * WINDOW
        last = min(documents, first + WINDOW)
        # The longest lists need not be read, as long as what they save
        # together helps nothing that is in none of the others.
        unread, reading = 0.0, rare
        while reading > 0 and promise[window] + unread + q.weight[lists[reading - 1]] < need:
            reading -= 1
            unread += q.weight[lists[reading]]
        blocks = (last - first + BLOCK - 1) // BLOCK
        first_block = first // BLOCK
        for block in range(blocks):
            at = first_block + block
            block_bound[block] = _bound(s.union, s.common, at, scratch)
            block_net[block] = (block_bound[block] + unread - each * s.least_count[at]
                                - byte * s.least_size[at])
        met = 0
        for which in range(reading):
            element, weight = q.elements[lists[which]], q.weight[lists[which]]
            begin, end = _from(s, element, first), s.posting[element + 1]
            at = begin
            while at < end:
                document = s.postings[at]
                if document >= last:
                    break
                if sums[document] == 0.0:
                    touched[met] = document
                    met += 1
                sums[document] += weight
                at += 1
            best.state[4] += at - begin
        for at in range(met):
            document = touched[at]
            block = document // BLOCK - first_block
            if sums[document] + block_net[block] < need:
                continue
            saved = sums[document] + unread
            saved -= each * s.rare_count[document] + byte * s.rare_size[document]
            if saved + block_bound[block] < need:
                continue
            if saved + _frequent(document, s, scratch) >= need:
                _try(number, document, s, q, best, scratch)
                need = q.most - limit(best) - slack
        # Documents without any of the lists read.
        for block in range(blocks):
            if block_net[block] < need:
                continue
            bound = block_bound[block] + unread
            best.state[5] += 1
            for document in range(first + block * BLOCK, min(last, first + (block + 1) * BLOCK)):
                if sums[document] != 0.0:
                    continue
                spoilt = each * s.rare_count[document] + byte * s.rare_size[document]
                if (bound - spoilt >= need
                        and _frequent(document, s, scratch) + unread - spoilt >= need):
                    _try(number, document, s, q, best, scratch)
                    need = q.most - limit(best) - slack
        for at in range(met):
            sums[touched[at]] = 0.0
