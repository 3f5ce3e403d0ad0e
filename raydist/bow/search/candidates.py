"""Candidates of a search: collected from the sums, cut by a threshold, scored exactly, ordered.

Legend: C candidates, W documents of a window.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.search.lists import DOCS, FIRST, count_of, load_docs, not_below, row_of, seek
from raydist.kernels.intrinsics import (
    at_least_32,
    bits_of_float,
    clear_32,
    float_of_bits,
    ones,
    trailing_zeros,
)
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64
U32 = np.uint32
F32 = np.float32

_FEW = 24  # sorted by insertion


@kernel
def kth_largest(value: Array, count: Any, k: Any, bins: Array) -> Any:
    """Returns the k-th largest upper half among `count` >= k words, by two passes of 256 bins."""
    bins[:512] = 0
    for i in range(count):
        bins[value[i] >> U32(24)] += 1
    seen = 0
    high = 255
    while seen + bins[high] < k:
        seen += bins[high]
        high -= 1
    for i in range(count):
        if value[i] >> U32(24) == high:
            bins[U32(256) + ((value[i] >> U32(16)) & U32(255))] += 1
    low = 255
    while True:
        seen += bins[256 + low]
        if seen >= k:
            return U(high * 256 + low)
        low -= 1


@kernel
def keep(found: Array, value: Array, count: Any, threshold: Any) -> Any:
    """Drops the candidates whose sums are below the threshold; returns how many are left."""
    limit = U32(min(threshold, U(65535))) << U32(16)
    to = U(0)
    for i in range(count):
        doc = found[i]
        word = value[i]
        found[to] = doc
        value[to] = word
        to += U(word >= limit)
    return to


@kernel
def keep_allowed(found: Array, value: Array, start: Any, count: Any, allowed: Array) -> Any:
    """Drops the candidates from `start` that are not allowed."""
    to = start
    for i in range(start, count):
        doc = found[i]
        found[to] = doc
        value[to] = value[i]
        to += U(allowed[doc])
    return to


@kernel
def collect(
    sums: Array,
    masks: Array,
    found: Array,
    value: Array,
    count: Any,
    begin: Any,
    touched: Any,
    need: Any,
) -> Any:
    """Lists the documents whose sum is at least `need`, in order, and clears the sums.

    Written so that few branches depend on where the documents are.
    """
    limit = need << U(16)
    words = U(0)
    left = touched
    while left:
        offset = trailing_zeros(left) << U(8)
        left &= left - U(1)
        for quarter in range(U(4)):
            at = offset + (quarter << U(6))
            mask = at_least_32(sums, at, limit)
            mask |= at_least_32(sums, at + U(32), limit) << U(32)
            masks[0, words] = mask
            masks[1, words] = at
            words += U(mask != U(0))
    for w in range(words):
        mask = masks[0, w]
        offset = masks[1, w]
        end = count + ones(mask)
        for i in range(U(4)):
            at = offset + trailing_zeros(mask)
            mask &= mask - U(1)
            found[count + i] = U32(begin + at)
            value[count + i] = sums[at]
        count += U(4)
        while count < end:
            at = offset + trailing_zeros(mask)
            mask &= mask - U(1)
            found[count] = U32(begin + at)
            value[count] = sums[at]
            count += U(1)
        count = end
    while touched:
        offset = trailing_zeros(touched) << U(8)
        touched &= touched - U(1)
        for eighth in range(U(8)):
            clear_32(sums, offset + (eighth << U(5)))
    return count


@kernel
def rescore(
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
def answer(
    found: Array, exact: Array, count: Any, keys: Array, bins: Array, docs: Array, scores: Array
) -> None:
    """Writes the candidates, which ascend, by descending score; ties stay in order.

    A radix sort of the scores' bits; keys are [2, C].
    """
    for i in range(count):
        score = U(~bits_of_float(np.float32(exact[i])))
        keys[0, i] = (score << U(32)) | U(found[i])
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
        for shift in range(U(32), U(64), U(8)):
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
        scores[i] = float_of_bits(~U32(key >> U(32)))
