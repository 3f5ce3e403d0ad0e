"""Merges spills into one segment, a range of terms at a time.

Spills hold consecutive documents, so a term's postings are those of its spills in a row. The ranges
are chosen by the spills alone and hold about the same number of postings; each
takes a bounded amount of memory, and a cluster writes them in parallel.

Legend: N documents, T terms, P postings.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.build.spills import Spill, byte_order
from raydist.bow.format.segment import concatenate
from raydist.bow.format.writing import SegmentWriter
from raydist.kernels.arrays import readonly
from raydist.kernels.jit import kernel
from raydist.log import Progress
from raydist.shard_files import Split, Stats, shard_path
from raydist.shards import sharded_map

Array = npt.NDArray[Any]
TermRange = tuple[pa.LargeBinaryArray, Array, Array, Array]
U = np.uint64

_BYTES_PER_POSTING = 32  # merged (8), encoded (10), and the input
_LEAST = 1 << 16
MAX_DOCUMENTS = 1 << 32
"""A merged segment has fewer: postings number its documents with 32 bits."""

_WORTH_SHARING = 1 << 28  # postings; fewer are merged sooner than actors have started


@kernel
def _place(
    indptr_T1: Array,
    docs_P: Array,
    tfs_P: Array,
    base: Any,
    to_T: Array,
    out_docs: Array,
    out_tfs: Array,
) -> None:
    """Copies a spill's postings of consecutive terms to their places in the merged arrays."""
    first = U(indptr_T1[0])
    for i in range(to_T.shape[0]):
        start, stop = U(indptr_T1[i]) - first, U(indptr_T1[i + 1]) - first
        shift = U(to_T[i]) - start
        for p in range(start, stop):
            out_docs[p + shift] = docs_P[p] + np.uint32(base)
            out_tfs[p + shift] = tfs_P[p]


