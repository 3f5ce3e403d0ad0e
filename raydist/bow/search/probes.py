"""The lists of a window that are not essential: looked up for the candidates that came up.

Few candidates are probed one by one; for many, the list is swept. See rank.py for the whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.search.lists import (
    BLOCK,
    DOCS,
    FIRST,
    PLACE,
    count_of,
    load_docs,
    not_below,
    row_of,
    seek,
    value_of,
    within,
)
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64
U32 = np.uint32


@kernel
def probe_list(
    packed: Array,
    raw_docs: Array,
    raw_tfs: Array,
    norms: Array,
    state: Array,
    ends: Array,
    tops: Array,
    spots: Array,
    docs: Array,
    table: Array,
    scaled: Array,
    inverse: Array,
    found: Array,
    value: Array,
    start: Any,
    count: Any,
    j: Any,
    before: Any,
    need: Any,
) -> Any:
    """Looks the candidates from `start` up in a list that is not essential.

    Keeps those that can still reach the threshold: `before` is what a sum must be before this
    list, `need` after it.
    """
    b = state[BLOCK, j]
    stop = state[FIRST, j + U(1)]
    to = start
    for i in range(start, count):
        word = value[i]
        total = U(word >> U32(16))
        if total < before:
            continue
        doc = found[i]
        b = seek(ends, b, stop, doc)
        if b < stop and total + U(tops[b]) >= need:
            if state[DOCS, j] != b:
                load_docs(packed, raw_docs, state, ends, spots, docs, j, b)
            size = count_of(state, docs, j, b)
            at = not_below(docs, j, state[PLACE, j], size, doc)
            state[PLACE, j] = at  # the block ends at or behind `doc`
            if docs[j, at] == doc:
                row = row_of(packed, raw_tfs, spots[b], size, at)
                word += value_of(table, scaled, inverse, j, row, U(norms[doc]))
                total = U(word >> U32(16))
        if total >= need:
            found[to] = doc
            value[to] = word
            to += U(1)
    state[BLOCK, j] = b
    return to


@kernel
def sweep_list(
    packed: Array,
    raw_docs: Array,
    raw_tfs: Array,
    norms: Array,
    state: Array,
    ends: Array,
    spots: Array,
    docs: Array,
    table: Array,
    scaled: Array,
    inverse: Array,
    sums: Array,
    hits: Array,
    found: Array,
    value: Array,
    start: Any,
    count: Any,
    j: Any,
    begin: Any,
    end: Any,
    need: Any,
) -> Any:
    """Does what `probe_list` does for many candidates: passes over its postings in the window."""
    for i in range(start, count):
        sums[U(found[i]) - begin] = value[i]
    b = state[BLOCK, j]
    stop = state[FIRST, j + U(1)]
    while b < stop:
        low, high = within(packed, raw_docs, state, ends, spots, docs, j, b, begin, end)
        size = count_of(state, docs, j, b)
        hit = U(0)
        for i in range(low, high):
            hits[hit] = U32(i)
            hit += U(sums[U(docs[j, i]) - begin] != U32(0))
        spot = spots[b]
        for h in range(hit):
            at = U(hits[h])
            doc = U(docs[j, at])
            row = row_of(packed, raw_tfs, spot, size, at)
            sums[doc - begin] += value_of(table, scaled, inverse, j, row, U(norms[doc]))
        if U(ends[b]) >= end:
            state[PLACE, j] = high
            break
        b += U(1)
    state[BLOCK, j] = b
    to = start
    limit = U32(need) << U32(16)
    for i in range(start, count):
        doc32 = found[i]
        offset = U(doc32) - begin
        word = sums[offset]
        sums[offset] = U32(0)
        found[to] = doc32
        value[to] = word
        to += U(word >= limit)
    return to
