"""Variable-length integers: 7 bits a byte, the lowest first, the upper bit set but in the last."""

from __future__ import annotations

from typing import Any

import numpy as np

from raydist.kernels.addresses import Array
from raydist.kernels.jit import kernel

U = np.uint64


@kernel
def put_varint(out: Array, o: Any, value: Any) -> Any:
    """Writes a number to `out[o:]` and returns the end."""
    while value >= U(128):
        out[o] = np.uint8(value & U(127) | U(128))
        value >>= U(7)
        o += U(1)
    out[o] = np.uint8(value)
    return o + U(1)


@kernel
def get_varint(data: Array, o: Any) -> Any:
    """Returns the number at `data[o:]` and its end; beyond the data where they break off."""
    size = U(data.shape[0])
    value = U(0)
    shift = U(0)
    while o < size:
        byte = U(data[o])
        o += U(1)
        value |= (byte & U(127)) << shift
        if byte < U(128) or shift > U(56):
            return value, o
        shift += U(7)
    return value, size + U(1)


@kernel
def varint_length(value: Any) -> Any:
    """Returns how many bytes a number takes."""
    size = U(1)
    while value >= U(128):
        value >>= U(7)
        size += U(1)
    return size
