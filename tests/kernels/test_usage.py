"""The room in a few lines: a loop over an array's strings that runs as machine code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from raydist.kernels.addresses import call, entry
from raydist.kernels.arrays import Array, string_buffers
from raydist.kernels.bits import Bits
from raydist.kernels.jit import kernel

U = np.uint64


@kernel
def _spaces(offsets_S1: Array, data: Array, counts_S: Array) -> None:
    for s in range(counts_S.shape[0]):
        for at in range(offsets_S1[s], offsets_S1[s + 1]):
            counts_S[s] += data[at] == ord(" ")


def test_a_kernel_reads_strings_where_arrow_has_them() -> None:
    strings = pa.array(["a b c", "", "nothing", "d e"])
    counts = np.zeros(len(strings), np.int64)
    _spaces(*string_buffers(strings), counts)
    assert counts.tolist() == [2, 0, 0, 1]


def test_flags_are_bits_with_ranks() -> None:
    bits = Bits.of(np.array([True, False, True, True]))
    assert bits.count == 3 and bits.has(np.array([0, 1])).tolist() == [True, False]
    assert bits.rank(np.array([3])).tolist() == [2] and bits.select(np.array([2])).tolist() == [3]


@kernel
def _power(base: Any, exponent: Any) -> Any:
    result = U(1)
    for _ in range(exponent):
        result *= base
    return result


@kernel
def _power_of_sum(entries: Array, a: Any, b: Any) -> Any:
    return call(entries[0], (U(a) + U(b), U(5)))


def test_a_kernel_calls_one_that_is_compiled_apart_by_its_address() -> None:
    entries = np.array([entry(_power, 2)], np.uint64)
    assert _power_of_sum(entries, 3, 4) == 7**5


@kernel
def _sum(a: Any, b: Any) -> Any:
    return a + b


def test_what_an_operator_returns_follows_the_types_of_each_place() -> None:
    for a, b in ((U(2), U(3)), (1.5, U(2)), (np.float32(0.5), np.float32(0.25)), (U(7), U(8))):
        assert _sum(a, b) == a + b
        assert isinstance(_sum(a, b), int) == isinstance(a, U)
