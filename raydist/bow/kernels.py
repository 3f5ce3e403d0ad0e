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

from raydist.bow.blocks import (
    BELOW,
    BLOCK,
    DOCS,
    FINAL,
    FIRST,
    FREQS,
    NONE,
    ORDER,
    PLACE,
    TOP,
    WIDE,
    WINDOW,
    Lists,
    Postings,
    count_of,
    load_docs,
    load_tfs,
    not_below,
    row_of,
    seek,
    value_of,
)
from raydist.bow.candidates import collect, keep, keep_allowed, kth_largest
from raydist.bow.codec import BLOCK_SLACK
from raydist.bow.files import CHUNK
from raydist.bow.impacts import fill, reached, skips
from raydist.bow.intrinsics import bits_of_float, kernel, load64
from raydist.bow.windows import (
    add_list,
    enter_window,
    next_document,
    probe_list,
    stream_list,
    sweep_list,
)

__all__ = ["OVERFLOW", "UNCHECKED", "rank"]

Array = npt.NDArray[Any]
U = np.uint64
U32 = np.uint32
F32 = np.float32

OVERFLOW = -1
"""`rank` found more documents within the slack of the k-th than there is room for."""

UNCHECKED = -2
"""`rank` met postings whose checksums were not compared yet."""

LOW = U(0xFFFFFFFF)


@kernel
def _rescore(
    packed: Array,
    raw_docs: Array,
    raw_tfs: Array,
    norms: Array,
    state: Array,
    ends: Array,
    spots: Array,
    docs: Array,
    weights: Array,
    inverse: Array,
    bits: Any,
    found: Array,
    value: Array,
    count: Any,
    exact: Array,
) -> None:
    """Writes the exact sums of the candidates to `exact`."""
    most = U(0)
    if bits > U(1):
        most = (U(1) << bits) - U(1)
    exact[:count] = 0.0
    for j in range(U(weights.shape[0])):
        b = state[FIRST, j]
        stop = state[FIRST, j + U(1)]
        weight = weights[j]
        for i in range(count):
            tf = (U(value[i]) >> (j * bits)) & most
            doc = found[i]
            if tf == most:  # as much as the payload can say, or more: see the posting
                tf = U(0)
                b = seek(ends, b, stop, doc)
                if b < stop:
                    if state[DOCS, j] != b:
                        load_docs(packed, raw_docs, state, ends, spots, docs, j, b)
                    size = count_of(state, docs, j, b)
                    at = not_below(docs, j, U(0), size, doc)
                    if docs[j, at] == doc:
                        tf = row_of(packed, raw_tfs, spots[b], size, at) + U(1)
            if tf:
                ratio = F32(1) + F32(tf) * inverse[norms[doc]]
                exact[i] += np.float64(weight - weight / ratio)


@kernel
def rank(
    p: Postings,
    s: Lists,
    rows: Array,
    weights: Array,
    inverse: Array,
    top_norm: Any,
    k: Any,
    floor: Any,
    allowed: Array,
    keys: Array,
) -> Any:
    """Finds the best documents of a segment.

    Args:
        p: the segment.
        s: working memory with room for the query's terms and blocks, made for this k or more.
        rows: what the dictionary said of each term (uint64 [q, 6]), all of them found.
        weights: boost * idf per term (float32 [q]).
        inverse: Lucene's inverse denominator per norm byte (float32 [256]).
        top_norm: the largest norm byte of the segment.
        k: how many documents are wanted, at least 1.
        floor: a score; documents below it are of no use (0 if all are).
        allowed: 1 for documents that may be found (uint8 [N]), or empty for all.
        keys: receives bits of ~score << 32 | document, unordered (uint64 [as `s.found`]).

    Returns:
        How many keys were written: all documents whose score is at least the k-th, and some more;
        or OVERFLOW, or UNCHECKED - j for the term whose postings were not checked.
    """
    packed, raw_docs, raw_tfs, norms, unchecked = p
    state, ends, tops, spots, docs, tfs, table, sums, masks, hits, found, value, exact, bins = s
    terms = U(rows.shape[0])
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
    block_size = U(docs.shape[1] - BLOCK_SLACK)
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
    _rescore(
        packed, raw_docs, raw_tfs, norms, state, ends, spots, docs, weights, inverse, bits,
        found, value, count, exact,
    )  # fmt: skip
    for i in range(count):
        score = U(~bits_of_float(F32(exact[i])))
        keys[i] = (score << U(32)) | U(found[i])
    return np.int64(count)
