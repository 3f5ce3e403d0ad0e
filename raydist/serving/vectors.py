"""Vectors as bytes of an answer: numbers or base64, float32 or fewer bits, a few rows at a time.

Shapes: n texts, D dimensions.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Literal

import numpy as np
import orjson

Number = Literal["float", "int8", "uint8", "binary", "ubinary"]
"""The kinds of numbers that vectors consist of."""

_AT_ONCE = 1 << 16
"""Numbers that are written in one go: about 2 ms, in which no other thread runs."""


def quantized(vectors_nD: np.ndarray, number: Number) -> np.ndarray:
    """Returns vectors in another kind of number, each independently of the others.

    `int8` scales a vector so that its largest component is 127: cosines stay, dot products of
    different vectors do not compare. `uint8` is the same plus 128. `ubinary` has a bit for each
    component, 1 if it is positive, the first one highest; `binary` is the same minus 128.
    """
    if number == "float":
        return np.ascontiguousarray(vectors_nD, np.float32)
    if number in ("binary", "ubinary"):
        bits: np.ndarray = np.packbits(vectors_nD > 0, axis=1)
        return bits if number == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    largest = np.abs(vectors_nD).max(axis=1, keepdims=True)
    scaled: np.ndarray = np.rint(vectors_nD / np.maximum(largest, 1e-30) * 127).astype(np.int16)
    return scaled.astype(np.int8) if number == "int8" else (scaled + 128).astype(np.uint8)


def rows_as_json(vectors_nD: np.ndarray, *, packed: bool) -> Iterator[list[bytes]]:
    """Yields the JSON of vectors, several rows at a time.

    Args:
        vectors_nD: of any kind of number.
        packed: a string of base64 (little-endian) instead of a list of numbers.
    """
    step = max(1, _AT_ONCE // max(1, vectors_nD.shape[1]))
    for begin in range(0, len(vectors_nD), step):
        rows = vectors_nD[begin : begin + step]
        if packed:
            rows = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
            yield [b'"%b"' % base64.b64encode(row.tobytes()) for row in rows]
        else:
            yield [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in rows]
