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

Legend: T terms, P postings, N documents.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raydist.kernels.addresses import Bytes, Offsets, Shorts, Words, view
from raydist.kernels.intrinsics import load64, store64
from raydist.kernels.jit import inlined, kernel

Array = npt.NDArray[Any]
U = np.uint64

# A skip entry: the last document, the bytes of the block, and how wide its values are packed.
LAST, BYTES, BYTES_MASK = U(0xFFFFFFFF), U(32), U(0xFFFF)
DOC_WIDTH, TF_WIDTH, WIDTH_MASK = U(48), U(56), U(0xFF)
WIDTH = U(8)  # bits of a width

SKIP = U(9)
"""Bytes of a skip entry and its number of pairs, which follow with two bytes each."""

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
    doc_width = widths & WIDTH_MASK
    tf_width = widths >> WIDTH
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
            widths = U(data[begin]) | U(data[begin + U(1)]) << WIDTH
            _decode_block(data, begin + U(2), left, widths, none, docs, tfs, to)
            to += left
        else:
            entry_at = begin + U(4)
            o = entry_at + (load64(data, begin) & LAST)
            prev = none
            while left:
                count = min(left, size)
                entry = load64(data, entry_at)
                o = _decode_block(data, o, count, entry >> DOC_WIDTH, prev, docs, tfs, to)
                prev = entry & LAST
                entry_at += SKIP + (U(data[entry_at + SKIP - U(1)]) << U(1))
                to += count
                left -= count
        begin += U(sizes_T[t])


# --- Writing -------------------------------------------------------------------------------------


@kernel
def _width(bits: Any) -> Any:
    width = U(0)
    while width < U(33) and bits >> width:
        width += U(1)
    return width


@inlined
def _pack(
    values_P: Array, start: Any, stop: Any, prev: Any, gaps: Any, width: Any, out: Array, o: Any
) -> Any:
    """Packs values less 1, less the value before (`gaps`) or less `prev`; returns the end."""
    word = U(0)
    fill = U(0)
    for i in range(start, stop):
        value = U(values_P[i])
        word |= (value - prev - U(1)) << fill
        if gaps:
            prev = value
        fill += width
        store64(out, o, word)
        whole = fill >> U(3)
        o += whole
        word >>= whole << U(3)
        fill &= U(7)
    return o + ((fill + U(7)) >> U(3))


@kernel
def _widths(docs_P: Array, tfs_P: Array, start: Any, stop: Any, prev: Any) -> Any:
    """Returns the widths of a block's deltas and tfs; a width over 32 marks bad postings."""
    deltas = U(0)
    tfs = U(0)
    for i in range(start, stop):
        doc = U(docs_P[i])
        deltas |= doc - prev - U(1)
        tfs |= U(tfs_P[i]) - U(1)
        prev = doc
    return _width(deltas), _width(tfs)


@kernel
def _put_pairs(
    docs_P: Array,
    tfs_P: Array,
    norms_N: Array,
    start: Any,
    stop: Any,
    least: Array,
    out: Array,
    o: Any,
) -> Any:
    """Writes the block's competitive pairs; `least` [256] holds 256 everywhere between calls."""
    top = U(0)
    for i in range(start, stop):
        tf = min(U(tfs_P[i]), U(255))
        norm = np.uint16(norms_N[U(docs_P[i])])
        top = max(top, tf)
        if norm < least[tf]:
            least[tf] = norm
    count = o
    o += U(1)
    floor = np.uint16(256)
    tf = top
    while tf > U(0):
        if least[tf] < floor:
            floor = least[tf]
            out[o] = np.uint8(tf)
            out[o + U(1)] = np.uint8(floor)
            o += U(2)
        least[tf] = np.uint16(256)
        tf -= U(1)
    out[count] = np.uint8((o - count) >> U(1))
    return o


class Encoding(NamedTuple):
    """The arrays of `encode`."""

    indptr: Offsets  # [T + 1] where each term's postings begin
    docs: Words  # [P]
    tfs: Words  # [P]
    norms: Bytes  # [N]
    least: Shorts  # [256] 256 everywhere between calls
    out: Bytes  # receives the bytes: 10 a posting, 32 a term and 16 more
    sizes: Offsets  # [T] receives each term's bytes


@kernel
def encode(table: Array, first: Any, last: Any, block_size: Any, packed: Any) -> Any:
    """Encodes the terms `first <= t < last`, packed or their skips alone.

    `table` has the addresses of an `Encoding`. Returns whether the postings are valid (documents
    ascend within a term, tfs are at least 1) and the bytes written.
    """
    work = view(table, U(0), Encoding)
    indptr_T1, docs_P, tfs_P, norms_N = work.indptr, work.docs, work.tfs, work.norms
    least, out, sizes_T = work.least, work.out, work.sizes
    o = U(0)
    size = U(block_size)
    none = U(0) - U(1)
    for t in range(first, last):
        begin = o
        start = U(indptr_T1[t])
        stop = U(indptr_T1[t + 1])
        if stop - start <= size:
            doc_width, tf_width = _widths(docs_P, tfs_P, start, stop, none)
            if doc_width > U(32) or tf_width > U(32):
                return False, np.int64(o)
            if packed:
                out[o] = np.uint8(doc_width)
                out[o + U(1)] = np.uint8(tf_width)
                o = _pack(docs_P, start, stop, none, True, doc_width, out, o + U(2))
                o = _pack(tfs_P, start, stop, U(0), False, tf_width, out, o)
        else:
            o += U(4)
            prev = none
            a = start
            while a < stop:
                z = min(a + size, stop)
                doc_width, tf_width = _widths(docs_P, tfs_P, a, z, prev)
                if doc_width > U(32) or tf_width > U(32):
                    return False, np.int64(o)
                prev = U(docs_P[z - U(1)])
                entry = prev
                if packed:
                    n = z - a
                    taken = ((n * doc_width + U(7)) >> U(3)) + ((n * tf_width + U(7)) >> U(3))
                    entry |= taken << BYTES | doc_width << DOC_WIDTH | tf_width << TF_WIDTH
                store64(out, o, entry)
                o = _put_pairs(docs_P, tfs_P, norms_N, a, z, least, out, o + SKIP - U(1))
                a = z
            skips = o - begin - U(4)
            for byte in range(U(4)):
                out[begin + byte] = np.uint8((skips >> (byte << U(3))) & U(255))
            if packed:
                prev = none
                a = start
                entry_at = begin + U(4)
                while a < stop:
                    z = min(a + size, stop)
                    entry = load64(out, entry_at)
                    entry_at += SKIP + (U(out[entry_at + SKIP - U(1)]) << U(1))
                    doc_width, tf_width = (entry >> DOC_WIDTH) & WIDTH_MASK, entry >> TF_WIDTH
                    o = _pack(docs_P, a, z, prev, True, doc_width, out, o)
                    o = _pack(tfs_P, a, z, U(0), False, tf_width, out, o)
                    prev = entry & LAST
                    a = z
        sizes_T[t] = o - begin
    return True, np.int64(o)
