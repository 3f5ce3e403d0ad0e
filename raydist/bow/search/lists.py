"""Lists of postings during a search: working memory, and how blocks are unpacked and found.

Legend: q terms of the query, B blocks of all its terms one term after another, W documents of a
window, C candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.format.codec import BLOCK_SLACK, unpack_docs, unpack_tfs
from raydist.kernels.intrinsics import load64, prefetch
from raydist.kernels.jit import inlined, kernel

Array = npt.NDArray[Any]
U = np.uint64
U32 = np.uint32
F32 = np.float32

WINDOW = 16384
"""Documents per window."""

TFS = U(16)
"""Frequencies with a precomputed impact."""

BINS = 512
"""Of a sum's 16 bits, for the first threshold."""

NONE = U(0xFFFFFFFFFFFFFFFF)

# Rows of `state` [10, q + 1]: what is known of each term.
FIRST = U(0)  # first block, and the end in the column behind
FINAL = U(1)  # postings of the last block
BLOCK = U(2)  # block at the window's start
DOCS = U(3)  # block whose documents are unpacked
FREQS = U(4)  # block whose frequencies are unpacked
PLACE = U(5)  # first of its documents that is not below the window
TOP = U(6)  # largest impact in the window
WIDE = U(7)  # blocks in the window
ORDER = U(8)  # terms by largest impact
BELOW = U(9)  # sums of the largest impacts in that order


# Rows of the table of a segment's addresses.
SEGMENT_ROWS = 10
PACKED = U(0)
RAW_DOCS = U(1)  # raw segments only, as are RAW_TFS
RAW_TFS = U(2)
NORMS = U(3)
UNCHECKED_CHUNKS = U(4)  # chunks of the file of PACKED whose checksums were not compared
ALLOWED = U(5)  # 1 for documents that may be found, or empty for all
INVERSE = U(6)  # Lucene's inverse denominator per norm byte
TERMS = U(7)  # the dictionary, as are GROUPS
GROUPS = U(8)
FACTS = U(9)  # terms, largest norm byte


@inlined
def quantised(scaled: Any, tf: Any, inverse: Any) -> Any:
    """Returns Q: the scaled impact and a margin for rounding, up to the next integer."""
    impact = scaled - scaled / (F32(1) + F32(tf) * inverse)
    return U32(np.int32(impact + scaled * F32(2.0**-20))) + U32(1)


@inlined
def value_of(table: Array, scaled: Array, inverse: Array, j: Any, row: Any, norm: Any) -> Any:
    """Returns a posting's Q << 16 | payload; `row` is tf - 1."""
    if row < TFS:
        return table[j, (row << U(8)) + norm]
    payload = table[j, ((TFS - U(1)) << U(8)) + norm] & U32(65535)
    return (quantised(scaled[j], row + U(1), inverse[norm]) << U32(16)) | payload


@inlined
def count_of(state: Array, docs: Array, j: Any, b: Any) -> Any:
    """Returns how many postings block `b` of term `j` has."""
    if b + U(1) == state[FIRST, j + U(1)]:
        return state[FINAL, j]
    return U(docs.shape[1] - BLOCK_SLACK)


@kernel
def load_docs(
    packed: Array,
    raw: Array,
    state: Array,
    ends: Array,
    spots: Array,
    docs: Array,
    j: Any,
    b: Any,
) -> None:
    """Unpacks the documents of block `b` of term `j`."""
    count = count_of(state, docs, j, b)
    spot = spots[b]
    if raw.shape[0]:
        for i in range(count):
            docs[j, i] = raw[spot + i]
    else:
        prev = NONE
        if b != state[FIRST, j]:
            prev = U(ends[b - U(1)])
        width = (spot >> U(48)) & U(255)
        if b + U(1) < state[FIRST, j + U(1)]:
            ahead = spots[b + U(1)] & U(0xFFFFFFFFFFFF)
            prefetch(packed, ahead)
            prefetch(packed, ahead + U(64))
            prefetch(packed, ahead + U(128))
        unpack_docs(packed, spot & U(0xFFFFFFFFFFFF), count, width, prev, docs[j], U(0))
    state[DOCS, j] = b
    state[PLACE, j] = U(0)


@kernel
def load_tfs(
    packed: Array, raw: Array, state: Array, spots: Array, tfs: Array, j: Any, b: Any
) -> None:
    """Unpacks tf - 1 of block `b` of term `j`."""
    count = count_of(state, tfs, j, b)
    spot = spots[b]
    if raw.shape[0]:
        for i in range(count):
            tfs[j, i] = raw[spot + i] - U32(1)
    else:
        skip = (count * ((spot >> U(48)) & U(255)) + U(7)) >> U(3)
        unpack_tfs(packed, (spot & U(0xFFFFFFFFFFFF)) + skip, count, spot >> U(56), tfs[j], U(0))
    state[FREQS, j] = b


@inlined
def row_of(packed: Array, raw: Array, spot: Any, count: Any, i: Any) -> Any:
    """Returns tf - 1 of posting `i` of a block of `count`."""
    if raw.shape[0]:
        return U(raw[spot + i]) - U(1)
    width = spot >> U(56)
    bit = i * width
    skip = (count * ((spot >> U(48)) & U(255)) + U(7)) >> U(3)
    word = load64(packed, (spot & U(0xFFFFFFFFFFFF)) + skip + (bit >> U(3)))
    return (word >> (bit & U(7))) & ((U(1) << width) - U(1))


@inlined
def not_below(docs: Array, j: Any, low: Any, count: Any, doc: Any) -> Any:
    """Returns the first position from `low` of the unpacked block whose document is >= `doc`."""
    left = count - low
    at = low
    while left > U(1):
        half = left >> U(1)
        at = at + half if docs[j, at + half - U(1)] < doc else at
        left -= half
    if left == U(1) and docs[j, at] < doc:
        at += U(1)
    return at


@inlined
def within(
    packed: Array,
    raw: Array,
    state: Array,
    ends: Array,
    spots: Array,
    docs: Array,
    j: Any,
    b: Any,
    begin: Any,
    end: Any,
) -> Any:
    """Returns which postings of block `b`, unpacked if need be, have documents from begin to end.

    `end` is behind them. The block has such postings, or ends before `begin`.
    """
    if state[DOCS, j] != b:
        load_docs(packed, raw, state, ends, spots, docs, j, b)
    low = state[PLACE, j]
    high = count_of(state, docs, j, b)
    if docs[j, low] < begin:
        low = not_below(docs, j, low, high, begin)
    if U(ends[b]) >= end:
        high = not_below(docs, j, low, high, end)
    return low, high


@inlined
def seek(ends: Array, low: Any, high: Any, doc: Any) -> Any:
    """Returns the first block from `low` whose last document is >= `doc`, or `high`."""
    if low >= high or ends[low] >= doc:
        return low
    step = U(1)
    while low + step < high and ends[low + step] < doc:
        step <<= U(1)
    below = low + (step >> U(1))
    above = min(high, low + step)
    while above - below > U(1):
        middle = (below + above) >> U(1)
        if ends[middle] < doc:
            below = middle
        else:
            above = middle
    return above
