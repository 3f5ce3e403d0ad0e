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

This is MaxScore (Turtle & Flood 1995; Ding & Suel, SIGIR 2011, with block maxima) a window at a
time instead of a document at a time.

Legend: q terms of the query.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from raydist.bow.format.files import CHUNK
from raydist.bow.format.postings import (
    BLOCK_SLACK,
    BYTES,
    BYTES_MASK,
    LAST,
    SKIP,
    WIDTHS,
    first_widths,
    widths_of,
)
from raydist.bow.search.impacts import (
    DIRICHLET,
    LENGTHS,
    LUCENE,
    constant_of,
    most_constant_lost,
    most_lost,
    most_of,
    quantised_part,
    quantised_up,
)
from raydist.bow.search.lists import load_docs, load_tfs, quantised, word_of
from raydist.bow.search.scan import NO_ROOM
from raydist.bow.search.workspace import (
    MARGIN,
    MOST_TERMS,
    NONE,
    NORM,
    SUM,
    TABULATED,
    WINDOW,
    SegmentArrays,
    Work,
)
from raydist.kernels.addresses import Array, address_of, call
from raydist.kernels.intrinsics import load64
from raydist.kernels.jit import inlined, kernel

U = np.uint64
U32 = np.uint32
F32 = np.float32

_BIN = U32(7)  # impacts are binned by their upper 9 bits
_OR_MORE = U(254)  # tf - 1 in a competitive pair: this or more
_LARGEST = U(0xFFFFFFFF)

# Outcomes of `rank`.
RANKED, CROWDED, CRAMPED, UNCHECKED, UNFIT = 0, 1, 2, 3, 4


@kernel
def rank(segment: SegmentArrays, work: Work, number: Any, k: Any, floor: Any) -> Any:
    """Finds the best documents of a segment.

    Args:
        segment: its arrays.
        work: `rows` and `weights` are filled.
        number: the segment's.
        k: number of documents to return, at least 1.
        floor: a score; documents below it may be left out.

    Returns:
        RANKED and how many documents and scores were written, best first: all whose score is at
        least the k-th, and some more; CROWDED where more documents than there is room for are
        within the slack of the k-th; CRAMPED where the workspace is too small; UNCHECKED and the
        number of a term whose postings' checksums were not compared yet; or UNFIT where scores
        cannot be told apart by 16 bits.
    """
    terms = U(work.counts[number])
    if terms == U(0):
        return RANKED, np.int64(0)
    first = U(number) * U(MOST_TERMS)
    rows, lost = work.rows[first : first + terms], work.lost[first : first + terms]
    block_size, k = segment.facts[4], U(k)
    if not _fits(work, rows, block_size, k):
        return CRAMPED, np.int64(0)
    for j in range(terms):
        if _unchecked(segment, rows[j]):
            return UNCHECKED, np.int64(j)

    # A sum of q terms fits 16 bits; see `quantised` for what it is over the scaled score.
    total, lost_score, least = _most(segment, work, first, terms)
    total -= least
    if not 0.0 < total < np.inf:
        return UNFIT, np.int64(0)
    scale = (65530.0 - 1.25 * np.float64(terms + U(1))) / total
    slack = terms + U(1) + U(lost_score * scale + 0.999)
    if segment.model[0] == DIRICHLET:
        slack += U(1)
        _tabulate_constants(segment, work, scale, least)
    bits = U(4) if terms <= U(4) else U(16) // terms
    reached = open_terms(segment, work, rows, first, lost, scale, bits, block_size, k)
    if segment.facts[3]:
        reached = U(0)
    reached = max(reached, U(max(floor - least, 0.0) * scale))
    threshold: Any = reached - slack if reached > slack else U(1)

    numbers = (address_of(segment), address_of(work), terms, threshold, bits, slack, k)
    count = call(work.scan[0], numbers)
    if count == NO_ROOM:
        return CROWDED, np.int64(0)
    return RANKED, np.int64(count)


@kernel
def _most(segment: SegmentArrays, work: Work, first: Any, terms: Any) -> Any:
    """Returns the most that terms add to a score, what it may lack, and the least constant.

    It may lack something of what its sum stands for, by a length above its norm's.
    """
    model = segment.model
    norms = np.int64(segment.facts[1]) + 1
    total, lost_score, least = 0.0, 0.0, 0.0
    if model[0] == DIRICHLET:
        least = constant_of(model, work.tokens[0], model[LENGTHS + norms])
        if segment.lengths.shape[0]:
            lost_score += most_constant_lost(model, work.tokens[0], norms)
    for j in range(first, first + terms):
        weight, statistic = work.factors[j, 0], work.factors[j, 1]
        if model[0] == LUCENE:
            total += np.float64(work.weights[j])
        else:
            total += most_of(model, weight, statistic)
            if segment.lengths.shape[0] and model[0] != DIRICHLET:
                lost_score += most_lost(model, weight, statistic, norms)
    return total, lost_score, least


