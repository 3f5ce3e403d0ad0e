"""Exact top-k of a disjunction under Lucene's BM25, by quantised accumulation and rescoring.

Every impact is over-estimated by an integer Q < impact * scale + 1 + 2 * margin, with `scale` such
that a document's sum fits 16 bits. A document among the best k (ties at the k-th included) has a
sum above the k-th largest sum minus `slack`, so what falls below that threshold is dropped unseen,
and the few that are left get their exact score: float32 per term, summed in double, cast to
float32.

A sum sits in the upper half of a 32-bit word; the lower half carries a few bits of each term's
frequency, so that most exact scores need no second look at the postings. Documents are taken in
windows. In a window the lists are sorted by their largest impact there; those whose maxima together
stay below the threshold are not essential: they are looked at only for documents that the essential
lists brought up. Maxima of blocks come from their competitive (tf, norm) pairs at query time, hence
hold for any k1, b and statistics.

Legend: q terms of the query, B blocks of all its terms one term after another, W documents of a
window, C candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.format.codec import BLOCK_SLACK
from raydist.bow.format.files import CHUNK
from raydist.bow.search.candidates import answer, collect, keep, keep_allowed, kth_largest, rescore
from raydist.bow.search.essential import add_list, stream_list
from raydist.bow.search.impacts import fill, reached, skips
from raydist.bow.search.lists import (
    ALLOWED,
    BELOW,
    BLOCK,
    DOCS,
    FACTS,
    FINAL,
    FIRST,
    FREQS,
    INVERSE,
    NONE,
    NORMS,
    ORDER,
    PACKED,
    PLACE,
    RAW_DOCS,
    RAW_TFS,
    SEGMENT_ROWS,
    TOP,
    UNCHECKED_CHUNKS,
    WIDE,
    WINDOW,
    load_docs,
    load_tfs,
    value_of,
)
from raydist.bow.search.probes import probe_list, sweep_list
from raydist.bow.search.windows import enter_window, next_document
from raydist.bow.search.workspace import (
    BEST_DOCS,
    BEST_SCORES,
    BINNED,
    COUNTS,
    DOCS_OF,
    ENDS,
    EXACT,
    FOUND,
    HITS,
    KEYS,
    MASKS,
    MOST_TERMS,
    ROWS,
    SPOTS,
    STATE,
    SUMS,
    TABLE,
    TFS_OF,
    TOPS,
    VALUE,
    WEIGHTS,
)
from raydist.kernels.addresses import flat, grid
from raydist.kernels.intrinsics import load64
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64
U32 = np.uint32
F32 = np.float32

OVERFLOW = -1
"""`rank` found more documents within the slack of the k-th than there is room for."""

ROOM = -2
"""`rank` needs a larger workspace."""

UNCHECKED = -3
"""`rank` met postings whose checksums were not compared yet."""

LOW = U(0xFFFFFFFF)


@kernel
def rank(
    segments: Array, workspace: Array, number: Any, block_size: Any, k: Any, floor: Any
) -> Any:
    """Finds the best documents of a segment.

    Args:
        segments: addresses of all segments' arrays.
        workspace: addresses of its arrays, `ROWS` and `WEIGHTS` filled.
        number: the segment.
        block_size: its postings per block.
        k: how many documents are wanted, at least 1.
        floor: a score; documents below it are of no use (0 if all are).

    Returns:
        How many documents and scores were written, best first: all whose score is at least the
        k-th, and some more; or OVERFLOW, ROOM, or UNCHECKED - j for the term whose postings were
        not checked.
    """
    first = U(number) * U(SEGMENT_ROWS)
    packed = flat(segments, first + PACKED, np.uint8)
    raw_docs = flat(segments, first + RAW_DOCS, np.uint32)
    raw_tfs = flat(segments, first + RAW_TFS, np.uint32)
    norms = flat(segments, first + NORMS, np.uint8)
    unchecked = flat(segments, first + UNCHECKED_CHUNKS, np.bool_)
    allowed = flat(segments, first + ALLOWED, np.uint8)
    inverse = flat(segments, first + INVERSE, np.float32)
    top_norm = flat(segments, first + FACTS, np.uint64)[1]
    state = grid(workspace, STATE, np.uint64)
    ends = flat(workspace, ENDS, np.uint32)
    tops = flat(workspace, TOPS, np.uint32)
    spots = flat(workspace, SPOTS, np.uint64)
    docs = grid(workspace, DOCS_OF, np.uint32)
    tfs = grid(workspace, TFS_OF, np.uint32)
    table = grid(workspace, TABLE, np.uint32)
    sums = flat(workspace, SUMS, np.uint32)
    masks = grid(workspace, MASKS, np.uint64)
    hits = flat(workspace, HITS, np.uint32)
    found = flat(workspace, FOUND, np.uint32)
    value = flat(workspace, VALUE, np.uint32)
    exact = flat(workspace, EXACT, np.float64)
    bins = flat(workspace, BINNED, np.int64)
    terms = U(flat(workspace, COUNTS, np.int64)[number])
    begin = U(number) * U(MOST_TERMS)
    rows = grid(workspace, ROWS, np.uint64)[begin : begin + terms]
    weights = flat(workspace, WEIGHTS, np.float32)[begin : begin + terms]

    if terms == U(0):
        return np.int64(0)
    block_size = U(block_size)
    blocks = U(0)
    for j in range(terms):
        blocks += (rows[j, 2] + block_size - U(1)) // block_size
    if (
        blocks > U(ends.shape[0])
        or terms >= U(state.shape[1])
        or block_size != U(docs.shape[1] - BLOCK_SLACK)
        or U(4) * U(k) + U(WINDOW + 64) > U(found.shape[0])
    ):
        return ROOM
    total = 0.0
    for j in range(terms):
        total += np.float64(weights[j])
        begin = rows[j, 5] // U(CHUNK)
        for chunk in range(begin, (rows[j, 5] + rows[j, 3] + U(CHUNK - 1)) // U(CHUNK)):
            if unchecked[chunk]:
                return UNCHECKED - np.int64(j)

    # A sum of q terms fits 16 bits; see `quantised` for what it is over the scaled score.
    scale = (65530.0 - 1.25 * np.float64(terms)) / total
    slack = terms + U(1)
    bits = U(4) if terms <= U(4) else U(16) // terms
    documents = U(norms.shape[0])
    scaled = np.empty(terms, np.float32)
    best: Any = U(0)
    b = U(0)
    for j in range(terms):
        scaled[j] = weights[j] * scale
        fill(table, j, scaled[j], inverse, U(top_norm) + U(1), bits)
        df, before, at = rows[j, 2], rows[j, 4], rows[j, 5]
        blocks = (df + block_size - U(1)) // block_size
        state[FIRST, j] = b
        state[FIRST, j + U(1)] = b + blocks
        state[FINAL, j] = df - (blocks - U(1)) * block_size
        state[BLOCK, j] = b
        state[DOCS, j] = NONE
        state[FREQS, j] = NONE
        state[PLACE, j] = U(0)
        state[ORDER, j] = j
        bins[:] = 0
        if blocks > U(1):
            start = before
            step = block_size
            if not raw_docs.shape[0]:
                start = at + U(4) + (load64(packed, at) & LOW)
                step = U(0)
            skips(
                packed, raw_docs, state, ends, tops, spots, table, scaled, inverse, bins, j,
                at + U(4), start, step,
            )  # fmt: skip
        else:
            spots[b] = before
            if not raw_docs.shape[0]:
                spots[b] = at + U(2) | (load64(packed, at) & U(65535)) << U(48)
            load_docs(packed, raw_docs, state, ends, spots, docs, j, b)
            load_tfs(packed, raw_tfs, state, spots, tfs, j, b)
            top: Any = U32(0)
            for i in range(df):
                norm = U(norms[docs[j, i]])
                q = value_of(table, scaled, inverse, j, U(tfs[j, i]), norm) >> U32(16)
                bins[q >> U32(7)] += 1
                top = max(top, q)
            ends[b] = docs[j, df - U(1)]
            tops[b] = top
        b += blocks
        # Pairs of a term belong to different documents: k of them give a sum that k reach.
        best = max(best, reached(bins, np.int64(k)))

    filtered = allowed.shape[0] > 0
    if filtered:
        best = U(0)
    best = max(best, U(floor * scale))
    threshold: Any = best - slack if best > slack else U(1)
    room = U(found.shape[0] - WINDOW - 64)
    refresh = U(k) + max(U(k) >> U(1), U(32))
    fresh = True
    count = U(0)
    begin = U(0)
    while begin < documents:
        end = min(documents, begin + U(WINDOW))
        enter_window(state, ends, tops, docs, terms, begin, end)
        all_tops = state[BELOW, terms]
        if all_tops < threshold:
            begin = next_document(state, ends, docs, terms, end, documents)
            continue
        essential = U(0)
        while state[BELOW, essential + U(1)] < threshold:
            essential += U(1)
        need = threshold - state[BELOW, essential]
        start = count
        if essential + U(1) == terms:
            j = state[ORDER, essential]
            count = stream_list(
                packed, raw_docs, raw_tfs, norms, state, ends, tops, spots, docs, tfs, table,
                scaled, inverse, found, value, count, j, begin, end, need,
            )  # fmt: skip
        else:
            touched = U(0)
            for a in range(essential, terms):
                j = state[ORDER, a]
                others = all_tops - state[TOP, j]
                least = threshold - others if threshold > others else U(0)
                touched |= add_list(
                    packed, raw_docs, raw_tfs, norms, state, ends, tops, spots, docs, tfs, table,
                    scaled, inverse, sums, j, begin, end, least,
                )  # fmt: skip
            count = collect(sums, masks, found, value, count, begin, touched, need)
        if filtered:
            count = keep_allowed(found, value, start, count, allowed)
        left: Any = essential
        while left > U(0) and count > start:
            left -= U(1)
            j = state[ORDER, left]
            wide = state[WIDE, j]
            if wide == U(0):
                continue
            need = threshold - state[BELOW, left]
            if count - start > U(4) * wide:
                count = sweep_list(
                    packed, raw_docs, raw_tfs, norms, state, ends, spots, docs, table, scaled,
                    inverse, sums, hits, found, value, start, count, j, begin, end, need,
                )  # fmt: skip
            else:
                before = threshold - state[BELOW, left + U(1)]
                count = probe_list(
                    packed, raw_docs, raw_tfs, norms, state, ends, tops, spots, docs, table,
                    scaled, inverse, found, value, start, count, j, before, need,
                )  # fmt: skip
        if count > start and count >= U(k) and (fresh or count >= refresh):
            fresh = False
            kth = kth_largest(value, count, np.int64(k), bins)
            if kth > threshold + slack:
                threshold = kth - slack
            count = keep(found, value, count, threshold)
            if count >= room:
                return OVERFLOW
        begin = end
    if count > U(k):
        kth = kth_largest(value, count, np.int64(k), bins)
        if kth > slack:
            count = keep(found, value, count, kth - slack)
    rescore(
        packed, raw_docs, raw_tfs, norms, state, ends, spots, docs, weights, inverse, bits,
        found, value, count, exact,
    )  # fmt: skip
    answer(
        found, exact, count, grid(workspace, KEYS, np.uint64), bins,
        flat(workspace, BEST_DOCS, np.int64), flat(workspace, BEST_SCORES, np.float32),
    )  # fmt: skip
    return np.int64(count)
