"""One split of a corpus on its way into an index: read, analysed, inverted, written.

Splits know nothing of each other: they run in any process and any order.

Legend: N documents, W terms of all documents, T distinct terms, P postings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raydist.bow.build.reorder import reorder
from raydist.bow.build.spills import Postings, byte_order, write_spill
from raydist.bow.format.forward import add_forward
from raydist.bow.format.writing import SegmentWriter
from raydist.bow.spec import IndexSpec
from raydist.data.columns import split_columns, type_name
from raydist.data.rejects import Rejects
from raydist.data.store.writer import StoreWriter
from raydist.errors import ConfigError
from raydist.kernels.arrays import readonly
from raydist.kernels.intrinsics import prefetch
from raydist.kernels.jit import kernel
from raydist.run_writer import first_blank
from raydist.shard_files import Split, Stats
from raydist.text.analyzer import Analyzer

Array = npt.NDArray[Any]
U = np.uint64

Read = Callable[[Split, Rejects], Iterable[pa.Table]]
"""Reads a split as tables of the DOCUMENTS schema, noting skipped lines; must be picklable."""

TEXTS = ("title", "text")
"""The texts that every document has."""

_DOC, _TF = U(32), U(0xFFFFFFFF)  # of a packed posting
_AHEAD = 12  # occurrences between fetching a place and using it
_BYTES_PER_TERM = 4 + 8 + 8  # collected, sorted, and as document and tf
_BYTES_PER_POSITION = 4 + 4  # collected and sorted
_BASE_MEMORY = 64 << 20  # tables being read, batches, files being written
LEAST_MEMORY = 128 << 20
"""The least `memory_per_worker`."""


def limit_documents(splits: Sequence[Split], read: Read, max_docs: int) -> tuple[list[Split], Read]:
    """Returns the splits and the reading of the first `max_docs` documents.

    They are read once to count them: only reading tells how many documents a split has.
    """
    limited: list[Split] = []
    remaining = max_docs
    for split in splits:
        if not remaining:
            break
        rows = 0
        for table in read(split, Rejects()):
            rows += table.num_rows
            if rows >= remaining:
                break
        take = min(rows, remaining)
        remaining -= take
        if take:
            limited.append({**split, "max_rows": take})
    return limited, partial(_first_rows, read)


def _first_rows(read: Read, split: Split, rejects: Rejects) -> Iterable[pa.Table]:
    remaining = int(split["max_rows"])
    for table in read(split, rejects):
        yield table.slice(0, remaining)
        remaining -= table.num_rows
        if remaining <= 0:
            return


@kernel
def _count(terms_W: Array, counts_T: Array) -> None:
    for w in range(terms_W.shape[0]):
        counts_T[terms_W[w]] += U(1)


@kernel
def _scatter(terms_W: Array, lengths_N: Array, cursor_T: Array, packed: Array) -> None:
    """Counts each occurrence in its term's last posting, `document << 32 | tf`, or adds one.

    `cursor` points at each term's last posting; the first is a guard that equals no document.
    """
    w = U(0)
    last = U(terms_W.shape[0])
    for doc in range(lengths_N.shape[0]):
        for _ in range(lengths_N[doc]):
            if w + U(_AHEAD) < last:
                prefetch(packed, cursor_T[terms_W[w + U(_AHEAD)]])
            term = terms_W[w]
            w += U(1)
            place = cursor_T[term]
            if packed[place] >> _DOC == U(doc):
                packed[place] += U(1)
            else:
                cursor_T[term] = place + U(1)
                packed[place + U(1)] = U(doc) << _DOC | U(1)


@kernel
def _gather(
    order_T: Array, starts_T: Array, cursor_T: Array, packed: Array, docs_P: Array, tfs_P: Array
) -> None:
    """Writes the postings in an order of terms."""
    p = U(0)
    for i in range(order_T.shape[0]):
        term = order_T[i]
        for place in range(starts_T[term] + U(1), cursor_T[term] + U(1)):
            docs_P[p] = packed[place] >> _DOC
            tfs_P[p] = packed[place] & _TF
            p += U(1)


@kernel
def _scatter_positions(terms_W: Array, positions_W: Array, cursor_T: Array, out: Array) -> None:
    """Puts the position of each occurrence at its term's cursor, which moves on."""
    w = U(0)
    last = U(terms_W.shape[0])
    while w < last:
        if w + U(_AHEAD) < last:
            prefetch(out, cursor_T[terms_W[w + U(_AHEAD)]])
        term = terms_W[w]
        place = cursor_T[term]
        out[place] = positions_W[w]
        cursor_T[term] = place + U(1)
        w += U(1)


