"""Words as the query of a sequential dependence model, as Anserini's SdmQueryGenerator makes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from raydist.bow.spec import Sdm
from raydist.bow.structured.query import BooleanNode, BoostNode, NearNode, Node, Occur, TermNode

_ORDERED, _UNORDERED = 1, 8  # words between two terms at most


def dependence_tree(terms: Sequence[str], weights: Sdm) -> Node | None:
    """Returns the tree of a query's terms in their order, repeated ones too.

    One term is searched as it is. None matches nothing.
    """
    if len(terms) < 2:
        return TermNode(terms[0]) if terms else None
    pairs = list(pairwise(terms))
    parts = (
        (_any_of(TermNode(term) for term in terms), weights.tw),
        (_any_of(NearNode(pair, _ORDERED, ordered=True) for pair in pairs), weights.ow),
        (_any_of(NearNode(pair, _UNORDERED, ordered=False) for pair in pairs), weights.uw),
    )
    return _any_of(BoostNode(query, float(np.float32(weight))) for query, weight in parts)


def _any_of(queries: Iterable[Node]) -> BooleanNode:
    return BooleanNode(tuple((Occur.SHOULD, query) for query in queries))
