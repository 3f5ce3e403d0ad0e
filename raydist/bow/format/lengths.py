"""Lengths of documents as bytes: of each the bits that its norm lacks.

A norm byte stands for the lengths from `NORM_LENGTHS` up to those of the next. How far a length is
above the first of them takes as many bits as there are such lengths, which the norm tells; these
bits come one document after another, least significant first. In a segment of the first layout
lengths are an array of integers instead.

Legend: N documents.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.formulas import NORM_LENGTHS
from raydist.kernels.arrays import readonly
from raydist.kernels.intrinsics import load64, store64
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64

_PADDING = 8  # bytes behind them: 64 bits are read at a time
_WIDTHS = np.append(np.log2(np.diff(NORM_LENGTHS)), 32).astype(np.uint8)  # [256], of any uint32
_FIRST, _BITS = readonly(NORM_LENGTHS, np.uint64), readonly(_WIDTHS)


def pack_lengths(lengths_N: Array, norms_N: Array) -> Array:
    """Returns lengths (uint32) as bytes; `norms_N` are `norm_bytes` of them."""
    out = np.zeros(_size(norms_N), np.uint8)
    _pack(readonly(lengths_N, np.uint32), readonly(norms_N), _FIRST, _BITS, out)
    return out


def unpack_lengths(data: Array, norms_N: Array) -> Array:
    """Returns the lengths, uint32 [N]; raises ValueError where they are those of other norms."""
    if len(data) != _size(norms_N):
        raise ValueError(f"{len(data):,} bytes of lengths, the norms have {_size(norms_N):,}")
    out = np.empty(len(norms_N), np.uint32)
    _unpack(readonly(data), readonly(norms_N), _FIRST, _BITS, out)
    return out


def _size(norms_N: Array) -> int:
    bits = np.bincount(norms_N, minlength=256) @ _WIDTHS.astype(np.int64)
    return -(-int(bits) // 8) + _PADDING


@kernel
def _pack(lengths_N: Array, norms_N: Array, first: Array, bits: Array, out: Array) -> None:
    bit = U(0)
    for n in range(lengths_N.shape[0]):
        norm = U(norms_N[n])
        o = bit >> U(3)
        value = U(lengths_N[n]) - first[norm]
        store64(out, o, load64(out, o) | value << (bit & U(7)))
        bit += U(bits[norm])


@kernel
def _unpack(data: Array, norms_N: Array, first: Array, bits: Array, out: Array) -> None:
    bit = U(0)
    for n in range(out.shape[0]):
        norm = U(norms_N[n])
        width = U(bits[norm])
        more = (load64(data, bit >> U(3)) >> (bit & U(7))) & ((U(1) << width) - U(1))
        out[n] = np.uint32(first[norm] + more)
        bit += width
