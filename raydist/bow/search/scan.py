"""All windows of a search, one after another, and the threshold that rises from one to the next.

The threshold is raised early: to the sum of which, after a share of the documents, a little more
than the same share of k are expected above it. Where in the end fewer than k documents are, the
windows are scanned again without expectations, so that no answer depends on them.

The kernel is called by its address, so that it and the one that calls it are compiled at the same
time by two processes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from raydist.bow.search.candidates import keep, kth_largest, settle
from raydist.bow.search.windows import enter_window, next_document, scan_window
from raydist.bow.search.workspace import MARGIN, SUM, WINDOW, SegmentArrays, Work
from raydist.kernels.addresses import at
from raydist.kernels.jit import kernel

U = np.uint64

NO_ROOM = U(0xFFFFFFFF)
"""Instead of a number of documents: there is no room for the candidates."""

FIRST_WINDOW = 4096
"""Documents of the first window of a search with expectations; the next ones double, to WINDOW."""

LEAST_EXPECTED = U(50)
"""The smallest k with expectations: fewer documents lie too often side by side."""

_DEVIATIONS = 3.0  # above the mean of a Poisson distribution
_MOST_CAUTION = 64  # searches without expectations behind a wrong one


@kernel
def scan(
    segment_at: Any, work_at: Any, terms: Any, threshold: Any, bits: Any, slack: Any, k: Any
) -> Any:
    """Finds the best documents of a segment. All numbers are uint64.

    Args:
        segment_at: address of the record of its arrays.
        work_at: that of the workspace, whose lists are at their beginnings; it receives the answer.
        terms: how many terms the query has.
        threshold: a sum below it is not among the k largest.
        bits: of a payload that belong to each term.
        slack: by how much the sums of documents of one score may differ.
        k: number of documents to return.

    Returns:
        How many documents and scores were written, best first, or NO_ROOM.
    """
    segment, work = at(segment_at, SegmentArrays), at(work_at, Work)
    caution = work.caution
    expects = k >= LEAST_EXPECTED and caution[0] <= 0
    caution[0] -= 1
    while True:
        count, expected = _candidates(segment, work, terms, threshold, slack, k, expects)
        if count == NO_ROOM:
            return count
        if expected == U(0):
            break
        if _reach(work, count, k, expected + slack):
            caution[1] >>= 1
            break
        expects = False
        caution[1] = min(2 * caution[1] + 1, _MOST_CAUTION)
        caution[0] = caution[1]
        for j in range(terms):
            cursor = work.cursors[j]
            cursor.block, cursor.place = cursor.first, U(0)
    return settle(segment, work, terms, count, bits, slack, k)


@kernel
def _candidates(
    segment: SegmentArrays,
    work: Work,
    terms: Any,
    threshold: Any,
    slack: Any,
    k: Any,
    expects: Any,
) -> Any:
    """Lists the documents whose sums may be among the k largest.

    Returns how many there are, or NO_ROOM, and the highest threshold that was only expected, 0 if
    none was.
    """
    documents = U(segment.norms.shape[0])
    room = U(work.candidates.shape[0]) - U(WINDOW + MARGIN)
    count, begin, refresh, expected = U(0), U(0), U(0), U(0)
    constant = U(work.constants[0] >> SUM)
    size = U(FIRST_WINDOW) if expects else U(WINDOW)
    while begin < documents:
        end = min(documents, begin + size)
        size = min(size << U(1), U(WINDOW))
        if enter_window(work, terms, begin, end) + constant < threshold:
            begin = next_document(work, terms, end, documents)
            continue
        start = count
        count = scan_window(segment, work, terms, count, begin, end, threshold)
        begin = end
        nth = k
        if expects:
            mean = np.float64(k) * np.float64(end) / np.float64(documents)
            nth = min(k, U(mean + _DEVIATIONS * math.sqrt(mean) + 1.0))
        if count > start and count >= max(nth, refresh):
            least = kth_largest(work, count, np.int64(nth))
            if least > threshold + slack:
                threshold = least - slack
                expected = threshold if nth < k else expected
            count = keep(work, count, threshold)
            refresh = min(room, count + max(count >> U(1), U(32)))
            if count >= room:
                return NO_ROOM, expected
    return count, expected


@kernel
def _reach(work: Work, count: Any, k: Any, least: Any) -> Any:
    """Returns whether k of the candidates have a sum of at least that."""
    return count >= k and kth_largest(work, count, np.int64(k)) >= least
