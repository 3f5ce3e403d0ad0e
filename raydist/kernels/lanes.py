"""Machine instructions on 64 lanes of 16 bits, for the bounds of 64 blocks at once.

Offsets count elements of the array; nothing is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_BYTE, _SHORT, _WORD, _LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_LANES = 64


def _vector(context: Any, builder: Any, signature: Any, args: Any, which: int, item: Any) -> Any:
    """Returns a pointer to 64 elements of an argument, from the offset that follows it."""
    array = context.make_array(signature.args[which])(context, builder, args[which])
    place = builder.gep(array.data, [args[which + 1]])
    return builder.bitcast(place, ir.VectorType(item, _LANES).as_pointer())


def _splat(builder: Any, value: Any, item: Any) -> Any:
    lanes = ir.VectorType(item, _LANES)
    undefined = ir.Constant(lanes, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_WORD, 0))
    zeros = ir.Constant(ir.VectorType(_WORD, _LANES), [0] * _LANES)
    return builder.shuffle_vector(first, undefined, zeros)


def _add_scaled_64(
    typing_context: Any, sums: Any, to: Any, codes: Any, at: Any, factor: Any
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.VectorType(_WORD, _LANES)
        place = _vector(context, builder, signature, args, 0, _SHORT)
        old = builder.load(place)
        old.align = 2
        code = builder.load(_vector(context, builder, signature, args, 2, _BYTE))
        code.align = 1
        shift = ir.Constant(wide, [8] * _LANES)
        half = ir.Constant(wide, [16] * _LANES)
        # The upper 16 bits of a product of 16 bits each: one instruction on most machines.
        code = builder.shl(builder.zext(code, wide), shift)
        product = builder.mul(code, _splat(builder, builder.trunc(args[4], _WORD), _WORD))
        part = builder.trunc(builder.lshr(product, half), ir.VectorType(_SHORT, _LANES))
        stored = builder.store(builder.add(old, part), place)
        stored.align = 2
        return context.get_dummy_value()

    return types.void(sums, types.uint64, codes, types.uint64, types.uint64), generate


def _largest_64(typing_context: Any, values: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = ir.VectorType(_SHORT, _LANES)
        value = builder.load(_vector(context, builder, signature, args, 0, _SHORT))
        value.align = 2
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_SHORT, [lanes]), "llvm.vector.reduce.umax.v64i16"
        )
        return builder.zext(builder.call(function, [value]), _LONG)

    return types.uint64(values, types.uint64), generate


def _at_least_64(typing_context: Any, values: Any, at: Any, limit: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_vector(context, builder, signature, args, 0, _SHORT))
        value.align = 2
        limits = _splat(builder, builder.trunc(args[2], _SHORT), _SHORT)
        return builder.bitcast(builder.icmp_unsigned(">=", value, limits), _LONG)

    return types.uint64(values, types.uint64, types.uint64), generate


# Inside a kernel: add_scaled_64(uint16s, to, bytes, at, factor) adds bytes[at + i] * factor >> 8 to
# 64 elements (the factor has 16 bits); largest_64(uint16s, at); at_least_64(uint16s, at, limit)
# -> bit i set where uint16s[at + i] >= limit.
add_scaled_64: Callable[..., Any] = intrinsic(_add_scaled_64)
largest_64: Callable[..., Any] = intrinsic(_largest_64)
at_least_64: Callable[..., Any] = intrinsic(_at_least_64)
