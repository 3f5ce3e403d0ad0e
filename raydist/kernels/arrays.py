"""Arrays as kernels take them, and the buffers of Arrow's strings."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]


def readonly(array: Array, dtype: Any = None) -> Array:
    """Returns a contiguous view (a copy only if needed) that kernels see as one kind of array."""
    view = np.ascontiguousarray(array, dtype).view()
    view.flags.writeable = False
    return view


_NO_BYTES = readonly(np.empty(0, np.uint8))


def string_array(offsets: Array, data: Any, kind: pa.DataType | None = None) -> pa.Array:
    """Returns strings (large_binary by default) over their offsets and bytes, without a copy."""
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(kind or pa.large_binary(), len(offsets) - 1, buffers)


def float_array(values: Array) -> pa.Array:
    """Returns float32 values as an array, without a copy if they are contiguous."""
    values = np.ascontiguousarray(values, np.float32)
    return pa.Array.from_buffers(pa.float32(), len(values), [None, pa.py_buffer(values)])


def string_buffers(strings: pa.Array) -> tuple[Array, Array]:
    """Returns the offsets (int64 [S + 1]) and the bytes of a string or binary array, read-only."""
    wide = pa.types.is_large_string(strings.type) or pa.types.is_large_binary(strings.type)
    kind = np.dtype(np.int64 if wide else np.int32)
    _, offsets, data = strings.buffers()
    count = len(strings) + 1
    if data is None or not len(strings):
        return readonly(np.zeros(count, np.int64)), _NO_BYTES
    part = np.frombuffer(offsets, kind, count, strings.offset * kind.itemsize)
    return readonly(part, np.int64), readonly(np.frombuffer(data, np.uint8))
