"""The forward index of a segment: the terms of each document with their frequencies.

It is made of the segment's postings when these are complete, in as many passes as the memory asks
for, so it depends on the segment alone. Files, beside the segment's own::

    forward            documents in order: bytes of its terms, then for each term how far its rank
                       is behind the one before, doubled, plus 1 if a frequency less 2 follows;
                       all of them variable-length integers
    forward.groups     where every GROUP-th document begins in it, and the end, uint64
    forward.terms      the terms by rank: their positions in the dictionary, uint32

A term's rank counts the terms that more documents have, so that most numbers take one byte.

Legend: N documents, T terms, P postings, D documents to read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.format.files import extend, write
from raydist.bow.format.segment import Segment
from raydist.kernels.arrays import readonly
from raydist.kernels.jit import kernel
from raydist.kernels.varint import get_varint, put_varint, varint_length

Array = npt.NDArray[Any]
U = np.uint64

GROUP = 32
"""Documents per group: to read one, the lengths of those before it in its group are read."""

NAMES = ("forward", "forward.groups", "forward.terms")
"""The files."""

_TERMS = 1 << 16  # read together
_POSTINGS = 1 << 22  # the same
_ENCODED = 1 << 20  # postings encoded at once
_RANK = 32  # bits by which a rank is shifted beside its frequency
_TF = (1 << _RANK) - 1
_GAPS = readonly(np.array([701, 301, 132, 57, 23, 10, 4, 1]), np.int64)  # Ciura's, of a shell sort


@kernel
def _scatter(
    indptr_T1: Array,
    docs_P: Array,
    tfs_P: Array,
    ranks_T: Array,
    first: Any,
    last: Any,
    ends_N: Array,
    packed: Array,
) -> None:
    """Puts postings of the documents `first <= d < last` to their documents, unordered."""
    for t in range(ranks_T.shape[0]):
        rank = U(ranks_T[t]) << U(_RANK)
        for p in range(indptr_T1[t], indptr_T1[t + 1]):
            doc = np.int64(docs_P[p])
            if first <= doc and doc < last:
                packed[ends_N[doc - first]] = rank | U(tfs_P[p])
                ends_N[doc - first] += 1


@kernel
def _sort(packed: Array, start: Any, end: Any, gaps: Array) -> None:
    for g in range(gaps.shape[0]):
        gap = gaps[g]
        for i in range(start + gap, end):
            value = packed[i]
            j = i
            while j >= start + gap and packed[j - gap] > value:
                packed[j] = packed[j - gap]
                j -= gap
            packed[j] = value


@kernel
def _encode(
    starts_N: Array, ends_N: Array, packed: Array, gaps: Array, sizes_N: Array, out: Array
) -> Any:
    """Writes documents to `out`; `sizes_N` receives their bytes. Returns the bytes of all."""
    o = U(0)
    for n in range(ends_N.shape[0]):
        start, end = starts_N[n], ends_N[n]
        _sort(packed, start, end, gaps)
        size = U(0)
        least = U(0)
        for i in range(start, end):
            rank, tf = packed[i] >> U(_RANK), packed[i] & U(_TF)
            size += varint_length(rank - least << U(1))
            if tf > U(1):
                size += varint_length(tf - U(2))
            least = rank + U(1)
        before = o
        o = put_varint(out, o, size)
        least = U(0)
        for i in range(start, end):
            rank, tf = packed[i] >> U(_RANK), packed[i] & U(_TF)
            o = put_varint(out, o, (rank - least << U(1)) | U(tf > U(1)))
            if tf > U(1):
                o = put_varint(out, o, tf - U(2))
            least = rank + U(1)
        sizes_N[n] = np.int64(o - before)
    return np.int64(o)


@kernel
def _find(data: Array, groups: Array, docs_D: Array, begins_D: Array, indptr_D1: Array) -> None:
    """Finds where documents begin, and counts their terms."""
    indptr_D1[0] = 0
    for i in range(docs_D.shape[0]):
        o = U(groups[docs_D[i] // GROUP])
        for _ in range(docs_D[i] % GROUP):
            size, o = get_varint(data, o)
            o += size
        begins_D[i] = np.int64(o)
        size, o = get_varint(data, o)
        end = min(o + size, U(data.shape[0]))
        count = 0
        while o < end:
            value, o = get_varint(data, o)
            if value & U(1):
                _, o = get_varint(data, o)
            count += 1
        indptr_D1[i + 1] = indptr_D1[i] + count


@kernel
def _decode(data: Array, begins_D: Array, indptr_D1: Array, ranks_P: Array, tfs_P: Array) -> None:
    for i in range(begins_D.shape[0]):
        _, o = get_varint(data, U(begins_D[i]))
        least = U(0)
        for p in range(indptr_D1[i], indptr_D1[i + 1]):
            value, o = get_varint(data, o)
            tf = U(1)
            if value & U(1):
                more, o = get_varint(data, o)
                tf = more + U(2)
            rank = least + (value >> U(1))
            ranks_P[p] = rank
            tfs_P[p] = tf
            least = rank + U(1)


def has_forward(segment: Segment) -> bool:
    """Returns whether a segment has a forward index."""
    return NAMES[0] in segment.files.header["files"]


def forward_bytes(segment: Segment) -> int:
    """Returns the bytes of a segment's forward index, 0 if it has none."""
    files = segment.files.header["files"]
    return sum(files[name]["bytes"] for name in NAMES if name in files)


