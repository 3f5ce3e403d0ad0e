"""Searches an index by its shards: they are asked together, and their best documents are merged.

Two rounds a batch: first the shards count the queries' terms, then each ranks its documents with
the sums. Scores are those of one search of all segments, to the bit, and so is the order: the
shards' documents follow one another as the index's do.

Legend: Q queries, R rows of their results.
"""

from __future__ import annotations

import copy
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.index import BowIndex, encode_term
from raydist.bow.search.exhaustive import Explanation
from raydist.bow.search.retriever import Weigh
from raydist.bow.search.scoring import Collection, Scoring
from raydist.bow.search.sorting import column_keys, sort_column
from raydist.bow.search.ties import settled
from raydist.bow.sharded.ranks import at_ranks
from raydist.bow.sharded.shard import (
    Answer,
    Facts,
    Restriction,
    Settings,
    ShardQuery,
    encoded,
    known,
)
from raydist.bow.sharded.texts import ShardTexts
from raydist.bow.spec import Bm25, BowSearchSpec
from raydist.bow.structured.query import terms_of
from raydist.bow.structured.retriever import tree_of, trees_of
from raydist.bow.whole import Whole
from raydist.data.columns import TYPES
from raydist.data.filters import passing
from raydist.errors import ConfigError, DataError
from raydist.protocols import Group
from raydist.records import RUN, Query, Run, as_run
from raydist.text.analyzer import Analyzer

Array = npt.NDArray[Any]
Ranking = tuple[Array, Array]
T = TypeVar("T")

_ROWS = 1 << 20  # of all shards' answers at a time
_COLUMN = "value"
_CALLS = 8  # queries that are asked beside each other where each needs several rounds


class Merged(NamedTuple):
    """The best documents of all shards, query after query.

    Attributes:
        docs_R: their positions in the index, int64.
        ids_R: large_string.
        scores_R: float32.
        sizes_Q: how many documents each query has, int64.
    """

    docs_R: Array
    ids_R: pa.Array
    scores_R: Array
    sizes_Q: Array


