"""What the compiled half of the candidate index works on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: Bits of a signature; documents of a word of bits, and of a window.
BITS, WORD, WINDOW = 64, 64, 16384


class Segment(NamedTuple):
    """Documents in the order of their signatures, those of a window in the
    order of what they hold.

    :ivar start: where a document's elements begin in ``rows``; one more
    :ivar files: how many a document has; ``size`` the bytes of these
    :ivar rare_count: of its rare elements; ``rare_size`` likewise
    :ivar fetch: bytes of its disk that are not here
    :ivar bit: of an element in the signature, -1: none
    :ivar often: how many documents have an element
    :ivar dense: an element's row in ``bits``, -1: it has postings instead
    :ivar bits: the documents of an element, 64 a word
    :ivar posting: where an element's documents begin in ``postings``
    :ivar least_count: of ``files`` in a word; ``least_size`` likewise
    :ivar window_union: of the signatures of a window; ``window_common`` their
        intersection
    :ivar window_least_count: of ``rare_count`` in a window;
        ``window_least_size`` likewise
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
    often: np.ndarray
    dense: np.ndarray
    bits: np.ndarray
    posting: np.ndarray
    postings: np.ndarray
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


class Gains(NamedTuple):
    """Weights of a query's elements in whole numbers.

    :ivar places: of the elements in the query, in the order of reading
    :ivar numbers: how many units an element weighs
    :ivar lost: seconds that a sum of these is too small at most
    """

    places: np.ndarray
    numbers: np.ndarray
    unit: float
    lost: float


class Best(NamedTuple):
    """The best found so far.

    :ivar key: exact or not, cost, missing bytes, size; sorted
    :ivar found: segment and document of all that were among the best when
        they were met
    :ivar state: how many keys, how many found, how many did not fit,
        documents evaluated, postings read, words of bits read
    """

    key: np.ndarray
    found: np.ndarray
    state: np.ndarray


class Scratch(NamedTuple):
    """Kept between queries; ``sums`` and ``counts`` are all zero then.

    :ivar planes: sums of a window's documents; ``carry`` of the last addition
    :ivar bits: of the documents in a window that have an element
    :ivar waste: seconds of excess that documents of a word have at least, if
        all that they hold is excess
    """

    tried: np.ndarray
    sums: np.ndarray
    touched: np.ndarray
    exact: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    counts: np.ndarray
    planes: np.ndarray
    bits: np.ndarray
    carry: np.ndarray
    waste: np.ndarray
