"""Why a multi-vector model ranks a document where it does: which tokens met.

A query's token meets the document's token whose vector is nearest to its own; the similarities add
up to the score, with those of tokens that the query's text does not have (special ones, expansion).

Shapes: q vectors of a query, t vectors of a document, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Span: TypeAlias = tuple[int, int] | None
"""Where a token begins and ends in its text, in characters; None if the text does not have it."""


@dataclass(frozen=True, slots=True)
class Match:
    """A token of a query and the document's token that is most similar to it.

    Attributes:
        query: where the query's token lies in the query.
        document: where the other one lies in the document, None if it is a special token.
        similarity: of their vectors.
    """

    query: tuple[int, int]
    document: Span
    similarity: float


def matches_of(
    query_qD: np.ndarray,
    document_tD: np.ndarray,
    query_spans: Sequence[Span],
    document_spans: Sequence[Span],
) -> list[Match]:
    """Returns the matches of a query's tokens, in the order of its text.

    Args:
        query_qD: the query's vectors.
        document_tD: the document's.
        query_spans: where the token of each of the query's vectors lies.
        document_spans: where that of each of the document's lies.
    """
    assert (len(query_spans), len(document_spans)) == (len(query_qD), len(document_tD))
    if not len(document_tD):
        return []
    products_qt = query_qD @ document_tD.T
    nearest_q = products_qt.argmax(axis=1).tolist()
    return [
        Match(span, document_spans[t], float(products_qt[i, t]))
        for i, (span, t) in enumerate(zip(query_spans, nearest_q))
        if span is not None
    ]
