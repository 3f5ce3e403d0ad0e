"""Records of arrays as one argument of a kernel.

A record is a NamedTuple whose fields are annotated `Bytes`, `Words` and so on: the type and the
dimensions that its arrays have. numba takes half a microsecond to accept each array of a call from
Python, so such calls pass a table of addresses instead, uint64 [arrays, 3] (the address of an
array's data, its rows and its columns), and `view` turns it back into a record. The owner of a
table keeps the arrays alive and renews it when one of them is replaced.

A record inside a kernel is one pointer: passing it on costs nothing, unlike a tuple of arrays, of
which each takes seven arguments. But machine code reads an array's address again after any store
that might have changed it: bind the arrays of an inner loop to names before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, get_type_hints

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, models, register_model
from numba.np import arrayobj
from numba.np.numpy_support import from_dtype

Array = npt.NDArray[Any]
Flags = Annotated[Array, np.bool_, 1]
Bytes = Annotated[Array, np.uint8, 1]
Shorts = Annotated[Array, np.uint16, 1]
Words = Annotated[Array, np.uint32, 1]
Longs = Annotated[Array, np.uint64, 1]
Ints = Annotated[Array, np.int32, 1]
Offsets = Annotated[Array, np.int64, 1]
Floats = Annotated[Array, np.float32, 1]
Doubles = Annotated[Array, np.float64, 1]
ByteGrid = Annotated[Array, np.uint8, 2]
WordGrid = Annotated[Array, np.uint32, 2]
DoubleGrid = Annotated[Array, np.float64, 2]
LongGrid = Annotated[Array, np.uint64, 2]


def addresses(arrays: Iterable[Array]) -> Array:
    """Returns the table of contiguous arrays of one or two dimensions, such as a record's."""
    rows = []
    for array in arrays:
        assert array.flags.c_contiguous and array.ndim in (1, 2), array.shape
        columns = array.shape[1] if array.ndim == 2 else 1
        rows.append((array.ctypes.data, array.shape[0], columns))
    return np.array(rows, np.uint64)


class _Record(types.Type):
    """The type of a record inside a kernel: a pointer to its first row of a table."""

    def __init__(self, record: Any) -> None:
        hints = get_type_hints(record, include_extras=True)
        self.fields = {
            name: (row, *hints[name].__metadata__) for row, name in enumerate(record._fields)
        }
        super().__init__(name=f"{record.__module__}.{record.__qualname__}")

    def array(self, name: str) -> types.Array:
        _, dtype, ndim = self.fields[name]
        return types.Array(from_dtype(np.dtype(dtype)), ndim, "C")


@register_model(_Record)
class _RecordModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.IntType(64).as_pointer())


@infer_getattr
class _RecordAttributes(AttributeTemplate):  # type: ignore[misc]
    key = _Record

    def generic_resolve(self, record: _Record, name: str) -> types.Array | None:
        return record.array(name) if name in record.fields else None


@lower_getattr_generic(_Record)  # type: ignore[untyped-decorator]
def _attribute(context: Any, builder: Any, record: _Record, pointer: Any, name: str) -> Any:
    kind = record.array(name)
    row = record.fields[name][0]
    address, rows, columns = (
        builder.load(builder.gep(pointer, [context.get_constant(types.intp, 3 * row + i)]))
        for i in range(3)
    )
    size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    item = context.get_constant(types.intp, size)
    array = context.make_array(kind)(context, builder)
    arrayobj.populate_array(
        array,
        data=builder.inttoptr(address, array.data.type),
        shape=[rows, columns] if kind.ndim == 2 else [rows],
        strides=[builder.mul(columns, item), item] if kind.ndim == 2 else [item],
        itemsize=item,
        meminfo=None,
    )
    return array._getvalue()


def _view(typing_context: Any, table: Any, row: Any, record: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.gep(data, [builder.mul(args[1], context.get_constant(types.uint64, 3))])

    return _Record(record.instance_class)(table, types.uint64, record), generate


view: Callable[..., Any] = intrinsic(_view)
"""Inside a kernel, `view(table, row, Record)` is the record whose first array is at that row."""


def _address_of(typing_context: Any, record: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], ir.IntType(64))

    return types.uint64(record), generate


def _at(typing_context: Any, address: Any, record: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(64).as_pointer())

    return _Record(record.instance_class)(types.uint64, record), generate


def _call(typing_context: Any, address: Any, args: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = ir.IntType(64)
        numbers = [builder.extract_value(values[1], i) for i in range(len(args))]
        kind = ir.FunctionType(word, [word] * len(args)).as_pointer()
        return builder.call(builder.inttoptr(values[0], kind), numbers)

    return types.uint64(types.uint64, args), generate


address_of: Callable[..., Any] = intrinsic(_address_of)
"""Inside a kernel, `address_of(record)` is the record's address, a uint64."""

at: Callable[..., Any] = intrinsic(_at)
"""Inside a kernel, `at(address, Record)` is the record at an address."""

call: Callable[..., Any] = intrinsic(_call)
"""Inside a kernel, `call(address, numbers)` is what another one returns, by its `entry`."""


def entry(kernel: Any, arguments: int) -> int:
    """Returns the address of a kernel that takes so many uint64 and returns one.

    A kernel that another one calls by address is compiled by itself: at the same time, perhaps.
    """
    kinds = (types.uint64,) * arguments
    kernel.compile(kinds)
    compiled = kernel.overloads[kinds]
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name))
