"""One window of a search: its largest impacts, and the passes over the lists.

The lists that are essential are added to the window's sums, or streamed where there is one; the
others are probed or swept for the candidates that came up. See kernels.py for the whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.blocks import (
    BELOW,
    BLOCK,
    DOCS,
    FINAL,
    FIRST,
    FREQS,
    ORDER,
    PLACE,
    TOP,
    WIDE,
    count_of,
    load_docs,
    load_tfs,
    not_below,
    row_of,
    seek,
    value_of,
)
from raydist.bow.intrinsics import kernel

__all__ = [
    "add_list",
    "enter_window",
    "next_document",
    "probe_list",
    "stream_list",
    "sweep_list",
]

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
        if state[DOCS, j] != b:
            load_docs(packed, raw_docs, state, ends, spots, docs, j, b)
        low = state[PLACE, j]
        high = count_of(state, docs, j, b)
        if docs[j, low] < begin:
            low = not_below(docs, j, low, high, begin)
        if last >= end:
            high = not_below(docs, j, low, high, end)
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
        if state[DOCS, j] != b:
            load_docs(packed, raw_docs, state, ends, spots, docs, j, b)
        low = state[PLACE, j]
        high = count_of(state, docs, j, b)
        if docs[j, low] < begin:
            low = not_below(docs, j, low, high, begin)
        if last >= end:
            high = not_below(docs, j, low, high, end)
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
        last = U(ends[b])
        if state[DOCS, j] != b:
            load_docs(packed, raw_docs, state, ends, spots, docs, j, b)
        low = state[PLACE, j]
        size = count_of(state, docs, j, b)
        high = size
        if docs[j, low] < begin:
            low = not_below(docs, j, low, high, begin)
        if last >= end:
            high = not_below(docs, j, low, high, end)
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
        if last >= end:
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
