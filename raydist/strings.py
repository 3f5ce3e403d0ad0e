"""Columns of text of any size: Arrow's own functions fail at 2 GiB, where 32-bit offsets end."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.kernels.arrays import string_array, string_buffers

LIMIT = 1 << 30
"""Bytes of a chunk of strings at most, but for a single longer one."""


def take(column: pa.ChunkedArray, rows: np.ndarray, limit: int = LIMIT) -> pa.ChunkedArray:
    """Returns the values at some rows of string or large_string, as strings.

    Args:
        column: the values.
        rows: any rows in any order.
        limit: bytes of a chunk of the result.
    """
    wide = column.cast(pa.large_string()).combine_chunks()
    ends = np.cumsum(pc.binary_length(wide).to_numpy(zero_copy_only=False)[rows])
    cuts = [0]
    while cuts[-1] < len(rows):
        before = int(ends[cuts[-1] - 1]) if cuts[-1] else 0
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(ends, before + limit, "right"))))
    parts = [wide.take(pa.array(rows[a:z])).cast(pa.string()) for a, z in itertools.pairwise(cuts)]
    return pa.chunked_array(parts, pa.string())


def narrowed(column: pa.ChunkedArray, limit: int = LIMIT) -> pa.ChunkedArray:
    """Returns a column as strings, in chunks that 32-bit offsets can address."""
    if pa.types.is_large_string(column.type) and column.nbytes > limit:
        return take(column, np.arange(len(column)), limit)
    return column.cast(pa.string())


def codes(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Returns a number for each value, int64, and the values they count, large_string.

    Numbers are in the order of the first rows; null is a value, too.
    """
    if not len(column):
        return np.empty(0, np.int64), pa.array([], pa.large_string())
    encoded = pc.dictionary_encode(column.cast(pa.large_string()), "encode")
    numbers = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
    return np.concatenate(numbers).astype(np.int64), encoded.chunks[-1].dictionary


def shortened(wide: pa.LargeStringArray) -> pa.Array:
    """Returns values as strings if 32-bit offsets can address them, their bytes without a copy."""
    _, offsets, data = wide.buffers()
    if data is None or not len(wide):
        return wide.cast(pa.string())
    ends = np.frombuffer(offsets, np.int64, len(wide) + 1, 8 * wide.offset)
    if int(ends[-1]) > LIMIT or wide.null_count:
        return wide
    return string_array(ends.astype(np.int32), data, pa.string())


def repeated(value: str, count: int) -> pa.Array:
    """Returns a value so many times, as strings if 32-bit offsets can surely address them."""
    data = value.encode()
    if len(data) * count > LIMIT >> 2:
        return pa.repeat(pa.scalar(value, pa.large_string()), count)
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(len(data))
    return string_array(offsets, data * count, pa.string())


def text_of(strings: pa.Array) -> memoryview:
    """Returns the bytes of string or large_string values one after another, without a copy."""
    offsets, data = string_buffers(strings)
    return data[int(offsets[0]) : int(offsets[-1])].data
