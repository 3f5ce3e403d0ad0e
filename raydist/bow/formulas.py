"""Retrieval formulas as small functions over arrays: the BM25 family and query likelihood.

`lucene_*` are Lucene's BM25Similarity to the last bit: float32 steps in Lucene's order over lengths
that went through its one-byte norm. All others are float64 and take exact or norm-decoded lengths.

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


# --- BM25's relatives, float64 --------------------------------------------------------------------


def robertson_idf(documents: int, df: int) -> float:
    """Returns ln((N - df + 0.5) / (df + 0.5)), at least 0 (Robertson & Sparck Jones 1976)."""
    return max(0.0, math.log((documents - df + 0.5) / (df + 0.5)))


def atire_idf(documents: int, df: int) -> float:
    """Returns ln(N / df) (Trotman, Jia & Crane 2012)."""
    return math.log(documents / df)


def plus_idf(documents: int, df: int) -> float:
    """Returns ln((N + 1) / df), the idf of BM25+ (Lv & Zhai, CIKM 2011)."""
    return math.log((documents + 1) / df)


def bm25l_idf(documents: int, df: int) -> float:
    """Returns ln((N + 1) / (df + 0.5)), the idf of BM25L (Lv & Zhai, SIGIR 2011)."""
    return math.log((documents + 1) / (df + 0.5))


def bm25_saturation(tf_P: Array, length_P: Array, k1: float, b: float, avgdl: float) -> Array:
    """Returns tf (k1 + 1) / (tf + k1 (1 - b + b length / avgdl)) (Robertson et al., TREC-3)."""
    return np.asarray(tf_P * (k1 + 1) / (tf_P + k1 * (1 - b + b * length_P / avgdl)))


def bm25l_saturation(
    tf_P: Array, length_P: Array, k1: float, b: float, avgdl: float, delta: float
) -> Array:
    """Returns (k1 + 1)(c + delta) / (k1 + c + delta), c = tf / (1 - b + b length / avgdl).

    BM25L (Lv & Zhai, SIGIR 2011).
    """
    c = tf_P / (1 - b + b * length_P / avgdl)
    return np.asarray((k1 + 1) * (c + delta) / (k1 + c + delta))


# --- Query likelihood, float64 --------------------------------------------------------------------


def dirichlet_term(tf_P: Array, cf: int, tokens: int, mu: float) -> Array:
    """Returns ln(1 + tf / (mu cf / C)), what a matching term adds (Zhai & Lafferty 2004)."""
    return np.asarray(np.log1p(tf_P / (mu * cf / tokens)))


def dirichlet_length(length_P: Array, mu: float) -> Array:
    """Returns ln(mu / (length + mu)), which every query token adds, matching or not."""
    return np.asarray(np.log(mu / (length_P + mu)))


def jelinek_mercer_term(tf_P: Array, length_P: Array, cf: int, tokens: int, lam: float) -> Array:
    """Returns ln(1 + (1 - lam) / lam (tf / length) / (cf / C)), 0 without a match.

    Jelinek-Mercer smoothing; `lam` is the weight of the collection (Zhai & Lafferty 2004).
    """
    return np.asarray(np.log1p((1 - lam) / lam * (tf_P / length_P) / (cf / tokens)))