class Inverter:
    """Collects documents and inverts them.

    The terms of all documents are kept in order; then a counting sort groups them by term. A term's
    occurrences arrive by document, so those of one document are counted where they are put.

    Attributes:
        documents: how many are collected.
    """

    def __init__(self, analyzer: Analyzer, *, positions: bool = False) -> None:
        self._lexicon = analyzer.lexicon()
        self._terms: list[Array] = []
        self._positions: list[Array] | None = [] if positions else None
        self._lengths: list[Array] = []
        self._ids: list[pa.Array] = []
        self._columns: list[pa.Table] = []
        self._occurrences = 0
        self._ids_bytes = 0
        self.documents = 0

    @property
    def nbytes(self) -> int:
        """Bytes that inverting the collected documents takes at its peak."""
        return (
            self._occurrences
            * (_BYTES_PER_TERM + _BYTES_PER_POSITION * (self._positions is not None))
            + 2 * self._lexicon.nbytes
            + 2 * self._ids_bytes
            + 8 * self.documents
        )

    def add(
        self,
        doc_ids: pa.Array | pa.ChunkedArray,
        texts: pa.Array | pa.ChunkedArray,
        columns: pa.Table | None = None,
    ) -> None:
        """Collects documents: their ids, their texts and their metadata."""
        if columns is not None:
            self._columns.append(columns)
            self._ids_bytes += int(columns.nbytes)
        if self._positions is None:
            terms, lengths = self._lexicon(texts)
        else:
            terms, lengths, positions = self._lexicon.with_positions(texts)
            self._positions.append(positions)
        self._terms.append(terms.copy())
        self._lengths.append(lengths)
        chunks = doc_ids.chunks if isinstance(doc_ids, pa.ChunkedArray) else [doc_ids]
        self._ids += [chunk.cast(pa.large_string()) for chunk in chunks]
        self._occurrences += len(terms)
        self._ids_bytes += int(doc_ids.nbytes)
        self.documents += len(lengths)

    def postings(self) -> Postings:
        """Returns the collected documents inverted, numbered from 0 as they came."""
        lexicon = self._lexicon
        terms = lexicon.terms.strings()
        counts = np.zeros(len(terms), np.uint64)
        for part in self._terms:
            _count(part, counts)
        # One more place per term, for the guard.
        starts = np.zeros(len(terms), np.uint64)
        np.cumsum(counts[:-1] + U(1), out=starts[1:])
        packed = np.empty(self._occurrences + len(terms), np.uint64)
        packed[starts] = U(0xFFFFFFFFFFFFFFFF)
        cursor = starts.copy()
        every = np.concatenate(self._terms) if self._terms else np.empty(0, np.uint32)
        self._terms = []
        lengths = np.concatenate(self._lengths) if self._lengths else np.empty(0, np.uint32)
        _scatter(every, lengths, cursor, packed)
        order, _ = byte_order(terms, distinct=True)
        positions = self._sorted_positions(every, counts, order)
        del every
        indptr = np.zeros(len(terms) + 1, np.int64)
        np.cumsum((cursor - starts)[order], out=indptr[1:])
        docs = np.empty(int(indptr[-1]), np.uint32)
        tfs = np.empty(int(indptr[-1]), np.uint32)
        _gather(order, starts, cursor, packed, docs, tfs)
        ids = pa.concat_arrays(self._ids) if self._ids else pa.array([], pa.large_string())
        return Postings(
            terms.take(pa.array(order)),
            readonly(indptr),
            readonly(docs),
            readonly(tfs),
            readonly(lengths),
            ids,
            positions,
            pa.concat_tables(self._columns) if self._columns else None,
        )

    def _sorted_positions(self, terms_W: Array, counts_T: Array, order_T: Array) -> Array | None:
        """Returns the positions of all occurrences in an order of terms, if they are wanted."""
        if self._positions is None:
            return None
        cursor_T = np.zeros(len(order_T), np.uint64)
        cursor_T[order_T[1:]] = np.cumsum(counts_T[order_T[:-1]])
        positions_W = np.concatenate([np.empty(0, np.uint32), *self._positions])
        self._positions = []
        out = np.empty(len(positions_W), np.uint32)
        _scatter_positions(terms_W, positions_W, cursor_T, out)
        return readonly(out)


