"""Options of scoring: the formulas of a bag-of-words index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt


@dataclass(frozen=True, slots=True, kw_only=True)
class Bm25:
    """BM25 and its variants; the default is Lucene's, to the last bit."""

    kind: Literal["bm25"] = "bm25"
    variant: Literal["lucene", "robertson", "atire", "bm25+", "bm25l"] = "lucene"
    """Which formula; the names of Kamphuis et al. (2020)."""
    k1: Annotated[float, Ge(0)] = 0.9
    """Saturation of the term frequency."""
    b: Annotated[float, Ge(0), Le(1)] = 0.4
    """Weight of the document's length."""
    delta: Annotated[float, Ge(0)] = 1.0
    """Lower bound's shift (bm25+, bm25l)."""
    lengths: Literal["norm", "exact"] = "norm"
    """Document lengths as Lucene rounds them into a byte, or exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLikelihood:
    """Query likelihood with smoothing (Zhai and Lafferty, 2004)."""

    kind: Literal["ql"] = "ql"
    smoothing: Literal["dirichlet", "jelinek-mercer"] = "dirichlet"
    """How unseen terms get probability."""
    mu: Annotated[float, Gt(0)] = 1000.0
    """Dirichlet prior."""
    weight: Annotated[float, Gt(0), Lt(1)] = 0.1
    """Share of the collection (jelinek-mercer)."""
    lengths: Literal["norm", "exact"] = "norm"
    """Document lengths as Lucene rounds them into a byte, or exact."""


Scoring = Bm25 | QueryLikelihood
