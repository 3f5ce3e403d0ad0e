"""A shard: some segments of an index, searched with the statistics of all of them.

It keeps nothing between two calls that it could not make again, so one that is lost is replaced by
opening it elsewhere.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist import storage
from raydist.bow.format.forward import has_forward
from raydist.bow.index import KIND, BowIndex, encode_term
from raydist.bow.lookup import counts_of_texts, term_counts
from raydist.bow.search.exhaustive import Explanation, occurrences
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.search.scoring import Scoring
from raydist.bow.search.sorting import sort_column
from raydist.bow.sharded.ranks import SortedIds
from raydist.bow.spec import BowSearchSpec
from raydist.bow.structured.query import Node
from raydist.bow.structured.retriever import StructuredRetriever
from raydist.bow.whole import Whole
from raydist.data.store.part import StorePart, headers, pieces_of
from raydist.data.store.reader import DocumentStore
from raydist.manifest import opening_generation
from raydist.records import Document

Array = npt.NDArray[Any]
ShardQuery = Mapping[str, float] | Node | None
"""Terms and their weights, or the tree of a structured query; None matches nothing."""

_REMEMBERED = 8  # searches among some documents


class Part(NamedTuple):
    """Which segments a shard has.

    Attributes:
        folder: the index, or its URI.
        manifest: of the index.
        segments: names of consecutive segments.
    """

    folder: str
    manifest: Mapping[str, Any]
    segments: tuple[str, ...]

    @property
    def patterns(self) -> list[str]:
        """Patterns of the files that it needs, relative to the folder."""
        deletions = self.manifest.get("deletions", {})
        folders = [*self.segments, *(deletions[n] for n in self.segments if n in deletions)]
        return [f"{folder}/*" for folder in folders]


class Facts(NamedTuple):
    """What a shard has.

    Attributes:
        end: documents, deleted ones included.
        live: those that are not.
        nonempty: live documents with at least one token.
        tokens: of these.
        has_vectors: whether it can tell the terms of documents.
    """

    end: int
    live: int
    nonempty: int
    tokens: int
    has_vectors: bool


class Restriction(NamedTuple):
    """Some of the documents.

    Attributes:
        key: the same for the same restriction.
        method: of the search: `only`, `without` or `where`.
        value: its argument.
    """

    key: str
    method: str
    value: Any


@dataclass(frozen=True, slots=True)
class Settings:
    """How shards search."""

    ties: str
    scoring: Scoring
    is_sorted: bool
    restrictions: tuple[Restriction, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells them from others."""
        return self.ties, self.scoring, self.is_sorted, *(each.key for each in self.restrictions)


class Answer(NamedTuple):
    """The best documents of a shard, query after query, in the order of the search.

    Attributes:
        docs_R: their positions in the whole index, int64.
        scores_R: float32; they are scores, too, where a column decides the order.
        sizes_Q: how many documents each query has, int64.
        ids_R: large_string.
        values_R: of the column that decides the order; None where scores do.
    """

    docs_R: Array
    scores_R: Array
    sizes_Q: Array
    ids_R: pa.Array
    values_R: pa.Array | None