@kernel
def _tabulate_constants(segment: SegmentArrays, work: Work, scale: Any, least: Any) -> None:
    """Computes what a document's constant, never above 0, is over the least one, by norm."""
    model, constants = segment.model, work.constants
    for norm in range(segment.facts[1] + U(1)):
        constant = constant_of(model, work.tokens[0], model[U(LENGTHS) + norm])
        constants[norm] = quantised_up((constant - least) * scale) << SUM


@inlined
def _fits(work: Work, rows: Array, block_size: Any, k: Any) -> Any:
    """Returns whether the workspace has room for the terms, their blocks and the candidates."""
    blocks = U(0)
    for j in range(U(rows.shape[0])):
        blocks += (rows[j, 2] + block_size - U(1)) // block_size
    return (
        blocks <= U(work.ends.shape[0])
        and U(rows.shape[0]) <= U(work.cursors.shape[0])
        and block_size == U(work.docs.shape[1] - BLOCK_SLACK)
        and U(4) * k + U(WINDOW + MARGIN) <= U(work.candidates.shape[0])
    )


@kernel
def _unchecked(segment: SegmentArrays, row: Array) -> Any:
    """Returns whether a term has postings in chunks whose checksums were not compared."""
    for chunk in range(row[5] // U(CHUNK), (row[5] + row[3] + U(CHUNK - 1)) // U(CHUNK)):
        if segment.unchecked[chunk]:
            return True
    if segment.raw_docs.shape[0]:
        first, last = row[4] << U(2), (row[4] + row[2]) << U(2)
        for chunk in range(first // U(CHUNK), (last + U(CHUNK - 1)) // U(CHUNK)):
            if segment.unchecked_docs[chunk] or segment.unchecked_tfs[chunk]:
                return True
    return False


@kernel
def open_terms(
    segment: SegmentArrays,
    work: Work,
    rows: Array,
    first: Any,
    lost: Array,
    scale: Any,
    bits: Any,
    block_size: Any,
    k: Any,
) -> Any:
    """Opens the lists of a query's terms.

    Args:
        segment: where they are.
        work: receives their cursors, blocks and impacts.
        rows: each term in the dictionary (`Segment.lookup`), uint64 [q, 6].
        first: where the weights of the segment's terms begin.
        lost: deleted documents that have each, uint64 [q].
        scale: quantised impacts are so many times the impacts.
        bits: of a payload that belong to each term.
        block_size: postings per block.
        k: number of documents to return.

    Returns:
        A sum that at least k live documents have from one term and their constants alone, 0 if not
        known.
    """
    bins = work.bins
    reached = U(0)
    b = U(0)
    for j in range(U(rows.shape[0])):
        df, before, at = rows[j, 2], rows[j, 4], rows[j, 5]
        blocks = (df + block_size - U(1)) // block_size
        cursor = work.cursors[j]
        weight = work.weights[first + j]
        cursor.weight = weight
        cursor.scaled = F32(weight * scale)
        cursor.factor, cursor.statistic = work.factors[first + j, 0], work.factors[first + j, 1]
        cursor.scale = scale
        cursor.first = b
        cursor.stop = b + blocks
        cursor.size = block_size
        cursor.tail = df - (blocks - U(1)) * block_size
        cursor.block = b
        cursor.docs_block = NONE
        cursor.tfs_block = NONE
        cursor.place = U(0)
        work.order[j] = j
        tfs: Any = TABULATED
        if blocks == U(1):
            tfs = _unpack_block(segment, work, j, before, at)
        _tabulate(segment, work, j, bits, tfs)
        # Pairs of a term belong to different documents: k of live ones give a sum that k reach.
        enough = k + lost[j]
        if df >= enough:
            bins[:] = 0
        if blocks == U(1):
            _read_block(segment, work, j)
        else:
            _read_skips(segment, work, j, before, at)
        if df >= enough:
            reached = max(reached, _reached(bins, np.int64(enough)))
        b += blocks
    return reached


@kernel
def _tabulate(segment: SegmentArrays, work: Work, j: Any, bits: Any, tfs: Any) -> None:
    """Computes a term's words by norm and tf, of so many; the payload holds the tf as it fits."""
    impacts, inverse, model = work.impacts, segment.inverse, segment.model
    cursor = work.cursors[j]
    scaled, factor, statistic, scale = cursor.scaled, cursor.factor, cursor.statistic, cursor.scale
    is_lucenes = model[0] == LUCENE
    norms = segment.facts[1] + U(1)
    for tf1 in range(U(tfs)):
        payload = U32(0)
        if bits > U(1):
            payload = U32(min(tf1 + U(1), (U(1) << bits) - U(1)) << (j * bits))
        tf = F32(tf1 + U(1))
        for norm in range(norms):
            if is_lucenes:
                impact = quantised(scaled, tf, inverse[norm])
            else:
                impact = quantised_part(model, factor, statistic, scale, tf, norm)
            impacts[j, (tf1 << NORM) + norm] = (impact << SUM) | payload


@kernel
def _read_skips(segment: SegmentArrays, work: Work, j: Any, before: Any, at: Any) -> None:
    """Reads a term's skips: where its blocks are, and their largest impacts."""
    packed = segment.packed
    impacts, constants, bins = work.impacts, work.constants, work.bins
    ends, tops, spots = work.ends, work.tops, work.spots
    cursor = work.cursors[j]
    # Where steps are rounded, a posting can have a little more than the pair that dominates it.
    rounding = U32(0) if segment.model[0] == LUCENE else U32(1)
    layout = segment.facts[6]
    begin, step = before, cursor.size
    if not segment.raw_docs.shape[0]:
        begin = at + U(4) + (load64(packed, at) & LAST)
        step = U(0)
    at += U(4)
    for b in range(cursor.first, cursor.stop):
        entry = load64(packed, at)
        pairs = U(packed[at + SKIP - U(1)])
        at += SKIP
        top: Any = U32(0)
        for _ in range(pairs):
            tf1 = U(packed[at]) - U(1)
            norm = U(packed[at + U(1)])
            impact = word_of(impacts, segment, cursor, j, tf1, norm) >> SUM
            bins[(impact + (constants[norm] >> SUM)) >> _BIN] += 1
            if tf1 == _OR_MORE:
                impact = word_of(impacts, segment, cursor, j, _LARGEST, norm) >> SUM
            top = max(top, impact)
            at += U(2)
        ends[b] = U32(entry & LAST)
        tops[b] = top + rounding
        spots[b] = begin | widths_of(entry >> WIDTHS, layout) << WIDTHS
        begin += step + ((entry >> BYTES) & BYTES_MASK)


@kernel
def _unpack_block(segment: SegmentArrays, work: Work, j: Any, before: Any, at: Any) -> Any:
    """Unpacks a term's only block, without skips; returns its largest tf, at most TABULATED."""
    tfs = work.tfs
    cursor = work.cursors[j]
    b = cursor.first
    work.spots[b] = before
    if not segment.raw_docs.shape[0]:
        widths, behind = first_widths(load64(segment.packed, at), segment.facts[6])
        work.spots[b] = at + behind | widths << WIDTHS
    load_docs(segment, work, j, b)
    load_tfs(segment, work, j, b)
    most: Any = U32(0)
    for i in range(cursor.tail):
        most = max(most, tfs[j, i])
    return min(U(most) + U(1), TABULATED)


@kernel
def _read_block(segment: SegmentArrays, work: Work, j: Any) -> None:
    """Finds the largest impact of a term's only block."""
    docs, tfs, impacts, bins = work.docs, work.tfs, work.impacts, work.bins
    norms, constants = segment.norms, work.constants
    cursor = work.cursors[j]
    b = cursor.first
    top: Any = U32(0)
    for i in range(cursor.tail):
        norm = U(norms[docs[j, i]])
        impact = word_of(impacts, segment, cursor, j, U(tfs[j, i]), norm) >> SUM
        bins[(impact + (constants[norm] >> SUM)) >> _BIN] += 1
        top = max(top, impact)
    work.ends[b] = docs[j, cursor.tail - U(1)]
    work.tops[b] = top


@kernel
def _reached(bins: Array, k: Any) -> Any:
    """Returns an impact that k of the binned ones reach, 0 if there are fewer."""
    count = 0
    at: Any = bins.shape[0]
    while at > 0:
        at -= 1
        count += bins[at]
        if count >= k:
            return U(at) << U(_BIN)
    return U(0)
