"""Candidates of a search: collected from a window's sums, cut by a threshold, scored and ordered.

Legend: q terms of the query, C candidates, W documents of a window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from raydist.bow.search.impacts import DIRICHLET, LENGTHS, LUCENE, constant_of, part_of
from raydist.bow.search.lists import count_of, load_docs, not_below, seek, tf1_of
from raydist.bow.search.workspace import SUM, SegmentArrays, Work
from raydist.kernels.intrinsics import (
    at_least_32,
    bits_of_float,
    clear_32,
    float_of_bits,
    ones,
    trailing_zeros,
)
from raydist.kernels.jit import kernel

U = np.uint64
U32 = np.uint32
F32 = np.float32

_FEW = 24  # sorted by insertion


@kernel
def kth_largest(work: Work, count: Any, k: Any) -> Any:
    """Returns the k-th largest sum among `count` >= k words, by two passes of 256 bins."""
    words, bins = work.words, work.bins
    bins[:] = 0
    for i in range(count):
        bins[words[i] >> U32(24)] += 1
    above = 0
    high = 255
    while above + bins[high] < k:
        above += bins[high]
        high -= 1
    for i in range(count):
        if words[i] >> U32(24) == high:
            bins[U32(256) + ((words[i] >> SUM) & U32(255))] += 1
    low = 255
    while True:
        above += bins[256 + low]
        if above >= k:
            return U(high * 256 + low)
        low -= 1


@kernel
def keep(work: Work, count: Any, threshold: Any) -> Any:
    """Drops the candidates whose sums are below the threshold; returns how many are left."""
    candidates, words = work.candidates, work.words
    limit = U32(min(threshold, U(65535))) << SUM
    to = U(0)
    for i in range(count):
        doc = candidates[i]
        word = words[i]
        candidates[to] = doc
        words[to] = word
        to += U(word >= limit)
    return to


@kernel
def keep_allowed(segment: SegmentArrays, work: Work, start: Any, count: Any) -> Any:
    """Drops the candidates from `start` that are deleted or left out of the search."""
    candidates, words, allowed = work.candidates, work.words, segment.allowed
    to = start
    for i in range(start, count):
        doc = candidates[i]
        candidates[to] = doc
        words[to] = words[i]
        to += U((allowed[doc >> U32(3)] >> (doc & U32(7))) & U32(1))
    return to


@kernel
def collect(work: Work, count: Any, begin: Any, touched: Any, need: Any) -> Any:
    """Lists the documents whose sum is at least `need`, in order, and clears the sums.

    Written so that few branches depend on where the documents are.
    """
    sums, masks, candidates, words = work.sums, work.masks, work.candidates, work.words
    limit = need << U(SUM)
    filled = U(0)
    left = touched
    while left:
        offset = trailing_zeros(left) << U(8)
        left &= left - U(1)
        for quarter in range(U(4)):
            at = offset + (quarter << U(6))
            mask = at_least_32(sums, at, limit)
            mask |= at_least_32(sums, at + U(32), limit) << U(32)
            masks[0, filled] = mask
            masks[1, filled] = at
            filled += U(mask != U(0))
    for w in range(filled):
        mask = masks[0, w]
        offset = masks[1, w]
        end = count + ones(mask)
        for i in range(U(4)):
            at = offset + trailing_zeros(mask)
            mask &= mask - U(1)
            candidates[count + i] = U32(begin + at)
            words[count + i] = sums[at]
        count += U(4)
        while count < end:
            at = offset + trailing_zeros(mask)
            mask &= mask - U(1)
            candidates[count] = U32(begin + at)
            words[count] = sums[at]
            count += U(1)
        count = end
    while touched:
        offset = trailing_zeros(touched) << U(8)
        touched &= touched - U(1)
        for eighth in range(U(8)):
            clear_32(sums, offset + (eighth << U(5)))
    return count


@kernel
def add_constants(segment: SegmentArrays, work: Work, start: Any, count: Any, need: Any) -> Any:
    """Adds documents' constants to the sums of the candidates from `start`.

    Drops those that stay below `need`; returns how many candidates are left.
    """
    candidates, words, constants = work.candidates, work.words, work.constants
    norms = segment.norms
    limit = U32(need) << SUM
    to = start
    for i in range(start, count):
        doc = candidates[i]
        word = words[i] + constants[norms[doc]]
        candidates[to] = doc
        words[to] = word
        to += U(word >= limit)
    return to


@kernel
def settle(
    segment: SegmentArrays, work: Work, terms: Any, count: Any, bits: Any, slack: Any, k: Any
) -> Any:
    """Scores the candidates exactly and writes them best first; returns how many there are.

    Args:
        segment: where they are.
        work: holds them, and receives the answer.
        terms: how many terms the query has.
        count: how many candidates there are.
        bits: of a payload that belong to each term.
        slack: by how much the sums of documents of one score may differ.
        k: number of documents to return.
    """
    if count > k:
        kth = kth_largest(work, count, np.int64(k))
        if kth > slack:
            count = keep(work, count, kth - slack)
    _rescore(segment, work, terms, count, bits)
    _sort_by_score(segment, work, count)
    return count


@kernel
def _rescore(segment: SegmentArrays, work: Work, terms: Any, count: Any, bits: Any) -> None:
    """Writes the exact scores of the candidates; `bits` of a payload belong to each term."""
    most = U(0)
    if bits > U(1):
        most = (U(1) << bits) - U(1)
    candidates, words, exact = work.candidates, work.words, work.exact
    docs, ends, spots = work.docs, work.ends, work.spots
    norms, inverse = segment.norms, segment.inverse
    model, lengths = segment.model, segment.lengths
    is_lucenes = model[0] == LUCENE
    exact[:count] = 0.0
    for j in range(terms):
        cursor = work.cursors[j]
        b = cursor.first
        stop = cursor.stop
        weight, factor, statistic = cursor.weight, cursor.factor, cursor.statistic
        for i in range(count):
            tf = (U(words[i]) >> (j * bits)) & most
            doc = candidates[i]
            if tf == most:  # the payload's largest value means this or more: read the posting
                tf = U(0)
                b = seek(ends, b, stop, doc)
                if b < stop:
                    if cursor.docs_block != b:
                        load_docs(segment, work, j, b)
                    size = count_of(cursor, b)
                    at = not_below(docs, j, U(0), size, doc)
                    if docs[j, at] == doc:
                        tf = tf1_of(segment, spots[b], size, at) + U(1)
            if tf and is_lucenes:
                ratio = F32(1) + F32(tf) * inverse[norms[doc]]
                exact[i] += np.float64(weight - weight / ratio)
            elif tf:
                length = model[U(LENGTHS) + U(norms[doc])]
                if lengths.shape[0]:
                    length = np.float64(lengths[doc])
                exact[i] += part_of(model, factor, statistic, np.float64(tf), length)
    if model[0] == DIRICHLET:
        for i in range(count):
            doc = candidates[i]
            length = model[U(LENGTHS) + U(norms[doc])]
            if lengths.shape[0]:
                length = np.float64(lengths[doc])
            exact[i] += constant_of(model, work.tokens[0], length)


@kernel
def _sort_by_score(segment: SegmentArrays, work: Work, count: Any) -> None:
    """Writes the candidates by descending score, ties in order: a radix sort of the bits.

    Here the slots of a reordered segment become its documents.
    """
    order = segment.order
    reordered = order.shape[0] > 0
    keys, bins = work.keys, work.bins
    turned = U32(0x7FFFFFFF)
    candidates, exact, docs, scores = work.candidates, work.exact, work.best_docs, work.best_scores
    for i in range(count):
        bits = bits_of_float(np.float32(exact[i]))
        if bits <= turned:  # the bits of negative numbers are in order already
            bits = U32(bits ^ turned)
        doc = order[candidates[i]] if reordered else candidates[i]
        keys[0, i] = (U(bits) << U(32)) | U(doc)
    at: Any = U(0)
    if count <= U(_FEW):
        for a in range(U(1), count):
            key = keys[0, a]
            left: Any = U(a)
            while left > U(0) and keys[0, left - U(1)] > key:
                keys[0, left] = keys[0, left - U(1)]
                left -= U(1)
            keys[0, left] = key
    else:
        for shift in range(U(0) if reordered else U(32), U(64), U(8)):
            bins[:256] = 0
            for i in range(count):
                bins[(keys[at, i] >> shift) & U(255)] += 1
            if bins[(keys[at, U(0)] >> shift) & U(255)] == np.int64(count):
                continue
            before = 0
            for digit in range(256):
                size = bins[digit]
                bins[digit] = before
                before += size
            to = U(1) - at
            for i in range(count):
                key = keys[at, i]
                bin = (key >> shift) & U(255)
                keys[to, U(bins[bin])] = key
                bins[bin] += 1
            at = to
    for i in range(count):
        key = keys[at, i]
        docs[i] = np.int64(key & U(0xFFFFFFFF))
        bits = U32(key >> U(32))
        if bits <= turned:
            bits = U32(bits ^ turned)
        scores[i] = float_of_bits(bits)