class ShardedSearch:
    """A search of all shards; its answers are those of `BowRetriever` and `StructuredRetriever`.

    Attributes:
        index: the index without its segments: what it is and its statistics.
        scoring: the formula.
        ties: the order of equal scores.
        texts: the documents' texts, where the shards were opened with them; None without any.
        weigh: turns texts into weighted terms, for an index of those.
    """

    def __init__(
        self,
        shards: Group,
        facts: Sequence[Facts],
        folder: Path,
        manifest: Mapping[str, Any],
        spec: BowSearchSpec,
    ) -> None:
        """Takes the shards of an index, which follow one another.

        Raises ConfigError for what cannot be asked of the index.
        """
        self._shards = shards
        self._starts = list(accumulate((each.end for each in facts), initial=0))[:-1]
        self._lives = list(accumulate((each.live for each in facts), initial=0))[:-1]
        self._nonempty = [each.nonempty for each in facts]
        analyzer, unit = manifest.get("analyzer"), manifest.get("unit", 0.0)
        columns = [(name, TYPES[kind]) for name, kind in manifest.get("columns", {}).items()]
        self._whole = Whole(
            sum(self._nonempty),
            sum(each.tokens for each in facts),
            pa.schema(columns) if columns else None,
        )
        self.index = BowIndex(
            [],
            None if analyzer is None else Analyzer.from_dict(analyzer),
            folder=folder,
            unit=unit,
            field=manifest.get("field"),
            whole=self._whole,
        )
        mean = self.index.average_length
        collection = Collection(self._whole.nonempty, self._whole.tokens, mean, unit or 1.0)
        self.scoring = Scoring.of(spec.scoring, collection, weighted=bool(unit))
        self.ties: str = spec.ties
        self.texts = ShardTexts(shards, len(facts)) if manifest.get("store") else None
        self._spec = spec
        self.weigh: Weigh | None = None
        self._sort = spec.sort
        self._restrictions: tuple[Restriction, ...] = ()
        self._ask("prepare", self._whole)

    @property
    def doc_ids(self) -> pa.LargeStringArray:
        """The ids of all live documents."""
        return pa.concat_arrays(self._ask("ids"))

    @property
    def is_pruned(self) -> bool:
        """Whether this process needs the kernel of pruned search: the shards have it."""
        return False

    def only(self, doc_ids: Iterable[str] | pa.Array) -> Self:
        """Returns this search restricted to some documents; unknown ids are ignored."""
        return self._restricted("only", _array(doc_ids))

    def without(self, doc_ids: Iterable[str] | pa.Array) -> Self:
        """Returns this search restricted to all other documents; unknown ids are ignored."""
        return self._restricted("without", _array(doc_ids))

    def where(self, filter: str) -> Self:
        """Returns this search restricted to the documents that pass a filter.

        Raises ConfigError for what is no filter of the index's columns.
        """
        columns = self._whole.columns
        passing(filter, None if columns is None else columns.empty_table())
        return self._restricted("where", filter)

    def _restricted(self, method: str, value: Any) -> Self:
        other = copy.copy(self)
        other._restrictions = (*self._restrictions, Restriction(uuid.uuid4().hex, method, value))
        return other

    def unsorted(self) -> Self:
        """Returns this search with the best documents, not the first by a column."""
        other = copy.copy(self)
        other._sort = None
        return other

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """Returns the best `k` documents of each query; queries that match nothing have no rows.

        Raises DataError for a structured query that is not in the syntax.
        """
        return self._run([query.query_id for query in queries], self._parsed(queries), k)

    def search_terms(self, queries: Sequence[tuple[str, Mapping[str, float]]], k: int) -> Run:
        """Does the same for queries of weighted terms, each an id and its weights."""
        return self._run([name for name, _ in queries], [terms for _, terms in queries], k)

    def run_of(
        self, queries: Sequence[tuple[str, T]], k: int, rank: Callable[[T, int], Ranking]
    ) -> Run:
        """Returns the best `k` documents of queries, each an id and what `rank` takes."""
        with ThreadPoolExecutor(_CALLS) as pool:
            rankings = list(pool.map(lambda query: rank(query[1], k), queries))
        sizes = np.array([len(docs) for docs, _ in rankings], np.int64)
        docs_R = np.concatenate([np.empty(0, np.int64), *(docs for docs, _ in rankings)])
        scores_R = np.concatenate([np.empty(0, np.float32), *(scores for _, scores in rankings)])
        names = [name for name, _ in queries]
        return _as_run(names, Merged(docs_R, self._ids(docs_R), scores_R, sizes))

    def rank(self, text: str, k: int) -> Ranking:
        """Returns the positions (int64) and scores (float32) of the best documents for a text."""
        merged = self._rank(self._parsed([Query("", text)]), k)
        return merged.docs_R, merged.scores_R

    def rank_terms(self, query: Mapping[str, float], k: int) -> Ranking:
        """Does the same for terms with their weights."""
        merged = self._rank([query], k)
        return merged.docs_R, merged.scores_R

    def explain_terms(self, query: Mapping[str, float], doc_id: str) -> Explanation:
        """Returns each term's part of a document's score, for terms with their weights.

        Raises DataError where the index has no such document.
        """
        whole = self._known(list(query))
        answers = self._ask("explain", whole, self._settings, query, doc_id)
        for explanation in answers:
            if explanation is not None:
                return explanation  # type: ignore[no-any-return]
        raise DataError(f"the index lacks the document id {doc_id!r}")

    def df(self, terms: Sequence[str]) -> list[int]:
        """Returns in how many documents terms occur."""
        df = self._known(terms, occurring=False).df
        return [df[name] for name in map(encode_term, terms)]

    def term_counts(self, positions: Array) -> list[dict[str, int]]:
        """Returns the terms of documents in byte order with their frequencies."""
        return self._of_owners("vectors", positions, [(live,) for live in self._lives])

    def at_id_ranks(self, ranks: Sequence[int]) -> list[int]:
        """Returns the positions of documents with tokens by their ranks in the order of ids."""
        places = at_ranks(self._shards, self._nonempty, ranks)
        own: list[list[int]] = [[] for _ in self._nonempty]
        for number, rank in places:
            own[number].append(rank)
        asked = [(each,) if each else None for each in own]
        answers = [iter(each or ()) for each in self._shards.ask("positions_at_ranks", asked)]
        return [next(answers[number]) for number, _ in places]

    def _ids(self, positions: Array) -> pa.Array:
        return pa.array(self._of_owners("ids_at", positions), pa.large_string())

    def _of_owners(
        self, method: str, positions: Array, more: Sequence[Sequence[Any]] = ()
    ) -> list[Any]:
        """Returns what shards answer for each of their documents, in the order of the positions.

        `more` has each shard's further arguments.
        """
        owner = np.searchsorted(self._starts, positions, side="right") - 1
        places = [np.flatnonzero(owner == number) for number in range(len(self._starts))]
        answers = self._shards.ask(
            method,
            [
                (positions[own], *rest) if len(own) else None
                for own, rest in zip(places, more or [()] * len(places))
            ],
        )
        values: list[Any] = [None] * len(positions)
        for own, answer in zip(places, answers):
            for at, value in zip(own.tolist(), answer or ()):
                values[at] = value
        return values

    @property
    def _settings(self) -> Settings:
        return Settings(self.ties, self.scoring, self._sort is not None, self._restrictions)

    def _ask(self, method: str, *arguments: Any) -> list[Any]:
        """Calls a method of all shards with the same arguments; returns what they answer.

        A group that does without lost shards answers None for them.
        """
        answers = self._shards.ask(method, [arguments] * len(self._starts))
        return [each for each in answers if each is not None]

    def _parsed(self, queries: Sequence[Query]) -> list[ShardQuery]:
        if self.weigh is not None:
            return list(self.weigh([query.text for query in queries]))
        analyzer = self.index.analyzer
        if analyzer is None:
            raise ConfigError("this index has no analyzer: search by weighted terms instead")
        if self._spec.is_structured:
            sdm = self._spec.scoring.sdm if isinstance(self._spec.scoring, Bm25) else None
            parse = partial(tree_of, analyzer=analyzer, sdm=sdm)
            return [tree for _, tree in trees_of(queries, parse)]
        return [Counter(analyzer.tokens(query.text)) for query in queries]

    def _known(self, terms: Sequence[str], *, occurring: bool | None = None) -> Whole:
        """Returns the statistics with those of terms."""
        if occurring is None:
            occurring = self.scoring.needs_occurrences
        names = encoded(terms)
        return known(self._whole, names, self._ask("count", names, occurring))

    def _run(self, names: Sequence[str], queries: Sequence[ShardQuery], k: int) -> Run:
        step = max(1, _ROWS // (max(k, 1) * len(self._starts)))
        runs = [
            _as_run(names[i : i + step], self._rank(queries[i : i + step], k)).table
            for i in range(0, len(queries), step)
        ]
        if len(runs) == 1:
            return Run.of_checked(runs[0])
        return Run(pa.concat_tables(runs) if runs else RUN.empty_table())

    def _rank(self, queries: Sequence[ShardQuery], k: int) -> Merged:
        if k < 1:
            raise ConfigError(f"k = {k}: expected at least 1")
        terms = [
            term
            for query in queries
            for term in (
                query if isinstance(query, Mapping) else terms_of([query] if query else [])
            )
        ]
        whole = self._known(terms)
        answers = self._ask("rank", whole, self._settings, queries, k)
        sort = None
        if self._sort is not None and self._whole.columns is not None:
            falling = sort_column(self._sort, self._whole.columns.names)[1]
            sort = f"-{_COLUMN}" if falling else _COLUMN
        return merge(answers, k, self.ties, sort)


def merge(answers: Sequence[Answer], k: int, ties: str, sort: str | None) -> Merged:
    """Returns the best `k` of all answers, in the order of one search.

    Args:
        answers: of the shards in order, each with its best `k`.
        k: documents of each query.
        ties: the order of equal scores, one of TIES.
        sort: `value`, or `-value`, if the values of a column decide the order; None if scores do.
    """
    docs_R, scores_R = (np.concatenate([each[i] for each in answers]) for i in (0, 1))
    ids_R = pa.concat_arrays([each.ids_R for each in answers])
    sizes_Q = np.sum([each.sizes_Q for each in answers], axis=0)
    queries_R = np.concatenate([np.repeat(np.arange(len(a.sizes_Q)), a.sizes_Q) for a in answers])
    if sort is None:
        # Equal scores stay in the order of the shards.
        order = np.lexsort((-scores_R, queries_R))
        rows, scores_R, sizes_Q = settled(
            order, scores_R[order], sizes_Q, k, ties, lambda rows: ids_R.take(pa.array(rows))
        )
    else:
        values = pa.chunked_array([each.values_R for each in answers])
        keys_R = column_keys(sort, pa.table({_COLUMN: values}))
        order = np.lexsort((-scores_R, keys_R, queries_R))
        ranks = np.arange(len(order)) - np.repeat(np.cumsum(sizes_Q) - sizes_Q, sizes_Q)
        first = ranks < k
        rows, sizes_Q = order[first], np.minimum(sizes_Q, k)
        scores_R = (np.repeat(sizes_Q, sizes_Q) - ranks[first]).astype(np.float32)
    return Merged(docs_R[rows], ids_R.take(pa.array(rows)), scores_R, sizes_Q)


def _as_run(names: Sequence[str], merged: Merged) -> Run:
    rows = pa.array(np.repeat(np.arange(len(names)), merged.sizes_Q))
    columns = [pa.array(names, pa.large_string()).take(rows), merged.ids_R, merged.scores_R]
    return Run(as_run(pa.table(columns, names=RUN.names)))


def _array(doc_ids: Iterable[str] | pa.Array) -> pa.Array:
    return doc_ids if isinstance(doc_ids, pa.Array) else pa.array(list(doc_ids), pa.large_string())
