"""Many arrays as one argument of a kernel: numba takes half a microsecond to accept each array.

A table of addresses is uint64 [A, 3]: where an array's data lie, its rows and its columns. Whoever
makes a table keeps the arrays alive, and makes it anew where one of them is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.extending import intrinsic
from numba.np import arrayobj

Array = npt.NDArray[Any]


def addresses(arrays: Iterable[Array]) -> Array:
    """Returns the table of contiguous arrays of one or two dimensions."""
    rows = []
    for array in arrays:
        assert array.flags.c_contiguous and array.ndim in (1, 2), array.shape
        columns = array.shape[1] if array.ndim == 2 else 1
        rows.append((array.ctypes.data, array.shape[0], columns))
    return np.array(rows, np.uint64)


def _maker(dimensions: int) -> Callable[..., Any]:
    def make(typing_context: Any, table: Any, row: Any, kind: Any) -> Any:
        made = types.Array(kind.dtype, dimensions, "C")

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            size = context.get_constant(
                types.intp, context.get_abi_sizeof(context.get_data_type(made.dtype))
            )
            first = builder.mul(args[1], context.get_constant(types.uint64, 3))
            address, *shape = [
                builder.load(
                    builder.gep(data, [builder.add(first, context.get_constant(types.uint64, i))])
                )
                for i in range(1 + dimensions)
            ]
            array = context.make_array(made)(context, builder)
            strides = [size] if dimensions == 1 else [builder.mul(shape[1], size), size]
            arrayobj.populate_array(
                array,
                data=builder.inttoptr(address, array.data.type),
                shape=shape,
                strides=strides,
                itemsize=size,
                meminfo=None,
            )
            return array._getvalue()

        return made(table, types.uint64, kind), generate

    return make


# Inside a kernel: flat(table, row, dtype) and grid(table, row, dtype) are the array at a row of the
# table, of one or of two dimensions.
flat: Callable[..., Any] = intrinsic(_maker(1))
grid: Callable[..., Any] = intrinsic(_maker(2))
