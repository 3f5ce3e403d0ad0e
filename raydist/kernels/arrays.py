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


def string_buffers(strings: pa.Array) -> tuple[Array, Array]:
    """Returns the offsets (int64 [S + 1]) and the bytes of a large_binary array, read-only."""
    _, offsets, data = strings.buffers()
    count = len(strings) + 1
    part = np.frombuffer(offsets, np.int64, count, strings.offset * 8)
    return part, _NO_BYTES if data is None else np.frombuffer(data, np.uint8)