class SplitWorker:
    """Turns one split after another into spills, or into segments if they are not merged."""

    def __init__(self, read: Read, spec: IndexSpec) -> None:
        self._read = read
        self._spec = spec
        self._analyzer = spec.analyzer.build()
        # Machine code is loaded here, so that a split's time is that of its work.
        inverter = self._inverter()
        inverter.add(pa.array(["-"]), pa.array(["-"]))
        inverter.postings()

    def _inverter(self) -> Inverter:
        return Inverter(self._analyzer, positions=self._spec.positions)

    def __call__(self, split: Split, target: Path) -> Stats:
        """Writes a split's spills or segments, its store and its rejects below `target`."""
        began, cpu = time.time(), time.process_time()
        target.mkdir(parents=True)
        spec = self._spec
        rejects = Rejects(target / "rejects.jsonl")
        texts = StoreWriter(target / "store") if spec.store else None
        stats: Stats = {"documents": 0, "bytes": 0, "empty": 0, "first_empty": None, "parts": []}
        stats["blank_id"] = None
        inverter = self._inverter()
        for table in self._read(split, rejects):
            for start in range(0, table.num_rows, spec.batch_size):
                batch = table.slice(start, spec.batch_size)
                texts_N = contents(batch, next(iter(spec.fields), None))
                inverter.add(batch["doc_id"], texts_N, split_columns(batch)[1])
                if inverter.nbytes > spec.memory_per_worker - _BASE_MEMORY:
                    self._write(inverter, target, stats)
                    inverter = self._inverter()
            stats["bytes"] += table["text"].nbytes
            if texts is not None:
                texts.append(split_columns(table)[0])
        if inverter.documents:
            self._write(inverter, target, stats)
        if texts is not None:
            texts.close(index=False)
        stats["rejected"] = rejects.count
        stats |= {"began": began, "cpu_seconds": time.process_time() - cpu}
        return stats

    def _write(self, inverter: Inverter, target: Path, stats: Stats) -> None:
        postings = inverter.postings()
        columns = postings.columns
        if columns is not None:
            stats["columns"] = {each.name: type_name(each.type) for each in columns.schema}
        part = f"{len(stats['parts']):05d}"
        if self._spec.merge:
            about = write_spill(target / part, postings)
        else:
            writer = SegmentWriter(
                target / part,
                lengths_N=postings.lengths_N,
                doc_ids=postings.doc_ids,
                compress=self._spec.compress,
                block_size=self._spec.block_size,
                with_positions=self._spec.positions,
                columns=None if columns is None else (columns.schema, [columns]),
            )
            arrays = postings.indptr_T1, postings.docs_P, postings.tfs_P, postings.positions_W
            writer.append(postings.terms, *arrays)
            about = writer.close()
            if self._spec.forward:
                add_forward(target / part, self._spec.memory_per_worker)
            if self._spec.reorder:
                reorder(target / part)
        stats["parts"].append(part)
        stats["documents"] += about["documents"]
        if stats["blank_id"] is None:
            stats["blank_id"] = first_blank(postings.doc_ids)
        empty = (postings.lengths_N == 0).nonzero()[0]
        stats["empty"] += len(empty)
        if len(empty) and stats["first_empty"] is None:
            stats["first_empty"] = postings.doc_ids[int(empty[0])].as_py()


def contents(table: pa.Table, field: str | None = None) -> pa.ChunkedArray:
    """Returns the indexed text: title, line end, text; the text alone where no row has a title.

    With a field it is that alone: the title, the text, or a column.

    Raises:
        ConfigError: the table has no such field, or it is no text.
    """
    if field is not None:
        return _field(table, field)
    titles, texts = table["title"], table["text"]
    if not pc.max(pc.binary_length(titles)).as_py():
        return texts
    return pc.binary_join_element_wise(
        titles.cast(pa.large_string()), texts, pa.scalar("\n", pa.large_string())
    )


def _field(table: pa.Table, field: str) -> pa.ChunkedArray:
    if field in TEXTS:
        return table[field]
    columns = split_columns(table)[1]
    if columns is None or field not in columns.column_names:
        names = (*TEXTS, *(columns.column_names if columns is not None else ()))
        raise ConfigError(f"fields: no field {field!r}; the documents have {', '.join(names)}")
    if not pa.types.is_large_string(columns[field].type):
        raise ConfigError(
            f"fields: {field!r} is a column of {type_name(columns[field].type)}, a field is text: "
            f"give corpus.columns={field}:string"
        )
    return pc.fill_null(columns[field], "")
