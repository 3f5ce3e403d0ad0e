"""Lists of postings during a search: how their blocks are unpacked and found."""

from __future__ import annotations

from typing import Any

import numpy as np

from raydist.bow.format.postings import (
    EXTRAS,
    TF_WIDTH,
    WIDTH_MASK,
    WIDTHS,
    add_extras,
    extra_of,
    packed_bytes,
    unpack_docs,
    unpack_tfs,
)
from raydist.bow.search.impacts import LUCENE, quantised_part
from raydist.bow.search.workspace import (
    NONE,
    NORM,
    PAYLOAD,
    START,
    SUM,
    TABULATED,
    SegmentArrays,
    Work,
)
from raydist.kernels.addresses import Array
from raydist.kernels.intrinsics import load64, prefetch
from raydist.kernels.jit import inlined, kernel

U = np.uint64
U32 = np.uint32
F32 = np.float32


@inlined
def quantised(scaled: Any, tf: Any, inverse: Any) -> Any:
    """Returns Q: the scaled impact and a margin for rounding, up to the next integer."""
    impact = scaled - scaled / (F32(1) + F32(tf) * inverse)
    return U32(np.int32(impact + scaled * F32(2.0**-20))) + U32(1)


@inlined
def word_of(
    impacts: Array, segment: SegmentArrays, cursor: Any, j: Any, tf1: Any, norm: Any
) -> Any:
    """Returns the word of a posting of term `j`; `tf1` is tf - 1."""
    if tf1 < TABULATED:
        return impacts[j, (tf1 << NORM) + norm]
    payload = impacts[j, ((TABULATED - U(1)) << NORM) + norm] & PAYLOAD
    return (bound_of(segment, cursor, tf1 + U(1), norm) << SUM) | payload


@kernel
def bound_of(segment: SegmentArrays, cursor: Any, tf: Any, norm: Any) -> Any:
    """Returns the quantised impact of a posting, computed."""
    if segment.model[0] == LUCENE:
        return quantised(cursor.scaled, tf, segment.inverse[norm])
    factor, statistic, scale = cursor.factor, cursor.statistic, cursor.scale
    return quantised_part(segment.model, factor, statistic, scale, tf, norm)


@inlined
def count_of(cursor: Any, b: Any) -> Any:
    """Returns how many postings block `b` has."""
    return cursor.tail if b + U(1) == cursor.stop else cursor.size


@kernel
def load_docs(segment: SegmentArrays, work: Work, j: Any, b: Any) -> None:
    """Unpacks the documents of block `b` of term `j`."""
    cursor = work.cursors[j]
    count = count_of(cursor, b)
    spot = work.spots[b]
    docs, raw = work.docs, segment.raw_docs
    if raw.shape[0]:
        for i in range(count):
            docs[j, i] = raw[spot + i]
    else:
        packed = segment.packed
        before = NONE
        if b != cursor.first:
            before = U(work.ends[b - U(1)])
        if b + U(1) < cursor.stop:
            ahead = work.spots[b + U(1)] & START
            prefetch(packed, ahead)
            prefetch(packed, ahead + U(64))
            prefetch(packed, ahead + U(128))
        width = (spot >> WIDTHS) & WIDTH_MASK
        unpack_docs(packed, spot & START, count, width, before, docs[j], U(0))
    cursor.docs_block = b
    cursor.place = U(0)


@inlined
def _tfs_at(spot: Any, count: Any) -> Any:
    """Returns where the frequencies of a block of `count` are, and their width."""
    widths = spot >> WIDTHS
    at = (spot & START) + packed_bytes(count, widths & WIDTH_MASK)
    return at, (widths >> TF_WIDTH) & WIDTH_MASK


@kernel
def load_tfs(segment: SegmentArrays, work: Work, j: Any, b: Any) -> None:
    """Unpacks tf - 1 of block `b` of term `j`."""
    cursor = work.cursors[j]
    count = count_of(cursor, b)
    spot = work.spots[b]
    tfs, raw = work.tfs, segment.raw_tfs
    if raw.shape[0]:
        for i in range(count):
            tfs[j, i] = raw[spot + i] - U32(1)
    else:
        packed = segment.packed
        o, width = _tfs_at(spot, count)
        unpack_tfs(packed, o, count, width, tfs[j], U(0))
        o += packed_bytes(count, width)
        add_extras(packed, o, spot >> (WIDTHS + EXTRAS), width, tfs[j], U(0))
    cursor.tfs_block = b


@inlined
def tf1_of(segment: SegmentArrays, spot: Any, count: Any, i: Any) -> Any:
    """Returns tf - 1 of posting `i` of a block of `count`, without unpacking it."""
    raw = segment.raw_tfs
    if raw.shape[0]:
        return U(raw[spot + i]) - U(1)
    packed = segment.packed
    o, width = _tfs_at(spot, count)
    bit = i * width
    word = load64(packed, o + (bit >> U(3)))
    tf1 = (word >> (bit & U(7))) & ((U(1) << width) - U(1))
    extras = spot >> (WIDTHS + EXTRAS)
    if extras:
        tf1 += extra_of(packed, o + packed_bytes(count, width), extras, i) << width
    return tf1


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
def open_block(
    segment: SegmentArrays, work: Work, cursor: Any, j: Any, b: Any, begin: Any, end: Any
) -> Any:
    """Returns which postings of block `b`, unpacked if need be, have documents from begin to end.

    `end` is exclusive. The block has such postings, or ends before `begin`. Where it ends behind
    the window, the cursor's place is updated.
    """
    docs = work.docs
    if cursor.docs_block != b:
        load_docs(segment, work, j, b)
    low = cursor.place
    high = count_of(cursor, b)
    if docs[j, low] < begin:
        low = not_below(docs, j, low, high, begin)
    if U(work.ends[b]) >= end:
        high = not_below(docs, j, low, high, end)
        cursor.place = high
    return low, high


@inlined
def open_weighed(
    segment: SegmentArrays, work: Work, cursor: Any, j: Any, b: Any, begin: Any, end: Any, need: Any
) -> Any:
    """Does the same with frequencies; returns no postings of a block below the impact `need`."""
    low, high = U(0), U(0)
    if work.tops[b] >= need:
        low, high = open_block(segment, work, cursor, j, b, begin, end)
        if low < high and cursor.tfs_block != b:
            load_tfs(segment, work, j, b)
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
