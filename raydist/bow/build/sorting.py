"""Sorting many byte strings by eight bytes at a time.

Legend: S strings, H bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.kernels.arrays import string_buffers
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64


@kernel
def _words(data_H: Array, offsets_S1: Array, rows: Array, depth: Any, words: Array) -> None:
    """Puts the bytes `8 depth ..` of the strings `rows` into words that sort as they do."""
    for i in range(rows.shape[0]):
        at = U(offsets_S1[rows[i]]) + (U(depth) << U(3))
        end = min(U(offsets_S1[rows[i] + 1]), at + U(8))
        word = U(0)
        shift = U(56)
        while at < end:
            word |= U(data_H[at]) << shift
            shift -= U(8)
            at += U(1)
        words[i] = word


def byte_order(strings: pa.Array, *, distinct: bool) -> tuple[Array, Array]:
    """Returns the ascending byte order of a large_binary array.

    Args:
        strings: strings without zero bytes.
        distinct: whether no string occurs twice; if so, the order of equal beginnings need not be
            kept, which is faster.

    Returns:
        the row of each place, int64 [S], equal strings by row; and whether the string there differs
        from the one before, bool [S].
    """
    offsets_S1, data_H = string_buffers(strings)
    count = len(strings)
    order = np.arange(count)
    if not count:
        return order, np.empty(0, bool)
    words = np.empty(count, np.uint64)
    _words(data_H, offsets_S1, order, 0, words)
    order = np.argsort(words, kind=None if distinct else "stable")
    words = words[order]
    new = np.ones(count, bool)
    new[1:] = words[1:] != words[:-1]
    lengths = np.diff(offsets_S1)
    places = np.arange(count)
    depth = 1
    while True:
        # Places whose string is not alone with its beginning, where some of them go on.
        group = np.cumsum(new[places])
        longer = lengths[order[places]] > 8 * depth
        sizes = np.bincount(group)
        active = (sizes > 1) & (np.bincount(group, weights=longer) > 0)
        keep = active[group]
        places, group = places[keep], group[keep]
        if not len(places):
            return order, new
        rows = order[places]
        words = np.empty(len(rows), np.uint64)
        _words(data_H, offsets_S1, rows, depth, words)
        inner = np.lexsort((words, group))
        order[places] = rows[inner]
        words = words[inner]
        new[places[1:]] |= (words[1:] != words[:-1]) & (group[1:] == group[:-1])
        depth += 1
