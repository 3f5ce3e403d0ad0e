"""Top-k search of a bag-of-words index.

Searches go through the pruned kernel, segment after segment, each starting from the k-th score of
those before. Weighted terms, hundreds of terms and more ties than fit its memory are scored
exhaustively. Both ways give the same bits.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.formulas import NORM_LENGTHS, lucene_inverse
from raydist.bow.index import BowIndex, encode_term
from raydist.bow.search import rank
from raydist.bow.search.exhaustive import Explanation, explain, occurrences, score_all
from raydist.bow.search.query import prepare
from raydist.bow.search.scoring import Collection, Scoring, Term
from raydist.bow.search.ties import TIES, best
from raydist.bow.search.workspace import MOST_TERMS, PerThread, SegmentArrays
from raydist.bow.spec import Bm25, BowSearchSpec
from raydist.errors import ConfigError
from raydist.kernels.addresses import addresses
from raydist.kernels.arrays import readonly
from raydist.kernels.bits import Bits
from raydist.records import RUN, Query, Run

Array = npt.NDArray[Any]
Ranking = tuple[Array, Array]
T = TypeVar("T")

_MOST_WORDS = 1024  # of a text that is ranked by one kernel
_MOST_COUNTS = 1 << 18  # terms whose occurrences are remembered
_NO_BYTES = readonly(np.empty(0, np.uint8))
_NO_LENGTHS = readonly(np.empty(0, np.uint32))
_NO_GROUPS = readonly(np.empty((0, 2), np.uint64))
_NOTHING = (np.empty(0, np.int64), np.empty(0, np.float32))


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
    ) -> None:
        """Prepares a search.

        Args:
            index: an opened index.
            search: the formula (an index of weighted terms has its own), ties and threads.
            only: ids of the documents to search; None is all.
            exclude: ids of documents to leave out.
            pruned: False scores every matching document, for comparison.

        Raises:
            ConfigError: an unknown name or a parameter out of bounds.
            DataError: an id in `only` or `exclude` that the index does not have.
        """
        if search.ties not in TIES:
            raise ConfigError(f"ties = {search.ties!r}: expected one of {', '.join(TIES)}")
        if search.threads < 1:
            raise ConfigError(f"threads = {search.threads}: expected at least 1")
        self.index = index
        self.ties = search.ties
        self._threads = search.threads
        mean = index.average_length
        collection = Collection(index.nonempty, index.tokens, mean, index.unit or 1.0)
        self.scoring = Scoring.of(search.scoring, collection, weighted=bool(index.unit))
        self._pruned = pruned and self.scoring.is_pruned
        formula = search.scoring if isinstance(search.scoring, Bm25) else Bm25()
        self._plain = self._pruned and self.scoring.is_lucenes and not formula.query_side
        self._inverse = readonly(lucene_inverse(NORM_LENGTHS, formula.k1, formula.b, mean))
        self._model = readonly(self.scoring.model_array())
        self._occurrences: dict[str, int] = {}
        self._restrict(self._flags(only, exclude))
        self._thread = PerThread(len(index.segments))

    @property
    def doc_ids(self) -> pa.LargeStringArray:
        """The ids of all live documents."""
        return self.index.doc_ids

    def only(self, doc_ids: Iterable[str] | pa.Array) -> BowRetriever:
        """Returns this search restricted to some documents; unknown ids are ignored."""
        return self._among(doc_ids, True)

    def without(self, doc_ids: Iterable[str] | pa.Array) -> BowRetriever:
        """Returns this search restricted to all other documents; unknown ids are ignored."""
        return self._among(doc_ids, False)

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

    def _address(self) -> None:
        """Collects the addresses of the segments' arrays for the kernels."""
        arrays: list[Array] = []
        exact = self._pruned and self.scoring.lengths == "exact"
        for segment, allowed in zip(self.index.segments, self._allowed):
            deletions = segment.deletions
            lost = (_NO_BYTES, _NO_GROUPS) if deletions is None else deletions.dictionary
            facts = [
                segment.size,
                int(segment.norms_N.max(initial=0)),
                deletions.size if deletions else 0,
                self._filter is not None,
            ]
            arrays += SegmentArrays(
                packed=segment.packed,
                raw_docs=segment.raw_docs,
                raw_tfs=segment.raw_tfs,
                norms=segment.norms_N,
                unchecked=segment.files.unchecked("postings"),
                allowed=_NO_BYTES if allowed is None else allowed.data,
                inverse=self._inverse,
                model=self._model,
                lengths=segment.lengths_N if exact else _NO_LENGTHS,
                terms=segment.dictionary[0],
                groups=segment.dictionary[1],
                lost_terms=lost[0],
                lost_groups=lost[1],
                facts=np.array(facts, np.uint64),
            )
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
        return self.run_of([(query.query_id, query.text) for query in queries], k, self.rank)

    def search_terms(self, queries: Sequence[tuple[str, Mapping[str, float]]], k: int) -> Run:
        """Does the same for queries of weighted terms, each an id and its weights."""
        return self.run_of(queries, k, self.rank_terms)

    def run_of(
        self, queries: Sequence[tuple[str, T]], k: int, rank: Callable[[T, int], Ranking]
    ) -> Run:
        """Returns the best `k` documents of queries, each an id and what `rank` takes."""
        rankings = self._map(lambda query: rank(query[1], k), queries)
        return self._run([query_id for query_id, _ in queries], rankings)

    def _map(self, rank: Callable[[Any], Ranking], queries: Sequence[Any]) -> list[Ranking]:
        if self._threads == 1 or len(queries) < 2:
            return [rank(query) for query in queries]
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(rank, queries))

    def _run(self, query_ids: Sequence[str], rankings: Sequence[Ranking]) -> Run:
        if not rankings:
            return Run(RUN.empty_table())
        docs = np.concatenate([docs for docs, _ in rankings])
        scores = np.concatenate([scores for _, scores in rankings])
        rows = np.repeat(np.arange(len(rankings)), [len(docs) for docs, _ in rankings])
        names = pa.array(query_ids, pa.large_string()).take(pa.array(rows))
        columns = [names, self.index.pick_ids(docs), pa.array(scores)]
        return Run(pa.table(columns, names=RUN.names))

    def rank(self, text: str, k: int) -> tuple[Array, Array]:
        """Returns the positions (int64) and scores (float32) of the best documents for a text."""
        if self.index.analyzer is None:
            raise ConfigError("this index has no analyzer: rank its weighted terms instead")
        if self._plain and k > 0:
            ranking = self._rank_text(text, min(k, max(1, len(self.index))))
            if ranking is not None:
                return ranking
        return self.rank_terms(Counter(self.index.analyzer.tokens(text)), k)

    def rank_terms(self, query: Mapping[str, float], k: int) -> tuple[Array, Array]:
        """Does the same for terms with their weights (in a text: how often each occurs)."""
        if k < 1:
            raise ConfigError(f"k = {k}: expected at least 1")
        k = min(k, max(1, len(self.index)))
        rows, lost, df = self.index.lookup([encode_term(term) for term in query])
        terms = self._terms(query, rows, df)
        if self._pruned and len(query) <= MOST_TERMS and min(query.values(), default=1) > 0:
            self._thread.workspace.enter(rows, lost, self._factors(terms), sum(query.values()))
            ranking = self._rank_segments(k)
            if ranking is not None:
                return ranking
        docs, scores = self._rank_all(rows, terms, sum(query.values()))
        return best(docs, scores, k, self.ties, self.index.pick_ids)

    def _rank_text(self, text: str, k: int) -> Ranking | None:
        """Ranks by the kernels; None for a query that they do not support."""
        assert self.index.analyzer is not None
        thread, documents = self._thread, self.index.nonempty
        numbers = thread.numbers(self.index.analyzer, text)
        table = thread.workspace.table
        if len(numbers) > _MOST_WORDS or not prepare(
            self._segments, thread.lexicon_table, table, numbers, documents
        ):
            return None
        return self._rank_segments(k)

    def explain(self, text: str, doc_id: str) -> Explanation:
        """Returns each term's part of a document's score for a text.

        Raises DataError where the index has no such document.
        """
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
        scored = [
            score_all(segment, each, terms, self.scoring, tokens, allowed)
            for segment, each, allowed in zip(self.index.segments, rows, self._allowed)
        ]
        docs = [docs + base for (docs, _), base in zip(scored, self.index.bases)]
        return np.concatenate(docs), np.concatenate([scores for _, scores in scored])

    def _rank_segments(self, k: int) -> Ranking | None:
        """Ranks by the terms in the workspace; None where there are too many ties for it."""
        workspace = self._thread.workspace
        if len(self.index.segments) == 1:
            count = self._rank_segment(0, k, 0.0)
            if count is None:
                return None
            if self.ties == "docid":
                count = min(count, k)
                return workspace.docs[:count].copy(), workspace.scores[:count].copy()
            docs, scores = workspace.docs[:count], workspace.scores[:count]
            return best(docs, scores, k, self.ties, self.index.pick_ids)
        docs, scores = _NOTHING
        floor = 0.0
        for number, base in enumerate(self.index.bases):
            count = self._rank_segment(number, k, floor)
            if count is None:
                return None
            docs = np.concatenate([docs, workspace.docs[:count] + base])
            scores = np.concatenate([scores, workspace.scores[:count]])
            if len(docs) >= k:
                floor = float(np.partition(scores, len(scores) - k)[len(scores) - k])
                enough = scores >= floor
                docs, scores = docs[enough], scores[enough]
        return best(docs, scores, k, self.ties, self.index.pick_ids)

    def _rank_segment(self, number: int, k: int, floor: float) -> int | None:
        """Returns how many candidates of a segment are in the workspace; None: too many ties."""
        segment = self.index.segments[number]
        workspace = self._thread.workspace
        rows = workspace.rows[number]
        if not segment.compress:
            for row in rows[: workspace.counts[number]].tolist():
                for name in ("docs", "tfs"):
                    segment.files.check(name, 4 * row[4], 4 * (row[4] + row[2]))
        size = segment.block_size
        while True:
            outcome, value = rank.rank(self._segments, workspace.table, number, size, k, floor)
            if outcome == rank.RANKED:
                return int(value)
            if outcome == rank.CROWDED:
                return None
            if outcome == rank.CRAMPED:
                df = rows[: workspace.counts[number], 2].tolist()
                workspace.grow(len(df) + 1, sum(-(-each // size) for each in df), size, k)
            else:
                row = rows[value].tolist()
                segment.files.check("postings", row[5], row[5] + row[3])
