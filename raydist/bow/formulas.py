"""Retrieval formulas as small functions: Lucene's BM25, and of other models what a term has.

`lucene_*` are Lucene's BM25Similarity to the last bit: float32 steps in Lucene's order over lengths
that went through its one-byte norm. What a posting adds in other models: search/impacts.py.

Symbols: N documents, df documents with the term, cf occurrences of the term, C tokens of the
collection, avgdl mean length, tf frequency in the document, boost frequency in the query.
Legend: N documents, P postings.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float32 = np.float32


def _decoded_norms() -> Array:
    """Returns the length that each norm byte stands for.

    Lucene's SmallFloat: 24 values as they are, then 3 bits of mantissa behind an implied one.
    """
    small = np.arange(24)
    code = np.arange(256 - 24)
    mantissa, shift = code & 7, (code >> 3) - 1
    rest = np.where(shift < 0, mantissa, (mantissa | 8) << np.maximum(shift, 0))
    return np.concatenate([small, 24 + rest]).astype(np.int64)


NORM_LENGTHS = _decoded_norms()
"""Length in tokens that each norm byte stands for, int64 [256], ascending."""

_SHORT_NORMS = (np.searchsorted(NORM_LENGTHS, np.arange(4096), side="right") - 1).astype(np.uint8)


def norm_bytes(lengths_N: Array) -> Array:
    """Returns the norm of each length: the largest byte that stands for no more (uint8 [N])."""
    short = lengths_N < len(_SHORT_NORMS)
    if short.all():
        return _SHORT_NORMS[lengths_N]
    return (np.searchsorted(NORM_LENGTHS, lengths_N, side="right") - 1).astype(np.uint8)


def mean_length(tokens: int, documents: int) -> float:
    """Returns avgdl as Lucene has it: float32(tokens / documents that have tokens)."""
    return float(Float32(tokens / documents)) if documents else 0.0


# --- Lucene's BM25, float32 -----------------------------------------------------------------------


def lucene_idf(documents: int, df: int) -> np.float32:
    """Returns float32(ln(1 + (N - df + 0.5) / (df + 0.5)))."""
    return Float32(math.log(1 + (documents - df + 0.5) / (df + 0.5)))


def lucene_inverse(lengths: Array, k1: float, b: float, avgdl: float) -> Array:
    """Returns 1 / (k1 ((1 - b) + b length / avgdl)), every step in float32, for each length."""
    one, k, slope = Float32(1), Float32(k1), Float32(b)
    with np.errstate(divide="ignore", invalid="ignore"):
        norm = k * ((one - slope) + slope * lengths.astype(Float32) / Float32(avgdl))
        return np.asarray(one / norm, Float32)


def lucene_term(weight: np.float32 | Array, tf_P: Array, inverse_P: Array) -> Array:
    """Returns weight - weight / (1 + tf inverse) in float32; weight = boost * idf in float32.

    The weight is that of one term, or one per posting.

    Lucene sums these over a query's terms in double and casts the sum to float32.
    """
    one = Float32(1)
    weight = np.asarray(weight, Float32)
    return np.asarray(weight - weight / (one + tf_P.astype(Float32) * inverse_P), Float32)


# --- Weights and statistics of a term in other models, float64 ------------------------------------


def robertson_idf(documents: int, df: int) -> float:
    """Returns ln((N - df + 0.5) / (df + 0.5)), at least 0 (Robertson & Sparck Jones 1976)."""
    return max(0.0, math.log((documents - df + 0.5) / (df + 0.5)))


def atire_idf(documents: int, df: int) -> float:
    """Returns ln(N / df) (Trotman, Jia & Crane 2012)."""
    return math.log(documents / df)


def plus_idf(documents: int, df: int) -> float:
    """Returns ln((N + 1) / df), the idf of BM25+ (Lv & Zhai, CIKM 2011) and of F2-LOG."""
    return math.log((documents + 1) / df)


def bm25l_idf(documents: int, df: int) -> float:
    """Returns ln((N + 1) / (df + 0.5)), the idf of BM25L (Lv & Zhai, SIGIR 2011)."""
    return math.log((documents + 1) / (df + 0.5))


def f2exp_idf(documents: int, df: int) -> float:
    """Returns ((N + 1) / df) ** 0.35, the idf of F2-EXP (Fang & Zhai, SIGIR 2005)."""
    return math.pow((documents + 1) / df, float(Float32(0.35)))


def collection_share(occurrences: int, tokens: int) -> float:
    """Returns (cf + 1) / (C + 1), a term's probability in the collection as Lucene has it."""
    return (occurrences + 1) / (tokens + 1)


def inverse_document_information(documents: int, df: int) -> float:
    """Returns log2((N + 1) / (df + 0.5)), the basic model In of divergence from randomness."""
    return math.log((documents + 1) / (df + 0.5)) / math.log(2)


def document_share(documents: int, df: int) -> float:
    """Returns float32((df + 1) / (N + 1)), below 1: the lambda of information-based models."""
    share = Float32((df + 1) / (documents + 1))
    return float(min(share, np.nextafter(Float32(1), Float32(0))))


def query_side_boost(
    tf: float, length: float, documents: int, df: int, tokens: int, k1: float, b: float
) -> float:
    """Returns what BM25 gives a term of a query of `length` tokens, in float32 as Anserini does."""
    one, k, slope = Float32(1), Float32(k1), Float32(b)
    mean = Float32(tokens) / Float32(documents)
    pivot = k * ((one - slope) + slope * (Float32(length) / mean))
    return float(lucene_idf(documents, df) * (Float32(tf) / (Float32(tf) + pivot)))
