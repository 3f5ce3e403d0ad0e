"""Export for Block-Max Pruning (Mallia, Suel & Tonellotto, SIGIR 2024): 8-bit impacts in blocks.

The file is what the program `bmp` (0.2.8) reads: Rust's bincode of an inverted index of block
maxima and a forward index by block. Numbers are little endian, lengths 64 bits::

    documents; per term: 1 and the maxima of its blocks (raw), or 0 and per 256 blocks the pairs
    (block u64, maximum u8) that are not 0; then the 10th, 100th and 1000th largest impact;
    the map of terms (fst.py); the external ids;
    per block: per term its number u16 and the pairs (document in the block u8, impact u8);
    the block size

Term numbers have 16 bits in that program: a larger vocabulary must be cut.

Legend: T terms, P postings, N documents, B blocks.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raydist.bow.exchange.fst import build_fst
from raydist.bow.formulas import NORM_LENGTHS, lucene_idf, lucene_inverse, lucene_term
from raydist.bow.index import BowIndex, Vocabulary, encode_term
from raydist.disk import atomic
from raydist.errors import ConfigError, DataError
from raydist.kernels.intrinsics import store64
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64

MOST_TERMS = 1 << 16
"""Terms that the format can number."""

_SLICE = 1 << 20
_BLOCK_AT, _TERM_AT, _DOC_AT = U(32), U(16), U(8)  # in a posting's key, above the impact
_LEVELS = 255


def export_bmp(
    index: BowIndex,
    path: str | os.PathLike[str],
    *,
    block_size: int = 32,
    compress_range: bool = True,
    k1: float = 0.9,
    b: float = 0.4,
    terms: Iterable[str] | None = None,
    too_many: str = "error",
) -> dict[str, int]:
    """Writes an index for Block-Max Pruning; returns counts of written and omitted postings.

    The impacts of a text index are BM25's as Lucene computes it, those of weighted terms their
    weights; either way scaled so that the largest is 255, and at least 1.

    Args:
        index: an opened index.
        path: the file to write.
        block_size: documents per block, 1 to 256.
        compress_range: keep only the maxima that are not 0.
        k1: BM25's.
        b: BM25's.
        terms: export these alone (such as the terms of a set of queries), renumbered.
        too_many: for more than 65,536 terms: `error`, or `prune` to the most frequent.

    Raises:
        ConfigError: a block size out of bounds, or an unknown `too_many`.
        DataError: too many terms, or no postings at all.
    """
    if not 1 <= block_size <= 256:
        raise ConfigError(f"block_size = {block_size}: 1 to 256, documents in a block have 8 bits")
    if too_many not in ("error", "prune"):
        raise ConfigError(f"too_many = {too_many!r}: expected error or prune")
    vocabulary = Vocabulary(index)
    keep_T = _exported(vocabulary, terms, too_many)
    names, indptr_T1, docs_P, impacts_P = _impacts(index, vocabulary, keep_T, k1, b)
    if not len(docs_P):
        raise DataError("nothing to export: no term has postings")
    levels_P = quantise(impacts_P)
    with atomic(path) as partial, open(partial, "wb") as out:
        _write_inverted(out, indptr_T1, docs_P, levels_P, len(index), block_size, compress_range)
        fst = build_fst(names.to_pylist())
        out.write(struct.pack("<Q", len(fst)) + fst)
        _write_ids(out, index)
        _write_forward(out, indptr_T1, docs_P, levels_P, len(index), block_size)
        out.write(struct.pack("<Q", block_size))
    left_out = len(vocabulary) - len(names)
    return {
        "documents": len(index),
        "terms": len(names),
        "postings": len(docs_P),
        "terms_left_out": left_out,
        "postings_left_out": int(vocabulary.df_T.sum()) - len(docs_P),
    }


def quantise(impacts: Array) -> Array:
    """Returns impacts as 1 to 255, the largest 255 (uint8)."""
    scaled = np.rint(impacts.astype(np.float64) * (_LEVELS / float(impacts.max())))
    return np.clip(scaled, 1, _LEVELS).astype(np.uint8)


def _exported(vocabulary: Vocabulary, terms: Iterable[str] | None, too_many: str) -> Array:
    """Returns which terms are exported."""
    keep_T = np.ones(len(vocabulary), np.bool_)
    if terms is not None:
        selected = pa.array(sorted({encode_term(term) for term in terms}), pa.large_binary())
        keep_T = pc.is_in(vocabulary.terms, value_set=selected).to_numpy(zero_copy_only=False)
    count = int(keep_T.sum())
    if count <= MOST_TERMS:
        return keep_T
    if too_many == "error":
        raise DataError(
            f"{count:,} terms: the format has room for {MOST_TERMS:,}; name the terms to export, "
            f"or prune to the most frequent"
        )
    by_df = np.argsort(-np.where(keep_T, vocabulary.df_T, 0), kind="stable")
    pruned_T = np.zeros(len(vocabulary), np.bool_)
    pruned_T[by_df[:MOST_TERMS]] = True
    return pruned_T


def _impacts(
    index: BowIndex, vocabulary: Vocabulary, keep_T: Array, k1: float, b: float
) -> tuple[pa.LargeBinaryArray, Array, Array, Array]:
    """Returns the exported terms, indptr (int64 [T + 1]), documents and impacts (float32)."""
    norms_N = index.live_norms
    inverse = lucene_inverse(NORM_LENGTHS, k1, b, index.average_length)
    docs: list[Array] = [np.empty(0, np.uint32)]
    impacts: list[Array] = [np.empty(0, np.float32)]
    first = 0
    for names, indptr_T1, docs_P, tfs_P in vocabulary.slices(_SLICE):
        df_T = np.diff(indptr_T1)
        keep_P = np.repeat(keep_T[first : first + len(names)], df_T)
        docs_P, values_P = docs_P[keep_P].astype(np.uint32), tfs_P[keep_P].astype(np.float32)
        if not index.unit:
            idf_T = np.array([lucene_idf(index.nonempty, n) for n in df_T.tolist()])
            inverse_P = inverse[norms_N[docs_P]]
            weights_P = np.repeat(idf_T, df_T)[keep_P]
            values_P = lucene_term(weights_P, values_P, inverse_P)
        docs.append(docs_P)
        impacts.append(values_P)
        first += len(names)
    indptr_T1 = np.concatenate(([0], np.cumsum(vocabulary.df_T[keep_T])))
    names = vocabulary.terms.filter(pa.array(keep_T))
    return names, indptr_T1, np.concatenate(docs), np.concatenate(impacts)


@kernel
def _maxima(
    docs_P: Array, levels_P: Array, first: Any, last: Any, size: Any, pairs: Any, out: Array
) -> Any:
    """Writes the maxima of a term's blocks; `out` is 0 in raw form. Returns bytes of pairs."""
    o = U(0)
    if not pairs:
        for i in range(first, last):
            block = docs_P[i] // size
            out[block] = max(out[block], levels_P[i])
        return np.int64(0)
    count_at = U(0)
    block = U(0)
    group = U(0)
    count = U(0)
    o = U(8)
    top = np.uint8(0)
    store64(out, count_at, U(0))
    for i in range(first, last):
        next_block = U(docs_P[i]) // U(size)
        if i > first and next_block != block:
            store64(out, o, block & U(255))
            out[o + U(8)] = top
            o += U(9)
            count += U(1)
            store64(out, count_at, count)
            top = np.uint8(0)
        block = next_block
        while group < block >> U(8):
            group += U(1)
            count_at = o
            count = U(0)
            store64(out, o, U(0))
            o += U(8)
        top = max(top, levels_P[i])
    store64(out, o, block & U(255))
    out[o + U(8)] = top
    store64(out, count_at, count + U(1))
    return np.int64(o + U(9))


