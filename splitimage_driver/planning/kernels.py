"""The compiled half of the candidate index: imported when an index is built.

A *document* is a set of elements (parts, or single files); elements are
numbered. Documents are sorted by a signature, which has a bit for each of the
64 most frequent elements, and cut into windows; a window's documents are
sorted by what they hold. A query looks at windows, the most promising first,
until a bound excludes the rest:

    cost >= all that is missing - gains of frequent elements (by the union and
    the intersection of a window's signatures) - gains of rare ones + the
    window's least rare excess

In a window, the gains of all its documents are summed at once. Gains are
rounded to whole numbers of a unit, and the sums stand in *planes*: bit i of
word w of plane k is bit k of the sum of document 64 w + i, so that one
operation adds to 64 sums, and one of a vector to more, as an adder made of
gates would. What rounding can have taken from a sum is added to the bound, so
no document is lost; those whose bound is not above the best cost are
evaluated exactly.

This is one module, because what numba keeps of a function is renewed when the
function's own module changes, not when one that it calls does.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from splitimage_driver.planning.records import WINDOW, WORD, Gains

#: Postings of the rarest elements that are looked at for a first good bound,
#: and how many of the documents there are tried.
_FIRST, _TRIED = 4096, 8
#: Planes that sums fill if weights differ: a thousand units.
_PLANES = 10
#: Elements after which it is asked again whether a window can be left.
_CHECK = 2


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
def whole(weights):  # type: ignore[no-untyped-def]
    """Weights as whole numbers of a unit. The unit is the largest weight,
    halved until little is lost: if all weights are the same, they are ones.

    :returns: the numbers, the unit and what is lost: the sum of any of the
        weights is at most unit * sum of their numbers + lost
    """
    numbers = np.zeros(len(weights), dtype=np.int64)
    together, unit = 0.0, 0.0
    for weight in weights:
        together += weight
        unit = max(unit, weight)
    if not 1e-290 < unit < np.inf:
        return numbers, 1.0, together
    while True:
        lost, count = 0.0, 0
        for at in range(len(weights)):
            numbers[at] = int(weights[at] / unit + 0.5)
            lost += max(0.0, weights[at] - unit * numbers[at])
            count += numbers[at]
        if lost <= together / (1 << _PLANES) or 2 * count >= 1 << _PLANES:
            return numbers, unit, lost * (1 + 1e-9)
        unit /= 2


@njit(cache=True)
def add(planes, depth, words, number, bits, carry):  # type: ignore[no-untyped-def]
    """Add a number above 0 to the sums of documents whose bits are set.

    :param depth: how many planes there are: enough for what comes out
    :param words: of each plane and of ``bits``
    :param carry: to be overwritten
    """
    lowest = 0
    while not (number >> lowest) & 1:
        lowest += 1
    sums = planes[lowest]
    for word in range(words):
        carry[word] = sums[word] & bits[word]
        sums[word] ^= bits[word]
    for plane in range(lowest + 1, depth):
        sums = planes[plane]
        if (number >> plane) & 1:
            for word in range(words):
                one = sums[word] ^ bits[word]
                two = sums[word] & bits[word]
                sums[word] = one ^ carry[word]
                carry[word] = two | (one & carry[word])
        else:
            for word in range(words):
                two = sums[word] & carry[word]
                sums[word] ^= carry[word]
                carry[word] = two


@njit(cache=True)
def reaching(planes, depth, word, least):  # type: ignore[no-untyped-def]
    """The documents of a word whose sums are ``least`` or more; that must not
    be more than the planes can hold."""
    more, same = np.uint64(0), ~np.uint64(0)
    for plane in range(depth - 1, -1, -1):
        sums = planes[plane, word]
        if (least >> plane) & 1:
            same &= sums
        else:
            more |= same & sums
            same &= ~sums
    return more | same


@njit(cache=True)
def sum_of(planes, depth, word, bit):  # type: ignore[no-untyped-def]
    """The sum of one document."""
    found = 0
    for plane in range(depth):
        found |= int((planes[plane, word] >> np.uint64(bit)) & np.uint64(1)) << plane
    return found


@njit(cache=True)
def _begin(number, s, q, rarest, best, scratch):  # type: ignore[no-untyped-def]
    """Try the documents that share the rarest elements: if one is near, its
    cost excludes nearly all others."""
    sums, touched = scratch.sums, scratch.touched
    scratch.tried[:] = -1
    met = 0
    for place in rarest:
        element, weight = q.elements[place], q.weight[place]
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
def _collect(s, element, first, last, bits):  # type: ignore[no-untyped-def]
    """Set the bits of a window's documents that have an element with postings.

    :returns: how many these are; ``bits`` are not touched if none
    """
    begin, end = _from(s, element, first), s.posting[element + 1]
    at = begin
    if at < end and s.postings[at] < last:
        bits[:] = 0
    while at < end and s.postings[at] < last:
        place = s.postings[at] - first
        bits[place // WORD] |= np.uint64(1) << np.uint64(place % WORD)
        at += 1
    return at - begin


@njit(cache=True)
def _units(savings, unit, most):  # type: ignore[no-untyped-def]
    """How many make up savings; one more than the ``most`` that there can be
    stands for all that is out of reach."""
    return int(min(max(np.ceil(savings / unit), 0.0), most + 1.0))


@njit(cache=True)
def _sum(s, q, gains, first, last, least, best, scratch):  # type: ignore[no-untyped-def]
    """Sum the gains of a window's documents in the planes.

    :param least: the sum that a document needs at least
    :returns: the depth of the planes and the largest sum that they can hold;
        that is less than ``least`` if no document can reach it
    """
    planes, words = scratch.planes, (last - first + WORD - 1) // WORD
    depth, largest, left = 0, 0, gains.numbers.sum()
    for at in range(len(gains.places)):
        element, number = q.elements[gains.places[at]], gains.numbers[at]
        left -= number
        if s.dense[element] >= 0:
            bits = s.bits[s.dense[element], first // WORD:first // WORD + words]
            best.state[5] += words
        else:
            bits = scratch.bits[:words]
            met = _collect(s, element, first, last, bits)
            best.state[4] += met
            if met == 0:
                continue
        largest += number
        while largest >> depth:
            planes[depth, :words] = 0
            depth += 1
        add(planes, depth, words, number, bits, scratch.carry)
        # What a document needs by now, even if it has all that is left.
        needed = least - left
        if needed > 0 and at % _CHECK == _CHECK - 1:
            if needed > largest:
                return depth, -1
            for word in range(words):
                if reaching(planes, depth, word, needed):
                    break
            else:
                return depth, -1
    return depth, largest


@njit(cache=True)
def _window(number, first, last, s, q, gains, slack, best, scratch):  # type: ignore[no-untyped-def]
    """Evaluate all documents of a window that can be among the best: what
    they gain makes up what they waste and what is needed beyond that."""
    p = q.pricing
    each, byte = p[6] * p[3], p[7] / p[0]
    first_word, words = first // WORD, (last - first + WORD - 1) // WORD
    waste, least_waste = scratch.waste, np.inf
    for word in range(words):
        waste[word] = (each * s.least_count[first_word + word]
                       + byte * s.least_size[first_word + word])
        least_waste = min(least_waste, waste[word])
    slack += gains.lost
    need = q.most - limit(best) - slack
    least = _units(need + least_waste, gains.unit, gains.numbers.sum())
    planes = scratch.planes
    depth, largest = _sum(s, q, gains, first, last, least, best, scratch)
    if largest < least:
        return
    for word in range(words):
        least = _units(need + waste[word], gains.unit, largest)
        if least > largest:
            continue
        found = reaching(planes, depth, word, least)
        if found == 0:
            continue
        for bit in range(min(WORD, last - first - word * WORD)):
            if not (found >> np.uint64(bit)) & np.uint64(1):
                continue
            document = first + word * WORD + bit
            gained = gains.unit * sum_of(planes, depth, word, bit)
            if gained - each * s.files[document] - byte * s.size[document] >= need:
                _try(number, document, s, q, best, scratch)
                need = q.most - limit(best) - slack


@njit(cache=True)
def search(number, s, frequent, q, best, scratch):  # type: ignore[no-untyped-def]
    """Offer to ``best`` every document that can be among the best.

    :param number: of the segment
    :param frequent: the element of each bit of a signature
    """
    p = q.pricing
    each, byte = p[6] * p[3], p[7] / p[0]
    _tables(s, q, frequent, scratch)
    # Elements of the query that documents have, and the rarest first.
    places = np.empty(len(q.elements), dtype=np.int64)
    known, all_rare = 0, 0.0
    for place in range(len(q.elements)):
        element = q.elements[place]
        if element < len(s.bit) and s.often[element] > 0 and q.weight[place] > 0.0:
            places[known] = place
            known += 1
            if s.bit[element] < 0:
                all_rare += q.weight[place]
    places = places[:known]
    often = s.often[q.elements[places]]
    places, often = places[np.argsort(often)], np.sort(often)
    _begin(number, s, q, places[s.dense[q.elements[places]] < 0], best, scratch)

    numbers, unit, lost = whole(q.weight[places])
    # First those by which the mean document loses most: so most windows can
    # be left soon.
    order = np.argsort(-numbers * (1.0 - often / len(s.files)))
    order = order[numbers[order] > 0]
    gains = Gains(places[order], numbers[order], unit, lost)

    windows = len(s.window_least_count)
    promise = np.empty(windows)
    for window in range(windows):
        promise[window] = (
            _bound(s.window_union, s.window_common, window, scratch)
            - each * s.window_least_count[window] - byte * s.window_least_size[window])
    slack = 1e-11 * (q.most + each * s.most_count + byte * s.most_size)
    for window in np.argsort(-promise):
        if promise[window] + all_rare < q.most - limit(best) - slack:
            break
        first = window * WINDOW
        _window(number, first, min(len(s.files), first + WINDOW), s, q, gains, slack, best,
                scratch)
