"""One window of documents: its essential lists, and the candidates of these; see rank.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from raydist.bow.search.candidates import add_constants, collect, keep_allowed
from raydist.bow.search.lists import (
    count_of,
    load_docs,
    not_below,
    open_block,
    open_weighed,
    seek,
    tf1_of,
    word_of,
)
from raydist.bow.search.workspace import SUM, SegmentArrays, Work
from raydist.kernels.jit import kernel

U = np.uint64
U32 = np.uint32

SWEPT = U(4)
"""Candidates per block of a list above which the list is swept, not probed."""


@kernel
def enter_window(work: Work, terms: Any, begin: Any, end: Any) -> Any:
    """Finds each list's blocks and largest impact in the window, and sorts the lists by it.

    Returns the most that the sum of a document of the window can be.
    """
    cursors, ends, tops, docs = work.cursors, work.ends, work.tops, work.docs
    order, below = work.order, work.below
    for j in range(terms):
        cursor = cursors[j]
        b = cursor.block
        stop = cursor.stop
        while b < stop and ends[b] < begin:
            b += U(1)
        cursor.block = b
        top: Any = U32(0)
        start = b
        if b < stop and cursor.first + U(1) == stop:  # one block: its documents are known
            place = not_below(docs, j, cursor.place, cursor.tail, begin)
            cursor.place = place
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
        cursor.top = U(top)
        cursor.wide = b - start
    for a in range(U(1), terms):
        j = order[a]
        top64 = cursors[j].top
        i: Any = a
        while i > U(0) and cursors[order[i - U(1)]].top > top64:
            order[i] = order[i - U(1)]
            i -= U(1)
        order[i] = j
    total = U(0)
    for a in range(terms):
        below[a] = total
        total += cursors[order[a]].top
    below[terms] = total
    return total


@kernel
def next_document(work: Work, terms: Any, end: Any, documents: Any) -> Any:
    """Returns a document from `end` on, before which no list has any."""
    ends, docs = work.ends, work.docs
    nearest = documents
    for j in range(terms):
        cursor = work.cursors[j]
        b = cursor.block
        stop = cursor.stop
        while b < stop and ends[b] < end:
            b += U(1)
        if b < stop:
            doc = end
            if cursor.docs_block == b:
                at = not_below(docs, j, cursor.place, count_of(cursor, b), end)
                doc = U(docs[j, at])
            elif b != cursor.first:
                doc = max(doc, U(ends[b - U(1)]) + U(1))
            nearest = min(nearest, doc)
    return nearest


@kernel
def scan_window(
    segment: SegmentArrays,
    work: Work,
    terms: Any,
    count: Any,
    begin: Any,
    end: Any,
    threshold: Any,
) -> Any:
    """Adds the window's documents that may reach the threshold to the `count` candidates.

    The lists whose largest impacts together stay below the threshold are not essential: a document
    that is in these alone cannot reach it. Returns how many candidates there are.
    """
    cursors, order, below = work.cursors, work.order, work.below
    constant = U(work.constants[0] >> SUM)
    essential = U(0)
    while below[essential + U(1)] + constant < threshold:
        essential += U(1)
    start = count
    others = below[essential] + constant
    need = threshold - others if threshold > others else U(1)
    if essential + U(1) == terms:
        count = stream_list(segment, work, count, order[essential], begin, end, need)
    else:
        touched = U(0)
        for a in range(essential, terms):
            j = order[a]
            others = below[terms] + constant - cursors[j].top
            least = threshold - others if threshold > others else U(0)
            touched |= add_list(segment, work, j, begin, end, least)
        count = collect(work, count, begin, touched, need)
    if constant:
        need = threshold - below[essential] if threshold > below[essential] else U(1)
        count = add_constants(segment, work, start, count, need)
    if segment.allowed.shape[0]:
        count = keep_allowed(segment, work, start, count)
    left: Any = essential
    while left > U(0) and count > start:
        left -= U(1)
        j = order[left]
        wide = cursors[j].wide
        if wide == U(0):
            continue
        need = threshold - below[left]
        if count - start > SWEPT * wide:
            count = sweep_list(segment, work, start, count, j, begin, end, need)
        else:
            before = threshold - below[left + U(1)]
            count = probe_list(segment, work, start, count, j, before, need)
    return count


@kernel
def add_list(segment: SegmentArrays, work: Work, j: Any, begin: Any, end: Any, need: Any) -> Any:
    """Adds the list's postings of the window to the sums.

    Blocks whose largest impact is below `need` are passed over. Returns which 64ths of the window
    were touched, as bits.
    """
    docs, tfs, impacts, sums = work.docs, work.tfs, work.impacts, work.sums
    ends, norms = work.ends, segment.norms
    cursor = work.cursors[j]
    touched = U(0)
    b = cursor.block
    stop = cursor.stop
    while b < stop:
        low, high = open_weighed(segment, work, cursor, j, b, begin, end, need)
        for i in range(low, high):
            doc = U(docs[j, i])
            offset = doc - begin
            touched |= U(1) << (offset >> U(8))
            sums[offset] += word_of(impacts, segment, cursor, j, U(tfs[j, i]), U(norms[doc]))
        if ends[b] >= end:
            break
        b += U(1)
    cursor.block = b
    return touched


@kernel
def stream_list(
    segment: SegmentArrays, work: Work, count: Any, j: Any, begin: Any, end: Any, need: Any
) -> Any:
    """Lists the documents of the only essential list whose impact is at least `need`."""
    docs, tfs, impacts = work.docs, work.tfs, work.impacts
    candidates, words = work.candidates, work.words
    ends, norms = work.ends, segment.norms
    cursor = work.cursors[j]
    limit = U32(need) << SUM
    b = cursor.block
    stop = cursor.stop
    while b < stop:
        low, high = open_weighed(segment, work, cursor, j, b, begin, end, need)
        for i in range(low, high):
            doc = docs[j, i]
            word = word_of(impacts, segment, cursor, j, U(tfs[j, i]), U(norms[doc]))
            candidates[count] = doc
            words[count] = word
            count += U(word >= limit)
        if ends[b] >= end:
            break
        b += U(1)
    cursor.block = b
    return count


@kernel
def probe_list(
    segment: SegmentArrays, work: Work, start: Any, count: Any, j: Any, before: Any, need: Any
) -> Any:
    """Looks the candidates from `start` up in a list that is not essential.

    Keeps those that can still reach the threshold: `before` is what a sum must be before this
    list, `need` after it.
    """
    docs, impacts, candidates, words = work.docs, work.impacts, work.candidates, work.words
    ends, tops, spots = work.ends, work.tops, work.spots
    norms = segment.norms
    cursor = work.cursors[j]
    b = cursor.block
    stop = cursor.stop
    to = start
    for i in range(start, count):
        word = words[i]
        total = U(word >> SUM)
        if total < before:
            continue
        doc = candidates[i]
        b = seek(ends, b, stop, doc)
        if b < stop and total + U(tops[b]) >= need:
            if cursor.docs_block != b:
                load_docs(segment, work, j, b)
            size = count_of(cursor, b)
            at = not_below(docs, j, cursor.place, size, doc)
            cursor.place = at  # the block ends at or behind `doc`
            if docs[j, at] == doc:
                tf1 = tf1_of(segment, spots[b], size, at)
                word += word_of(impacts, segment, cursor, j, tf1, U(norms[doc]))
                total = U(word >> SUM)
        if total >= need:
            candidates[to] = doc
            words[to] = word
            to += U(1)
    cursor.block = b
    return to


@kernel
def sweep_list(
    segment: SegmentArrays,
    work: Work,
    start: Any,
    count: Any,
    j: Any,
    begin: Any,
    end: Any,
    need: Any,
) -> Any:
    """Does the same as `probe_list` for many candidates: reads all postings of the window."""
    docs, impacts, candidates, words = work.docs, work.impacts, work.candidates, work.words
    sums, hits, ends, spots = work.sums, work.hits, work.ends, work.spots
    norms = segment.norms
    for i in range(start, count):
        sums[U(candidates[i]) - begin] = words[i]
    cursor = work.cursors[j]
    b = cursor.block
    stop = cursor.stop
    while b < stop:
        low, high = open_block(segment, work, cursor, j, b, begin, end)
        size = count_of(cursor, b)
        hit = U(0)
        for i in range(low, high):
            hits[hit] = U32(i)
            hit += U(sums[U(docs[j, i]) - begin] != U32(0))
        spot = spots[b]
        for h in range(hit):
            at = U(hits[h])
            doc = U(docs[j, at])
            tf1 = tf1_of(segment, spot, size, at)
            sums[doc - begin] += word_of(impacts, segment, cursor, j, tf1, U(norms[doc]))
        if ends[b] >= end:
            break
        b += U(1)
    cursor.block = b
    to = start
    limit = U32(need) << SUM
    for i in range(start, count):
        doc32 = candidates[i]
        offset = U(doc32) - begin
        word = sums[offset]
        sums[offset] = U32(0)
        candidates[to] = doc32
        words[to] = word
        to += U(word >= limit)
    return to