def _write_inverted(
    out: BinaryIO,
    indptr_T1: Array,
    docs_P: Array,
    levels_P: Array,
    documents: int,
    block_size: int,
    compress_range: bool,
) -> None:
    blocks = -(-documents // block_size)
    groups = -(-blocks // 256)
    out.write(struct.pack("<QQ", documents, len(indptr_T1) - 1))
    room = 9 * (min(blocks, int(np.diff(indptr_T1).max())) + 1) + 8 * groups + 16
    scratch = np.zeros(max(room, blocks), np.uint8)
    for first, last in zip(indptr_T1[:-1].tolist(), indptr_T1[1:].tolist()):
        if compress_range:
            used = _maxima(docs_P, levels_P, first, last, block_size, True, scratch)
            tail = groups - 1 - int(docs_P[last - 1]) // block_size // 256
            out.write(struct.pack("<IQ", 0, groups))
            out.write(scratch[:used].data)
            out.write(bytes(8 * tail))
        else:
            scratch[:blocks] = 0
            _maxima(docs_P, levels_P, first, last, block_size, False, scratch)
            out.write(struct.pack("<IQ", 1, blocks))
            out.write(scratch[:blocks].data)
        ordered = np.sort(levels_P[first:last])[::-1]
        best = [int(ordered[n]) if n < len(ordered) else 0 for n in (9, 99, 999)]
        out.write(struct.pack("<Q3B", 3, *best))


def _write_ids(out: BinaryIO, index: BowIndex) -> None:
    out.write(struct.pack("<Q", len(index)))
    for name in index.doc_ids.to_pylist():
        data = name.encode()
        out.write(struct.pack("<Q", len(data)) + data)


@kernel
def _forward(keys: Array, first_block: Any, blocks: Any, out: Array) -> Any:
    """Writes the blocks `first_block + i`, i < `blocks`, whose postings are `keys`, in order.

    A key is the block, the term, the document in the block and its impact.
    """
    o = U(0)
    i = U(0)
    total = U(keys.shape[0])
    for n in range(blocks):
        block = U(first_block) + U(n)
        terms_at = o
        terms = U(0)
        o += U(8)
        while i < total and keys[i] >> _BLOCK_AT == block:
            term = keys[i] >> _TERM_AT
            terms += U(1)
            out[o] = np.uint8(term & U(255))
            out[o + U(1)] = np.uint8((term >> U(8)) & U(255))
            count_at = o + U(2)
            o += U(10)
            count = U(0)
            while i < total and keys[i] >> _TERM_AT == term:
                out[o] = np.uint8((keys[i] >> _DOC_AT) & U(255))
                out[o + U(1)] = np.uint8(keys[i] & U(255))
                o += U(2)
                count += U(1)
                i += U(1)
            store64(out, count_at, count)
        store64(out, terms_at, terms)
    return np.int64(o)


def _write_forward(
    out: BinaryIO,
    indptr_T1: Array,
    docs_P: Array,
    levels_P: Array,
    documents: int,
    block_size: int,
) -> None:
    size = np.uint64(block_size)
    docs = docs_P.astype(np.uint64)
    term_P = np.repeat(np.arange(len(indptr_T1) - 1, dtype=np.uint64), np.diff(indptr_T1))
    keys = (docs // size) << _BLOCK_AT | term_P << _TERM_AT
    keys |= (docs % size) << _DOC_AT | levels_P
    keys.sort()
    blocks = -(-documents // block_size)
    out.write(struct.pack("<Q", blocks))
    step = 1 << 16
    for first in range(0, blocks, step):
        last = min(first + step, blocks)
        a, z = np.searchsorted(keys, np.array([first, last], np.uint64) << _BLOCK_AT)
        scratch = np.empty(12 * int(z - a) + 8 * (last - first) + 16, np.uint8)
        used = _forward(keys[a:z], first, last - first, scratch)
        out.write(scratch[:used].data)
