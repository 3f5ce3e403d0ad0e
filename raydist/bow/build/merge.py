"""Merges spills or segments into segments, a range of terms at a time.

Sources hold consecutive documents, so a term's postings are those of its sources in a row, and a
segment of the result takes a range of the documents. The ranges of terms are chosen by the sources
alone and hold about the same number of postings; each takes a bounded amount of memory, and a
cluster writes them in parallel.

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
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.build.reorder import reorder
from raydist.bow.build.sources import Source, Sources, SpillSource, TermRange
from raydist.bow.build.spills import byte_order
from raydist.bow.format.forward import add_forward
from raydist.bow.format.segment import concatenate
from raydist.bow.format.weights import add_weights
from raydist.bow.format.writing import SegmentWriter
from raydist.data.columns import common_schema
from raydist.errors import ConfigError
from raydist.kernels.arrays import readonly
from raydist.kernels.jit import kernel
from raydist.log import Progress
from raydist.shard_files import Split, Stats, shard_path
from raydist.shards import sharded_map

Array = npt.NDArray[Any]
U = np.uint64

_BYTES_PER_POSTING = 32  # merged (8), encoded (10), and the input
_LEAST = 1 << 16
MAX_DOCUMENTS = 1 << 32
"""A merged segment has fewer: postings number its documents with 32 bits."""

_WORTH_SHARING = 1 << 28  # postings; fewer are merged sooner than actors have started


class _Piece(NamedTuple):
    """What one source has of a range of terms for one segment."""

    terms: pa.LargeBinaryArray
    starts_T: Array
    stops_T: Array
    docs_P: Array
    tfs_P: Array
    positions_W: Array | None
    shift: int  # to add to a document's number, modulo 2**32


@kernel
def _bounds(
    indptr_T1: Array, docs_P: Array, first: Any, last: Any, starts_T: Array, stops_T: Array
) -> None:
    """Finds each term's postings of the documents `first <= d < last`."""
    for t in range(starts_T.shape[0]):
        for end in range(2):
            low, high = indptr_T1[t], indptr_T1[t + 1]
            bound = last if end else first
            while low < high:
                middle = (low + high) >> 1
                if np.int64(docs_P[middle]) < bound:
                    low = middle + 1
                else:
                    high = middle
            if end:
                stops_T[t] = low
            else:
                starts_T[t] = low


@kernel
def _place(
    starts_T: Array,
    stops_T: Array,
    docs_P: Array,
    tfs_P: Array,
    shift: Any,
    to_T: Array,
    out_docs: Array,
    out_tfs: Array,
) -> None:
    """Copies a source's postings of some terms to their places in the merged arrays."""
    for i in range(to_T.shape[0]):
        move = U(to_T[i]) - U(starts_T[i])
        for p in range(U(starts_T[i]), U(stops_T[i])):
            out_docs[p + move] = docs_P[p] + np.uint32(shift)
            out_tfs[p + move] = tfs_P[p]


@kernel
def _place_positions(
    from_T: Array, to_T: Array, counts_T: Array, positions_W: Array, out: Array
) -> None:
    """Copies each term's positions from their place in a source to that in the merged array."""
    for i in range(to_T.shape[0]):
        move = U(to_T[i]) - U(from_T[i])
        for w in range(U(from_T[i]), U(from_T[i] + counts_T[i])):
            out[w + move] = positions_W[w]


