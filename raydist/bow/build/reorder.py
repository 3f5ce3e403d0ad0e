"""Reordering a segment: its postings are written anew, with similar documents side by side.

The order follows from the postings alone, so it is the same however they came about. It needs four
bytes for each posting of a term that is neither in one nor in very many documents, and about 40 for
each document. Where it takes long, what is done of it is kept in a file for a restart.

Legend: N documents, T terms, P postings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.build.bisection import Forward, bisected
from raydist.bow.format.files import extend
from raydist.bow.format.segment import Segment
from raydist.bow.format.writing import SegmentWriter
from raydist.disk import atomic, remove
from raydist.kernels.arrays import readonly
from raydist.kernels.jit import kernel
from raydist.log import Progress

Array = npt.NDArray[Any]
U = np.uint64

_COMMON = 1024
_SHARE = 100  # terms of more than _COMMON and a hundredth of all documents say little: less than
# the time they take, and the postings get larger with them

_TERMS = 1 << 16  # read together
_POSTINGS = 1 << 22  # the same


@kernel
def _count(docs_P: Array, starts_N1: Array) -> None:
    """Counts each document's terms behind its place."""
    for p in range(docs_P.shape[0]):
        starts_N1[U(docs_P[p]) + U(1)] += 1


@kernel
def _fill(
    indptr_T1: Array, docs_P: Array, most: Any, first: Any, ends_N: Array, terms_P: Array
) -> Any:
    """Adds terms to their documents, numbered from `first` on; returns the number behind the last.

    They are those that at least two and at most `most` documents have.
    """
    number = first
    for t in range(indptr_T1.shape[0] - 1):
        if 1 < indptr_T1[t + 1] - indptr_T1[t] <= most:
            for p in range(indptr_T1[t], indptr_T1[t + 1]):
                doc = U(docs_P[p])
                terms_P[U(ends_N[doc])] = number
                ends_N[doc] += 1
            number += 1
    return number


def reorder(
    folder: Path,
    *,
    threads: int = 1,
    kept: Path | None = None,
    progress: Progress | None = None,
) -> int:
    """Reorders a complete segment; returns how many bytes it has.

    Args:
        folder: the segment's; it must not be one that readers have opened.
        threads: that compute the order, which is the same for any number.
        kept: a file for what is done of the order, to be continued by a restart.
        progress: as for `bisected`.
    """
    segment = Segment.open(folder)
    header = segment.files.header
    order_N = readonly(_order(segment, threads, kept, progress))
    target = folder.with_name(f"{folder.name}.reordered")
    remove(target)
    writer = SegmentWriter(
        target,
        lengths_N=segment.lengths_N,
        doc_ids=None,
        compress=segment.compress,
        block_size=segment.block_size,
        with_positions=segment.has_positions,
        order_N=order_N,
    )
    for first, last in segment.ranges(_TERMS, _POSTINGS):
        writer.append(*segment.read(first, last))
        segment.files.release()
    writer.close()
    unchanged = [name for name in header["files"] if not (target / name).exists()]
    for name in unchanged:
        os.rename(folder / name, target / name)
    entries = extend(target, unchanged)
    remove(folder)
    os.rename(target, folder)
    return sum(entry["bytes"] for entry in entries.values())


def _order(segment: Segment, threads: int, kept: Path | None, progress: Progress | None) -> Array:
    """Returns the order of a segment's documents, continued where `kept` has some of it."""
    key = segment.files.header["crc32"]
    levels, order_N = (0, None) if kept is None else _continued(kept, key, segment.documents)

    def keep(done: int, order_N: Array) -> None:
        assert kept is not None
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic(kept) as partial:
            np.append(np.array([key, done], np.uint32), order_N).tofile(partial)

    return bisected(
        _forward(segment),
        threads,
        order_N=order_N,
        levels=levels,
        keep=None if kept is None else keep,
        progress=progress,
    )


def _continued(kept: Path, key: int, documents: int) -> tuple[int, Array | None]:
    """Returns how many levels are done, and the order so far, where it is this segment's."""
    if not kept.exists():
        return 0, None
    values = np.fromfile(kept, np.uint32)
    if len(values) != documents + 2 or values[0] != key:
        return 0, None
    return int(values[1]), values[2:].copy()


def _forward(segment: Segment) -> Forward:
    """Returns the terms of each document that some others have, too."""
    most = max(_COMMON, segment.documents // _SHARE)
    starts_N1 = np.zeros(segment.documents + 1, np.int64)
    for docs_P, indptr_T1 in _postings(segment):
        df_T = np.diff(indptr_T1)
        _count(readonly(docs_P[np.repeat((df_T > 1) & (df_T <= most), df_T)]), starts_N1)
    np.cumsum(starts_N1, out=starts_N1)
    terms_P = np.empty(int(starts_N1[-1]), np.uint32)
    ends_N, size = starts_N1[:-1].copy(), 0
    for docs_P, indptr_T1 in _postings(segment):
        size = _fill(readonly(indptr_T1), readonly(docs_P), most, size, ends_N, terms_P)
    return Forward(starts_N1, terms_P, size)


def _postings(segment: Segment) -> Iterator[tuple[Array, Array]]:
    for _, indptr_T1, docs_P, _ in segment.slices(_TERMS, _POSTINGS):
        yield docs_P, indptr_T1
    segment.files.release()
