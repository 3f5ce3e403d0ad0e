"""Axiomatic expansion: terms that occur where the query's do, in a pool of documents.

Formulas, orders and cuts are Anserini's, with its deterministic draws. One thing is not: a query
that no term expands is searched as it is, where Anserini searches its text as a single term.

Legend: D documents of the pool, T terms of them, W terms of the documents one after another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.feedback.java import hash_order
from raydist.bow.feedback.spec import Axiom

Array = npt.NDArray[Any]
Float32 = np.float32

_MOST = 1000  # terms that are scored for one of the query
_LEAST = 1e-8  # of a score


def axiom(
    tokens: Sequence[str],
    pool: Sequence[Sequence[str]],
    df: Mapping[str, int],
    documents: int,
    spec: Axiom,
) -> dict[str, float]:
    """Returns the terms of the pool that share most information with the query's.

    Args:
        tokens: of the query.
        pool: the distinct terms of each document, of the letters a to z and two or more of them.
        df: how many documents have a term.
        documents: how many there are that have tokens.
        spec: the model's settings.
    """
    terms = sorted({term for doc in pool for term in doc})
    place = {term: i for i, term in enumerate(terms)}
    term_W = np.array([place[term] for doc in pool for term in doc], np.int64)
    sizes_D = np.array([len(doc) for doc in pool], np.int64)
    doc_W = np.repeat(np.arange(len(pool)), sizes_D)
    count_T = np.bincount(term_W, minlength=len(terms))
    total = int(np.count_nonzero(sizes_D))
    scores_T = np.zeros(len(terms), np.float64)
    counts = Counter(tokens)
    for term in hash_order(tokens):
        own = place.get(term)
        if own is None or not df[term]:
            continue
        has_D = np.zeros(len(pool), np.bool_)
        has_D[doc_W[term_W == own]] = True
        both_T = np.bincount(term_W[has_D[doc_W]], minlength=len(terms))
        shared_T = mutual_information(int(count_T[own]), count_T, both_T, total)
        idf, often = Float32(np.log((1 + documents) // df[term])), Float32(counts[term])
        with np.errstate(invalid="ignore"):
            part_T = float(idf * Float32(spec.beta) * often) * shared_T / shared_T[own]
        part_T[own] = idf * often
        best = _best(np.where(np.isnan(part_T), np.inf, part_T), max(spec.terms, _MOST))
        best = best[part_T[best] > _LEAST]
        scores_T[best] += part_T[best]
    known = np.flatnonzero(scores_T)
    scores = scores_T[known] / max(1, len(tokens))
    best = _best(scores, spec.terms)
    weights = scores[best].astype(np.float32).tolist()
    expanded = dict(zip([terms[i] for i in known[best].tolist()], weights))
    return expanded or {term: float(often) for term, often in counts.items()}


def _best(scores: Array, most: int) -> Array:
    """Returns the largest scores in order, equal ones as they are: half of them, `most` at most.

    Anserini takes one after the other from a queue while it is longer than what was taken.
    """
    return np.argsort(-scores, kind="stable")[: min(-(-len(scores) // 2), most)]


def mutual_information(own: int, count_T: Array, both_T: Array, total: int) -> Array:
    """Returns the information that a term's occurrence in documents has of others', float64 [T].

    Args:
        own: how many documents have the term.
        count_T: how many have each of the others.
        both_T: how many have both.
        total: how many documents there are.
    """

    def share(count: Any) -> Array:
        return np.asarray(count, np.float32) / Float32(total)

    x1, x0 = share(own), share(total - own)
    y1, y0 = share(count_T), share(total - count_T)
    only_x, only_y = own - both_T, count_T - both_T
    neither = total - both_T - only_x - only_y
    cells = ((neither, x0, y0), (only_x, x1, y0), (only_y, x0, y1), (both_T, x1, y1))
    sums_T = np.zeros(len(count_T), np.float64)
    for count, x, y in cells:
        p = share(count)
        with np.errstate(divide="ignore", invalid="ignore"):
            part = p.astype(np.float64) * np.log((p / (x * y)).astype(np.float64))
        sums_T += np.where(p > 0, part, 0.0)
    return np.where((own < total) & (count_T < total), sums_T, 0.0)
