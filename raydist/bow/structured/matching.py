"""Kernels that match structured queries: common documents, and phrases by the positions of words.

Legend: P, Q documents of two lists, C candidates of a phrase, S its words, T its distinct terms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64


@kernel
def locate(wanted_Q: Array, docs_P: Array, places_Q: Array) -> None:
    """Finds documents in a list of them, by galloping: their places, -1 where they are not.

    Both lists ascend.
    """
    size = U(docs_P.shape[0])
    low = U(0)
    for q in range(wanted_Q.shape[0]):
        doc = wanted_Q[q]
        step = U(1)
        high = low
        while high < size and docs_P[high] < doc:
            low = high + U(1)
            high += step
            step <<= U(1)
        high = min(high, size)
        while low < high:
            middle = (low + high) >> U(1)
            if docs_P[middle] < doc:
                low = middle + U(1)
            else:
                high = middle
        places_Q[q] = low if low < size and docs_P[low] == doc else -1


@kernel
def unite(
    docs_P: Array, sums_P: Array, docs_Q: Array, scores_Q: Array, docs: Array, sums: Array
) -> Any:
    """Merges two lists of documents, adding what both have; returns how many there are."""
    p, q, n = U(0), U(0), U(0)
    size_p, size_q = U(docs_P.shape[0]), U(docs_Q.shape[0])
    while p < size_p or q < size_q:
        if q == size_q or (p < size_p and docs_P[p] < docs_Q[q]):
            docs[n] = docs_P[p]
            sums[n] = sums_P[p]
            p += U(1)
        elif p == size_p or docs_Q[q] < docs_P[p]:
            docs[n] = docs_Q[q]
            sums[n] = np.float64(scores_Q[q])
            q += U(1)
        else:
            docs[n] = docs_P[p]
            sums[n] = sums_P[p] + np.float64(scores_Q[q])
            p += U(1)
            q += U(1)
        n += U(1)
    return np.int64(n)


@kernel
def exact_frequencies(
    starts_TC1: Array, positions: Array, term_S: Array, offset_S: Array, freqs_C: Array
) -> None:
    """Counts how often each candidate has the phrase, its words at exactly these distances.

    `starts` are where the positions of each distinct term in each candidate begin.
    """
    words = term_S.shape[0]
    at_S = np.empty(words, np.int64)
    for c in range(freqs_C.shape[0]):
        lead = 0
        for s in range(words):
            at_S[s] = starts_TC1[term_S[s], c]
            size = starts_TC1[term_S[s], c + 1] - at_S[s]
            if size < starts_TC1[term_S[lead], c + 1] - starts_TC1[term_S[lead], c]:
                lead = s
        count = 0
        ended = False
        for w in range(starts_TC1[term_S[lead], c], starts_TC1[term_S[lead], c + 1]):
            base = np.int64(positions[w]) - offset_S[lead]
            matches = True
            for s in range(words):
                goal = base + offset_S[s]
                end = starts_TC1[term_S[s], c + 1]
                while at_S[s] < end and np.int64(positions[at_S[s]]) < goal:
                    at_S[s] += 1
                ended = at_S[s] == end
                if ended or np.int64(positions[at_S[s]]) != goal:
                    matches = False
                    break
            if ended:
                break
            count += matches
        freqs_C[c] = np.float32(count)


@kernel
def _least(place_S: Array, offset_S: Array, queued_S: Array) -> Any:
    """Returns the word in the queue that comes first, as Lucene's queue has it."""
    least = -1
    for s in range(place_S.shape[0]):
        if queued_S[s] and (
            least < 0
            or place_S[s] < place_S[least]
            or (place_S[s] == place_S[least] and offset_S[s] < offset_S[least])
        ):
            least = s
    return least


@kernel
def _advance(
    s: Any, at_S: Array, end_S: Array, positions: Array, offset_S: Array, place_S: Array
) -> Any:
    """Moves a word to its next position; returns whether there is one."""
    if at_S[s] == end_S[s]:
        return False
    place_S[s] = np.int64(positions[at_S[s]]) - offset_S[s]
    at_S[s] += 1
    return True


