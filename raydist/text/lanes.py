"""Classifies 32 bytes of ASCII text at once, for the tokenizer's fast path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_LANES = 32


def _classify_32(typing_context: Any, source: Any, at: Any, target: Any, to: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, mask = ir.IntType(8), ir.IntType(_LANES)
        lanes = ir.VectorType(byte, _LANES)

        def address(which: int) -> Any:
            array = context.make_array(signature.args[which])(context, builder, args[which])
            place = builder.gep(array.data, [args[which + 1]])
            return builder.bitcast(place, lanes.as_pointer())

        def every(value: int) -> Any:
            return ir.Constant(lanes, [value] * _LANES)

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
        return builder.or_(
            bits(word), builder.shl(bits(foreign), ir.Constant(ir.IntType(64), _LANES))
        )

    return types.uint64(source, types.uint64, target, types.uint64), generate


# Inside a kernel, on uint8 arrays: classify_32(source, at, target, to) lower-cases source[at:at+32]
# into target[to:to+32] and returns a bit for each byte that is an ASCII letter, digit or underscore
# (bits 0 .. 31) and a bit for each byte that is not ASCII (bits 32 .. 63).
classify_32: Callable[..., Any] = intrinsic(_classify_32)
