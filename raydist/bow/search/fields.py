"""Search of an index of fields: by the weighted sum of the scores in them, or by BM25F.

Every document that matches is scored: the kernel of pruned search has one table of norms, and
bounds of sums over fields would be loose.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.index import BowIndex
from raydist.bow.search.bm25f import Combined
from raydist.bow.search.exhaustive import Explanation, TermScore
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import Bm25, Bm25F, BowSearchSpec
from raydist.errors import ConfigError
from raydist.records import Query, Run

Array = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]


class FieldsRetriever:
    """Searches the fields of an index.

    Attributes:
        index: of the first field; it has the documents' texts and columns.
    """

    def __init__(self, indexes: Mapping[str, BowIndex], search: BowSearchSpec) -> None:
        """Takes the index of each field, of one generation.

        Raises ConfigError for an unknown field, and for what an index of fields cannot do.
        """
        weights = dict.fromkeys(indexes, 1.0) if search.fields is None else search.fields
        for name in weights:
            if name not in indexes:
                raise ConfigError(f"fields.{name}: no such field; it has {', '.join(indexes)}")
        for name, value in (("feedback", search.feedback), ("syntax", search.syntax)):
            if value not in (None, "terms"):
                raise ConfigError(
                    f"{name}: needs an index of title and text as one; build it without fields="
                )
        formula = search.scoring
        combined = isinstance(formula, Bm25F)
        if not combined and (
            not isinstance(formula, Bm25) or formula.query_side or formula.sdm is not None
        ):
            raise ConfigError(
                "scoring: an index of fields has bm25, without query_side and sdm, and bm25f; "
                "leave the rest of scoring out, or build the index without fields="
            )
        self.index = next(iter(indexes.values()))
        alone = replace(search, scoring=Bm25()) if combined else search
        self._search = BowRetriever(self.index, alone)
        fields = {
            name: (np.float32(weight), indexes[name])
            for name, weight in weights.items()
            if indexes[name].tokens
        }
        self._scorer: Combined | WeightedSum
        if isinstance(formula, Bm25F):
            self._scorer = Combined(fields, formula, list(indexes))
        else:
            self._scorer = WeightedSum(fields, replace(search, filter=None, sort=None))

    @property
    def doc_ids(self) -> pa.LargeStringArray:
        """The ids of all live documents."""
        return self.index.doc_ids

    def only(self, doc_ids: Iterable[str] | pa.Array) -> FieldsRetriever:
        """Returns this search restricted to some documents; unknown ids are ignored."""
        return self._over(lambda search: search.only(doc_ids))

    def without(self, doc_ids: Iterable[str] | pa.Array) -> FieldsRetriever:
        """Returns this search restricted to all other documents; unknown ids are ignored."""
        return self._over(lambda search: search.without(doc_ids))

    def where(self, filter: str) -> FieldsRetriever:
        """Returns this search restricted to the documents that pass a filter."""
        return self._over(lambda search: search.where(filter))

    def _over(self, restricted: Callable[[BowRetriever], BowRetriever]) -> FieldsRetriever:
        other = copy.copy(self)
        other._search = restricted(self._search)
        return other

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """Returns the best `k` documents of each query; queries that match nothing have no rows."""
        texts = [(query.query_id, query.text) for query in queries]
        return self._search.run_of(texts, k, self.rank)

    def rank(self, text: str, k: int) -> tuple[Positions, Array]:
        """Returns the positions and scores of the best documents, those of the first field."""
        if k < 1:
            raise ConfigError(f"k = {k}: expected at least 1")
        numbers, scores = self._scorer.scores(self._counts(text), len(self.index))
        positions = self.index.at_numbers(numbers)
        if (flags := self._search.flags) is not None:
            among = flags[positions]
            positions, scores = positions[among], scores[among]
        return self._search.first(positions, scores, k)

    def explain(self, text: str, doc_id: str) -> Explanation:
        """Returns each term's part of a document's score for a text.

        Raises DataError where the index has no such document.
        """
        position = self.index.positions([doc_id])
        number = int(self.index.numbers(position)[0])
        return self._scorer.explain(self._counts(text), doc_id, number)

    def _counts(self, text: str) -> Counter[str]:
        assert self.index.analyzer is not None
        return Counter(self.index.analyzer.tokens(text))


class WeightedSum:
    """Adds the scores in the fields, times their weights.

    As Lucene scores a boolean query of boosted clauses, one for each field. It rounds each clause
    to float32 over its terms and then their sum; a clause with boost 1 becomes clauses of its
    terms, so that its sum is not rounded.
    """

    def __init__(
        self, fields: Mapping[str, tuple[np.float32, BowIndex]], search: BowSearchSpec
    ) -> None:
        """Takes the fields' weights and indexes, and how each is searched."""
        self._fields = {
            name: (weight, BowRetriever(index, search)) for name, (weight, index) in fields.items()
        }

    def scores(self, counts: Mapping[str, int], documents: int) -> tuple[Positions, Array]:
        """Returns the numbers and float32 scores of the documents with any of the terms."""
        sums_N = np.zeros(documents, np.float64)
        matched_N = np.zeros(documents, np.bool_)
        for weight, search in self._fields.values():
            docs, sums = search.sum_terms(_boosted(counts, weight))
            numbers = search.index.numbers(docs)
            sums_N[numbers] += sums if weight == 1 else sums.astype(np.float32)
            matched_N[numbers] = True
        numbers = np.flatnonzero(matched_N)
        return numbers, sums_N[numbers].astype(np.float32)

    def explain(self, counts: Mapping[str, int], doc_id: str, number: int) -> Explanation:
        """Returns each term's part of a document's score, field by field."""
        score = 0.0
        parts: list[TermScore] = []
        length = model_length = 0
        for name, (weight, search) in self._fields.items():
            own = search.explain_terms(_boosted(counts, weight), doc_id)
            score += sum(part.score for part in own.parts) if weight == 1 else own.score
            length += own.length
            model_length += own.model_length
            parts += [replace(each, term=f"{name}:{each.term}") for each in own.parts]
        return Explanation(doc_id, float(np.float32(score)), length, model_length, tuple(parts))


def _boosted(counts: Mapping[str, int], weight: np.float32) -> dict[str, float]:
    return {term: float(weight * np.float32(count)) for term, count in counts.items()}