@kernel
def _collision(s: Any, term_S: Array, offset_S: Array, place_S: Array) -> Any:
    """Returns another word of the phrase at the same position of the same term, or `s`."""
    for other in range(term_S.shape[0]):
        if (
            other != s
            and term_S[other] == term_S[s]
            and place_S[other] + offset_S[other] == place_S[s] + offset_S[s]
        ):
            return other
    return s


@kernel
def sloppy_frequencies(
    starts_TC1: Array,
    positions: Array,
    term_S: Array,
    offset_S: Array,
    slop: Any,
    freqs_C: Array,
) -> None:
    """Sums 1 / (1 + moves) over the matches of a phrase, as Lucene's SloppyPhraseMatcher does.

    A word's place is its position less its offset in the phrase, so an exact match has all words
    at one place, and what a match spans are the moves. Words of one term take different positions.
    """
    words = term_S.shape[0]
    at_S = np.empty(words, np.int64)
    end_S = np.empty(words, np.int64)
    place_S = np.empty(words, np.int64)
    queued_S = np.empty(words, np.bool_)
    for c in range(freqs_C.shape[0]):
        freqs_C[c] = np.float32(0)
        possible = True
        last = np.int64(-(1 << 62))
        for s in range(words):
            at_S[s] = starts_TC1[term_S[s], c]
            end_S[s] = starts_TC1[term_S[s], c + 1]
            queued_S[s] = True
            before = 0
            for other in range(s):
                before += term_S[other] == term_S[s]
            for _ in range(before + 1):  # each word of a term begins behind those before it
                possible &= _advance(s, at_S, end_S, positions, offset_S, place_S)
            last = max(last, place_S[s])
        while possible:  # until the positions of a word end
            s = _least(place_S, offset_S, queued_S)
            queued_S[s] = False
            moves = last - place_S[s]
            following = place_S[_least(place_S, offset_S, queued_S)]
            while True:
                possible = _advance(s, at_S, end_S, positions, offset_S, place_S)
                if not possible:
                    break
                last = max(last, place_S[s])
                mover = s
                while True:
                    other = _collision(mover, term_S, offset_S, place_S)
                    if other == mover:
                        break
                    if place_S[other] < place_S[mover] or (
                        place_S[other] == place_S[mover] and offset_S[other] < offset_S[mover]
                    ):
                        mover = other
                    if not _advance(mover, at_S, end_S, positions, offset_S, place_S):
                        possible = False
                        break
                    last = max(last, place_S[mover])
                if not possible or place_S[s] > following:
                    break
                moves = min(moves, last - place_S[s])
            queued_S[s] = True
            if moves <= slop:
                freqs_C[c] += np.float32(1) / (np.float32(1) + np.float32(moves))


@kernel
def near_frequencies(
    starts_TC1: Array, positions: Array, term_S: Array, slop: Any, ordered: Any, freqs_C: Array
) -> None:
    """Sums 1 / (1 + width) over the spans of two words, as Lucene's SpanScorer does.

    In order, each position of the first word makes a span with the next one of the second, whose
    width is the words between them. Else each pair of positions on the way through both lists makes
    one, and its width counts both words, too.
    """
    first, second = term_S[0], term_S[1]
    for c in range(freqs_C.shape[0]):
        a, end_a = starts_TC1[first, c], starts_TC1[first, c + 1]
        b, end_b = starts_TC1[second, c], starts_TC1[second, c + 1]
        freq = np.float32(0)
        while a < end_a and b < end_b:
            place_a, place_b = np.int64(positions[a]), np.int64(positions[b])
            if ordered and place_b <= place_a:
                b += 1
                continue
            between = abs(place_b - place_a) - 1
            if between <= slop:
                width = between if ordered else between + 2
                freq = np.float32(np.float64(freq) + 1.0 / (1.0 + width))
            if ordered or place_a <= place_b:
                a += 1
            else:
                b += 1
        freqs_C[c] = freq
