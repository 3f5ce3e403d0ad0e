"""Searches twice: the documents that a query finds first expand it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.feedback.axiom import axiom
from raydist.bow.feedback.expansion import bm25prf, document_features, rm3, rocchio
from raydist.bow.feedback.java import draws
from raydist.bow.feedback.spec import Axiom, Bm25Prf, Feedback, Rm3, Rocchio
from raydist.bow.lookup import has_vectors
from raydist.bow.search.exhaustive import Explanation
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.sharded.search import ShardedSearch
from raydist.bow.spec import Bm25
from raydist.errors import ConfigError
from raydist.records import Query, Run

Array = npt.NDArray[Any]
Search = BowRetriever | ShardedSearch

_REMEMBERED = 1 << 14  # documents whose terms are remembered
_REMEMBERED_TERMS = 1 << 18  # terms whose df is
_LETTERS = re.compile(r"[a-z]{2,}")


class FeedbackRetriever:
    """Searches an index with expanded queries.

    The terms of documents come from the forward index, or from the stored texts, analysed when they
    are first needed.

    Attributes:
        index: the index.
        feedback: the model.
    """

    def __init__(self, search: Search, feedback: Feedback) -> None:
        """Puts feedback behind a search.

        Raises:
            ConfigError: the index has no texts, or the model does not go with the search.
        """
        self.index = search.index
        self.feedback = feedback
        self._first = search.unsorted()
        if search.ties != "docid":
            self._first.ties = "external"  # its scores are not rounded
        scoring, formula = search.scoring, search.scoring.formula
        if isinstance(feedback, Bm25Prf) and scoring.model != "lucene":
            raise ConfigError("feedback.kind = 'bm25prf': expected scoring.kind=bm25")
        if isinstance(formula, Bm25):  # an expanded query has weights already
            formula = replace(formula, query_side=False)
        self._second = copy.copy(search)
        self._second.scoring = replace(
            scoring, formula=formula, idf=not isinstance(feedback, Bm25Prf)
        )
        if self.index.analyzer is None or not has_vectors(self.index):
            lack = (
                "an analyzer" if self.index.analyzer is None else "the documents' terms and texts"
            )
            raise ConfigError(
                f"feedback: {self.index.folder or 'the index'} lacks {lack}; build it from texts, "
                "with forward=true or store=true"
            )
        self._documents = _Documents(search, feedback)

    @property
    def doc_ids(self) -> pa.LargeStringArray:
        """The ids of all live documents."""
        return self._second.doc_ids

    @property
    def is_pruned(self) -> bool:
        """Whether searches go through the pruned kernel."""
        return self._first.is_pruned

    def only(self, doc_ids: Iterable[str] | pa.Array) -> FeedbackRetriever:
        """Returns this search restricted to some documents; unknown ids are ignored."""
        return self._over(lambda search: search.only(doc_ids))

    def without(self, doc_ids: Iterable[str] | pa.Array) -> FeedbackRetriever:
        """Returns this search restricted to all other documents; unknown ids are ignored."""
        return self._over(lambda search: search.without(doc_ids))

    def where(self, filter: str) -> FeedbackRetriever:
        """Returns this search restricted to the documents that pass a filter, both times."""
        return self._over(lambda search: search.where(filter))

    def _over(self, restricted: Callable[[Search], Search]) -> FeedbackRetriever:
        other = copy.copy(self)
        other._first, other._second = restricted(self._first), restricted(self._second)
        return other

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """Returns the best `k` documents of each query; queries that match nothing have no rows."""
        return self._second.run_of([(each.query_id, each.text) for each in queries], k, self.rank)

    def rank(self, text: str, k: int) -> tuple[Array, Array]:
        """Returns the positions (int64) and scores (float32) of the best documents for a text."""
        return self._second.rank_terms(self.expand(text), k)

    def explain(self, text: str, doc_id: str) -> Explanation:
        """Returns each term's part of a document's score, those of the expanded query.

        Raises DataError where the index has no such document.
        """
        return self._second.explain_terms(self.expand(text), doc_id)

    def expand(self, text: str) -> dict[str, float]:
        """Returns the expanded query of a text: its terms and their weights."""
        assert self.index.analyzer is not None
        spec, documents = self.feedback, self._documents
        tokens = self.index.analyzer.tokens(text)
        depth = spec.docs
        if isinstance(spec, Rocchio) and spec.negative:
            depth = max(depth, spec.depth)
        positions, scores = self._first.rank(text, depth)
        top = positions[: spec.docs]
        if isinstance(spec, Rm3):
            return rm3(tokens, documents(top), scores, spec)
        if isinstance(spec, Rocchio):
            last = positions[::-1][: spec.negative_docs if spec.negative else 0]
            return rocchio(tokens, documents(top), documents(last), spec)
        if isinstance(spec, Bm25Prf):
            relevant = documents(top)
            df = documents.df({*tokens, *(term for terms in relevant for term in terms)})
            return bm25prf(tokens, relevant, df, self.index.nonempty, spec)
        pool = documents(self._pool(top))
        return axiom(tokens, pool, documents.df(set(tokens)), self.index.nonempty, spec)

    def _pool(self, top: Array) -> list[int]:
        """Returns documents and others that are drawn from the index, without repetition."""
        pool = dict.fromkeys(top.tolist())
        for position in self._drawn:
            if len(pool) >= len(self._drawn):
                break
            pool[position] = None
        return list(pool)

    @cached_property
    def _drawn(self) -> list[int]:
        """The documents that a pool can need, in the order in which they are drawn."""
        spec, documents = self.feedback, self.index.nonempty
        assert isinstance(spec, Axiom)
        size = min(spec.docs * spec.pool, documents)
        distinct: dict[int, None] = {}
        for rank in draws(spec.seed, documents) if size else ():
            distinct[rank] = None
            if len(distinct) == size:
                break
        return self._first.at_id_ranks(list(distinct))


Counts = Mapping[str, int]


def _form(spec: Feedback) -> Callable[[_Documents, Counts], Any]:
    """Returns what a model takes of a document's terms."""
    if isinstance(spec, Rm3):
        latin, most = spec.filter, spec.terms
        return lambda documents, counts: documents.features(counts, latin).largest(most)
    if isinstance(spec, Rocchio):
        return lambda documents, counts: documents.features(counts, False)
    if isinstance(spec, Bm25Prf):
        return lambda _, counts: sorted(counts)
    return lambda _, counts: [term for term in counts if _LETTERS.fullmatch(term)]


