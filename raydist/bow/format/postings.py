"""Postings as bytes: bit-packed blocks of document deltas and term frequencies, and their skips.

A term of at most `block_size` postings is one block behind its widths::

    [width of deltas, 5 bits; form of tfs, 3 bits] or [31, 7][widths u16]
    [deltas][tfs][extras]

A longer term is a list of skip entries, one per block, and then the blocks::

    [bytes of the skips u32]
    per block  [last document u32][bytes of the block u16][widths u16]
               [pairs u8] then (tf u8, norm u8) per pair, tf descending
    per block  [deltas][tfs][extras]

Widths are [of deltas, 6 bits][of tfs, 6 bits][number of extras, 4 bits]; a form stands for common
ones of tfs and extras. Deltas are `doc - previous - 1`, tfs the lower bits of `tf - 1`, both least
significant bit first, each list padded to a whole byte. An extra is the position u8 of a posting
whose `tf - 1` is greater by `1 << width of tfs`; one that is greater by more has several. So a few
large frequencies do not widen the others.

The pairs are a block's competitive ones: no posting has both a larger tf and a smaller norm than
some pair, so a block's maximum under any k1, b and average length follows from them. A tf of 255 in
a pair stands for 255 or more. A raw segment keeps documents and tfs in flat arrays instead and
writes the skips alone, with zero bytes and widths.

The first layout, which is read and no longer written, has no extras, and two bytes of widths
everywhere: [of deltas u8][of tfs u8].

Legend: T terms, P postings, N documents.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raydist.kernels.addresses import Bytes, Offsets, Shorts, Words, view
from raydist.kernels.intrinsics import load64, ones, store64
from raydist.kernels.jit import inlined, kernel

Array = npt.NDArray[Any]
U = np.uint64

LAYOUT = 2
"""Of the segments that are written; see above for the first."""

# A skip entry: the last document, the bytes of the block, and its widths.
LAST, BYTES, BYTES_MASK, WIDTHS = U(0xFFFFFFFF), U(32), U(0xFFFF), U(48)
# Widths
WIDTH_MASK, TF_WIDTH, EXTRAS, MOST_EXTRAS = U(63), U(6), U(12), U(8)
# What a short list begins with: the width of deltas below the form of tfs.
_FORM, _NARROW, _OTHER = U(5), U(31), U(7)
# A byte for each form but the last: the width of tfs, 2 bits, and how many extras there are. They
# stand for widths of 0, 1 and 2 bits, 0 with 1, 2 and 3 extras, and 1 with 1.
_FORMS = U(0x050C0804020100)

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


@inlined
def packed_bytes(count: Any, width: Any) -> Any:
    """Returns the bytes of so many values."""
    return (count * width + U(7)) >> U(3)


@inlined
def widths_of(word: Any, layout: Any) -> Any:
    """Returns the widths of a block from those of its skip entry."""
    word &= BYTES_MASK
    if layout == U(1):
        return (word & U(255)) | (word >> U(8)) << TF_WIDTH
    return word


@inlined
def first_widths(word: Any, layout: Any) -> Any:
    """Returns the widths of a short list, which begins with `word`, and how many bytes they are."""
    form = (word >> _FORM) & U(7)
    if layout == U(1):
        return widths_of(word, layout), U(2)
    if form == _OTHER:
        return (word >> U(8)) & BYTES_MASK, U(3)
    tfs = (_FORMS >> (form << U(3))) & U(255)
    return (word & _NARROW) | (tfs & U(3)) << TF_WIDTH | (tfs >> U(2)) << EXTRAS, U(1)


@inlined
def extra_of(data: Array, o: Any, extras: Any, i: Any) -> Any:
    """Returns how many of the block's extras at `o`, at least 1, are those of posting `i`."""
    low = U(0x7F7F7F7F7F7F7F7F)
    word = load64(data, o) ^ (U(0x0101010101010101) * i)
    other = ((word & low) + low) | word | low  # 0x7F where a byte of the word is 0
    return ones(~other << (U(64) - (extras << U(3))))


@inlined
def add_extras(data: Array, o: Any, extras: Any, width: Any, out: Array, to: Any) -> None:
    """Adds a block's extras at `o` to its frequencies from `out[to]` on."""
    more = np.uint32(U(1) << width)
    for e in range(extras):
        out[to + U(data[o + e])] += more


@kernel
def _decode_block(
    data: Array, o: Any, count: Any, widths: Any, prev: Any, docs: Array, tfs: Array, to: Any
) -> Any:
    doc_width = widths & WIDTH_MASK
    tf_width = (widths >> TF_WIDTH) & WIDTH_MASK
    extras = widths >> EXTRAS
    unpack_docs(data, o, count, doc_width, prev, docs, to)
    o += packed_bytes(count, doc_width)
    unpack_tfs(data, o, count, tf_width, tfs, to)
    o += packed_bytes(count, tf_width)
    add_extras(data, o, extras, tf_width, tfs, to)
    for i in range(to, to + count):
        tfs[i] += np.uint32(1)
    return o + extras


