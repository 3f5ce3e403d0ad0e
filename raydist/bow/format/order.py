"""The order of the documents in the postings of a segment, where it is not the segment's own.

A reordered segment keeps similar documents side by side in its postings: they get smaller, and a
search passes over more of them. There a document's number is its slot. All else numbers documents
as they came: ids, lengths, metadata, deletions, the forward index. Of the files `postings`, `docs`,
`positions` and `norms` are in the order of the slots, and one more says which they are::

    order                      the document at each slot, uint32

Legend: N documents, T terms, P postings, W positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.kernels.arrays import readonly
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64

ORDER = "order"
"""The file of a reordered segment."""

_FEW = U(48)  # sorted by insertion
_DIGIT = U(11)
_INDEX = U(32)  # bits by which a number is shifted beside the index of its posting


@kernel
def _sort(keys: Array, other: Array, count: Any, bits: Any, bins: Array) -> Any:
    """Sorts keys by their numbers of so many bits; returns whether the result is in `other`."""
    if count <= _FEW:
        for a in range(U(1), count):
            key = keys[a]
            left: Any = U(a)
            while left > U(0) and keys[left - U(1)] > key:
                keys[left] = keys[left - U(1)]
                left -= U(1)
            keys[left] = key
        return False
    mask = (U(1) << _DIGIT) - U(1)
    swapped = False
    shift = _INDEX
    while shift < _INDEX + bits:
        source, target = (other, keys) if swapped else (keys, other)
        bins[:] = 0
        for i in range(count):
            bins[(source[i] >> shift) & mask] += 1
        before = 0
        for digit in range(bins.shape[0]):
            size = bins[digit]
            bins[digit] = before
            before += size
        for i in range(count):
            key = source[i]
            digit = (key >> shift) & mask
            target[U(bins[digit])] = key
            bins[digit] += 1
        swapped = not swapped
        shift += _DIGIT
    return swapped


@kernel
def _rearrange(
    numbers_N: Array,
    indptr_T1: Array,
    docs_P: Array,
    tfs_P: Array,
    docs: Array,
    tfs: Array,
    places: Array,
) -> None:
    """Renumbers the documents of each term and sorts them; `places` says where each one was."""
    most = np.int64(0)
    for t in range(indptr_T1.shape[0] - 1):
        most = max(most, indptr_T1[t + 1] - indptr_T1[t])
    keys, other = np.empty(most, np.uint64), np.empty(most, np.uint64)
    bins = np.empty(1 << 11, np.int64)
    bits = U(0)
    while U(numbers_N.shape[0]) >> bits:
        bits += U(1)
    for t in range(indptr_T1.shape[0] - 1):
        start = U(indptr_T1[t])
        count = U(indptr_T1[t + 1]) - start
        for i in range(count):
            keys[i] = U(numbers_N[U(docs_P[start + i])]) << _INDEX | i
        ordered = other if _sort(keys, other, count, bits, bins) else keys
        for i in range(count):
            key = ordered[i]
            place = start + (key & U(0xFFFFFFFF))
            docs[start + i] = key >> _INDEX
            tfs[start + i] = tfs_P[place]
            places[start + i] = place


@kernel
def _move_positions(
    before_P1: Array, places_P: Array, positions_W: Array, positions: Array
) -> None:
    """Copies the positions of each posting from its old place."""
    w = U(0)
    for p in range(places_P.shape[0]):
        for at in range(U(before_P1[places_P[p]]), U(before_P1[places_P[p] + 1])):
            positions[w] = positions_W[at]
            w += U(1)


def inverse(order_N: Array) -> Array:
    """Returns the slot of each document, uint32."""
    slots_N = np.empty(len(order_N), np.uint32)
    slots_N[order_N] = np.arange(len(order_N), dtype=np.uint32)
    return readonly(slots_N)


def renumbered(
    numbers_N: Array,
    indptr_T1: Array,
    docs_P: Array,
    tfs_P: Array,
    positions_W: Array | None = None,
) -> tuple[Array, Array, Array | None]:
    """Returns postings with other numbers for their documents, ascending within each term.

    Args:
        numbers_N: the number of each document.
        indptr_T1: where each term's postings begin, from 0 on.
        docs_P: documents.
        tfs_P: frequencies.
        positions_W: of each posting as many positions as its frequency; None without.
    """
    docs, tfs = np.empty(len(docs_P), np.uint32), np.empty(len(docs_P), np.uint32)
    places = np.empty(len(docs_P), np.int64)
    numbers_N, indptr_T1 = readonly(numbers_N, np.uint32), readonly(indptr_T1, np.int64)
    docs_P, tfs_P = readonly(docs_P, np.uint32), readonly(tfs_P, np.uint32)
    _rearrange(numbers_N, indptr_T1, docs_P, tfs_P, docs, tfs, places)
    if positions_W is None:
        return docs, tfs, None
    before_P1 = np.append(0, np.cumsum(tfs_P, dtype=np.int64))
    positions = np.empty(len(positions_W), np.uint32)
    _move_positions(before_P1, places, readonly(positions_W, np.uint32), positions)
    return docs, tfs, positions
