"""An opened bag-of-words index: its segments, their joint statistics and vocabulary.

Legend: T terms, P postings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raydist.bow.format.segment import Segment
from raydist.bow.formulas import mean_length
from raydist.data.store.reader import DocumentStore
from raydist.errors import DataError
from raydist.manifest import open_generation
from raydist.text.analyzer import Analyzer

Array = npt.NDArray[Any]
Slice = tuple[pa.LargeBinaryArray, Array, Array, Array]

KIND = "bow-index"
"""The kind in the manifest of an index folder."""


class BowIndex:
    """Segments that are searched as one collection.

    A document's position is its row in the input: the segments' documents one after another.

    Attributes:
        segments: in document order.
        bases: the position of each segment's first document.
        analyzer: how texts become terms; None for an index of weighted terms.
        folder: the index folder, None for loose segments.
        nonempty: documents with at least one token, the N of the formulas.
        tokens: tokens of all documents.
        store: the documents' texts, None where the index was built without.
        unit: the weight that an impact of 1 stands for, in an index of weighted terms; else 0.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        analyzer: Analyzer | None,
        *,
        folder: Path | None = None,
        store: DocumentStore | None = None,
        unit: float = 0.0,
    ) -> None:
        """Joins opened segments."""
        self.segments = list(segments)
        self.bases = list(accumulate((s.documents for s in self.segments), initial=0))[:-1]
        self.analyzer = analyzer
        self.folder = folder
        self.nonempty = sum(segment.nonempty for segment in self.segments)
        self.tokens = sum(segment.tokens for segment in self.segments)
        self.unit = unit
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

        def load(manifest: Mapping[str, Any]) -> BowIndex:
            analyzer, store = manifest.get("analyzer"), manifest.get("store")
            return cls(
                [Segment.open(root / s, in_memory=in_memory) for s in manifest["segments"]],
                None if analyzer is None else Analyzer.from_dict(analyzer),
                folder=root,
                store=DocumentStore.open(root / store) if store else None,
                unit=manifest.get("unit", 0.0),
            )

        index = open_generation(root, [KIND], load)
        if verify:
            index.verify()
        return index

    def verify(self) -> None:
        """Checks every byte of the segments and of the documents' texts.

        Raises ArtifactError naming the file that is damaged.
        """
        for segment in self.segments:
            segment.files.verify()
        if self.store is not None:
            self.store.verify()

    def __len__(self) -> int:
        """All documents, those without tokens included."""
        return sum(segment.documents for segment in self.segments)

    @property
    def average_length(self) -> float:
        """Mean tokens of the documents that have any, as Lucene rounds it."""
        return mean_length(self.tokens, self.nonempty)

    @cached_property
    def doc_ids(self) -> pa.StringArray:
        """External ids by position, decoded."""
        return pa.concat_arrays([segment.doc_ids for segment in self.segments])

    def pick_ids(self, positions: Array) -> pa.StringArray:
        """Returns the external ids of the documents at `positions`."""
        if len(self.segments) == 1:
            return self.segments[0].pick_ids(positions)
        owner = np.searchsorted(self.bases, positions, side="right") - 1
        order = np.argsort(owner, kind="stable")
        parts = []
        for number, segment in enumerate(self.segments):
            own = positions[owner == number]
            if len(own):
                parts.append(segment.pick_ids(own - self.bases[number]))
        if not parts:
            return pa.array([], pa.string())
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return pa.concat_arrays(parts).take(pa.array(rank))

    def positions(self, doc_ids: Iterable[str], *, missing: str = "error") -> Array:
        """Returns the positions of documents, int64.

        Args:
            doc_ids: external ids.
            missing: `error` raises DataError for an unknown id, `ignore` skips it.
        """
        ids = pa.array(list(doc_ids), pa.string())
        rows = pc.index_in(ids, value_set=self.doc_ids)
        if missing == "error" and rows.null_count:
            unknown = ids.filter(rows.is_null())
            raise DataError(
                f"{len(unknown)} of {len(ids)} document ids are not in the index, "
                f"the first: {unknown[0].as_py()!r}"
            )
        return np.asarray(rows.drop_null().to_numpy(zero_copy_only=False), np.int64)

    def lookup(self, terms: Sequence[bytes]) -> tuple[list[Array], list[int]]:
        """Returns the terms' rows in each segment (`Segment.lookup`) and their df in the index."""
        rows = [segment.lookup(terms) for segment in self.segments]
        df: list[int] = sum((each[:, 2] for each in rows[1:]), rows[0][:, 2]).tolist()
        return rows, df

    def document_frequency(self, term: str) -> int:
        """Returns in how many documents `term` occurs, 0 if in none."""
        return self.lookup([encode_term(term)])[1][0]


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
        columns = [segment.read_terms(0, segment.size) for segment in index.segments]
        everything = pa.chunked_array([each[0] for each in columns], pa.large_binary())
        distinct = pc.unique(everything)
        self.terms = distinct.take(pc.sort_indices(distinct))
        self.df_T = np.zeros(len(self.terms), np.int64)
        for names, numbers_TK, _, _ in columns:
            places = pc.index_in(names, value_set=self.terms).to_numpy()
            self.df_T[places] += numbers_TK[:, 0].astype(np.int64)

    def __len__(self) -> int:
        return len(self.terms)

    def slices(self, postings: int) -> Iterator[Slice]:
        """Yields terms, indptr (int64 [T + 1]), documents and tfs, about so many at a time.

        Documents are positions in the index.
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
            places = pc.index_in(mine, value_set=names).to_numpy()
            owners.append(np.repeat(places, np.diff(indptr_T1)))
            docs.append(docs_P.astype(np.int64) + base)
            tfs.append(tfs_P)
        indptr_T1 = np.concatenate(([0], np.cumsum(self.df_T[first:last])))
        if len(docs) == 1:
            return names, indptr_T1, docs[0], tfs[0]
        order = np.argsort(np.concatenate(owners), kind="stable")
        return names, indptr_T1, np.concatenate(docs)[order], np.concatenate(tfs)[order]
