"""What a posting adds to a score by each model, in machine code: one definition for all searches.

A model is an array of doubles: which one it is, its constants, and the length that each norm byte
stands for. Of a term it takes a weight and one statistic. The part of a posting never falls with
its frequency nor rises with its document's length, so bounds of blocks hold for all models.

Steps are taken in Lucene's and Anserini's order, and rounded to float32 where they round; rounding
apart, what is said of parts above holds.

Symbols as in formulas.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from raydist.kernels.addresses import Array
from raydist.kernels.jit import kernel

U = np.uint64
U32 = np.uint32
F32 = np.float32

# A model's first element, and where what it takes lies behind it.
LUCENE, ACCURATE, SATURATION, BM25L, DIRICHLET, JELINEK_MERCER = 0, 1, 2, 3, 4, 5
QLD, QLJM, INL2, SPL, F2, IMPACT = 6, 7, 8, 9, 10, 11
CONSTANTS = 1
LENGTHS = 8

_LOG_2 = math.log(2.0)
_UNBOUNDED = 2.0**32  # no frequency is larger


@kernel
def part_of(model: Array, weight: Any, statistic: Any, tf: Any, length: Any) -> Any:
    """Returns what `tf` occurrences of a term add to the score of a document of `length` tokens.

    Args:
        model: which it is, and its constants (`Scoring.model_array`); not LUCENE.
        weight: the term's frequency in the query, times its idf in most models.
        statistic: the term's share of the collection, or what else the model takes of it.
        tf: the term's frequency in the document.
        length: the document's.
    """
    kind = model[0]
    a, b, c, d = model[1], model[2], model[3], model[4]
    if kind == ACCURATE:
        ratio = (F32(weight) * F32(tf)) / ((F32(tf) + F32(a)) + F32(b) * F32(length))
        return np.float64(ratio)
    if kind == SATURATION:
        return weight * (tf * (a + 1.0) / (tf + a * (1.0 - b + b * length / c)) + d)
    if kind == BM25L:
        scaled = tf / (1.0 - b + b * length / c)
        return weight * ((a + 1.0) * (scaled + d) / (a + scaled + d))
    if kind == DIRICHLET:
        return weight * math.log1p(tf / statistic)
    if kind == JELINEK_MERCER:
        return weight * math.log1p(a * (tf / max(length, 1.0)) / statistic)
    if kind == IMPACT:
        return weight * tf
    value = 0.0
    if kind == QLD:
        value = math.log(1.0 + tf / (a * statistic)) + math.log(a / (length + a))
        value = max(0.0, weight * value)
    elif kind == QLJM:
        value = weight * math.log(1.0 + (a * tf / max(length, 1.0)) / (b * statistic))
    elif kind == F2:
        value = weight * (tf / (tf + a + a * length / b) * statistic)
    else:
        tfn = tf * (math.log(1.0 + a * b / max(length, 1.0)) / _LOG_2)
        if kind == INL2:
            value = weight * (statistic * (1.0 - 1.0 / (1.0 + tfn)))
        else:
            value = weight * _smoothed_power_law(statistic, tfn)
    return np.float64(F32(value))


@kernel
def _smoothed_power_law(share: Any, tfn: Any) -> Any:
    """Returns -ln((share ** (tfn / (tfn + 1)) - share) / (1 - share)), never infinite."""
    exponent = min(1.0 - 1.0 / (tfn + 1.0), 1.0 - 2.0**-53)
    power = share**exponent
    if power == share:
        power = np.nextafter(share, 2.0)
    return -math.log((power - share) / (1.0 - share))


@kernel
def parts_of(
    model: Array, weight: Any, statistic: Any, tf_P: Array, length_P: Array, part_P: Array
) -> None:
    """Writes what each of a term's postings adds to its document's score (float64 [P])."""
    for i in range(tf_P.shape[0]):
        part_P[i] = part_of(model, weight, statistic, np.float64(tf_P[i]), np.float64(length_P[i]))


@kernel
def constant_of(model: Array, tokens: Any, length: Any) -> Any:
    """Returns ln(mu / (length + mu)) for each of a query's tokens, matching or not: at most 0.

    Only DIRICHLET adds it to a document's score (Zhai & Lafferty 2004); it never rises with length.
    """
    return tokens * math.log(model[1] / (length + model[1]))


@kernel
def constants_of(model: Array, tokens: Any, length_N: Array, score_N: Array) -> None:
    """Adds each document's own part to its score."""
    for i in range(length_N.shape[0]):
        score_N[i] += constant_of(model, tokens, np.float64(length_N[i]))


@kernel
def most_of(model: Array, weight: Any, statistic: Any) -> Any:
    """Returns more than any posting of a term adds."""
    return part_of(model, weight, statistic, _UNBOUNDED, model[LENGTHS])


@kernel
def quantised_part(
    model: Array, weight: Any, statistic: Any, scale: Any, tf: Any, norm: Any
) -> Any:
    """Returns the scaled part and a margin for rounding, up to the next integer."""
    part = part_of(model, weight, statistic, np.float64(tf), model[U(LENGTHS) + norm])
    return quantised_up(part * scale)


@kernel
def quantised_up(scaled: Any) -> Any:
    """Returns a scaled part and a margin for rounding, up to the next integer."""
    return U32(np.int64(min(scaled + 2.0**-10, 65530.0))) + U32(1)


@kernel
def most_lost(model: Array, weight: Any, statistic: Any, norms: Any) -> Any:
    """Returns how far a part can lie below that of the shortest document of its norm.

    Between two frequencies that are tried it lies between the lower one's part of the longest
    document and the higher one's of the shortest.
    """
    most = 0.0
    for norm in range(1, norms):
        shortest, longest = _lengths_of(model, norm)
        if longest == shortest:
            continue
        tf = 1.0
        while tf < _UNBOUNDED:
            following = tf if tf < 16.0 else tf * 1.25
            high = part_of(model, weight, statistic, following, shortest)
            low = part_of(model, weight, statistic, tf, longest)
            most = max(most, high - low)
            tf = tf + 1.0 if tf < 16.0 else following
    return most


@kernel
def most_constant_lost(model: Array, tokens: Any, norms: Any) -> Any:
    """Returns how far a document's constant can lie below that of the shortest one of its norm."""
    most = 0.0
    for norm in range(1, norms):
        shortest, longest = _lengths_of(model, norm)
        lost = constant_of(model, tokens, shortest) - constant_of(model, tokens, longest)
        most = max(most, lost)
    return most


@kernel
def _lengths_of(model: Array, norm: Any) -> Any:
    """Returns the shortest and the longest length that a norm stands for."""
    shortest = model[LENGTHS + norm]
    return shortest, max(shortest, model[LENGTHS + norm + 1] - 1.0)