class Shard:
    """Some segments of an index, opened; threads may share it."""

    def __init__(
        self, part: Part, first: int, spec: BowSearchSpec, texts: range | None = None
    ) -> None:
        """Opens the segments; of a remote index only their files are copied.

        Args:
            part: which segments.
            first: the position of their first document in the whole index.
            spec: how they are searched.
            texts: the numbers of its live documents in the whole index, where their texts are asked
                for.

        Raises:
            ArtifactError: a file is missing or damaged, or the index is of another generation now.
            JobError: the folder is not here.
        """
        store = part.manifest.get("store")
        patterns = part.patterns
        if texts is not None and store:
            beside = storage.local(part.folder, headers(store)) / store
            patterns = [*patterns, *(f"{name}/*" for name in pieces_of(beside, texts).names)]
        folder = storage.seen(storage.local(part.folder, patterns))
        manifest = {**part.manifest, "segments": list(part.segments), "store": None}
        with opening_generation(part.folder, folder, part.manifest, [KIND]):
            self._index = BowIndex.of(folder, manifest, in_memory=spec.in_memory)
        self._forward = all(map(has_forward, self._index.segments))
        self._texts = StorePart(folder / store, texts) if texts is not None and store else None
        self._store: DocumentStore | None = None
        reads_texts = spec.feedback is not None and not self._forward
        if store and reads_texts and not storage.is_remote(part.folder):  # all would be copied
            self._store = DocumentStore.open(folder / store)
        self._first = first
        self._spec = spec
        self._searches: dict[tuple[Any, ...], BowRetriever] = {}
        self._base: BowRetriever | None = None
        self._lock = Lock()

    def documents(self) -> int:
        """Returns how many live documents it has."""
        return len(self._index)

    @staticmethod
    def held(part: Part, *_: Any) -> int | None:
        """Returns how many bytes of a shard's files are copied here, None where nothing is."""
        return storage.held(part.folder, part.patterns)

    def facts(self) -> Facts:
        """Returns what the statistics of the whole index are made of."""
        index = self._index
        return Facts(index.end, len(index), index.nonempty, index.tokens, self._has_vectors)

    def prepare(self, whole: Whole) -> None:
        """Raises ConfigError for what this index cannot be asked."""
        search = _knowing(self._search_of(whole), whole)
        if self._spec.is_structured:
            StructuredRetriever(search)

    def count(self, terms: Sequence[bytes], occurring: bool) -> tuple[Array, Array]:
        """Returns in how many live documents terms occur, and if asked how often, int64."""
        rows, _, df = self._index.lookup(terms)
        counts = occurrences(self._index.segments, rows) if occurring and terms else []
        return np.array(df, np.int64), np.array(counts, np.int64)

    def rank(
        self, whole: Whole, settings: Settings, queries: Sequence[ShardQuery], k: int
    ) -> Answer:
        """Returns the best `k` documents of each query; `whole` knows the queries' terms."""
        search = self._search(whole, settings)
        structured = None
        if any(isinstance(query, Node) for query in queries):
            structured = StructuredRetriever(search)

        def rank(query: ShardQuery) -> tuple[Array, Array]:
            if isinstance(query, Mapping):
                return search.rank_terms(query, k)
            return (structured or StructuredRetriever(search)).rank_tree(query, k)

        rankings = search.each(rank, queries)
        docs = [docs for docs, _ in rankings]
        sizes_Q = np.array([len(each) for each in docs], np.int64)
        docs_R = np.concatenate([np.empty(0, np.int64), *docs])
        scores_R = np.concatenate([np.empty(0, np.float32), *(scores for _, scores in rankings)])
        values = None
        if settings.is_sorted and self._spec.sort is not None:
            columns = self._search_of(whole).index.columns
            assert columns is not None
            column = columns[sort_column(self._spec.sort, columns.column_names)[0]]
            values = column.combine_chunks().take(pa.array(docs_R))
        ids = self._index.pick_ids(docs_R)
        return Answer(docs_R + self._first, scores_R, sizes_Q, ids, values)

    @property
    def _has_vectors(self) -> bool:
        return self._forward or (self._store is not None and self._index.analyzer is not None)

    def vectors(self, positions: Array, live: int) -> list[dict[str, int]]:
        """Returns the terms of documents with their frequencies.

        Args:
            positions: of the documents in the whole index.
            live: documents of the shards before this one.
        """
        index, own = self._index, positions - self._first
        if self._forward:
            return term_counts(index, own)
        assert self._store is not None
        return counts_of_texts(index, self._store, own, index.numbers(own) + live)

    def ids_at_ranks(self, ranks: Sequence[int]) -> list[bytes]:
        """Returns the ids of documents with tokens by their ranks in the order of ids."""
        return [self._sorted[rank] for rank in ranks]

    def ids_below(self, ids: Sequence[bytes]) -> list[int]:
        """Returns how many documents with tokens have an id below each of some."""
        return self._sorted.below(ids)

    def positions_at_ranks(self, ranks: Sequence[int]) -> list[int]:
        """Returns the positions in the whole index of what `ids_at_ranks` returns the ids of."""
        positions: list[int] = (self._sorted.positions[list(ranks)] + self._first).tolist()
        return positions

    @cached_property
    def _sorted(self) -> SortedIds:
        return SortedIds(self._index)

    def explain(
        self, whole: Whole, settings: Settings, query: Mapping[str, float], doc_id: str
    ) -> Explanation | None:
        """Returns each term's part of a document's score, None where it is not here."""
        if self._index.find(pa.array([doc_id], pa.large_string()))[0] < 0:
            return None
        return self._search(whole, settings).explain_terms(query, doc_id)

    def ids_at(self, positions: Array) -> list[str]:
        """Returns the ids of documents; positions in the whole index."""
        ids: list[str] = self._index.pick_ids(positions - self._first).to_pylist()
        return ids

    def ids(self) -> pa.Array:
        """Returns the ids of the live documents."""
        return self._index.doc_ids

    def texts(self, doc_ids: Sequence[str]) -> list[Document | None]:
        """Returns the texts of the documents that it has, None for others."""
        assert self._texts is not None
        return self._texts.get(doc_ids)

    def _search_of(self, whole: Whole) -> BowRetriever:
        """Returns the search of all documents of the shard; `whole` need not know any terms."""
        with self._lock:
            if self._base is None:
                own = self._index
                index = BowIndex(
                    own.segments, own.analyzer, folder=own.folder, unit=own.unit,
                    field=own.field, whole=whole,
                )  # fmt: skip
                self._base = BowRetriever(index, self._spec)
            return self._base

    def _search(self, whole: Whole, settings: Settings) -> BowRetriever:
        """Returns the search that is asked for, for queries whose terms `whole` knows."""
        base, key = self._search_of(whole), settings.key
        with self._lock:
            if key not in self._searches:
                search = copy.copy(base)
                search.scoring = settings.scoring
                # The order by id cuts at k as Anserini does, which rounds scores afterwards.
                search.ties = "docid" if settings.ties == "docid" else "external"
                if not settings.is_sorted:
                    search = search.unsorted()
                for each in settings.restrictions:
                    search = getattr(search, each.method)(each.value)
                if len(self._searches) >= _REMEMBERED:
                    self._searches.pop(next(iter(self._searches)))
                self._searches[key] = search
            return _knowing(self._searches[key], whole)


def _knowing(search: BowRetriever, whole: Whole) -> BowRetriever:
    """Returns the search with the statistics of queries: those of others keep theirs."""
    search = copy.copy(search)
    search.index = copy.copy(search.index)
    search.index.whole = whole
    return search


def known(whole: Whole, terms: Sequence[bytes], counts: Sequence[tuple[Array, Array]]) -> Whole:
    """Returns the statistics with those of terms, from what each shard counts."""
    df = sum((own for own, _ in counts), np.zeros(len(terms), np.int64)).tolist()
    total = [own for _, own in counts if len(own)]
    occurring = np.sum(total, axis=0).tolist() if total else []
    return replace(whole, df=dict(zip(terms, df)), occurrences=dict(zip(terms, occurring)))


def encoded(terms: Sequence[str]) -> list[bytes]:
    """Returns distinct terms as dictionaries have them."""
    return [encode_term(term) for term in dict.fromkeys(terms)]
