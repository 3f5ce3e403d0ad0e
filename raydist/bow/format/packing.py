"""Packing postings: the widths of a block, its bytes, and its competitive pairs.

The format is described in codec.py, which reads it.

Legend: T terms, P postings, N documents.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.kernels.intrinsics import load64, store64
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64


@kernel
def _width(bits: Any) -> Any:
    width = U(0)
    while width < U(33) and bits >> width:
        width += U(1)
    return width


@kernel
def _pack_docs(
    docs_P: Array, start: Any, stop: Any, prev: Any, width: Any, out: Array, o: Any
) -> Any:
    word = U(0)
    fill = U(0)
    for i in range(start, stop):
        doc = U(docs_P[i])
        word |= (doc - prev - U(1)) << fill
        prev = doc
        fill += width
        store64(out, o, word)
        whole = fill >> U(3)
        o += whole
        word >>= whole << U(3)
        fill &= U(7)
    return o + ((fill + U(7)) >> U(3))


@kernel
def _pack_tfs(tfs_P: Array, start: Any, stop: Any, width: Any, out: Array, o: Any) -> Any:
    word = U(0)
    fill = U(0)
    for i in range(start, stop):
        word |= (U(tfs_P[i]) - U(1)) << fill
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


@kernel
def encode(
    indptr_T1: Array,
    docs_P: Array,
    tfs_P: Array,
    norms_N: Array,
    first: Any,
    last: Any,
    block_size: Any,
    packed: Any,
    least: Array,
    out: Array,
    sizes_T: Array,
) -> Any:
    """Encodes the terms `first <= t < last` to `out` and returns the bytes written.

    `sizes_T` receives each term's bytes. Returns -1 where a term's documents do not ascend or a tf
    is zero. `out` needs 10 bytes a posting, 32 a term and 16 more.
    """
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
                return -1
            if packed:
                out[o] = np.uint8(doc_width)
                out[o + U(1)] = np.uint8(tf_width)
                o = _pack_docs(docs_P, start, stop, none, doc_width, out, o + U(2))
                o = _pack_tfs(tfs_P, start, stop, tf_width, out, o)
        else:
            o += U(4)
            prev = none
            a = start
            while a < stop:
                z = min(a + size, stop)
                doc_width, tf_width = _widths(docs_P, tfs_P, a, z, prev)
                if doc_width > U(32) or tf_width > U(32):
                    return -1
                prev = U(docs_P[z - U(1)])
                entry = prev
                if packed:
                    n = z - a
                    taken = ((n * doc_width + U(7)) >> U(3)) + ((n * tf_width + U(7)) >> U(3))
                    entry |= taken << U(32) | doc_width << U(48) | tf_width << U(56)
                store64(out, o, entry)
                o = _put_pairs(docs_P, tfs_P, norms_N, a, z, least, out, o + U(8))
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
                    entry_at += U(9) + (U(out[entry_at + U(8)]) << U(1))
                    o = _pack_docs(docs_P, a, z, prev, (entry >> U(48)) & U(255), out, o)
                    o = _pack_tfs(tfs_P, a, z, entry >> U(56), out, o)
                    prev = entry & U(0xFFFFFFFF)
                    a = z
        sizes_T[t] = o - begin
    return np.int64(o)