def plan_ranges(spills: Sequence[Spill], postings: int) -> list[dict[str, Any]]:
    """Returns consecutive ranges of terms with about `postings` postings each.

    They are JSON-able: `first` and `last` are the terms that begin this and the next range, in hex,
    None at the ends; `size` is about its postings.
    """
    step = max(1, postings // (2 * max(1, len(spills))))
    marks: list[tuple[bytes, int]] = []
    for spill in spills:
        total = int(spill.indptr_T1[-1])
        rows = np.searchsorted(spill.indptr_T1, np.arange(step, total, step), side="right") - 1
        marks += [(term, step) for term in spill.terms.take(pa.array(rows)).to_pylist()]
    marks.sort()
    cuts: list[bytes | None] = [None]
    size = 0
    for term, weight in marks:
        size += weight
        if size >= postings and term != cuts[-1]:
            cuts.append(term)
            size = 0
    cuts.append(None)
    return [
        {"first": a and a.hex(), "last": b and b.hex(), "size": postings} for a, b in pairwise(cuts)
    ]


def merge_spills(
    folders: Sequence[Path],
    folder: Path,
    *,
    work: Path,
    compress: bool,
    block_size: int,
    memory: int,
    workers: int = 0,
    cpus_per_worker: float = 1.0,
) -> dict[str, int]:
    """Writes the segment of all spills and returns its statistics.

    Args:
        folders: the spills, in the order of their documents.
        folder: the segment; it must not exist yet.
        work: a folder for parts of the segment, removed at the end.
        compress: whether postings are bit-packed.
        block_size: postings per block.
        memory: bytes that a worker may use.
        workers: Ray actors that write ranges of terms; below _WORTH_SHARING postings, as many
            threads that merge ahead of this one, which writes. 0 does all in this thread.
        cpus_per_worker: CPUs of an actor.
    """
    options: dict[str, Any] = {"compress": compress, "block_size": block_size}
    postings = max(_LEAST, memory // _BYTES_PER_POSTING // 4)
    spills = [Spill(each) for each in folders]
    if workers == 0 or sum(spill.about["postings"] for spill in spills) < _WORTH_SHARING:
        threads = min(workers, os.cpu_count() or 1)
        ranges = plan_ranges(spills, max(_LEAST, postings // max(1, threads)))
        ids = pa.chunked_array([spill.doc_ids for spill in spills], pa.large_string())
        writer = SegmentWriter(folder, lengths_N=_lengths(spills), doc_ids=ids, **options)
        with Progress("merging", unit="postings", share_total=len(ranges)) as progress:
            for terms, indptr_T1, docs_P, tfs_P in _ahead(spills, ranges, threads):
                writer.append(terms, indptr_T1, docs_P, tfs_P)
                progress.advance(len(docs_P), share=1.0)
        return writer.close()
    # Ranges of at most a few MB keep all workers busy to the end.
    ranges = plan_ranges(spills, min(postings, 4 << 20))
    make_worker = partial(_MergeWorker, [str(each) for each in folders], options)
    sharded_map(
        ranges,
        make_worker,
        work,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        label="merging",
        unit="postings",
    )
    stats = concatenate([shard_path(work, i) for i in range(len(ranges))], folder)
    shutil.rmtree(work)
    return stats


class _MergeWorker:
    """Writes ranges of terms as parts of the segment; the first part has the documents' ids."""

    def __init__(self, folders: Sequence[str], options: dict[str, Any]) -> None:
        self._spills = [Spill(Path(each)) for each in folders]
        self._options = options

    def __call__(self, split: Split, target: Path) -> Stats:
        ids = None
        if split["first"] is None:
            ids = pa.chunked_array([spill.doc_ids for spill in self._spills], pa.large_string())
        lengths = _lengths(self._spills)
        writer = SegmentWriter(target, lengths_N=lengths, doc_ids=ids, **self._options)
        writer.append(*_merge_range(self._spills, split))
        return dict(writer.close())


def _lengths(spills: Sequence[Spill]) -> Array:
    if not spills:
        return np.empty(0, np.uint32)
    return np.concatenate([spill.lengths_N for spill in spills])


def _ahead(spills: Sequence[Spill], ranges: Sequence[Split], threads: int) -> Iterator[TermRange]:
    """Yields the merged ranges in order; threads are up to that many ranges ahead."""
    if threads < 2:
        for each in ranges:
            yield _merge_range(spills, each)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[TermRange]] = deque()
        for each in ranges:
            waiting.append(pool.submit(_merge_range, spills, each))
            if len(waiting) == threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _merge_range(spills: Sequence[Spill], split: Split) -> TermRange:
    """Returns a range's terms, indptr, documents and frequencies."""
    pieces = list(_pieces(spills, split))
    strings = [spill.terms.slice(a, b - a) for spill, a, b in pieces]
    if not strings:
        nothing = np.empty(0, np.uint32)
        return pa.array([], pa.large_binary()), np.zeros(1, np.int64), nothing, nothing
    terms = pa.concat_arrays(strings)
    order, new = byte_order(terms, distinct=len(strings) == 1)
    df = np.concatenate([np.diff(spill.indptr_T1[a : b + 1]) for spill, a, b in pieces])
    ends = np.cumsum(df[order])
    total = int(ends[-1]) if len(ends) else 0
    to = np.empty(len(order), np.int64)
    to[order] = ends - df[order]
    docs, tfs = np.empty(total, np.uint32), np.empty(total, np.uint32)
    bases = dict(zip(map(id, spills), accumulate((len(r.lengths_N) for r in spills), initial=0)))
    done = 0
    for spill, a, b in pieces:
        span = slice(int(spill.indptr_T1[a]), int(spill.indptr_T1[b]))
        _place(
            spill.indptr_T1[a : b + 1],
            spill.docs_P[span],
            readonly(spill.tfs_P[span], np.uint32),
            bases[id(spill)],
            readonly(to[done : done + b - a]),
            docs,
            tfs,
        )
        done += b - a
    starts = np.flatnonzero(new)
    indptr = np.append(to[order[starts]], total)
    for spill in spills:
        spill.release()
    return terms.take(pa.array(order[starts])), indptr, docs, tfs


def _pieces(spills: Sequence[Spill], split: Split) -> Iterator[tuple[Spill, int, int]]:
    """Yields the spills that have terms in the range, with the first and the end."""
    first, last = split["first"], split["last"]
    for spill in spills:
        a = 0 if first is None else spill.below(bytes.fromhex(first))
        b = len(spill.terms) if last is None else spill.below(bytes.fromhex(last))
        if a < b:
            yield spill, a, b
