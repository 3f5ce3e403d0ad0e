"""The essential lists of a window: added to its sums, or streamed where there is only one.

Every document that can reach the threshold is in one of them. See rank.py for the whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.search.lists import (
    BLOCK,
    FIRST,
    FREQS,
    PLACE,
    load_tfs,
    value_of,
    within,
)
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64
U32 = np.uint32


@kernel
def add_list(
    packed: Array,
    raw_docs: Array,
    raw_tfs: Array,
    norms: Array,
    state: Array,
    ends: Array,
    tops: Array,
    spots: Array,
    docs: Array,
    tfs: Array,
    table: Array,
    scaled: Array,
    inverse: Array,
    sums: Array,
    j: Any,
    begin: Any,
    end: Any,
    need: Any,
) -> Any:
    """Adds the list's postings of the window to the sums.

    Blocks whose largest impact is below `need` are passed over. Returns which 64ths of the window
    were touched, as bits.
    """
    touched = U(0)
    b = state[BLOCK, j]
    stop = state[FIRST, j + U(1)]
    while b < stop:
        last = U(ends[b])
        if tops[b] < need:
            if last >= end:
                break
            b += U(1)
            continue
        low, high = within(packed, raw_docs, state, ends, spots, docs, j, b, begin, end)
        if spots[b] >> U(56) == U(0) and not raw_docs.shape[0]:
            for i in range(low, high):
                doc = U(docs[j, i])
                offset = doc - begin
                touched |= U(1) << (offset >> U(8))
                sums[offset] += table[j, U(norms[doc])]
        elif low < high:
            if state[FREQS, j] != b:
                load_tfs(packed, raw_tfs, state, spots, tfs, j, b)
            if spots[b] >> U(56) <= U(4) and not raw_docs.shape[0]:
                for i in range(low, high):
                    doc = U(docs[j, i])
                    offset = doc - begin
                    touched |= U(1) << (offset >> U(8))
                    sums[offset] += table[j, (U(tfs[j, i]) << U(8)) + U(norms[doc])]
            else:
                for i in range(low, high):
                    doc = U(docs[j, i])
                    offset = doc - begin
                    touched |= U(1) << (offset >> U(8))
                    row = U(tfs[j, i])
                    sums[offset] += value_of(table, scaled, inverse, j, row, U(norms[doc]))
        if last >= end:
            state[PLACE, j] = high
            break
        b += U(1)
    state[BLOCK, j] = b
    return touched


@kernel
def stream_list(
    packed: Array,
    raw_docs: Array,
    raw_tfs: Array,
    norms: Array,
    state: Array,
    ends: Array,
    tops: Array,
    spots: Array,
    docs: Array,
    tfs: Array,
    table: Array,
    scaled: Array,
    inverse: Array,
    found: Array,
    value: Array,
    count: Any,
    j: Any,
    begin: Any,
    end: Any,
    need: Any,
) -> Any:
    """Lists the documents of the only essential list whose impact is at least `need`."""
    limit = U32(need) << U32(16)
    b = state[BLOCK, j]
    stop = state[FIRST, j + U(1)]
    while b < stop:
        last = U(ends[b])
        if tops[b] < need:
            if last >= end:
                break
            b += U(1)
            continue
        low, high = within(packed, raw_docs, state, ends, spots, docs, j, b, begin, end)
        if spots[b] >> U(56) == U(0) and not raw_docs.shape[0]:
            for i in range(low, high):
                doc = docs[j, i]
                word = table[j, U(norms[doc])]
                found[count] = doc
                value[count] = word
                count += U(word >= limit)
        elif low < high:
            if state[FREQS, j] != b:
                load_tfs(packed, raw_tfs, state, spots, tfs, j, b)
            if spots[b] >> U(56) <= U(4) and not raw_docs.shape[0]:
                for i in range(low, high):
                    doc = docs[j, i]
                    word = table[j, (U(tfs[j, i]) << U(8)) + U(norms[doc])]
                    found[count] = doc
                    value[count] = word
                    count += U(word >= limit)
            else:
                for i in range(low, high):
                    doc = docs[j, i]
                    word = value_of(table, scaled, inverse, j, U(tfs[j, i]), U(norms[doc]))
                    found[count] = doc
                    value[count] = word
                    count += U(word >= limit)
        if last >= end:
            state[PLACE, j] = high
            break
        b += U(1)
    state[BLOCK, j] = b
    return count
