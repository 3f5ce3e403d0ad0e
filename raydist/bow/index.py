"""An opened bag-of-words index: its segments, their joint statistics and vocabulary.

Legend: T terms, P postings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raydist.bow.format.segment import Segment, open_segments
from raydist.bow.formulas import mean_length
from raydist.bow.whole import Whole
from raydist.data.columns import common_schema
from raydist.data.store.idhash import HashIndex
from raydist.data.store.reader import DocumentStore
from raydist.errors import DataError
from raydist.kernels.bits import Bits
from raydist.log import count
from raydist.manifest import open_generation
from raydist.strings import shortened
from raydist.text.analyzer import Analyzer

Array = npt.NDArray[Any]
Slice = tuple[pa.LargeBinaryArray, Array, Array, Array]

_IDS = 1 << 18  # decoded at once

KIND = "bow-index"
"""The kind in the manifest of an index folder."""


class BowIndex:
    """Segments that are searched as one collection.

    A document's position is its row in the segments, one after another. Deleted documents keep
    theirs until their segments are merged, but nothing here returns them, and all statistics are
    those of the live documents.

    Attributes:
        segments: in document order.
        bases: the position of each segment's first document.
        end: the position behind the last document.
        analyzer: how texts become terms; None for an index of weighted terms.
        folder: the index folder, None for loose segments.
        nonempty: documents with at least one token, the N of the formulas.
        tokens: tokens of all documents.
        store: the documents' texts, None where the index was built without.
        unit: the weight that an impact of 1 stands for, in an index of weighted terms; else 0.
        field: which of the documents' texts is indexed; None for title and text as one.
        whole: the statistics of the index that these are some of the segments of; None for all.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        analyzer: Analyzer | None,
        *,
        folder: Path | None = None,
        store: DocumentStore | None = None,
        unit: float = 0.0,
        field: str | None = None,
        whole: Whole | None = None,
    ) -> None:
        """Joins opened segments."""
        self.segments = list(segments)
        *self.bases, self.end = accumulate((s.documents for s in self.segments), initial=0)
        live = [segment.live_documents for segment in self.segments]
        *self._live_bases, self._live = accumulate(live, initial=0)
        self.analyzer = analyzer
        self.folder = folder
        self.whole = whole
        counted = self.segments if whole is None else [whole]
        self.nonempty = sum(each.nonempty for each in counted)
        self.tokens = sum(each.tokens for each in counted)
        self.unit = unit
        self.field = field
        self.store = store

    @classmethod
    def open(cls, folder: Path | str, *, in_memory: bool = False, verify: bool = False) -> BowIndex:
        """Opens the newest generation of an index folder.

        All files are mapped here, so later additions, deletions and merges do not change the
        answers of this index; open the folder again for a newer generation.

        Sizes are checked here, and the checksum of each chunk before its first use, so a damaged
        index gives an error or the right answer, never a wrong one. Later changes of a mapped file
        are not detected.

        Args:
            folder: the index.
            in_memory: read the segments into memory and check them, instead of mapping them.
            verify: check every byte now, the store's as well, not when a query needs it.

        Raises:
            ArtifactError: the folder is incomplete, corrupted, newer, or something else.
        """
        root = Path(folder)

        index = open_generation(root, [KIND], partial(cls.of, root, in_memory=in_memory))
        if verify:
            index.verify()
        return index

    @classmethod
    def of(cls, folder: Path, manifest: Mapping[str, Any], *, in_memory: bool = False) -> BowIndex:
        """Opens an index by a manifest that is in the folder, or is about to be."""
        analyzer, store = manifest.get("analyzer"), manifest.get("store")
        return cls(
            open_segments(folder, manifest, in_memory=in_memory),
            None if analyzer is None else Analyzer.from_dict(analyzer),
            folder=folder,
            store=DocumentStore.open(folder / store) if store else None,
            unit=manifest.get("unit", 0.0),
            field=manifest.get("field"),
        )

    @property
    def live_lengths(self) -> Array:
        """Exact numbers of tokens of the live documents in order, uint32."""
        return _of_live(self.segments, [each.lengths_N for each in self.segments])

    @property
    def live_norms(self) -> Array:
        """The norms of the live documents in order, uint8."""
        return _of_live(self.segments, [each.norms_N for each in self.segments])

    def verify(self) -> None:
        """Checks every byte of the segments and of the documents' texts.

        Raises ArtifactError naming the file that is damaged.
        """
        for segment in self.segments:
            segment.files.verify()
        if self.store is not None:
            self.store.verify()

    def __len__(self) -> int:
        """All live documents, those without tokens included."""
        return self._live

    @property
    def average_length(self) -> float:
        """Mean tokens of the documents that have any, as Lucene rounds it."""
        return mean_length(self.tokens, self.nonempty)

    @cached_property
    def columns(self) -> pa.Table | None:
        """Metadata of the documents by position, deleted ones included; None without any."""
        tables = [each.columns for each in self.segments]
        some = [each for each in tables if each is not None]
        if not some or len(some) < len(tables):
            return None
        schema = common_schema([each.schema for each in some])
        if self.whole is not None:
            if self.whole.columns is None:
                return None
            schema = self.whole.columns
        return pa.concat_tables([each.cast(schema, safe=False) for each in some])

    def column_values(self, doc_ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """Returns the metadata of documents by id, as JSON has it: times as ISO 8601, in UTC.

        None for documents that the index does not have, and where it has no columns.
        """
        values: list[dict[str, Any] | None] = [None] * len(doc_ids)
        if self.columns is None:
            return values
        positions = self.find(pa.array(doc_ids, pa.large_string()))
        known = np.flatnonzero(positions >= 0)
        rows = self.columns.take(pa.array(positions[known]))
        for at, row in zip(known.tolist(), rows.to_pylist()):
            values[at] = {
                name: value.isoformat() if isinstance(value, datetime) else _finite(value)
                for name, value in row.items()
            }
        return values

    @cached_property
    def doc_ids(self) -> pa.LargeStringArray:
        """External ids of the live documents in order, decoded."""
        return pa.concat_arrays([pa.array([], pa.large_string()), *self.id_parts()])

    def id_parts(self) -> Iterator[pa.Array]:
        """Yields the external ids of the live documents in order, in batches."""
        for segment in self.segments:
            for start in range(0, segment.documents, _IDS):
                stop = min(start + _IDS, segment.documents)
                ids = segment.read_ids(start, stop).cast(pa.large_string())
                if segment.deletions is not None:
                    live = segment.deletions.live.has(np.arange(start, stop))
                    ids = ids.filter(pa.array(live))
                yield ids

    def numbers(self, positions: Array) -> Array:
        """Returns the number of each document among the live ones, int64."""
        return self._translated(positions, self.bases, self._live_bases, Bits.rank)

    def at_numbers(self, numbers: Array) -> Array:
        """Returns the positions of documents by their numbers among the live ones, int64."""
        return self._translated(numbers, self._live_bases, self.bases, Bits.select)

    def _translated(
        self,
        values: Array,
        old_bases: list[int],
        new_bases: list[int],
        translate: Callable[[Bits, Array], Array],
    ) -> Array:
        if self._live == self.end:
            return values
        owner = np.searchsorted(old_bases, values, side="right") - 1
        out = np.empty(len(values), np.int64)
        for number in np.unique(owner).tolist():
            mine = owner == number
            docs, deletions = values[mine] - old_bases[number], self.segments[number].deletions
            out[mine] = new_bases[number] + (translate(deletions.live, docs) if deletions else docs)
        return out

    def pick_ids(self, positions: Array, *, short: bool = False) -> pa.Array:
        """Returns the external ids of the documents at `positions`.

        They are large_string or, if they are to be `short`, string where its offsets suffice.
        """
        if len(self.segments) == 1:
            return self.segments[0].pick_ids(positions, short=short)
        owner = np.searchsorted(self.bases, positions, side="right") - 1
        order = np.argsort(owner, kind="stable")
        parts = []
        for number, segment in enumerate(self.segments):
            own = positions[owner == number]
            if len(own):
                parts.append(segment.pick_ids(own - self.bases[number]))
        if not parts:
            return pa.array([], pa.large_string())
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        ids = pa.concat_arrays(parts).take(pa.array(rank))
        return shortened(ids) if short else ids

    def lengths(self, positions: Array) -> Array:
        """Returns the exact numbers of tokens of the documents at `positions`, uint32."""
        owner = np.searchsorted(self.bases, positions, side="right") - 1
        out = np.empty(len(positions), np.uint32)
        for number in np.unique(owner).tolist():
            mine = owner == number
            out[mine] = self.segments[number].lengths_N[positions[mine] - self.bases[number]]
        return out

    def positions(self, doc_ids: Iterable[str] | pa.Array, *, missing: str = "error") -> Array:
        """Returns the positions of live documents, int64.

        Args:
            doc_ids: external ids.
            missing: `error` raises DataError for an unknown id, `ignore` skips it.
        """
        in_memory = isinstance(doc_ids, pa.Array)
        ids: pa.Array = doc_ids if in_memory else pa.array(list(doc_ids), pa.large_string())
        positions = self.find(ids)
        unknown = ids.filter(pa.array(positions < 0))
        if missing == "error" and len(unknown):
            raise DataError(
                f"the index lacks {len(unknown):,} of {count(len(ids), 'document id')}, "
                f"the first: {unknown[0].as_py()!r}"
            )
        return positions[positions >= 0]

    def find(self, doc_ids: pa.Array) -> Array:
        """Returns the position of the live document with each id, int64; -1 where there is none."""
        if self.store is not None:
            rows = self.store.positions(doc_ids)
        else:
            rows = self._hashed.find(doc_ids)
        known = rows >= 0
        numbers = rows[known] if self.store is None else self.store.numbers(rows[known])
        rows[known] = self.at_numbers(numbers)
        return rows

    @cached_property
    def _hashed(self) -> HashIndex:
        """Finds ids where there is no store; built once for an opened index."""
        return HashIndex.build(
            self.id_parts(), len(self), lambda rows: self.pick_ids(self.at_numbers(rows))
        )

    def lookup(self, terms: Sequence[bytes]) -> tuple[list[Array], list[Array], list[int]]:
        """Finds terms.

        Returns their rows in each segment (`Segment.lookup`), in each how many of its deleted
        documents have them (int64), and how many live documents of the (whole) index.
        """
        rows = [segment.lookup(terms) for segment in self.segments]
        lost = [
            each.deletions.df(terms) if each.deletions else np.zeros(len(terms), np.int64)
            for each in self.segments
        ]
        if self.whole is not None:
            return rows, lost, [self.whole.df[term] for term in terms]
        df = sum((row[:, 2].astype(np.int64) - less for row, less in zip(rows, lost)), 0)
        return rows, lost, np.broadcast_to(df, len(terms)).tolist()

    def document_frequency(self, term: str) -> int:
        """Returns in how many documents `term` occurs, 0 if in none."""
        return self.lookup([encode_term(term)])[2][0]


def _finite(value: Any) -> Any:
    """Returns a value of a column, None for numbers that JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _of_live(segments: Sequence[Segment], values: Sequence[Array]) -> Array:
    pairs = zip(segments, values)
    return np.concatenate([v if s.deletions is None else v[s.live_N] for s, v in pairs])


def encode_term(term: str) -> bytes:
    """Returns a term's bytes in the dictionary, unpaired surrogates included."""
    return term.encode("utf-8", "surrogatepass")


class Vocabulary:
    """The distinct terms of an index.

    Attributes:
        terms: in ascending byte order.
        df_T: in how many documents each occurs.
    """

    def __init__(self, index: BowIndex) -> None:
        """Reads the segments' dictionaries."""
        self._index = index
        columns = []
        for segment in index.segments:
            names, numbers_TK, _, _ = segment.read_terms(0, segment.size)
            columns.append((names, numbers_TK[:, 0].astype(np.int64)))
            if segment.deletions is not None:
                losses = segment.deletions.losses()
                columns.append((losses.terms, -losses.df_T))
        everything = pa.chunked_array([names for names, _ in columns], pa.large_binary())
        distinct = pc.unique(everything)
        terms = distinct.take(pc.sort_indices(distinct))
        df_T = np.zeros(len(terms), np.int64)
        for names, df in columns:
            df_T[pc.index_in(names, value_set=terms).to_numpy()] += df
        self.terms = terms.filter(pa.array(df_T > 0))
        self.df_T = df_T[df_T > 0]

    def __len__(self) -> int:
        return len(self.terms)

    def slices(self, postings: int) -> Iterator[Slice]:
        """Yields terms, indptr (int64 [T + 1]), documents and tfs, about so many at a time.

        Documents are numbered as the live ones are, without gaps (`BowIndex.numbers`).
        """
        ends_T = np.cumsum(self.df_T)
        first = 0
        while first < len(self.terms):
            before = int(ends_T[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends_T, before + postings, side="right")))
            yield self._slice(first, last)
            first = last

    def _slice(self, first: int, last: int) -> Slice:
        names = self.terms.slice(first, last - first)
        owners, docs, tfs = [], [], []
        for segment, base in zip(self._index.segments, self._index.bases):
            a = segment.lower_bound(names[0].as_py())
            z = segment.lower_bound(names[len(names) - 1].as_py() + b"\x00")
            mine, numbers_TK, begin, before = segment.read_terms(a, z)
            indptr_T1, docs_P, tfs_P = segment.decode(numbers_TK, begin, before)
            places = pc.index_in(mine, value_set=names).fill_null(-1).to_numpy()
            owner_P = np.repeat(places, np.diff(indptr_T1))
            docs_P = docs_P.astype(np.int64)
            if segment.deletions is not None:  # all terms of live documents are among the names
                live_P = segment.deletions.live.has(docs_P)
                owner_P, docs_P, tfs_P = owner_P[live_P], docs_P[live_P], tfs_P[live_P]
            owners.append(owner_P)
            docs.append(self._index.numbers(docs_P + base))
            tfs.append(tfs_P)
        indptr_T1 = np.concatenate(([0], np.cumsum(self.df_T[first:last])))
        if len(docs) == 1:
            return names, indptr_T1, docs[0], tfs[0]
        order = np.argsort(np.concatenate(owners), kind="stable")
        return names, indptr_T1, np.concatenate(docs)[order], np.concatenate(tfs)[order]
