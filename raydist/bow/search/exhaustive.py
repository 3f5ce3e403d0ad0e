"""Scores of every matching document, by any model and without pruning; explanations of scores.

Legend: N documents of a segment, M of them matching.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.format.segment import Segment
from raydist.bow.formulas import NORM_LENGTHS
from raydist.bow.index import BowIndex
from raydist.bow.search.scoring import Scoring, Term
from raydist.kernels.bits import Bits
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]


@kernel
def _add(sums_N: Array, matched_N: Array, docs: Array, parts: Array) -> None:
    for i in range(docs.shape[0]):
        sums_N[docs[i]] += parts[i]
        matched_N[docs[i]] = True


def term_postings(segment: Segment, row: Array) -> tuple[Array, Array]:
    """Decodes one term's documents and frequencies from its row of `Segment.lookup`."""
    numbers = row[None, 2:4].astype(np.uint64)
    _, docs, tfs = segment.decode(numbers, int(row[5]), int(row[4]))
    return docs, tfs


def term_slots(segment: Segment, row: Array) -> tuple[Array, Array]:
    """Does the same for their slots (order.py): in a reordered segment it is faster."""
    numbers = row[None, 2:4].astype(np.uint64)
    _, slots, tfs = segment.decode_slots(numbers, int(row[5]), int(row[4]))
    return slots, tfs


def occurrences(segments: Sequence[Segment], rows: Sequence[Array]) -> list[int]:
    """Returns how often each term occurs in the live documents."""
    counts = np.zeros(len(rows[0]), np.int64)
    for segment, rows_q in zip(segments, rows):
        for i in np.flatnonzero(rows_q[:, 0]).tolist():
            slots, tfs = term_slots(segment, rows_q[i])
            if segment.deletions is not None:
                tfs = tfs[segment.deletions.live.has(segment.documents_at(slots))]
            counts[i] += int(tfs.sum(dtype=np.int64))
    return counts.tolist()


def document_lengths(segment: Segment, scoring: Scoring, docs: Array) -> Array:
    """Returns the lengths of documents as the model takes them."""
    if scoring.lengths == "exact":
        return segment.lengths_N[docs].astype(np.int64)
    norms = segment.norms_N[docs]
    return norms.astype(np.int64) if scoring.lengths == "byte" else NORM_LENGTHS[norms]


def sum_all(
    segment: Segment,
    rows: Array,
    terms: Sequence[Term],
    scoring: Scoring,
    query_tokens: float,
    allowed: Bits | None,
) -> tuple[Array, Array]:
    """Returns the matching documents, ascending (int64 [M]), and their scores (float64 [M]).

    Rounded to float32 they are what a search returns.

    Args:
        segment: the segment to search.
        rows: the terms in its dictionary (`Segment.lookup`).
        terms: the same terms' statistics.
        scoring: the model.
        query_tokens: length of the query, unknown terms included.
        allowed: the documents to search, all if None; among them no deleted ones.
    """
    sums_N = np.zeros(segment.documents, np.float64)
    matched_N = np.zeros(segment.documents, np.bool_)
    for row, term in zip(rows, terms):
        if row[0] and term.df:
            slots, tfs = term_slots(segment, row)
            docs = segment.documents_at(slots)
            if allowed is not None:
                among = allowed.has(docs)
                docs, tfs = docs[among], tfs[among]
            lengths = document_lengths(segment, scoring, docs)
            _add(sums_N, matched_N, docs, scoring.parts(term, tfs, lengths))
    docs = np.flatnonzero(matched_N)
    scores = sums_N[docs]
    scoring.add_constants(query_tokens, document_lengths(segment, scoring, docs), scores)
    return docs, scores


@dataclass(frozen=True, slots=True)
class TermScore:
    """What one term adds to a document's score.

    Attributes:
        term: as it is in the index; or a phrase, or a pair of near terms.
        boost: its weight in the query.
        df: how many documents have it, None for several terms.
        tf: how often the document has it; of loose phrases and pairs, how closely.
        idf: what the model makes of `df`; None where it has no such factor.
        weight: the factor of its part: in most models boost and idf.
        score: its part of the score.
    """

    term: str
    boost: float
    df: int | None
    tf: float
    idf: float | None
    weight: float
    score: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a document has its score.

    Attributes:
        doc_id: the document's.
        score: the sum of the parts and the constant, as float32; of structured queries rounded so
            at each boolean query.
        length: its tokens.
        model_length: its length as the model takes it: Lucene rounds it into a byte.
        parts: of the query's terms that it has.
        constant: its own part, whatever its terms.
    """

    doc_id: str
    score: float
    length: int
    model_length: int
    parts: tuple[TermScore, ...]
    constant: float = 0.0


def explain(
    index: BowIndex,
    scoring: Scoring,
    query_tokens: float,
    terms: Sequence[tuple[str, Term]],
    rows: Sequence[Array],
    doc_id: str,
) -> Explanation:
    """Returns what each term adds to a document's score.

    Args:
        index: the index.
        scoring: the model.
        query_tokens: length of the query, unknown terms included.
        terms: the query's terms by name.
        rows: the terms in each segment's dictionary (`BowIndex.lookup`).
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
            part = scoring.parts(term, tfs[at : at + 1], length)[0]
            weight = scoring.weight_of(term)
            idf = scoring.idf_of(term)
            tf = int(tfs[at])
            parts.append(TermScore(name, term.boost, term.df, tf, idf, weight, float(part)))
    own = np.zeros(1, np.float64)
    if parts:
        scoring.add_constants(query_tokens, length, own)
    constant = float(own[0])
    score = float(np.float32(sum(part.score for part in parts) + constant))
    exact = int(segment.lengths_N[doc[0]])
    return Explanation(doc_id, score, exact, int(length[0]), tuple(parts), constant)
