"""What a segment of weighted terms has beside its postings, for pruned search.

It is made of the postings when these are complete, so it depends on the segment alone. Documents
lie in blocks of 8, and blocks in groups of 64, by their slots in a reordered segment (order.py), as
in its postings. Files, beside the segment's own::

    weights          the terms of each document in order, uint32: the frequency (a number of units)
                     above the term's position in the dictionary
    weights.starts   where each document begins in it, and the end, uint64
    tops             of each frequent term the largest frequency in each block, a byte:
                     rounded up to 255ths of the term's largest; groups are whole
    tops.groups      the same of each group
    tops.terms       of each term its largest frequency, and its row in `tops` from 1 on, or 0

A term is frequent if a 128th of the documents have it: a byte a block is then less than its
postings take. The blocks of other terms are read from their postings.

Legend: N documents, T terms, P postings, B blocks, G groups, D frequent terms.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.format.files import extend, write
from raydist.bow.format.segment import Segment
from raydist.kernels.arrays import readonly
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64

BLOCK, GROUP = 8, 64
"""Documents of a block, and blocks of a group."""

LEVELS = 255

NAMES = ("weights", "weights.starts", "tops", "tops.groups", "tops.terms")
"""The files."""

_FREQUENT = 128
_LEAST_FREQUENT = 16
_TERMS, _POSTINGS = 1 << 16, 1 << 22  # read together
_BITS = 32


@kernel
def _count(docs_P: Array, sizes_N: Array) -> None:
    for p in range(docs_P.shape[0]):
        sizes_N[docs_P[p]] += 1


@kernel
def _maxima(tfs_P: Array, indptr_T1: Array, largest_T: Array) -> None:
    for t in range(largest_T.shape[0]):
        most = np.uint32(0)
        for p in range(indptr_T1[t], indptr_T1[t + 1]):
            most = max(most, tfs_P[p])
        largest_T[t] = most


@kernel
def _tops(docs_P: Array, tfs_P: Array, largest: Any, row_B: Array) -> None:
    """Writes the largest frequency of each block, in 255ths of the term's largest."""
    for p in range(docs_P.shape[0]):
        code = (U(tfs_P[p]) * U(LEVELS) + U(largest) - U(1)) // U(largest)
        block = docs_P[p] // BLOCK
        row_B[block] = max(row_B[block], np.uint8(code))


@kernel
def _scatter(
    indptr_T1: Array,
    docs_P: Array,
    tfs_P: Array,
    position: Any,
    bits: Any,
    first: Any,
    last: Any,
    ends_N: Array,
    entries: Array,
) -> None:
    """Puts postings of the documents `first <= d < last` to their documents."""
    for t in range(indptr_T1.shape[0] - 1):
        term = U(position) + U(t)
        for p in range(indptr_T1[t], indptr_T1[t + 1]):
            doc = np.int64(docs_P[p])
            if first <= doc and doc < last:
                entries[ends_N[doc - first]] = np.uint32((U(tfs_P[p]) << U(bits)) | term)
                ends_N[doc - first] += 1


def term_bits(segment: Segment) -> int:
    """Returns the bits of an entry that are the term's position."""
    return max(1, (segment.size - 1).bit_length())


def has_weights(segment: Segment) -> bool:
    """Returns whether a segment has these files."""
    return NAMES[0] in segment.files.header["files"]