def plan_ranges(sources: Sequence[Source], postings: int) -> list[dict[str, Any]]:
    """Returns consecutive ranges of terms with about `postings` postings each.

    They are JSON-able: `first` and `last` are the terms that begin this and the next range, in hex,
    None at the ends; `size` is about its postings.
    """
    step = max(1, postings // (2 * max(1, len(sources))))
    marks = sorted(term for source in sources for term in source.marks(step))
    cuts: list[bytes | None] = [None]
    size = 0
    for term in marks:
        size += step
        if size >= postings and term != cuts[-1]:
            cuts.append(term)
            size = 0
    cuts.append(None)
    return [
        {"first": a and a.hex(), "last": b and b.hex(), "size": postings} for a, b in pairwise(cuts)
    ]


def plan_cuts(sources: Sequence[Source], segments: int) -> list[int]:
    """Returns where the documents are cut into segments of about the same number of tokens.

    Raises:
        ConfigError: there are fewer documents than segments, or more than a segment can number.
    """
    documents = sum(source.documents for source in sources)
    if segments > documents:
        raise ConfigError(f"segments = {segments}: expected at most {documents:,}, a document each")
    tokens = sum(int(s.lengths().sum(dtype=np.int64)) for s in sources if segments > 1)
    goals = np.arange(1, segments) * tokens // segments
    cuts, before, base = [0], 0, 0
    for source in sources if tokens else ():
        ends_N = before + np.cumsum(source.lengths(), dtype=np.int64)
        end = int(ends_N[-1]) if len(ends_N) else before
        mine = goals[(goals > before) & (goals <= end)]
        cuts += (base + 1 + np.searchsorted(ends_N, mine)).tolist()
        before, base = end, base + source.documents
    cuts = [0] * (segments - len(cuts)) + cuts  # of documents without tokens
    for i in range(1, len(cuts)):  # one document each at least
        cuts[i] = min(max(cuts[i], cuts[i - 1] + 1), documents - (segments - i))
    cuts.append(documents)
    largest = max(b - a for a, b in pairwise(cuts))
    if largest >= MAX_DOCUMENTS:
        raise ConfigError(
            f"segments = {segments}: one would have {largest:,} documents, which a segment numbers "
            f"with 32 bits; give segments={segments + -(-largest // (MAX_DOCUMENTS - 1))} or more"
        )
    return cuts


def merge_spills(folders: Sequence[Path], folder: Path, **options: Any) -> dict[str, int]:
    """Writes the segment of all spills, in the order of their documents; returns its statistics.

    The options are those of `merge`.
    """
    sources = partial(_open_spills, list(folders))
    documents = sum(source.documents for source in sources())
    return merge(sources, [0, documents], [folder], **options)[0]


def _open_spills(folders: Sequence[Path]) -> list[SpillSource]:
    return [SpillSource(each) for each in folders]


def merge(
    open_sources: Sources,
    cuts: Sequence[int],
    folders: Sequence[Path],
    *,
    work: Path,
    compress: bool,
    block_size: int,
    memory: int,
    positions: bool = False,
    forward: bool = False,
    weighted: bool = False,
    reordered: bool = False,
    workers: int = 0,
    cpus_per_worker: float = 1.0,
) -> list[dict[str, int]]:
    """Writes segments of the sources' documents and returns their statistics.

    Args:
        open_sources: in the order of their documents.
        cuts: where the documents are cut, from 0 to their number.
        folders: the segments, one fewer than cuts; they must not exist yet.
        work: a folder for parts of the segments, removed at the end.
        compress: whether postings are bit-packed.
        block_size: postings per block.
        memory: bytes that a worker may use.
        positions: whether the sources have positions.
        forward: whether the segments get the terms of their documents, too.
        weighted: whether frequencies are weights, for whose search the segments have files.
        reordered: whether similar documents become neighbours in the postings (order.py).
        workers: Ray actors that write ranges of terms; below _WORTH_SHARING postings, as many
            threads that merge ahead of this one, which writes. 0 does all in this thread.
        cpus_per_worker: CPUs of an actor.
    """
    sources = open_sources()
    options: dict[str, Any] = {"compress": compress, "block_size": block_size}
    options["with_positions"] = positions
    postings = max(_LEAST, memory // _BYTES_PER_POSTING // (8 if positions else 4))
    if workers == 0 or sum(source.postings for source in sources) < _WORTH_SHARING:
        threads = min(workers, os.cpu_count() or 1)
        ranges = plan_ranges(sources, max(_LEAST, postings // max(1, threads)))
        writers = _writers(sources, cuts, folders, True, options)
        with Progress("merging", unit="posting", share_total=len(ranges)) as progress:
            for parts in _ahead(sources, cuts, ranges, threads):
                for writer, part in zip(writers, parts):
                    writer.append(*part)
                progress.advance(sum(len(part.docs_P) for part in parts), share=1.0)
        stats = [writer.close() for writer in writers]
    else:
        # Ranges of at most a few MB keep all workers busy to the end.
        ranges = plan_ranges(sources, min(postings, 4 << 20))
        sharded_map(
            ranges,
            partial(_MergeWorker, open_sources, cuts, options),
            work,
            workers=workers,
            cpus_per_worker=cpus_per_worker,
            label="merging",
            unit="posting",
        )
        stats = []
        for number, folder in enumerate(folders):
            shards = [_part(shard_path(work, i), number) for i in range(len(ranges))]
            stats.append(concatenate(shards, folder))
        shutil.rmtree(work)
    threads = max(1, min(workers, os.cpu_count() or 1))
    for number, (each, folder) in enumerate(zip(stats, folders)):
        if forward:
            each["bytes"] += add_forward(folder, memory)
        if reordered:
            kept = work.with_name(f"{work.name}.order-{number:05d}")
            with Progress("reordering", share_total=1.0) as progress:
                size = reorder(folder, threads=threads, kept=kept, progress=progress)
            each["bytes"] = size
        if weighted:  # by slot
            each["bytes"] += add_weights(folder, memory)
    return stats


class _MergeWorker:
    """Writes ranges of terms as parts of the segments; the first parts have the documents' ids."""

    def __init__(self, open_sources: Sources, cuts: Sequence[int], options: dict[str, Any]) -> None:
        self._sources = open_sources()
        self._cuts = cuts
        self._options = options

    def __call__(self, split: Split, target: Path) -> Stats:
        folders = [_part(target, number) for number in range(len(self._cuts) - 1)]
        with_ids = split["first"] is None
        writers = _writers(self._sources, self._cuts, folders, with_ids, self._options)
        postings = 0
        for writer, part in zip(writers, _merge_range(self._sources, self._cuts, split)):
            writer.append(*part)
            postings += writer.close()["postings"]
        return {"postings": postings}


def _part(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}"


def _writers(
    sources: Sequence[Source],
    cuts: Sequence[int],
    folders: Sequence[Path],
    with_ids: bool,
    options: dict[str, Any],
) -> list[SegmentWriter]:
    writers = []
    tables = [source.columns() for source in sources if with_ids]
    schemas = [each.schema for each in tables if each is not None]
    assert len(schemas) in (0, len(tables)), "metadata of some documents is missing"
    schema = common_schema(schemas) if schemas else None
    for folder, first, last in zip(folders, cuts, cuts[1:]):
        within = _within(sources, first, last)
        lengths = [source.lengths()[a:z] for source, a, z in within]
        lengths_N = np.concatenate(lengths) if lengths else np.empty(0, np.uint32)
        ids = (chunk for source, a, z in within for chunk in source.ids(a, z))
        spans = zip(tables, _spans(sources, first, last))
        parts = [table.slice(a, z - a) for table, (a, z) in spans if table is not None]
        writers.append(
            SegmentWriter(
                folder,
                lengths_N=lengths_N,
                doc_ids=ids if with_ids else None,
                columns=None if schema is None else (schema, parts),
                **options,
            )
        )
    return writers


def _within(sources: Sequence[Source], first: int, last: int) -> list[tuple[Source, int, int]]:
    """Returns the sources that have some of the documents `first <= d < last`, and which."""
    spans = zip(sources, _spans(sources, first, last))
    return [(source, a, z) for source, (a, z) in spans if a < z]


def _spans(sources: Sequence[Source], first: int, last: int) -> list[tuple[int, int]]:
    """Returns the span of each source's documents that are among `first <= d < last`."""
    bases = accumulate((source.documents for source in sources), initial=0)
    spans = [(max(first - b, 0), min(last - b, s.documents)) for s, b in zip(sources, bases)]
    return [(a, max(a, z)) for a, z in spans]


def _ahead(
    sources: Sequence[Source], cuts: Sequence[int], ranges: Sequence[Split], threads: int
) -> Iterator[list[TermRange]]:
    """Yields the merged ranges in order; threads are up to that many ranges ahead."""
    if threads < 2:
        for each in ranges:
            yield _merge_range(sources, cuts, each)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[list[TermRange]]] = deque()
        for each in ranges:
            waiting.append(pool.submit(_merge_range, sources, cuts, each))
            if len(waiting) == threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _merge_range(sources: Sequence[Source], cuts: Sequence[int], split: Split) -> list[TermRange]:
    """Returns a range of terms of each segment."""
    first, last = (each and bytes.fromhex(each) for each in (split["first"], split["last"]))
    read = [source.read(first, last) for source in sources]
    bases = list(accumulate((source.documents for source in sources), initial=0))
    merged = []
    for start, stop in pairwise(cuts):
        pieces = []
        for part, base, end in zip(read, bases, bases[1:]):
            if part is not None and base < stop and end > start:
                pieces.append(
                    _piece(part, max(start - base, 0), stop - base, end - base, base - start)
                )
        merged.append(_joined([piece for piece in pieces if len(piece.terms)]))
    for source in sources:
        source.release()
    return merged


def _piece(part: TermRange, first: int, last: int, documents: int, shift: int) -> _Piece:
    """Returns a source's postings of the documents `first <= d < last`."""
    terms, indptr_T1, docs_P, tfs_P, positions_W = part
    starts_T, stops_T = indptr_T1[:-1], indptr_T1[1:]
    if first or last < documents:
        starts_T, stops_T = np.empty((2, len(terms)), np.int64)
        _bounds(readonly(indptr_T1), readonly(docs_P), first, last, starts_T, stops_T)
        some_T = starts_T < stops_T
        if not some_T.all():
            terms, starts_T, stops_T = (
                terms.filter(pa.array(some_T)),
                starts_T[some_T],
                stops_T[some_T],
            )
    return _Piece(terms, starts_T, stops_T, docs_P, tfs_P, positions_W, shift % (1 << 32))


def _joined(pieces: Sequence[_Piece]) -> TermRange:
    """Returns the terms of all pieces, the postings of a term one piece after another."""
    if not pieces:
        nothing, start = np.empty(0, np.uint32), np.zeros(1, np.int64)
        return TermRange(pa.array([], pa.large_binary()), start, nothing, nothing, nothing)
    terms = pa.concat_arrays([piece.terms for piece in pieces])
    if len(pieces) == 1:
        order, new = np.arange(len(terms)), np.ones(len(terms), np.bool_)
    else:
        order, new = byte_order(terms, distinct=False)
    df = np.concatenate([piece.stops_T - piece.starts_T for piece in pieces])
    ends = np.cumsum(df[order])
    to = np.empty(len(order), np.int64)
    to[order] = ends - df[order]
    docs, tfs = np.empty(int(ends[-1]), np.uint32), np.empty(int(ends[-1]), np.uint32)
    done = 0
    for piece in pieces:
        count = len(piece.terms)
        _place(
            readonly(piece.starts_T, np.int64),
            readonly(piece.stops_T, np.int64),
            readonly(piece.docs_P),
            readonly(piece.tfs_P, np.uint32),
            piece.shift,
            readonly(to[done : done + count]),
            docs,
            tfs,
        )
        done += count
    starts = np.flatnonzero(new)
    indptr = np.append(to[order[starts]], ends[-1])
    names, positions = terms.take(pa.array(order[starts])), None
    if pieces[0].positions_W is not None:
        positions = _joined_positions(pieces, to, tfs)
    return TermRange(names, indptr, docs, tfs, positions)


def _joined_positions(pieces: Sequence[_Piece], to_T: Array, tfs: Array) -> Array:
    """Returns the positions of merged postings.

    Args:
        pieces: what is merged.
        to_T: where the postings of all their terms are in the result.
        tfs: the frequencies there.
    """
    before_P1 = np.append(0, np.cumsum(tfs, dtype=np.int64))
    out = np.empty(int(before_P1[-1]), np.uint32)
    done = 0
    for piece in pieces:
        count = len(piece.terms)
        own_P1 = np.append(0, np.cumsum(piece.tfs_P, dtype=np.int64))
        from_T = own_P1[piece.starts_T]
        assert piece.positions_W is not None
        _place_positions(
            readonly(from_T),
            readonly(before_P1[to_T[done : done + count]]),
            readonly(own_P1[piece.stops_T] - from_T),
            readonly(piece.positions_W, np.uint32),
            out,
        )
        done += count
    return out
