"""Top-k search of a bag-of-words index.

Searches go through the pruned kernel, segment after segment, each starting from the k-th score of
those before. Impacts of weighted terms, more than 400 terms and millions of ties are scored
exhaustively. Both ways give the same bits.

Legend: Q queries, R rows of their results.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.formulas import NORM_LENGTHS, lucene_inverse
from raydist.bow.index import BowIndex, encode_term
from raydist.bow.lookup import by_id, term_counts
from raydist.bow.search.exhaustive import Explanation, explain, occurrences, sum_all
from raydist.bow.search.linking import link
from raydist.bow.search.query import FULL, rank_queries
from raydist.bow.search.rank import CRAMPED, CROWDED, UNCHECKED
from raydist.bow.search.scoring import Collection, Scoring, Term
from raydist.bow.search.sorting import column_keys, descending, first_by
from raydist.bow.search.threads import Pool
from raydist.bow.search.ties import TIES, best, settled
from raydist.bow.search.workspace import MOST_TERMS, PerThread, SegmentArrays, room_for
from raydist.bow.spec import Bm25, BowSearchSpec
from raydist.bow.weighted.ranker import WeightedRanker
from raydist.data.filters import passing
from raydist.errors import ConfigError
from raydist.kernels.addresses import addresses
from raydist.kernels.arrays import float_array, readonly
from raydist.kernels.bits import Bits
from raydist.records import RUN, Query, Run, as_run
from raydist.strings import repeated, shortened

Array = npt.NDArray[Any]
Ranking = tuple[Array, Array]
Rankings = tuple[Array, Array, Array]
"""Positions and scores, query after query, and how many of them each query has."""

Weigh = Callable[[Sequence[str]], Sequence[Mapping[str, float]]]
"""Turns texts into weighted terms."""

T = TypeVar("T")

_MOST_COUNTS = 1 << 18  # terms whose occurrences are remembered
_NO_BYTES = readonly(np.empty(0, np.uint8))
_NO_FLAGS = np.empty(0, np.bool_)
_NO_WORDS = readonly(np.empty(0, np.uint32))
_NO_GROUPS = readonly(np.empty((0, 2), np.uint64))
_ENTERED = (np.zeros(0, np.uint32), np.zeros(2, np.int64))  # no terms: the workspace has them


class BowRetriever:
    """Searches an index; the same queries always give the same ranking, bit for bit."""

    def __init__(
        self,
        index: BowIndex,
        search: BowSearchSpec = BowSearchSpec(),  # noqa: B008  frozen
        *,
        only: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        pruned: bool = True,
        weigh: Weigh | None = None,
    ) -> None:
        """Prepares a search.

        Args:
            index: an opened index.
            search: the formula (an index of weighted terms has its own), ties, threads, and the
                filter and the order by columns.
            only: ids of the documents to search; None is all.
            exclude: ids of documents to leave out.
            pruned: False scores every matching document, for comparison.
            weigh: turns texts into weighted terms, for an index of those.

        Raises:
            ConfigError: an unknown name, a parameter out of bounds, or no filter of the columns.
            DataError: an id in `only` or `exclude` that the index does not have.
        """
        if search.ties not in TIES:
            raise ConfigError(f"ties = {search.ties!r}: expected one of {', '.join(TIES)}")
        if search.threads < 1:
            raise ConfigError(f"threads = {search.threads}: expected at least 1")
        self.index = index
        self._weigh = weigh
        self.ties = search.ties
        self._pool = Pool(search.threads)
        mean = index.average_length
        collection = Collection(index.nonempty, index.tokens, mean, index.unit or 1.0)
        self.scoring = Scoring.of(search.scoring, collection, weighted=bool(index.unit))
        self._effort = search.effort if pruned and WeightedRanker.fits(index) else None
        self._pruned = pruned and self.scoring.is_pruned
        formula = search.scoring if isinstance(search.scoring, Bm25) else Bm25()
        self._plain = self._pruned and self.scoring.is_lucenes and not formula.query_side
        self._inverse = readonly(lucene_inverse(NORM_LENGTHS, formula.k1, formula.b, mean))
        self._model = readonly(self.scoring.model_array())
        self._occurrences: dict[str, int] = {}
        self._keys = None if search.sort is None else column_keys(search.sort, index.columns)
        flags = self._flags(only, exclude)
        self._restrict(flags if search.filter is None else self._passing(search.filter, flags))
        self._thread = PerThread(len(index.segments))

    @property
    def doc_ids(self) -> pa.LargeStringArray:
        """The ids of all live documents."""
        return self.index.doc_ids

    @property
    def is_pruned(self) -> bool:
        """Whether searches go through the pruned kernel."""
        return self._pruned and self._keys is None

    @property
    def is_weighted(self) -> bool:
        """Whether searches go through the kernels of weighted terms."""
        return self._weighted is not None and self._keys is None

    def only(self, doc_ids: Iterable[str] | pa.Array) -> BowRetriever:
        """Returns this search restricted to some documents; unknown ids are ignored."""
        return self._among(doc_ids, True)

    def without(self, doc_ids: Iterable[str] | pa.Array) -> BowRetriever:
        """Returns this search restricted to all other documents; unknown ids are ignored."""
        return self._among(doc_ids, False)

    def where(self, filter: str) -> BowRetriever:
        """Returns this search restricted to the documents that pass a filter (data/filters.py).

        Scores stay the same: the statistics are those of the whole index.

        Raises ConfigError for what is no filter of the index's columns.
        """
        other = copy.copy(self)
        other._restrict(self._passing(filter, self._filter))
        return other

    def unsorted(self) -> BowRetriever:
        """Returns this search with the best documents, not the first by a column."""
        other = copy.copy(self)
        other._keys = None
        return other

    def _passing(self, filter: str, flags: Array | None) -> Array:
        passed = passing(filter, self.index.columns)
        return passed if flags is None else flags & passed

    def _among(self, doc_ids: Iterable[str] | pa.Array, chosen: bool) -> BowRetriever:
        flags = np.full(self.index.end, not chosen)
        flags[self.index.positions(doc_ids, missing="ignore")] = chosen
        if self._filter is not None:
            flags &= self._filter
        other = copy.copy(self)
        other._restrict(flags)
        return other

    def _restrict(self, flags: Array | None) -> None:
        """Searches the live documents whose flags are true (bool by position), None for all."""
        self._filter = flags
        self._allowed: list[Bits | None] = []
        for segment, base in zip(self.index.segments, self.index.bases):
            allowed = None if segment.deletions is None else segment.deletions.live
            if flags is not None:
                own = flags[base : base + segment.documents]
                allowed = Bits.of(own if allowed is None else own & allowed.flags)
            self._allowed.append(allowed)
        self._address()

    @property
    def flags(self) -> Array | None:
        """Which live documents are searched (bool by position), None for all."""
        return self._filter

    def allowed(self, number: int) -> Bits | None:
        """Returns the documents of a segment that are searched, None for all."""
        return self._allowed[number]

    def _address(self) -> None:
        """Collects the addresses of the segments' arrays for the kernels."""
        arrays: list[Array] = []
        exact = self._pruned and self.scoring.lengths == "exact"
        for segment, allowed, base in zip(self.index.segments, self._allowed, self.index.bases):
            deletions = segment.deletions
            lost = (_NO_BYTES, _NO_GROUPS) if deletions is None else deletions.dictionary
            facts = [
                segment.size,
                int(segment.slot_norms_N.max(initial=0)),
                deletions.size if deletions else 0,
                self._filter is not None,
                segment.block_size,
                base,
                segment.layout,
            ]
            docs, tfs = (
                _NO_FLAGS if segment.compress else segment.files.unchecked(name)
                for name in ("docs", "tfs")
            )
            arrays += SegmentArrays(
                packed=segment.packed,
                raw_docs=segment.raw_docs,
                raw_tfs=segment.raw_tfs,
                norms=segment.slot_norms_N,
                order=_NO_WORDS if segment.order_N is None else segment.order_N,
                unchecked=segment.files.unchecked("postings"),
                unchecked_docs=docs,
                unchecked_tfs=tfs,
                allowed=segment.slots_of(allowed),
                inverse=self._inverse,
                model=self._model,
                lengths=readonly(segment.by_slot(segment.lengths_N)) if exact else _NO_WORDS,
                terms=segment.dictionary[0],
                groups=segment.dictionary[1],
                lost_terms=lost[0],
                lost_groups=lost[1],
                facts=np.array(facts, np.uint64),
            )
        self._weighted: WeightedRanker | None = None
        if self._effort is not None:
            self._weighted = WeightedRanker(self.index, self._allowed, self._effort)
        self._arrays = arrays  # `_segments` has their addresses alone
        self._segments = addresses(arrays)

    def _flags(self, only: Iterable[str] | None, exclude: Iterable[str] | None) -> Array | None:
        """Returns which documents to search (bool by position), None for all."""
        if only is None and exclude is None:
            return None
        flags = np.full(self.index.end, only is None)
        if only is not None:
            flags[self.index.positions(only)] = True
        if exclude is not None:
            flags[self.index.positions(exclude)] = False
        return flags

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """Returns the best `k` documents of each query; queries that match nothing have no rows."""
        if self._weigh is not None:
            weighted = self._weigh([query.text for query in queries])
            return self.search_terms([(q.query_id, w) for q, w in zip(queries, weighted)], k)
        plain = self._plain and self._keys is None
        if not plain or k < 1 or self.index.analyzer is None:
            return self.run_of([(query.query_id, query.text) for query in queries], k, self.rank)
        k = self._most(k)
        texts = [query.text for query in queries]
        parts = self._pool.map(lambda part: self._rank_texts(part, k), self._pool.split(texts, k))
        return self._run([query.query_id for query in queries], parts, finite=True)

    def search_terms(self, queries: Sequence[tuple[str, Mapping[str, float]]], k: int) -> Run:
        """Does the same for queries of weighted terms, each an id and its weights."""
        return self.run_of(queries, k, self.rank_terms)

    def run_of(
        self, queries: Sequence[tuple[str, T]], k: int, rank: Callable[[T, int], Ranking]
    ) -> Run:
        """Returns the best `k` documents of queries, each an id and what `rank` takes."""
        rankings = self.each(lambda query: rank(query[1], k), queries)
        parts = [(docs, scores, np.array([len(docs)])) for docs, scores in rankings]
        return self._run([query_id for query_id, _ in queries], parts)

    def each(self, rank: Callable[[T], Ranking], queries: Sequence[T]) -> list[Ranking]:
        """Returns what `rank` makes of each query, on as many threads as configured."""
        return self._pool.map(rank, queries)

    def _run(
        self, query_ids: Sequence[str], parts: Sequence[Rankings], finite: bool = False
    ) -> Run:
        if not parts:
            return Run(RUN.empty_table())
        docs_R, scores_R, sizes_Q = _joined(parts)
        if len(query_ids) == 1:
            names = repeated(query_ids[0], len(docs_R))
        else:
            rows = pa.array(np.repeat(np.arange(len(sizes_Q)), sizes_Q))
            names = shortened(pa.array(query_ids, pa.large_string()).take(rows))
        columns = [names, self.index.pick_ids(docs_R, short=True), float_array(scores_R)]
        if all(isinstance(column, pa.StringArray) for column in columns[:2]):
            table = pa.Table.from_arrays(columns, schema=RUN)
        else:  # in parts
            table = as_run(pa.table(columns, names=RUN.names))
        finite = finite or bool(np.isfinite(scores_R).all())
        if len(set(query_ids)) < len(query_ids) or not finite:
            return Run(table)  # which says what is wrong
        return Run.of_checked(table)

    def _most(self, k: int) -> int:
        return min(k, max(1, len(self.index)))

    def rank(self, text: str, k: int) -> tuple[Array, Array]:
        """Returns the positions (int64) and scores (float32) of the best documents for a text."""
        if self._weigh is not None:
            return self.rank_terms(self._weigh([text])[0], k)
        if self.index.analyzer is None:
            raise ConfigError("this index has no analyzer: rank its weighted terms instead")
        if self._plain and self._keys is None and k > 0:
            docs, scores, _ = self._rank_texts([text], self._most(k))
            return docs, scores
        return self.rank_terms(Counter(self.index.analyzer.tokens(text)), k)

    def rank_terms(self, query: Mapping[str, float], k: int) -> tuple[Array, Array]:
        """Does the same for terms with their weights (in a text: how often each occurs)."""
        if k < 1:
            raise ConfigError(f"k = {k}: expected at least 1")
        k = self._most(k)
        if self._weighted is not None and self._keys is None:
            ranking = self._weighted.rank(query, k)
            if ranking is not None:
                return best(*ranking, k, self.ties, self.index.pick_ids)
        rows, lost, df = self.index.lookup([encode_term(term) for term in query])
        terms = self._terms(query, rows, df)
        if self.is_pruned and len(query) <= MOST_TERMS and min(query.values(), default=1) > 0:
            thread = self._thread
            thread.shrink(k)
            thread.workspace.enter(rows, lost, self._factors(terms), sum(query.values()))
            (docs, scores, sizes), ranked = self._kernel(*_ENTERED, 0, k)
            if ranked:
                docs, scores, _ = settled(docs, scores, sizes, k, self.ties, self.index.pick_ids)
                return docs, scores
        return self._rank_exhaustively(query, rows, terms, k)

    def sum_terms(self, query: Mapping[str, float]) -> Ranking:
        """Returns the positions and unrounded scores of all documents that match."""
        rows, _, df = self.index.lookup([encode_term(term) for term in query])
        return self._sum_all(rows, self._terms(query, rows, df), sum(query.values()))

    def _rank_exhaustively(
        self, query: Mapping[str, float], rows: Sequence[Array], terms: Sequence[Term], k: int
    ) -> Ranking:
        return self.first(*self._rank_all(rows, terms, sum(query.values())), k)

    def first(self, docs: Array, scores: Array, k: int) -> Ranking:
        """Returns the first k of all matching documents: the best, or those by a column."""
        if self._keys is not None:
            docs, scores = first_by(self._keys, docs, scores, k)
            # Those of a part of an index are merged with others by their scores.
            return docs, scores if self.index.whole is not None else descending(len(docs))
        return best(docs, scores, k, self.ties, self.index.pick_ids)

    def _rank_texts(self, texts: Sequence[str], k: int) -> Rankings:
        """Ranks texts by Lucene's BM25, most or all of them in one call of the kernel."""
        analyzer, thread = self.index.analyzer, self._thread
        assert analyzer is not None
        thread.shrink(k)
        terms_W, bounds = thread.numbers(analyzer, texts)
        part, ranked = self._kernel(terms_W, bounds, 0, k)
        parts = [part]
        while ranked < len(texts):
            # The kernel does not take this query.
            query = Counter(analyzer.tokens(texts[ranked]))
            rows, _, df = self.index.lookup([encode_term(term) for term in query])
            docs, scores = self._rank_all(rows, self._terms(query, rows, df), query.total())
            order = np.lexsort((docs, -scores))
            parts.append((docs[order], scores[order], np.array([len(docs)])))
            part, ranked = self._kernel(terms_W, bounds, ranked + 1, k)
            parts.append(part)
        return settled(*_joined(parts), k, self.ties, self.index.pick_ids)

    def _kernel(self, terms_W: Array, bounds_Q1: Array, first: int, k: int) -> tuple[Rankings, int]:
        """Ranks queries from `first` on, up to the end or to one that the kernel does not take.

        Returns their rankings, with all ties at the k-th if ids decide between these, and the query
        where it stopped. Without terms it ranks those in the workspace.
        """
        thread, index = self._thread, self.index
        workspace, count = thread.workspace, len(bounds_Q1) - 1
        entered, tied = bounds_Q1 is _ENTERED[1], self.ties != "docid"
        room = k * max(1, count - first)
        if tied or len(index.segments) > 1:
            room += k
        sizes = np.zeros(count, np.int64)
        parts: list[tuple[Array, Array]] = []
        q = first
        link(workspace)
        while True:
            docs, scores = np.empty(room, np.int64), np.empty(room, np.float32)
            outcome, q, rows, number, value = rank_queries(
                self._segments, thread.lexicon_table, workspace.table, terms_W, bounds_Q1, q,
                entered, index.nonempty, k, tied, docs, scores, sizes,
            )  # fmt: skip
            if rows or not parts:
                parts.append((docs[:rows], scores[:rows]))
            if outcome == FULL:
                room = max(room, value)
            elif outcome not in (CRAMPED, CROWDED, UNCHECKED) or not self._help(
                outcome, number, value, k
            ):
                break
        docs, scores = parts[0]
        if len(parts) > 1:
            docs, scores = (np.concatenate(column) for column in zip(*parts))
        return (docs, scores, sizes[first:q]), q

    def _help(self, outcome: int, number: int, value: int, k: int) -> bool:
        """Does what the kernel needs for a segment; returns whether it can go on."""
        segment, workspace = self.index.segments[number], self._thread.workspace
        rows = workspace.rows[number]
        if outcome == CROWDED:
            return workspace.crowd(segment.documents)
        if outcome == CRAMPED:
            df, size = rows[: workspace.counts[number], 2].tolist(), segment.block_size
            blocks = sum(-(-each // size) for each in df)
            workspace.grow(len(df) + 1, blocks, size, room_for(k))
            return True
        row = rows[value].tolist()
        segment.files.check("postings", row[5], row[5] + row[3])
        if not segment.compress:
            for name in ("docs", "tfs"):
                segment.files.check(name, 4 * row[4], 4 * (row[4] + row[2]))
        return True

    def df(self, terms: Sequence[str]) -> list[int]:
        """Returns in how many documents terms occur."""
        return self.index.lookup([encode_term(term) for term in terms])[2]

    def term_counts(self, positions: Array) -> list[dict[str, int]]:
        """Returns the terms of documents in byte order with their frequencies."""
        return term_counts(self.index, positions)

    def at_id_ranks(self, ranks: Sequence[int]) -> list[int]:
        """Returns the positions of documents with tokens by their ranks in the order of ids."""
        positions: list[int] = by_id(self.index)[list(ranks)].tolist()
        return positions

    def explain(self, text: str, doc_id: str) -> Explanation:
        """Returns each term's part of a document's score for a text.

        Raises DataError where the index has no such document.
        """
        if self._weigh is not None:
            return self.explain_terms(self._weigh([text])[0], doc_id)
        if self.index.analyzer is None:
            raise ConfigError("this index has no analyzer: explain its weighted terms instead")
        return self.explain_terms(Counter(self.index.analyzer.tokens(text)), doc_id)

    def explain_terms(self, query: Mapping[str, float], doc_id: str) -> Explanation:
        """Does the same for terms with their weights."""
        rows, _, df = self.index.lookup([encode_term(term) for term in query])
        named = list(zip(query, self._terms(query, rows, df)))
        return explain(self.index, self.scoring, sum(query.values()), named, rows, doc_id)

    def _terms(
        self, query: Mapping[str, float], rows: Sequence[Array], df: Sequence[int]
    ) -> list[Term]:
        counts = [0] * len(df)
        if self.scoring.needs_occurrences:
            counts = self._count(list(query), rows)
        tokens = sum(query.values())
        terms = [Term(*values) for values in zip(query.values(), df, counts)]
        return [self.scoring.boosted(term, tokens) for term in terms]

    def _count(self, terms: Sequence[str], rows: Sequence[Array]) -> list[int]:
        """Returns how often each term occurs in the collection; its lists are read once."""
        if self.index.whole is not None:
            return [self.index.whole.occurrences[encode_term(term)] for term in terms]
        counts = self._occurrences
        unknown = [i for i, term in enumerate(terms) if term not in counts]
        if unknown:
            if len(counts) > _MOST_COUNTS:
                counts = self._occurrences = {}
                unknown = list(range(len(terms)))
            names = [terms[i] for i in unknown]
            fresh = occurrences(self.index.segments, [each[unknown] for each in rows])
            counts.update(zip(names, fresh))
        return [counts[term] for term in terms]

    def _factors(self, terms: Sequence[Term]) -> Array:
        """Returns each term's weight and statistic, 0 where no document has it."""
        scoring = self.scoring
        pairs = [(scoring.weight_of(t), scoring.statistic_of(t)) if t.df else (0, 0) for t in terms]
        return np.array(pairs, np.float64).reshape(-1, 2)

    def _rank_all(
        self, rows: Sequence[Array], terms: Sequence[Term], tokens: float
    ) -> tuple[Array, Array]:
        """Scores every matching document of all segments."""
        docs, sums = self._sum_all(rows, terms, tokens)
        return docs, sums.astype(np.float32)

    def _sum_all(
        self, rows: Sequence[Array], terms: Sequence[Term], tokens: float
    ) -> tuple[Array, Array]:
        scored = [
            sum_all(segment, each, terms, self.scoring, tokens, allowed)
            for segment, each, allowed in zip(self.index.segments, rows, self._allowed)
        ]
        docs = [docs + base for (docs, _), base in zip(scored, self.index.bases)]
        return np.concatenate(docs), np.concatenate([scores for _, scores in scored])


def _joined(parts: Sequence[Rankings]) -> Rankings:
    if len(parts) == 1:
        return parts[0]
    docs, scores, sizes = (np.concatenate(column) for column in zip(*parts))
    return docs, scores, sizes
