"""Top-k of weighted terms by bounds of blocks and groups of blocks, and scores of their documents.

A document's score is the sum of query weight x document weight, in double, in the order of the
query's terms, cast to float32. Bounds are integers of 16 bits: of frequent terms the largest weight
of each block of 8 documents lies ready, 64 blocks at a time for one instruction; those of rare
terms are read from their postings. A group of 64 blocks whose own bound is below the threshold is
skipped unseen. Blocks are taken about by falling bound, level by level. The documents of a block
whose bound reaches the threshold are weighed in integers, from their own terms, and those that
reach it, too, are scored as above. So the ranking is that of scoring everything, bit for bit.

Blocks as small as this follow Mallia, Suel and Tonellotto (SIGIR 2024), groups of them Carlson et
al. (SIGIR 2025).

With an effort below 1 bounds leave out the query's smallest terms: documents that would have been
ranked may be missed, and the scores of the others are as they were.

Legend: q terms of the query, B blocks, G groups.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from raydist.bow.format.weights import BLOCK, GROUP
from raydist.bow.weighted.candidates import kept, offer
from raydist.bow.weighted.lists import MANY, RANKED, TOPS, WEIGHTS, is_unchecked, load
from raydist.bow.weighted.workspace import WEIGHTED_ARRAYS, WeightedSegment, WeightedWork
from raydist.kernels.addresses import Array, view
from raydist.kernels.intrinsics import trailing_zeros
from raydist.kernels.jit import inlined, kernel
from raydist.kernels.lanes import add_scaled_64, at_least_64, largest_64

U = np.uint64
U8, U16, U32 = np.uint8, np.uint16, np.uint32
F32 = np.float32

_NONE = U(0xFFFFFFFFFFFFFFFF)
_BUDGET = 60_000.0  # of a bound's 16 bits; the rest is for rounding
_SIXTEEN = 65_535.0
_SAFE = 1.0 - 1e-6  # scores are rounded to float32
_STEP = U(4)  # a level is a 16th below the one before
_ENTRIES = 3  # that are weighed in the time that a posting takes
_LEAST_DOCUMENTS = U(4)  # that are weighed for each one wanted


@kernel
def rank_weighted(
    segments: Array, number: Any, workspace: Array, terms: Any, k: Any, effort: Any
) -> Any:
    """Ranks a query in one segment; candidates and the best scores so far lie in the workspace.

    Args:
        segments: addresses of all segments' arrays.
        number: of the segment.
        workspace: addresses of its arrays.
        terms: of the query, in `rows` and `factors`.
        k: number of documents wanted.
        effort: of the largest score that there could be, how much bounds count; 1 is exact.

    Returns:
        RANKED and the number of candidates; CRAMPED and the postings to make room for; CROWDED;
        MANY where sums.py is faster; or the file to check and its bytes.
    """
    segment = view(segments, U(number) * U(WEIGHTED_ARRAYS), WeightedSegment)
    work = view(workspace, U(0), WeightedWork)
    about, rows, factors = segment.about, work.rows, work.factors
    table, slots = work.table, work.slots
    terms = U(terms)
    total, most = 0.0, 0.0
    postings = U(0)
    for j in range(terms):
        if rows[j, 0]:
            postings += rows[j, 2]
            total += factors[j] * np.float64(about[rows[j, 1], 0])
            most = max(most, factors[j])
    if total == 0.0:
        return RANKED, np.int64(0), np.int64(0)
    documents = segment.facts[0]
    budget = U(_ENTRIES) * postings
    if min(U(k), documents) * _LEAST_DOCUMENTS * (segment.starts[documents] // documents) > budget:
        return MANY, np.int64(0), np.int64(0)
    scale, fine = _BUDGET / total, _SIXTEEN / most
    for j in range(terms):
        if rows[j, 0]:
            table[rows[j, 1]] = U16(max(1.0, min(_SIXTEEN, np.ceil(factors[j] * fine))))
            slots[rows[j, 1]] = U16(j + U(1))
    _order(segment, work, terms)
    outcome, value, end, frequent = _prepare(segment, work, terms, total, scale, effort)
    if outcome == RANKED:
        outcome, value, end = _visit(segment, work, terms, frequent, U(k), scale, fine, budget)
    for j in range(terms):
        if rows[j, 0]:
            table[rows[j, 1]] = U16(0)
            slots[rows[j, 1]] = U16(0)
    return outcome, value, end


@kernel
def _order(segment: WeightedSegment, work: WeightedWork, terms: Any) -> None:
    """Orders the terms by the largest part that they can have in a score."""
    about, rows, factors, parts = segment.about, work.rows, work.factors, work.parts
    order = work.order
    for j in range(terms):
        parts[j] = 0.0
        if rows[j, 0]:
            parts[j] = factors[j] * np.float64(about[rows[j, 1], 0])
        i: Any = j
        while i > U(0) and parts[order[i - U(1)]] < parts[j]:
            order[i] = order[i - U(1)]
            i -= U(1)
        order[i] = j


@kernel
def _prepare(
    segment: WeightedSegment, work: WeightedWork, terms: Any, total: Any, scale: Any, effort: Any
) -> Any:
    """Writes the parts of rare terms in the blocks' bounds, and the bounds of groups.

    Returns an outcome with its values, and how many frequent terms there are, which lie at the
    beginning of `at` and `scales`.
    """
    rows, factors, about = work.rows, work.factors, segment.about
    bounds, keys, ready = work.bounds, work.keys, work.ready
    groups = segment.facts[1]
    bounds[: groups * U(GROUP)] = U16(1)
    frequent = U(0)
    wanted = total * effort
    reached = 0.0
    for i in range(terms):
        j = work.order[i]
        if not rows[j, 0] or (effort < 1.0 and reached >= wanted):
            continue
        largest = np.float64(about[rows[j, 1], 0])
        reached += factors[j] * largest
        row = U(about[rows[j, 1], 1])
        if row:
            start = (row - U(1)) * groups
            first, last = start * U(GROUP), (start + groups) * U(GROUP)
            if is_unchecked(segment.unchecked_tops, first, last):
                return TOPS, np.int64(first), np.int64(last), U(0)
            work.at[frequent] = start
            work.scales[frequent] = U(scale * factors[j] * largest * (256.0 / 255.0)) + U(1)
            frequent += U(1)
        else:
            outcome, value, end = _add_rare(segment, work, j, scale)
            if outcome != RANKED:
                return outcome, value, end, U(0)
    for g in range(groups):
        ready[g] = U8(0)
        keys[g] = U32(largest_64(bounds, g * U(GROUP)))
    for i in range(frequent):
        start, by = work.at[i], U32(work.scales[i])
        tops = segment.groups
        for g in range(groups):
            keys[g] += (U32(tops[start + g]) * by) >> U32(8)
    return RANKED, np.int64(0), np.int64(0), frequent


@kernel
def _add_rare(segment: WeightedSegment, work: WeightedWork, j: Any, scale: Any) -> Any:
    """Adds the parts of a rare term to the bounds of its blocks."""
    outcome, value, end = load(segment, work, j)
    if outcome != RANKED:
        return outcome, value, end
    docs, tfs, bounds = work.docs, work.tfs, work.bounds
    factor = scale * work.factors[j]
    last, largest = _NONE, U32(0)
    for p in range(work.rows[j, 2]):
        part = U32(factor * np.float64(tfs[p])) + U32(1)
        block = U(docs[p]) // U(BLOCK)
        if block != last:
            last, largest = block, U32(0)
        if part > largest:
            bounds[block] += U16(part - largest)
            largest = part
    return RANKED, np.int64(0), np.int64(0)


@kernel
def _visit(
    segment: WeightedSegment,
    work: WeightedWork,
    terms: Any,
    frequent: Any,
    k: Any,
    scale: Any,
    fine: Any,
    budget: Any,
) -> Any:
    """Weighs the documents of all blocks whose bounds reach the threshold."""
    bounds, keys, ready, heap = work.bounds, work.keys, work.ready, work.heap
    groups = segment.facts[1]
    count, spent = U(0), U(0)
    level = U32(0)
    for g in range(groups):
        level = max(level, keys[g])
    need, least = U32(1), U(1)
    if work.state[0] == k:
        need, least = _needs(heap[0], scale, fine, frequent)
    while level >= need:
        level = max(need, level - max(U32(1), level >> U32(_STEP)))
        last_level = level == need
        for g in range(groups):
            if keys[g] < max(level, need):
                continue
            at = g * U(GROUP)
            if not ready[g]:
                for i in range(frequent):
                    tops_at = (work.at[i] + g) * U(GROUP)
                    add_scaled_64(bounds, at, segment.tops, tops_at, work.scales[i])
                ready[g] = U8(1)
                keys[g] = U32(largest_64(bounds, at))
            while keys[g] >= max(level, need):
                mask = at_least_64(bounds, at, U(max(level, need)))
                while mask:
                    block = at + trailing_zeros(mask)
                    mask &= mask - U(1)
                    if bounds[block] < need:
                        continue
                    bounds[block] = U16(0)
                    last = min((block + U(1)) * U(BLOCK), segment.facts[0])
                    spent += segment.starts[last] - segment.starts[block * U(BLOCK)]
                    if spent > budget:
                        return MANY, np.int64(0), np.int64(0)
                    outcome, count, end = _weigh(segment, work, terms, block, count, least, k)
                    if outcome != RANKED:
                        return outcome, np.int64(count), np.int64(end)
                    if work.state[0] == k:
                        need, least = _needs(heap[0], scale, fine, frequent)
                keys[g] = U32(largest_64(bounds, at))
        if last_level and level >= need:
            break
    return RANKED, np.int64(kept(work, count, k)), np.int64(0)


@inlined
def _needs(score: Any, scale: Any, fine: Any, frequent: Any) -> Any:
    """Returns what a block's bound, and a document's integer sum, must reach."""
    safe = np.float64(score) * _SAFE
    bound = np.floor(safe * scale) - np.float64(frequent)
    return U32(min(_SIXTEEN, max(0.0, bound) + 1.0)), U(max(1.0, np.floor(safe * fine)))


@kernel
def _weigh(
    segment: WeightedSegment,
    work: WeightedWork,
    terms: Any,
    block: Any,
    count: Any,
    least: Any,
    k: Any,
) -> Any:
    """Scores the documents of a block that reach `least`; returns how many candidates there are."""
    weights, starts, allowed = segment.weights, segment.starts, segment.allowed
    bits, table = U32(segment.facts[2]), work.table
    mask = (U32(1) << bits) - U32(1)
    first = block * U(BLOCK)
    last = min(first + U(BLOCK), segment.facts[0])
    begin, end = starts[first] << U(2), starts[last] << U(2)
    if is_unchecked(segment.unchecked_weights, begin, end):
        return WEIGHTS, begin, end
    for doc in range(first, last):
        if allowed.shape[0] and not (allowed[doc >> U(3)] >> (doc & U(7))) & U8(1):
            continue
        total = U(0)
        for p in range(starts[doc], starts[doc + U(1)]):
            entry = weights[p]
            total += U(U32(table[entry & mask]) * U(entry >> bits))
        if total < least:
            continue
        score = _score(segment, work, terms, doc, bits)
        outcome, count = offer(work, count, k, doc, score)
        if outcome != RANKED:
            return outcome, U(0), U(0)
    return RANKED, count, U(0)


@kernel
def _score(segment: WeightedSegment, work: WeightedWork, terms: Any, doc: Any, bits: Any) -> Any:
    """Returns a document's score, its parts added in the order of the query's terms."""
    weights, starts, slots = segment.weights, segment.starts, work.slots
    parts, factors = work.parts, work.factors
    mask = (U32(1) << bits) - U32(1)
    parts[:terms] = 0.0
    for p in range(starts[doc], starts[doc + U(1)]):
        entry = weights[p]
        slot = U(slots[entry & mask])
        if slot:
            parts[slot - U(1)] = factors[slot - U(1)] * np.float64(entry >> bits)
    score = 0.0
    for j in range(terms):
        score += parts[j]
    return F32(score)
