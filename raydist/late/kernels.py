"""Machine code of building and searching multi-vector indexes.

Shapes: K centroids, D dimensions, q vectors of a query, t vectors of documents, c candidates, n
vectors of a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from raydist.kernels.jit import kernel

Array = Any


@kernel
def nearest_of_cells(
    products: Array, halves: Array, rows: Array, start: int, best_t: Array, nearest_t: Array
) -> None:
    """Updates the nearest centroid of some rows by their products with those of one cell."""
    for i in range(len(rows)):
        row = rows[i]
        for k in range(len(halves)):
            value = products[i, k] - halves[k]
            if value > best_t[row] or (value == best_t[row] and start + k < nearest_t[row]):
                best_t[row] = value
                nearest_t[row] = start + k


@kernel
def listed(centroids: Array, offsets_K1: Array, documents: Array, seen: Array, out: Array) -> int:
    """Writes the documents that are in the lists of some centroids; returns how many.

    `seen` has a byte for each document: 0, 1 if it may not be listed; it is left as it was.
    """
    count = 0
    for centroid in centroids:
        for at in range(offsets_K1[centroid], offsets_K1[centroid + 1]):
            document = documents[at]
            if seen[document] == 0:
                seen[document] = 2
                out[count] = document
                count += 1
    for i in range(count):
        seen[out[i]] = 0
    return count


@kernel
def approximate(
    candidates: Array, starts: Array, codes: Array, products_Kq: Array, scores_c: Array
) -> None:
    """Writes each candidate's MaxSim if its vectors were their centroids."""
    width = products_Kq.shape[1]
    best = np.empty(width, np.float32)
    for i in range(len(candidates)):
        best[:] = -np.inf
        for t in range(starts[candidates[i]], starts[candidates[i] + 1]):
            row = products_Kq[codes[t]]
            for j in range(width):
                best[j] = max(best[j], row[j])
        total = np.float32(0)
        for j in range(width):
            total += best[j]
        scores_c[i] = total


@kernel
def decode(
    first: int,
    codes: Array,
    residuals: Array,
    centroids_KD: Array,
    table: Array,
    unit: bool,
    out_nD: Array,
) -> None:
    """Writes the vectors that the codes from `first` on stand for, of unit length if wanted."""
    width = table.shape[1]
    for i in range(len(out_nD)):
        row = out_nD[i]
        centroid = centroids_KD[codes[first + i]]
        packed = residuals[first + i]
        for b in range(len(packed)):
            values = table[packed[b]]
            for j in range(width):
                row[b * width + j] = centroid[b * width + j] + values[j]
        if unit:
            lanes = np.zeros(16, np.float32)
            full = len(row) // 16 * 16
            for d in range(0, full, 16):
                for j in range(16):
                    lanes[j] += row[d + j] * row[d + j]
            total = np.float32(0)
            for j in range(16):
                total += lanes[j]
            for d in range(full, len(row)):
                total += row[d] * row[d]
            if total > 0:
                scale = np.float32(1) / np.sqrt(total)
                for d in range(len(row)):
                    row[d] *= scale


@kernel
def max_sim(
    candidates: Array,
    starts: Array,
    codes: Array,
    residuals: Array,
    centroids_KD: Array,
    table: Array,
    unit: bool,
    query_Dq: Array,
    scores_c: Array,
) -> None:
    """Writes each candidate's MaxSim of its decoded vectors; -inf for one without any."""
    width = query_Dq.shape[1]
    best = np.empty(width, np.float32)
    longest = 0
    for i in range(len(candidates)):
        longest = max(longest, starts[candidates[i] + 1] - starts[candidates[i]])
    vectors = np.empty((longest, query_Dq.shape[0]), np.float32)
    for i in range(len(candidates)):
        first, stop = starts[candidates[i]], starts[candidates[i] + 1]
        if first == stop:
            scores_c[i] = -np.inf
            continue
        own = vectors[: stop - first]
        decode(first, codes, residuals, centroids_KD, table, unit, own)
        products = np.dot(own, query_Dq)
        best[:] = -np.inf
        for t in range(stop - first):
            for j in range(width):
                best[j] = max(best[j], products[t, j])
        total = np.float32(0)
        for j in range(width):
            total += best[j]
        scores_c[i] = total
