"""Why a document has its score: what each term of a query adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.index import BowIndex
from raydist.bow.search.exhaustive import document_lengths, term_postings
from raydist.bow.search.scoring import Collection, Scoring, Term

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Part:
    """What one term adds to a document's score."""

    term: str
    boost: float
    df: int
    tf: int
    weight: float
    score: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a document has its score.

    `constant` is what the document adds by itself; `score` the sum of it and the parts.
    """

    doc_id: str
    score: float
    length: int
    parts: tuple[Part, ...]
    constant: float = 0.0


def explain(
    index: BowIndex,
    scoring: Scoring,
    collection: Collection,
    terms: Sequence[tuple[str, Term]],
    rows: Sequence[Array],
    doc_id: str,
) -> Explanation:
    """Returns what each term adds to a document's score.

    Args:
        index: where the document is.
        scoring: the model.
        collection: what it knows of the collection.
        terms: the query's terms by name.
        rows: for each segment, where the terms' postings are (`BowIndex.lookup`).
        doc_id: the document's id; DataError where the index has no such document.
    """
    position = int(index.positions([doc_id])[0])
    number = int(np.searchsorted(index.bases, position, side="right")) - 1
    segment = index.segments[number]
    doc = np.array([position - index.bases[number]])
    length = document_lengths(segment, scoring, doc)
    parts = []
    for (name, term), row in zip(terms, rows[number]):
        if not row[0]:
            continue
        docs, tfs = term_postings(segment, row)
        at = int(np.searchsorted(docs, doc[0]))
        if at < len(docs) and docs[at] == doc[0]:
            part = scoring.parts(term, collection, tfs[at : at + 1], length)[0]
            weight = scoring.weight_of(term, collection)
            parts.append(Part(name, term.boost, term.df, int(tfs[at]), weight, float(part)))
    constant = 0.0
    if parts:
        added = scoring.constant(sum(term.boost for _, term in terms), length)
        constant = 0.0 if added is None else float(added[0])
    score = float(np.float32(sum(part.score for part in parts) + constant))
    return Explanation(doc_id, score, int(segment.lengths_N[doc[0]]), tuple(parts), constant)
