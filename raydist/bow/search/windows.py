"""One window of a search: its blocks and largest impacts, and where the next one begins.

See rank.py for the whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.search.lists import (
    BELOW,
    BLOCK,
    DOCS,
    FINAL,
    FIRST,
    ORDER,
    PLACE,
    TOP,
    WIDE,
    count_of,
    not_below,
)
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64
U32 = np.uint32


@kernel
def enter_window(
    state: Array, ends: Array, tops: Array, docs: Array, terms: Any, begin: Any, end: Any
) -> None:
    """Finds each term's blocks and largest impact in the window, and sorts the terms by it."""
    for j in range(terms):
        b = state[BLOCK, j]
        stop = state[FIRST, j + U(1)]
        while b < stop and ends[b] < begin:
            b += U(1)
        state[BLOCK, j] = b
        top: Any = U32(0)
        start = b
        if b < stop and state[FIRST, j] + U(1) == stop:  # one block: its documents are known
            count = state[FINAL, j]
            place = not_below(docs, j, state[PLACE, j], count, begin)
            state[PLACE, j] = place
            if docs[j, place] < end:
                top = tops[b]
                b += U(1)
        else:
            while b < stop:
                top = max(top, tops[b])
                last = U(ends[b])
                b += U(1)
                if last + U(1) >= end:
                    break
        state[TOP, j] = top
        state[WIDE, j] = b - start
    for a in range(U(1), terms):
        j = state[ORDER, a]
        top64 = state[TOP, j]
        i: Any = a
        while i > U(0) and state[TOP, state[ORDER, i - U(1)]] > top64:
            state[ORDER, i] = state[ORDER, i - U(1)]
            i -= U(1)
        state[ORDER, i] = j
    total = U(0)
    for a in range(terms):
        state[BELOW, a] = total
        total += state[TOP, state[ORDER, a]]
    state[BELOW, terms] = total


@kernel
def next_document(
    state: Array, ends: Array, docs: Array, terms: Any, end: Any, documents: Any
) -> Any:
    """Returns a document from `end` on, before which no list has any."""
    nearest = documents
    for j in range(terms):
        b = state[BLOCK, j]
        stop = state[FIRST, j + U(1)]
        while b < stop and ends[b] < end:
            b += U(1)
        if b < stop:
            doc = end
            if state[DOCS, j] == b:
                at = not_below(docs, j, state[PLACE, j], count_of(state, docs, j, b), end)
                doc = U(docs[j, at])
            elif b != state[FIRST, j]:
                doc = max(doc, U(ends[b - U(1)]) + U(1))
            nearest = min(nearest, doc)
    return nearest
