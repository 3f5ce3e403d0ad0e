"""Expanded queries: RM3, Rocchio and BM25 feedback as Anserini computes them, all in float32.

A document's features are the terms that a model takes of it, with their values; a query is its
tokens in order.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raydist.bow.feedback.java import hash_order, length, units
from raydist.bow.feedback.spec import Bm25Prf, Rm3, Rocchio

Array = npt.NDArray[Any]
Float32 = np.float32
Query = dict[str, float]
"""The terms of an expanded query and their weights."""

_FREQUENT = Float32(0.1)  # share of the documents from which on a term says nothing
_EMPTY = Float32(0.001)  # norm of a document without features
_LATIN = re.compile(r"[a-z0-9]+")
_DIGITS = re.compile(r"[0-9]+")


class Features(NamedTuple):
    """Terms and their values, float32."""

    terms: list[str]
    values: Array

    def largest(self, count: int) -> Features:
        """Returns those of the largest values, equal ones in the order of their terms."""
        if len(self.terms) <= count:
            return self
        values, lesser = self.values, len(self.terms) - count
        among = np.flatnonzero(values >= np.partition(values, lesser)[lesser]).tolist()
        order = sorted(among, key=lambda i: (-values[i], units(self.terms[i])))[:count]
        return Features([self.terms[i] for i in order], values[order])

    def scaled(self, norm: float) -> Features:
        """Returns the features divided by a norm, as they are if it is 0."""
        if not norm:
            return self
        return Features(self.terms, (self.values.astype(np.float64) / norm).astype(np.float32))


def _sum(values: Array) -> float:
    return float(np.abs(values).sum(dtype=np.float64))


def _root(values: Array) -> float:
    return math.sqrt(float(np.square(values, dtype=np.float64).sum()))


def _counted(tokens: Iterable[str]) -> Features:
    counts = Counter(tokens)
    return Features(list(counts), np.array(list(counts.values()), np.float32))


def _joined(*parts: Features) -> tuple[list[str], list[Array]]:
    """Returns all terms, and the values of each part for them, 0 where it lacks one."""
    terms = list(dict.fromkeys(term for part in parts for term in part.terms))
    place = {term: i for i, term in enumerate(terms)}
    columns = []
    for part in parts:
        column = np.zeros(len(terms), np.float32)
        column[[place[term] for term in part.terms]] = part.values
        columns.append(column)
    return terms, columns


def _query(terms: Iterable[str], weights: Array) -> Query:
    return dict(zip(terms, weights.astype(np.float32).tolist()))


def document_features(
    counts: Mapping[str, int], df: Mapping[str, int], documents: int, latin: bool
) -> Features:
    """Returns the terms of a document that can expand a query, with their frequencies.

    They have 2 to 20 characters and are in no more than a tenth of the documents.

    Args:
        counts: the document's terms and their frequencies.
        df: how many documents have each.
        documents: how many there are that have tokens.
        latin: whether only letters from a to z and digits are taken.
    """
    terms = [
        term
        for term in counts
        if 2 <= length(term) <= 20
        if not latin or _LATIN.fullmatch(term)
        if Float32(df[term]) / Float32(documents) <= _FREQUENT
    ]
    return Features(terms, np.array([counts[term] for term in terms], np.float32))


# --- RM3 ------------------------------------------------------------------------------------------


def rm3(tokens: Sequence[str], documents: Sequence[Features], scores: Array, spec: Rm3) -> Query:
    """Returns the query, interpolated with the relevance model of the documents.

    Args:
        tokens: of the query.
        documents: features of the first ones of the ranking, the `spec.terms` largest of each.
        scores: of the same documents, float32.
        spec: the model's settings.
    """
    terms, columns = _joined(*documents)
    weights = np.zeros(len(terms), np.float32)
    for column, score in zip(columns, scores):
        norm = Float32(_sum(column))
        if norm > _EMPTY:
            weights += column / norm * score
    model = Features(terms, weights).largest(spec.terms)
    query = _counted(tokens)
    query, model = query.scaled(_sum(query.values)), model.scaled(_sum(model.values))
    terms, (own, new) = _joined(query, model)
    share = Float32(spec.weight)
    rest = (1.0 - float(share)) * new.astype(np.float64)
    return _query(terms, (share * own).astype(np.float64) + rest)


# --- Rocchio --------------------------------------------------------------------------------------


def rocchio(
    tokens: Sequence[str], relevant: Sequence[Features], other: Sequence[Features], spec: Rocchio
) -> Query:
    """Returns alpha query + beta mean(relevant) - gamma mean(other), where it is above 0."""
    query = _counted(tokens)
    terms, (own, more, less) = _joined(
        query.scaled(_root(query.values)),
        _mean(relevant, spec.terms),
        _mean(other, spec.negative_terms),
    )
    alpha, beta, gamma = map(Float32, (spec.alpha, spec.beta, spec.gamma))
    weights = alpha * own + beta * more - gamma * less
    return {term: weight for term, weight in zip(terms, weights.tolist()) if weight > 0}


def _mean(documents: Sequence[Features], count: int) -> Features:
    """Returns the largest values of the documents' mean, each document and the mean of length 1."""
    terms, columns = _joined(*documents)
    weights = np.zeros(len(terms), np.float32)
    for column in columns:
        norm = Float32(_root(column))
        if norm > _EMPTY:
            weights += column / norm
    mean = Features(terms, weights / Float32(max(1, len(documents)))).largest(count)
    return mean.scaled(_root(mean.values))


# --- BM25 feedback --------------------------------------------------------------------------------


def bm25prf(
    tokens: Sequence[str],
    relevant: Sequence[Sequence[str]],
    df: Mapping[str, int],
    documents: int,
    spec: Bm25Prf,
) -> Query:
    """Returns the query and terms of the relevant documents by their relevance weights.

    New are the terms of two documents or more whose offer weights are largest: the relevance
    weight, times the logarithm of how many of the documents have the term (Sakai and Robertson,
    SIGIR 2002).

    Args:
        tokens: of the query.
        relevant: the distinct terms of each of the first documents, ascending.
        df: how many documents have a term.
        documents: how many there are that have tokens.
        spec: the model's settings.
    """
    found = Counter(term for terms in relevant for term in terms)

    def weight(term: str, factor: float) -> float:
        r, n, hits = len(relevant), df[term], found[term]
        odds = (hits + 0.5) * (documents - n - r + hits + 0.5)
        odds /= (n - hits + 0.5) * (r - hits + 0.5)
        return max(math.log(odds) * factor, 1e-6)

    share = float(Float32(spec.weight))
    vocabulary = hash_order(term for terms in relevant for term in hash_order(terms))
    own = set(tokens)
    new = [
        term
        for term in vocabulary
        if found[term] > 1 and term not in own and 2 <= length(term) <= 20
        if _LATIN.fullmatch(term) and not _DIGITS.fullmatch(term)
    ]
    offers = {term: Float32(weight(term, share) * math.log(found[term])) for term in new}
    chosen = sorted(hash_order(new), key=lambda term: -offers[term])[: spec.terms]
    query = {term: weight(term, share) for term in chosen}
    query |= {term: weight(term, 1.0) for term in tokens}
    return _query(query, np.array(list(query.values())))
