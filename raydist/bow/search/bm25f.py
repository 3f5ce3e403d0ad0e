"""BM25 of fields as one: BM25F (Robertson, Zaragoza and Taylor, CIKM 2004).

A term's frequency in a document is the weighted sum of those in its fields, and the document's
length that of theirs; of these BM25 is computed once. With one `b` these are the float32 steps of
Lucene's CombinedFieldQuery: lengths are summed as the norms have them, and their sum goes through a
norm again; N and df are the largest of a field, lengths' sum is weighted.

With a `b` per field (Zaragoza et al., TREC 2004) a frequency is divided by 1 - b + b length / mean
of its own field before they are summed. That is computed in double, from exact lengths; N and df
count the documents that have something, or the term, in any of the fields.

Legend: N live documents, M of them with a term.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raydist.bow.formulas import NORM_LENGTHS, lucene_idf, lucene_inverse, lucene_term, norm_bytes
from raydist.bow.index import BowIndex, encode_term
from raydist.bow.search.exhaustive import Explanation, TermScore, term_postings
from raydist.bow.spec import Bm25F
from raydist.errors import ConfigError

Array = npt.NDArray[Any]


class Matches(NamedTuple):
    """The documents of a term.

    Attributes:
        numbers_M: of the live documents, ascending.
        tf_M: the weighted sum of the frequencies, in float32 or double as the model computes it.
        df: as the model takes it.
    """

    numbers_M: Array
    tf_M: Array
    df: int


class Combined:
    """Scores documents by their fields as one."""

    def __init__(
        self,
        fields: Mapping[str, tuple[np.float32, BowIndex]],
        formula: Bm25F,
        known: Sequence[str],
    ) -> None:
        """Reads the lengths of all documents.

        Args:
            fields: weights and indexes of the fields that are searched and have tokens.
            formula: the parameters.
            known: all fields of the index; ConfigError where `field_b` names another.
        """
        self._fields = dict(sorted(fields.items()))
        self._k1 = formula.k1
        for name in formula.field_b or ():
            if name not in known:
                raise ConfigError(
                    f"scoring.field_b.{name}: no such field; it has {', '.join(known)}"
                )
        indexes = [index for _, index in self._fields.values()]
        size = len(indexes[0]) if indexes else 0
        self._b: dict[str, float] | None = None
        if formula.field_b is not None:
            self._b = {name: formula.field_b.get(name, formula.b) for name in self._fields}
        self._lengths = {name: each.live_lengths for name, (_, each) in self._fields.items()}
        self._tokens_N = np.zeros(size, np.int64)
        for own_N in self._lengths.values():
            self._tokens_N += own_N
        if self._b is not None:
            self._documents = int(np.count_nonzero(self._tokens_N))
            return
        self._documents = max((each.nonempty for each in indexes), default=0)
        tokens, length_N = 0, np.zeros(size, np.float32)
        for weight, index in self._fields.values():
            tokens = int(tokens + float(weight) * index.tokens)
            length_N += weight * NORM_LENGTHS[index.live_norms].astype(np.float32)
        rounded_N = np.floor(length_N.astype(np.float64) + 0.5).astype(np.int64)
        self._norm_N = norm_bytes(rounded_N)
        mean = float(np.float32(tokens / max(self._documents, 1)))
        self._inverse = lucene_inverse(NORM_LENGTHS, formula.k1, formula.b, mean)

    def scores(self, counts: Mapping[str, int], documents: int) -> tuple[Array, Array]:
        """Returns the numbers and float32 scores of the documents with any of the terms."""
        sums_N = np.zeros(documents, np.float64)
        matched_N = np.zeros(documents, np.bool_)
        for term, boost in counts.items():
            matches = self._matches(term)
            sums_N[matches.numbers_M] += self._parts(matches, self._weight(matches.df, boost))
            matched_N[matches.numbers_M] = True
        numbers = np.flatnonzero(matched_N)
        return numbers, sums_N[numbers].astype(np.float32)

    def explain(self, counts: Mapping[str, int], doc_id: str, number: int) -> Explanation:
        """Returns each term's part of a document's score."""
        parts = []
        for term, boost in counts.items():
            numbers_M, tf_M, df = self._matches(term)
            at = int(np.searchsorted(numbers_M, number))
            if at == len(numbers_M) or numbers_M[at] != number:
                continue
            mine, weight = (
                Matches(numbers_M[at : at + 1], tf_M[at : at + 1], df),
                self._weight(df, boost),
            )
            score, idf = float(self._parts(mine, weight)[0]), self._weight(df, 1)
            parts.append(TermScore(term, boost, df, float(tf_M[at]), idf, weight, score))
        length = model_length = int(self._tokens_N[number]) if self._fields else 0
        if parts and self._b is None:
            model_length = int(NORM_LENGTHS[self._norm_N[number]])
        score = float(np.float32(sum(part.score for part in parts)))
        return Explanation(doc_id, score, length, model_length, tuple(parts))

    def _weight(self, df: int, boost: float) -> float:
        return float(np.float32(boost) * lucene_idf(self._documents, df)) if df else 0.0

    def _matches(self, term: str) -> Matches:
        kind: Any = np.float32 if self._b is None else np.float64
        tf_N: Array = np.zeros(len(self._tokens_N), kind)
        df = 0
        for name, (weight, index) in self._fields.items():
            numbers, tfs = _postings(index, term)
            df = max(df, len(numbers))
            tfs = np.multiply(tfs, weight, dtype=kind)
            if self._b is not None:
                b, length_N = self._b[name], self._lengths[name]
                tfs = tfs / (1 - b + b * length_N[numbers] / index.average_length)
            tf_N[numbers] += tfs
        numbers_M = np.flatnonzero(tf_N)
        return Matches(numbers_M, tf_N[numbers_M], df if self._b is None else len(numbers_M))

    def _parts(self, matches: Matches, weight: float) -> Array:
        """Returns what a term adds to the scores of its documents, float64 [M]."""
        if self._b is not None:
            return weight * matches.tf_M / (self._k1 + matches.tf_M)
        inverse_M = self._inverse[self._norm_N[matches.numbers_M]]
        return lucene_term(np.float32(weight), matches.tf_M, inverse_M).astype(np.float64)


def _postings(index: BowIndex, term: str) -> tuple[Array, Array]:
    """Returns the numbers of the live documents with a term, ascending, and its frequencies."""
    numbers, frequencies = [np.zeros(0, np.int64)], [np.zeros(0, np.uint32)]
    rows, _, _ = index.lookup([encode_term(term)])
    for segment, base, row in zip(index.segments, index.bases, rows):
        if not row[0, 0]:
            continue
        docs, tfs = term_postings(segment, row[0])
        if segment.deletions is not None:
            live = segment.deletions.live.has(docs)
            docs, tfs = docs[live], tfs[live]
        numbers.append(index.numbers(docs.astype(np.int64) + base))
        frequencies.append(tfs)
    return np.concatenate(numbers), np.concatenate(frequencies)