def add_weights(folder: Path, memory: int) -> int:
    """Writes the files of a complete segment of weighted terms; returns their bytes.

    Where a term and a frequency do not fit 32 bits together, nothing is written.

    Args:
        folder: the segment.
        memory: bytes that may be used, about.
    """
    segment = Segment.open(folder)
    bits = term_bits(segment)
    sizes_N = np.zeros(segment.documents, np.int64)
    about = [np.empty((0, 2), np.uint32)]
    with (
        open(folder / "tops", "wb", buffering=0) as tops,
        open(folder / "tops.groups", "wb", buffering=0) as groups,
    ):
        for about_T2, rows_DB, _, docs_P, _ in _tables(segment):
            _count(docs_P, sizes_N)
            about.append(about_T2)
            write(tops, rows_DB)
            write(groups, _of_groups(rows_DB))
    joined = np.concatenate(about)
    joined.tofile(folder / "tops.terms")
    if int(joined[:, 0].max(initial=0)) >> (_BITS - bits):
        for name in ("tops", "tops.groups", "tops.terms"):
            (folder / name).unlink()
        return 0
    starts_N1 = np.concatenate(([0], np.cumsum(sizes_N)))
    starts_N1.astype(np.uint64).tofile(folder / "weights.starts")
    _write_weights(segment, readonly(starts_N1), bits, max(_POSTINGS, memory // 8))
    segment.files.release()
    added = extend(folder, NAMES)
    return sum(added[name]["bytes"] for name in NAMES)


def _tables(segment: Segment) -> Iterator[tuple[Array, Array, Array, Array, Array]]:
    """Yields rows of `tops.terms` and of `tops` for ranges of terms, with their postings."""
    blocks = -(-segment.documents // (BLOCK * GROUP)) * GROUP
    frequent = max(_LEAST_FREQUENT, segment.documents // _FREQUENT)
    rows = 0
    for indptr_T1, docs_P, tfs_P in _slices(segment):
        about_T2 = np.zeros((len(indptr_T1) - 1, 2), np.uint32)
        largest_T = np.empty(len(about_T2), np.uint32)
        _maxima(tfs_P, indptr_T1, largest_T)
        about_T2[:, 0] = largest_T
        chosen = np.flatnonzero(np.diff(indptr_T1) >= frequent)
        about_T2[chosen, 1] = rows + 1 + np.arange(len(chosen))
        rows += len(chosen)
        rows_DB = np.zeros((len(chosen), blocks), np.uint8)
        for row_B, t in zip(rows_DB, chosen.tolist()):
            span = slice(int(indptr_T1[t]), int(indptr_T1[t + 1]))
            _tops(docs_P[span], tfs_P[span], largest_T[t], row_B)
        yield about_T2, rows_DB, indptr_T1, docs_P, tfs_P


def _slices(segment: Segment) -> Iterator[tuple[Array, Array, Array]]:
    """Yields the postings of all terms, as they are stored: by slot (order.py)."""
    for first, last in segment.ranges(_TERMS, _POSTINGS):
        yield segment.decode_slots(*segment.read_terms(first, last)[1:])


def _of_groups(rows_DB: Array) -> Array:
    tops: Array = rows_DB.reshape(len(rows_DB), rows_DB.shape[1] // GROUP, GROUP).max(axis=2)
    return tops


def weights_fault(segment: Segment) -> str | None:
    """Returns what the files say that the postings do not; None where they agree.

    The files are as they were written.
    """
    files, bits = segment.files, term_bits(segment)
    tops, groups = files.array("tops"), files.array("tops.groups")
    about, entries = files.array("tops.terms", np.uint32), files.array("weights", np.uint32)
    starts_N1 = files.array("weights.starts", np.uint64).astype(np.int64)
    places_N = starts_N1[:-1].copy()
    seen = rows = 0
    for about_T2, rows_DB, indptr_T1, docs_P, tfs_P in _tables(segment):
        span = slice(rows, rows + rows_DB.size)
        upper = slice(rows // GROUP, (rows + rows_DB.size) // GROUP)
        if not (
            np.array_equal(about[2 * seen : 2 * (seen + len(about_T2))], about_T2.ravel())
            and np.array_equal(tops[span], rows_DB.ravel())
            and np.array_equal(groups[upper], _of_groups(rows_DB).ravel())
        ):
            return "the largest weights of its blocks are not those of the postings"
        if not _agree(indptr_T1, docs_P, tfs_P, seen, bits, places_N, readonly(starts_N1), entries):
            return "its documents have other weights than the postings"
        seen += len(about_T2)
        rows += rows_DB.size
    if not np.array_equal(places_N, starts_N1[1:]):
        return "its documents have weights that the postings lack"
    return None


@kernel
def _agree(
    indptr_T1: Array,
    docs_P: Array,
    tfs_P: Array,
    position: Any,
    bits: Any,
    places_N: Array,
    starts_N1: Array,
    entries: Array,
) -> Any:
    """Returns whether postings are the next entries of their documents; moves these places."""
    for t in range(indptr_T1.shape[0] - 1):
        term = U(position) + U(t)
        for p in range(indptr_T1[t], indptr_T1[t + 1]):
            doc = U(docs_P[p])
            place = places_N[doc]
            if place >= starts_N1[doc + U(1)] or place >= entries.shape[0]:
                return False
            if U(entries[place]) != ((U(tfs_P[p]) << U(bits)) | term):
                return False
            places_N[doc] = place + 1
    return True


def _write_weights(segment: Segment, starts_N1: Array, bits: int, most: int) -> None:
    """Writes the terms of the documents, of about `most` postings at a time."""
    first = 0
    with open(segment.folder / "weights", "wb", buffering=0) as out:
        while first < segment.documents:
            last = int(np.searchsorted(starts_N1, starts_N1[first] + most, side="right")) - 1
            last = min(max(first + 1, last), segment.documents)
            ends_N = starts_N1[first:last] - starts_N1[first]
            entries = np.empty(int(starts_N1[last] - starts_N1[first]), np.uint32)
            seen = 0
            for indptr_T1, docs_P, tfs_P in _slices(segment):
                _scatter(indptr_T1, docs_P, tfs_P, seen, bits, first, last, ends_N, entries)
                seen += len(indptr_T1) - 1
            write(out, entries)
            first = last
