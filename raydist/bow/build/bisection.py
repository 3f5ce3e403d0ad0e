"""An order in which similar documents are neighbours: recursive graph bisection.

The documents are halved, and those that fit the other half better change sides until few do; then
each half is halved. A document fits a half by its terms: each costs about the logarithm of the gaps
between the documents that have it, and gaps are small where these are together. (Dhulipala et al.,
KDD 2016; that equal halves need a logarithm per term and a selection instead of sorts: Mackenzie et
al., 2021.) Gains are whole numbers, so the order is the same on all machines and for any threads.

Legend: N documents, T terms, P postings of the forward index.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raydist.kernels.addresses import Ints, Offsets, Words, addresses, view
from raydist.kernels.arrays import readonly
from raydist.kernels.jit import kernel
from raydist.log import Progress

Array = npt.NDArray[Any]
U = np.uint64

LARGE = 1 << 16
"""Documents above which threads share the work on one half, and an interrupted order is kept."""

_LEAF = 16  # documents that stay in their own order
_ROUNDS = 20  # of changing sides
_FEW = 1000  # one document in so many that changes sides ends the rounds
_DROPPED = np.uint32(0xFFFFFFFF)
_ONE = 1 << 10  # of a logarithm
_TABLE = 1 << 12
_LOGARITHMS = readonly(np.round(_ONE * np.log2(np.maximum(np.arange(_TABLE), 1))), np.int32)

Keep = Callable[[int, Array], None]
"""Takes how many levels are done, and the order so far."""


class Forward(NamedTuple):
    """The terms of documents that the bisection may rearrange.

    Attributes:
        starts_N1: where each document's terms begin, int64.
        terms_P: terms, numbered from 0, uint32.
        size: T.
    """

    starts_N1: Array
    terms_P: Array
    size: int


class _Bisection(NamedTuple):
    """The arrays of a bisection."""

    order: Words  # [N] the documents in their order so far
    starts: Offsets  # [N + 1] where each document's terms begin
    sizes: Words  # [N] how many terms are left of each
    terms: Words  # [P]
    logarithms: Ints
    wishes: Ints  # [N] how much the document at each place would rather be in the second half
    values: Ints  # [N] scratch memory, as is the next
    others: Words


class _Span(NamedTuple):
    """Documents of the order that are to be halved, and how many terms they have."""

    first: int
    last: int
    terms: int


@kernel
def _narrow(table: Array, first: Any, last: Any, counts_T: Array, labels_T: Array) -> Any:
    """Drops the terms that one or all of some documents have, and numbers the others anew.

    Returns how many there are. `counts` and `labels` are 0 between calls.
    """
    work = view(table, U(0), _Bisection)
    order_N, starts_N1, sizes_N, terms_P = work.order, work.starts, work.sizes, work.terms
    for i in range(U(first), U(last)):
        doc = U(order_N[i])
        start = U(starts_N1[doc])
        for p in range(start, start + U(sizes_N[doc])):
            counts_T[terms_P[p]] += np.uint32(1)
    documents = np.uint32(last - first)
    size = np.uint32(0)
    for i in range(U(first), U(last)):
        doc = U(order_N[i])
        start = U(starts_N1[doc])
        to = start
        for p in range(start, start + U(sizes_N[doc])):
            term = U(terms_P[p])
            label = labels_T[term]
            if label == np.uint32(0):
                label = _DROPPED
                if counts_T[term] > np.uint32(1) and counts_T[term] < documents:
                    size += np.uint32(1)
                    label = size
                labels_T[term] = label
            counts_T[term] -= np.uint32(1)
            if counts_T[term] == np.uint32(0):
                labels_T[term] = np.uint32(0)
            if label != _DROPPED:
                terms_P[to] = label - np.uint32(1)
                to += U(1)
        sizes_N[doc] = to - start
    return np.int64(size)


@kernel
def _count(table: Array, first: Any, last: Any, degrees_T: Array) -> None:
    """Counts how many of some documents have each term."""
    work = view(table, U(0), _Bisection)
    order_N, starts_N1, sizes_N, terms_P = work.order, work.starts, work.sizes, work.terms
    for i in range(U(first), U(last)):
        doc = U(order_N[i])
        start = U(starts_N1[doc])
        for p in range(start, start + U(sizes_N[doc])):
            degrees_T[terms_P[p]] += np.int32(1)


@kernel
def _logarithm(value: Any, logarithms: Array) -> Any:
    shift = np.int32(0)
    while value >= _TABLE:
        value >>= np.int32(1)
        shift += np.int32(1)
    return logarithms[U(value)] + shift * np.int32(_ONE)


@kernel
def _weigh(table: Array, degrees_2T: Array, size: Any, weights_2T: Array) -> None:
    """Computes what a term says for the second half: to documents of the first, and of it."""
    logarithms = view(table, U(0), _Bisection).logarithms
    for t in range(U(size)):
        left, right = degrees_2T[0, t], degrees_2T[1, t]
        weights_2T[0, t] = _logarithm(right + 1, logarithms) - _logarithm(left, logarithms)
        weights_2T[1, t] = _logarithm(right, logarithms) - _logarithm(left + 1, logarithms)


@kernel
def _prefer(table: Array, first: Any, middle: Any, last: Any, weights_2T: Array) -> None:
    """Sums how much each document of `first <= i < last` would rather be in the second half."""
    work = view(table, U(0), _Bisection)
    order_N, starts_N1, sizes_N, terms_P = work.order, work.starts, work.sizes, work.terms
    wishes_N = work.wishes
    for i in range(U(first), U(last)):
        doc = U(order_N[i])
        start = U(starts_N1[doc])
        half = U(i >= U(middle))
        total = np.int64(0)
        for p in range(start, start + U(sizes_N[doc])):
            total += np.int64(weights_2T[half, terms_P[p]])
        wishes_N[i] = min(max(total, np.int64(-(1 << 31))), np.int64((1 << 31) - 1))


@kernel
def _smallest(values: Array, low: Any, high: Any, k: Any) -> Any:
    """Returns the k-th smallest, from 0, of the values at `low <= i <= high`, which it moves."""
    while low < high:
        a, b, c = values[low], values[(low + high) >> 1], values[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


@kernel
def _exchange(table: Array, first: Any, middle: Any, last: Any, degrees_2T: Array) -> Any:
    """Puts the documents with the smallest wishes into the first half; returns how many move in.

    Of equal wishes those who are there already stay.
    """
    work = view(table, U(0), _Bisection)
    order_N, starts_N1, sizes_N, terms_P = work.order, work.starts, work.sizes, work.terms
    wishes_N, values_N, others_N = work.wishes, work.values, work.others
    first, middle, last = np.int64(first), np.int64(middle), np.int64(last)
    values_N[first:last] = wishes_N[first:last]
    limit = _smallest(values_N, first, last - 1, middle - 1)
    below = 0
    for i in range(first, last):
        below += wishes_N[i] < limit
    ties = middle - first - below
    left, right, moved = first, 0, 0
    for i in range(first, last):
        doc = order_N[i]
        stays = wishes_N[i] < limit
        if wishes_N[i] == limit and ties > 0:
            ties -= 1
            stays = True
        if stays:
            order_N[left] = doc
            left += 1
        else:
            others_N[first + right] = doc
            right += 1
        if stays != (i < middle):
            moved += stays
            change = np.int32(1 if stays else -1)
            start = U(starts_N1[doc])
            for p in range(start, start + U(sizes_N[doc])):
                degrees_2T[0, terms_P[p]] += change
                degrees_2T[1, terms_P[p]] -= change
    order_N[left:last] = others_N[first : first + right]
    return moved


@kernel
def _bisect(table: Array, first: Any, last: Any, size: Any) -> None:
    """Orders the documents at `first <= i < last`, which have terms below `size`."""
    order_N = view(table, U(0), _Bisection).order
    counts_T, labels_T = np.zeros(size, np.uint32), np.zeros(size, np.uint32)
    degrees, weights = np.empty((2, size), np.int32), np.empty((2, size), np.int32)
    spans = np.empty((64, 2), np.int64)
    spans[0, 0], spans[0, 1] = first, last
    waiting = 1
    while waiting > 0:
        waiting -= 1
        a, z = spans[waiting, 0], spans[waiting, 1]
        if z - a <= _LEAF:
            for i in range(a + 1, z):
                doc = order_N[i]
                left = i
                while left > a and order_N[left - 1] > doc:
                    order_N[left] = order_N[left - 1]
                    left -= 1
                order_N[left] = doc
            continue
        m = (a + z) >> 1
        terms = _narrow(table, a, z, counts_T, labels_T)
        degrees[:, :terms] = 0
        _count(table, a, m, degrees[0])
        _count(table, m, z, degrees[1])
        for _ in range(_ROUNDS):
            _weigh(table, degrees, terms, weights)
            _prefer(table, a, m, z, weights)
            moved = _exchange(table, a, m, z, degrees)
            if moved * _FEW <= z - a:
                break
        spans[waiting, 0], spans[waiting, 1] = m, z
        spans[waiting + 1, 0], spans[waiting + 1, 1] = a, m
        waiting += 2


def bisected(
    forward: Forward,
    threads: int,
    *,
    order_N: Array | None = None,
    levels: int = 0,
    keep: Keep | None = None,
    progress: Progress | None = None,
) -> Array:
    """Returns an order of the documents, uint32 [N]; the forward index is used up.

    Args:
        forward: the documents' terms; without those that one or all have it is as good.
        threads: that compute; the order is the same for any number.
        order_N: where an interrupted bisection has come to; by default it begins.
        levels: that are done in it.
        keep: called after each level of parts of more than LARGE documents.
        progress: learns how many documents are in their places, and which part of the work is done.
    """
    documents = len(forward.starts_N1) - 1
    if order_N is None:
        order_N = np.arange(documents, dtype=np.uint32)
    work = _Work(forward, order_N, threads, progress)
    spans, level = [_Span(0, documents, forward.size)], 0
    while spans[0].last - spans[0].first > LARGE:
        level += 1
        if level <= levels:
            spans = [half for span in spans for half in _halves(span, span.terms)]
            continue
        spans = [half for span in spans for half in work.halve(span)]
        if keep is not None:
            keep(level, order_N)
    work.finish(spans)
    return order_N


def _halves(span: _Span, terms: int) -> list[_Span]:
    middle = (span.first + span.last) >> 1
    return [_Span(span.first, middle, terms), _Span(middle, span.last, terms)]


class _Work:
    """The arrays of a bisection, and the threads that share it."""

    def __init__(
        self, forward: Forward, order_N: Array, threads: int, progress: Progress | None
    ) -> None:
        documents = len(order_N)
        starts_N1 = np.ascontiguousarray(forward.starts_N1, np.int64)
        self._arrays = _Bisection(
            order=order_N,
            starts=starts_N1,
            sizes=np.diff(starts_N1).astype(np.uint32),
            terms=forward.terms_P,
            logarithms=_LOGARITHMS,
            wishes=np.empty(documents, np.int32),
            values=np.empty(documents, np.int32),
            others=np.empty(documents, np.uint32),
        )
        self._table = addresses(self._arrays)
        self._documents = documents
        self._threads = threads
        self._progress = progress
        self._levels = int(documents).bit_length()

    def halve(self, span: _Span) -> list[_Span]:
        """Halves many documents, with all threads."""
        first, last, size = span
        middle = (first + last) >> 1
        counts_T, labels_T = np.zeros((2, size), np.uint32)
        terms = _narrow(self._table, first, last, counts_T, labels_T)
        degrees, weights = np.zeros((2, terms), np.int32), np.empty((2, terms), np.int32)
        _count(self._table, first, middle, degrees[0])
        _count(self._table, middle, last, degrees[1])
        bounds = np.linspace(first, last, 4 * self._threads + 1).astype(np.int64).tolist()

        def prefer(chunk: tuple[int, int]) -> None:
            a, z = chunk
            _prefer(self._table, a, middle, z, weights)

        with ThreadPoolExecutor(self._threads) as pool:
            for _ in range(_ROUNDS):
                _weigh(self._table, degrees, terms, weights)
                list(pool.map(prefer, itertools.pairwise(bounds)))
                moved = _exchange(self._table, first, middle, last, degrees)
                if moved * _FEW <= last - first:
                    break
        if self._progress is not None:
            self._progress.advance(0, share=(last - first) / (self._documents * self._levels))
        return _halves(span, terms)

    def finish(self, spans: list[_Span]) -> None:
        """Orders the documents of spans, a thread each."""

        def bisect(span: _Span) -> int:
            _bisect(self._table, *span)
            return span.last - span.first

        with ThreadPoolExecutor(self._threads) as pool:
            for documents in pool.map(bisect, spans):
                if self._progress is not None:
                    part = documents / self._documents
                    share = part * documents.bit_length() / self._levels
                    self._progress.advance(documents, share=share)