class _Documents:
    """What a feedback model takes of documents, remembered."""

    def __init__(self, search: Search, spec: Feedback) -> None:
        self._search = search
        self._form = _form(spec)
        self._takes_df = isinstance(spec, Rm3 | Rocchio)
        self._forms: dict[int, Any] = {}
        self._df: dict[str, int] = {}

    def __call__(self, positions: Iterable[int] | Array) -> list[Any]:
        """Returns the forms of documents at positions."""
        wanted = [int(each) for each in positions]
        forms = {each: self._forms[each] for each in wanted if each in self._forms}
        missing = [each for each in wanted if each not in forms]
        if missing:
            new = dict(zip(missing, self._read(np.array(missing, np.int64))))
            forms |= new
            if len(self._forms) > _REMEMBERED:
                self._forms = {}
            self._forms |= new
        return [forms[each] for each in wanted]

    def _read(self, positions: Array) -> Iterable[Any]:
        documents = self._search.term_counts(positions)
        if self._takes_df:  # of all at once
            self.df({term for counts in documents for term in counts})
        return [self._form(self, counts) for counts in documents]

    def features(self, counts: Counts, latin: bool) -> Any:
        """Returns the terms of a document that can expand a query."""
        return document_features(counts, self.df(counts), self._search.index.nonempty, latin)

    def df(self, terms: Collection[str]) -> Mapping[str, int]:
        """Returns how many documents have each term, and perhaps some others."""
        known = self._df
        if missing := [term for term in terms if term not in known]:
            if len(known) > _REMEMBERED_TERMS:
                known = self._df = {}
                missing = list(terms)
            known.update(zip(missing, self._search.df(missing)))
        return known
