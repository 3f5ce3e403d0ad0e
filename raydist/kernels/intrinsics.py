"""Machine instructions that numba has no name for.

Unaligned 64-bit loads and stores (little endian), a prefetch, trailing zeros, the bits of a float,
and comparisons of 32 lanes at once. Offsets count elements of the array; nothing is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


def _address(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])


def _load64(typing_context: Any, array: Any, offset: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature.args[0], args[0], args[1])
        value = builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()))
        value.align = 1
        return value

    return types.uint64(array, types.uint64), generate


def _store64(typing_context: Any, array: Any, offset: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature.args[0], args[0], args[1])
        stored = builder.store(args[2], builder.bitcast(place, ir.IntType(64).as_pointer()))
        stored.align = 1
        return context.get_dummy_value()

    return types.void(array, types.uint64, types.uint64), generate


def _prefetch(typing_context: Any, array: Any, offset: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature.args[0], args[0], args[1])
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte, word, word, word]),
            "llvm.prefetch.p0",
        )
        read, keep, data = (ir.Constant(word, n) for n in (0, 3, 1))
        builder.call(function, [builder.bitcast(place, byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


def _at_least_32(typing_context: Any, array: Any, offset: Any, limit: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        lanes = ir.VectorType(word, 32)
        place = _address(context, builder, signature.args[0], args[0], args[1])
        values = builder.load(builder.bitcast(place, lanes.as_pointer()))
        values.align = 4
        undefined = ir.Constant(lanes, ir.Undefined)
        first = builder.insert_element(
            undefined, builder.trunc(args[2], word), ir.Constant(word, 0)
        )
        limits = builder.shuffle_vector(first, undefined, ir.Constant(lanes, [0] * 32))
        mask = builder.icmp_unsigned(">=", values, limits)
        return builder.zext(builder.bitcast(mask, word), ir.IntType(64))

    return types.uint64(array, types.uint64, types.uint64), generate


def _clear_32(typing_context: Any, array: Any, offset: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = ir.VectorType(ir.IntType(32), 32)
        place = _address(context, builder, signature.args[0], args[0], args[1])
        zero = ir.Constant(lanes, None)
        stored = builder.store(zero, builder.bitcast(place, lanes.as_pointer()))
        stored.align = 4
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


def _trailing_zeros(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


def _ones(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), generate


def _bits_of_float(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), generate


def _float_of_bits(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), generate


def _classify_32(typing_context: Any, source: Any, at: Any, target: Any, to: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, mask = ir.IntType(8), ir.IntType(32)
        lanes = ir.VectorType(byte, 32)

        def address(which: int) -> Any:
            array = context.make_array(signature.args[which])(context, builder, args[which])
            place = builder.gep(array.data, [args[which + 1]])
            return builder.bitcast(place, lanes.as_pointer())

        def every(value: int) -> Any:
            return ir.Constant(lanes, [value] * 32)

        def among(values: Any, first: str, count: int) -> Any:
            return builder.icmp_unsigned("<", builder.sub(values, every(ord(first))), every(count))

        def bits(flags: Any) -> Any:
            return builder.zext(builder.bitcast(flags, mask), ir.IntType(64))

        text = builder.load(address(0))
        text.align = 1
        capital = among(text, "A", 26)
        small = builder.or_(text, builder.select(capital, every(0x20), every(0)))
        stored = builder.store(small, address(2))
        stored.align = 1
        letter, digit = among(small, "a", 26), among(text, "0", 10)
        word = builder.or_(builder.or_(letter, digit), among(text, "_", 1))
        foreign = builder.icmp_signed("<", text, every(0))
        return builder.or_(bits(word), builder.shl(bits(foreign), ir.Constant(ir.IntType(64), 32)))

    return types.uint64(source, types.uint64, target, types.uint64), generate


# Inside a kernel: load64(bytes, offset), store64(bytes, offset, value), prefetch(array, offset),
# at_least_32(uint32s, offset, limit) -> bit i set where array[offset + i] >= limit,
# clear_32(uint32s, offset) sets 32 elements to 0,
# classify_32(bytes, at, target, to) lower-cases 32 bytes of ASCII text from bytes[at] to target[to]
# and returns a bit for each that is a letter, digit or underscore (bits 0 .. 31) and for each that
# is not ASCII (bits 32 .. 63),
# trailing_zeros(uint64) with 64 for 0, ones(uint64), bits_of_float(float32), float_of_bits(uint32).
load64: Callable[..., Any] = intrinsic(_load64)
store64: Callable[..., Any] = intrinsic(_store64)
prefetch: Callable[..., Any] = intrinsic(_prefetch)
at_least_32: Callable[..., Any] = intrinsic(_at_least_32)
clear_32: Callable[..., Any] = intrinsic(_clear_32)
trailing_zeros: Callable[..., Any] = intrinsic(_trailing_zeros)
ones: Callable[..., Any] = intrinsic(_ones)
bits_of_float: Callable[..., Any] = intrinsic(_bits_of_float)
float_of_bits: Callable[..., Any] = intrinsic(_float_of_bits)
classify_32: Callable[..., Any] = intrinsic(_classify_32)