def add_forward(folder: Path, memory: int) -> int:
    """Writes the forward index of a complete segment of texts; returns its bytes.

    Args:
        folder: the segment.
        memory: bytes that may be used, about.
    """
    segment = Segment.open(folder)
    df_T = np.concatenate(
        [np.empty(0, np.uint64)]
        + [
            segment.read_terms(first, min(first + _TERMS, segment.size))[1][:, 0]
            for first in range(0, segment.size, _TERMS)
        ]
    )
    by_rank = np.argsort(-df_T.astype(np.int64), kind="stable").astype(np.uint32)
    ranks_T = np.empty(segment.size, np.uint32)
    ranks_T[by_rank] = np.arange(segment.size, dtype=np.uint32)
    by_rank.tofile(folder / "forward.terms")
    # A document has at most as many terms as tokens.
    starts_N1 = np.concatenate(([0], np.cumsum(segment.lengths_N, dtype=np.int64)))
    most = max(_ENCODED, memory // 16)
    written, first = 0, 0
    groups = [np.empty(0, np.uint64)]
    with open(folder / "forward", "wb", buffering=0) as out:
        while first < segment.documents:
            last = int(np.searchsorted(starts_N1, starts_N1[first] + most, side="right")) - 1
            last = max(first + 1, last)
            own = readonly(starts_N1[first : last + 1] - starts_N1[first])
            sizes_N = np.empty(last - first, np.int64)
            ends_N = own[:-1].copy()
            packed = np.empty(int(own[-1]), np.uint64)
            seen = 0
            for terms, indptr_T1, docs_P, tfs_P in segment.slices(_TERMS, _POSTINGS):
                some = readonly(ranks_T[seen : seen + len(terms)])
                seen += len(terms)
                args = (readonly(indptr_T1), readonly(docs_P), readonly(tfs_P), some)
                _scatter(*args, first, last, ends_N, packed)
            _write_documents(out, own, readonly(ends_N), packed, sizes_N)
            begins = written + np.concatenate(([0], np.cumsum(sizes_N)))
            groups.append(begins[:-1][-first % GROUP :: GROUP].astype(np.uint64))
            written = int(begins[-1])
            first = last
    groups.append(np.array([written], np.uint64))
    np.concatenate(groups).tofile(folder / "forward.groups")
    segment.files.release()
    added = extend(folder, NAMES)
    return sum(added[name]["bytes"] for name in NAMES)


def _write_documents(
    out: Any, starts_N1: Array, ends_N: Array, packed: Array, sizes_N: Array
) -> None:
    start = 0
    while start < len(ends_N):
        goal = starts_N1[start] + _ENCODED
        stop = int(np.searchsorted(starts_N1, goal, side="right")) - 1
        stop = min(max(stop, start + 1), start + _ENCODED, len(ends_N))
        room = 15 * int(starts_N1[stop] - starts_N1[start]) + 10 * (stop - start)
        buffer = np.empty(room, np.uint8)
        span = slice(start, stop)
        used = _encode(starts_N1[span], ends_N[span], packed, _GAPS, sizes_N[span], buffer)
        write(out, buffer[:used])
        start = stop


def read_vectors(segment: Segment, docs_D: Array) -> tuple[Array, Array, Array]:
    """Returns the terms of documents: indptr (int64 [D + 1]), positions (int64), frequencies.

    A document's positions in the dictionary ascend.
    """
    files = segment.files
    docs_D = readonly(docs_D, np.int64)
    group_D = np.unique(docs_D // GROUP)
    groups = files.array("forward.groups", np.uint64)
    files.check_each("forward.groups", 8 * group_D, 8 * (group_D + 1))
    files.check("forward.terms")
    last = groups[group_D + 1].astype(np.int64) - 1
    files.check_each("forward", groups[group_D].astype(np.int64), last)
    data = files.array("forward")
    begins_D, indptr_D1 = np.empty(len(docs_D), np.int64), np.empty(len(docs_D) + 1, np.int64)
    _find(data, groups, docs_D, begins_D, indptr_D1)
    ranks_P, tfs_P = np.empty((2, int(indptr_D1[-1])), np.uint64)
    _decode(data, readonly(begins_D), readonly(indptr_D1), ranks_P, tfs_P)
    positions_P = files.array("forward.terms", np.uint32)[ranks_P].astype(np.int64)
    owner_P = np.repeat(np.arange(len(docs_D)), np.diff(indptr_D1))
    order = np.lexsort((positions_P, owner_P))
    return indptr_D1, positions_P[order], tfs_P[order].astype(np.uint32)