@kernel
def decode(
    data: Array,
    start: Any,
    df_T: Array,
    sizes_T: Array,
    block_size: Any,
    layout: Any,
    docs: Array,
    tfs: Array,
) -> None:
    """Decodes consecutive packed terms from `data[start:]`, which has the layout `layout`.

    `docs` and `tfs` (uint32) hold the terms' postings one after another and BLOCK_SLACK more.
    """
    layout = U(layout)
    none = U(0) - U(1)
    size = U(block_size)
    begin = U(start)
    to = U(0)
    for t in range(df_T.shape[0]):
        left = U(df_T[t])
        if left <= size:
            widths, o = first_widths(load64(data, begin), layout)
            _decode_block(data, begin + o, left, widths, none, docs, tfs, to)
            to += left
        else:
            entry_at = begin + U(4)
            o = entry_at + (load64(data, begin) & LAST)
            prev = none
            while left:
                count = min(left, size)
                entry = load64(data, entry_at)
                widths = widths_of(entry >> WIDTHS, layout)
                o = _decode_block(data, o, count, widths, prev, docs, tfs, to)
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
    """Packs values less 1, less the value before (`gaps`) or less `prev`; returns the end.

    Only the lower bits are, where a value is wider.
    """
    mask = (U(1) << width) - U(1)
    word = U(0)
    fill = U(0)
    for i in range(start, stop):
        value = U(values_P[i])
        word |= ((value - prev - U(1)) & mask) << fill
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
def _narrowed(tfs_P: Array, start: Any, stop: Any, width: Any) -> Any:
    """Returns the width and the number of extras by which a block's tfs are shortest."""
    count = stop - start
    best, extras, least = width, U(0), packed_bytes(count, width)
    if count > U(256):  # positions are bytes
        return best, extras
    while width > U(0):
        width -= U(1)
        more = U(0)
        for i in range(start, stop):
            more += (U(tfs_P[i]) - U(1)) >> width
        if more > MOST_EXTRAS:
            break
        size = packed_bytes(count, width) + more
        if size < least:
            best, extras, least = width, more, size
    return best, extras


@kernel
def _put_block(
    docs_P: Array, tfs_P: Array, start: Any, stop: Any, prev: Any, widths: Any, out: Array, o: Any
) -> Any:
    """Writes a block of such widths; returns its end."""
    tf_width = (widths >> TF_WIDTH) & WIDTH_MASK
    o = _pack(docs_P, start, stop, prev, True, widths & WIDTH_MASK, out, o)
    o = _pack(tfs_P, start, stop, U(0), False, tf_width, out, o)
    if widths >> EXTRAS:
        for i in range(start, stop):
            for _ in range((U(tfs_P[i]) - U(1)) >> tf_width):
                out[o] = np.uint8(i - start)
                o += U(1)
    return o


@kernel
def _put_first_widths(widths: Any, out: Array, o: Any) -> Any:
    """Writes the widths that a short list begins with; returns their end."""
    doc_width = widths & WIDTH_MASK
    tfs = ((widths >> TF_WIDTH) & WIDTH_MASK) | (widths >> EXTRAS) << U(2)
    form = U(0)
    while form < _OTHER and (_FORMS >> (form << U(3))) & U(255) != tfs:
        form += U(1)
    if doc_width > _NARROW or (widths >> TF_WIDTH) & WIDTH_MASK > U(3) or form == _OTHER:
        out[o] = np.uint8(_NARROW | _OTHER << _FORM)
        out[o + U(1)] = np.uint8(widths & U(255))
        out[o + U(2)] = np.uint8(widths >> U(8))
        return o + U(3)
    out[o] = np.uint8(doc_width | form << _FORM)
    return o + U(1)


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
                tf_width, extras = _narrowed(tfs_P, start, stop, tf_width)
                widths = doc_width | tf_width << TF_WIDTH | extras << EXTRAS
                o = _put_first_widths(widths, out, o)
                o = _put_block(docs_P, tfs_P, start, stop, none, widths, out, o)
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
                    tf_width, extras = _narrowed(tfs_P, a, z, tf_width)
                    taken = packed_bytes(n, doc_width) + packed_bytes(n, tf_width) + extras
                    widths = doc_width | tf_width << TF_WIDTH | extras << EXTRAS
                    entry |= taken << BYTES | widths << WIDTHS
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
                    o = _put_block(docs_P, tfs_P, a, z, prev, entry >> WIDTHS, out, o)
                    prev = entry & LAST
                    a = z
        sizes_T[t] = o - begin
    return True, np.int64(o)
