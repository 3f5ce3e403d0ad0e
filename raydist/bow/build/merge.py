"""Joins runs into one segment, a range of terms at a time.

Runs hold consecutive documents, so a term's postings in the whole are those of its runs one behind
the other. The ranges are chosen by the runs alone and hold about the same number of postings; each
takes a bounded amount of memory, and on a cluster they are written beside each other.

Legend: N documents, T terms, P postings, R runs.
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

from raydist.bow.build.runs import Run
from raydist.bow.build.sorting import byte_order
from raydist.bow.format.segment import concatenate
from raydist.bow.format.writing import SegmentWriter
from raydist.kernels.arrays import readonly
from raydist.kernels.jit import kernel
from raydist.log import Progress
from raydist.shard_files import Split, Stats, shard_path
from raydist.shards import sharded_map

Array = npt.NDArray[Any]
Merged = tuple[pa.LargeBinaryArray, Array, Array, Array]
U = np.uint64

_BYTES_PER_POSTING = 32  # merged (8), encoded (10), and what is being read
_LEAST = 1 << 16
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
    """Copies a run's postings of consecutive terms to where each term's go."""
    first = U(indptr_T1[0])
    for i in range(to_T.shape[0]):
        start, stop = U(indptr_T1[i]) - first, U(indptr_T1[i + 1]) - first
        shift = U(to_T[i]) - start
        for p in range(start, stop):
            out_docs[p + shift] = docs_P[p] + np.uint32(base)
            out_tfs[p + shift] = tfs_P[p]


def plan_ranges(runs: Sequence[Run], postings: int) -> list[dict[str, Any]]:
    """Returns consecutive ranges of terms with about `postings` postings each.

    They are JSON-able: `first` and `last` are the terms that begin this and the next range, in hex,
    None at the ends; `size` is about its postings.
    """
    step = max(1, postings // (2 * max(1, len(runs))))
    marks: list[tuple[bytes, int]] = []
    for run in runs:
        total = int(run.indptr_T1[-1])
        rows = np.searchsorted(run.indptr_T1, np.arange(step, total, step), side="right") - 1
        marks += [(term, step) for term in run.terms.take(pa.array(rows)).to_pylist()]
    marks.sort()
    cuts: list[bytes | None] = [None]
    held = 0
    for term, weight in marks:
        held += weight
        if held >= postings and term != cuts[-1]:
            cuts.append(term)
            held = 0
    cuts.append(None)
    return [
        {"first": a and a.hex(), "last": b and b.hex(), "size": postings} for a, b in pairwise(cuts)
    ]


def merge_runs(
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
    """Writes the segment of all runs and returns its statistics.

    Args:
        folders: the runs, in the order of their documents.
        folder: the segment; it must not exist yet.
        work: a folder for parts of it, removed at the end.
        compress: whether postings are bit-packed.
        block_size: postings per block.
        memory: bytes that a worker may use.
        workers: Ray actors that write ranges of terms; where that is not worth while, as many
            threads that gather them for this one, which writes. 0 does all in this thread.
        cpus_per_worker: CPUs of an actor.
    """
    options: dict[str, Any] = {"compress": compress, "block_size": block_size}
    postings = max(_LEAST, memory // _BYTES_PER_POSTING // 4)
    runs = [Run(each) for each in folders]
    if workers == 0 or sum(run.about["postings"] for run in runs) < _WORTH_SHARING:
        threads = min(workers, os.cpu_count() or 1)
        ranges = plan_ranges(runs, max(_LEAST, postings // max(1, threads)))
        ids = pa.chunked_array([run.doc_ids for run in runs], pa.large_string())
        writer = SegmentWriter(folder, lengths_N=_lengths(runs), doc_ids=ids, **options)
        with Progress("merging", unit="postings", share_total=len(ranges)) as progress:
            for terms, indptr_T1, docs_P, tfs_P in _ahead(runs, ranges, threads):
                writer.append(terms, indptr_T1, docs_P, tfs_P)
                progress.advance(len(docs_P), share=1.0)
        return writer.close()
    # Ranges of at most a few MB keep all workers busy to the end.
    ranges = plan_ranges(runs, min(postings, 4 << 20))
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
        self._runs = [Run(Path(each)) for each in folders]
        self._options = options

    def __call__(self, split: Split, target: Path) -> Stats:
        ids = None
        if split["first"] is None:
            ids = pa.chunked_array([run.doc_ids for run in self._runs], pa.large_string())
        lengths = _lengths(self._runs)
        writer = SegmentWriter(target, lengths_N=lengths, doc_ids=ids, **self._options)
        writer.append(*_merge_range(self._runs, split))
        return dict(writer.close())


def _lengths(runs: Sequence[Run]) -> Array:
    if not runs:
        return np.empty(0, np.uint32)
    return np.concatenate([run.lengths_N for run in runs])


def _ahead(runs: Sequence[Run], ranges: Sequence[Split], threads: int) -> Iterator[Merged]:
    """Yields the merged ranges in order; threads are up to that many ranges ahead."""
    if threads < 2:
        for each in ranges:
            yield _merge_range(runs, each)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Merged]] = deque()
        for each in ranges:
            waiting.append(pool.submit(_merge_range, runs, each))
            if len(waiting) == threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _merge_range(runs: Sequence[Run], split: Split) -> Merged:
    """Returns a range's terms, where each one's postings are, their documents and frequencies."""
    pieces = list(_pieces(runs, split))
    strings = [run.terms.slice(a, b - a) for run, a, b in pieces]
    if not strings:
        nothing = np.empty(0, np.uint32)
        return pa.array([], pa.large_binary()), np.zeros(1, np.int64), nothing, nothing
    terms = pa.concat_arrays(strings)
    order, new = byte_order(terms, distinct=len(strings) == 1)
    df = np.concatenate([np.diff(run.indptr_T1[a : b + 1]) for run, a, b in pieces])
    ends = np.cumsum(df[order])
    total = int(ends[-1]) if len(ends) else 0
    to = np.empty(len(order), np.int64)
    to[order] = ends - df[order]
    docs, tfs = np.empty(total, np.uint32), np.empty(total, np.uint32)
    bases = dict(zip(map(id, runs), accumulate((len(r.lengths_N) for r in runs), initial=0)))
    done = 0
    for run, a, b in pieces:
        span = slice(int(run.indptr_T1[a]), int(run.indptr_T1[b]))
        _place(
            run.indptr_T1[a : b + 1],
            run.docs_P[span],
            readonly(run.tfs_P[span], np.uint32),
            bases[id(run)],
            readonly(to[done : done + b - a]),
            docs,
            tfs,
        )
        done += b - a
    starts = np.flatnonzero(new)
    indptr = np.append(to[order[starts]], total)
    for run in runs:
        run.release()
    return terms.take(pa.array(order[starts])), indptr, docs, tfs


def _pieces(runs: Sequence[Run], split: Split) -> Iterator[tuple[Run, int, int]]:
    """Yields the runs that have terms in the range, with the first and the end."""
    first, last = split["first"], split["last"]
    for run in runs:
        a = 0 if first is None else run.below(bytes.fromhex(first))
        b = len(run.terms) if last is None else run.below(bytes.fromhex(last))
        if a < b:
            yield run, a, b
