"""Postings as bytes: bit-packed blocks of document deltas and term frequencies, and their skips.

A term of at most `block_size` postings is one block behind its two widths::

    [width of deltas u8][width of tfs u8][deltas][tfs]

A longer term is a list of skip entries, one per block, and then the blocks::

    [bytes of the skips u32]
    per block  [last document u32][bytes of the block u16][width of deltas u8][width of tfs u8]
               [pairs u8] then (tf u8, norm u8) per pair, tf descending
    per block  [deltas][tfs]

Deltas are `doc - previous - 1`, tfs are `tf - 1`, both least significant bit first, each list
padded to a whole byte. The pairs are a block's competitive ones: no posting has both a larger tf
and a smaller norm than some pair, so a block's maximum under any k1, b and average length follows
from them. A tf of 255 in a pair stands for 255 or more. A raw segment keeps documents and tfs in
flat arrays instead and writes the skips alone, with zero bytes and widths.

packing.py writes it, this file reads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.kernels.intrinsics import load64
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64

BLOCK_SLACK = 8
"""Elements that unpacking may write, and bytes that it may read, behind the end."""


@kernel
def unpack_docs(
    data: Array, o: Any, count: Any, width: Any, prev: Any, out: Array, to: Any
) -> None:
    """Writes `count` documents to `out[to:]`, and up to BLOCK_SLACK elements behind them.

    `prev` is the last document before the block, 2**64 - 1 at a term's start.
    """
    doc = prev + U(1)
    mask = (U(1) << width) - U(1)
    i = U(0)
    if width <= U(8):
        while i < count:
            word = load64(data, o)
            for j in range(8):
                doc += word & mask
                out[to + i + U(j)] = doc
                word >>= width
                doc += U(1)
            i += U(8)
            o += width
    elif width <= U(14):
        half = width * U(4)
        skip = half >> U(3)
        rest = half & U(7)
        while i < count:
            low = load64(data, o)
            high = load64(data, o + skip) >> rest
            for j in range(4):
                doc += low & mask
                out[to + i + U(j)] = doc
                low >>= width
                doc += U(1)
            for j in range(4, 8):
                doc += high & mask
                out[to + i + U(j)] = doc
                high >>= width
                doc += U(1)
            i += U(8)
            o += width
    else:
        bit = U(0)
        while i < count:
            doc += (load64(data, o + (bit >> U(3))) >> (bit & U(7))) & mask
            out[to + i] = doc
            doc += U(1)
            bit += width
            i += U(1)


@kernel
def unpack_tfs(data: Array, o: Any, count: Any, width: Any, out: Array, to: Any) -> None:
    """Writes `count` values of tf - 1 to `out[to:]`, and up to BLOCK_SLACK behind them."""
    mask = (U(1) << width) - U(1)
    i = U(0)
    if width <= U(8):
        while i < count:
            word = load64(data, o)
            for j in range(8):
                out[to + i + U(j)] = word & mask
                word >>= width
            i += U(8)
            o += width
    else:
        bit = U(0)
        while i < count:
            out[to + i] = (load64(data, o + (bit >> U(3))) >> (bit & U(7))) & mask
            bit += width
            i += U(1)


@kernel
def _decode_block(
    data: Array, o: Any, count: Any, widths: Any, prev: Any, docs: Array, tfs: Array, to: Any
) -> Any:
    doc_width = widths & U(255)
    tf_width = widths >> U(8)
    unpack_docs(data, o, count, doc_width, prev, docs, to)
    o += (count * doc_width + U(7)) >> U(3)
    unpack_tfs(data, o, count, tf_width, tfs, to)
    for i in range(to, to + count):
        tfs[i] += np.uint32(1)
    return o + ((count * tf_width + U(7)) >> U(3))


@kernel
def decode(
    data: Array, start: Any, df_T: Array, sizes_T: Array, block_size: Any, docs: Array, tfs: Array
) -> None:
    """Decodes consecutive packed terms from `data[start:]`.

    `docs` and `tfs` (uint32) hold the terms' postings one after another and BLOCK_SLACK more.
    """
    none = U(0) - U(1)
    size = U(block_size)
    begin = U(start)
    to = U(0)
    for t in range(df_T.shape[0]):
        left = U(df_T[t])
        if left <= size:
            widths = U(data[begin]) | U(data[begin + U(1)]) << U(8)
            _decode_block(data, begin + U(2), left, widths, none, docs, tfs, to)
            to += left
        else:
            entry_at = begin + U(4)
            o = entry_at + (load64(data, begin) & U(0xFFFFFFFF))
            prev = none
            while left:
                count = min(left, size)
                entry = load64(data, entry_at)
                o = _decode_block(data, o, count, entry >> U(48), prev, docs, tfs, to)
                prev = entry & U(0xFFFFFFFF)
                entry_at += U(9) + (U(data[entry_at + U(8)]) << U(1))
                to += count
                left -= count
        begin += U(sizes_T[t])
