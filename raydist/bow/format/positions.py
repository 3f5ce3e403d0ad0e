"""Positions of terms in documents, in files of a segment that searches of single words never read.

A term's positions are those of its postings one after another: of each document the first, then
the differences less 1, as variable-length integers. A term of more than `block_size` postings
begins with where the positions of each block end, u64 behind these entries, so that those of a few
documents are read without the others. Files::

    positions                  the terms' positions
    positions.sizes            how many bytes each term takes there, as variable-length integers
    positions.groups           uint64 [G + 1, 2], where the sizes and the positions of every
                               `GROUP`-th term begin, and where they end

Legend: T terms, P postings, W positions, G groups, C documents that are asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from raydist.bow.format.dictionary import GROUP
from raydist.bow.format.files import Files, write
from raydist.kernels.arrays import readonly
from raydist.kernels.intrinsics import load64, store64
from raydist.kernels.jit import kernel
from raydist.kernels.varint import get_varint, put_varint

Array = npt.NDArray[Any]
U = np.uint64

FILES = ("positions", "positions.sizes", "positions.groups")
"""A segment with positions has these files."""

_ENTRY = U(8)  # bytes of a block's end
_SLICE = 1 << 20  # terms copied, or positions encoded, at once


@kernel
def _encode(
    indptr_T1: Array,
    tfs_P: Array,
    positions_W: Array,
    w: Any,
    first: Any,
    last: Any,
    block_size: Any,
    out: Array,
    sizes_T: Array,
) -> Any:
    """Encodes the positions of the terms `first <= t < last`, which begin at `positions_W[w]`.

    Returns whether they ascend in each document, and the bytes written; `out` needs 5 bytes a
    position and 8 for each block, or part of one.
    """
    o = U(0)
    w = U(w)
    size = U(block_size)
    for t in range(first, last):
        begin = o
        start, stop = U(indptr_T1[t]), U(indptr_T1[t + 1])
        blocks = (stop - start + size - U(1)) // size
        if blocks > U(1):
            o += blocks * _ENTRY
        data = o
        for p in range(start, stop):
            previous = U(0)
            for i in range(U(tfs_P[p])):
                position = U(positions_W[w])
                w += U(1)
                if i > U(0):
                    if position <= previous:
                        return False, np.int64(o)
                    o = put_varint(out, o, position - previous - U(1))
                else:
                    o = put_varint(out, o, position)
                previous = position
            passed = p + U(1) - start
            if blocks > U(1) and (passed % size == U(0) or p + U(1) == stop):
                store64(out, begin + (passed - U(1)) // size * _ENTRY, o - data)
        sizes_T[t] = o - begin
    return True, np.int64(o)


@kernel
def _decode(
    data: Array, o: Any, sizes_T: Array, indptr_T1: Array, tfs_P: Array, block: Any, out: Array
) -> None:
    """Decodes the positions of consecutive terms from `data[o:]`."""
    begin = U(o)
    w = U(0)
    for t in range(sizes_T.shape[0]):
        at = begin
        start, stop = U(indptr_T1[t]), U(indptr_T1[t + 1])
        if stop - start > U(block):
            at += (stop - start + U(block) - U(1)) // U(block) * _ENTRY
        for p in range(start, stop):
            position = U(0)
            for i in range(U(tfs_P[p])):
                value, at = get_varint(data, at)
                position += value + U(i > U(0))
                out[w] = position
                w += U(1)
        begin += U(sizes_T[t])


@kernel
def _pick(
    data: Array, o: Any, block: Any, tfs_P: Array, which_C: Array, starts_C1: Array, out: Array
) -> None:
    """Decodes the positions of some of a term's postings, in ascending order, from `data[o:]`."""
    begin = U(o)
    size = U(block)
    count = U(tfs_P.shape[0])
    several = count > size
    data_at = begin
    if several:
        data_at += (count + size - U(1)) // size * _ENTRY
    at = data_at
    p = U(0)  # `at` is where its positions begin
    for c in range(which_C.shape[0]):
        wanted = U(which_C[c])
        if several and wanted // size > p // size:
            number = wanted // size
            at = data_at + load64(data, begin + (number - U(1)) * _ENTRY)
            p = number * size
        skip = U(0)
        while p < wanted:
            skip += U(tfs_P[p])
            p += U(1)
        while skip:
            skip -= U(data[at] < U(128))
            at += U(1)
        position = U(0)
        w = starts_C1[c]
        for i in range(U(tfs_P[p])):
            value, at = get_varint(data, at)
            position += value + U(i > U(0))
            out[w] = position
            w += 1
        p += U(1)


@kernel
def _put_sizes(sizes_T: Array, before: Any, sums: Array, groups: Array, out: Array) -> Any:
    """Encodes sizes of terms behind `before` others; returns bytes written and groups begun.

    `sums` are the bytes of sizes and of positions so far.
    """
    o = U(0)
    g = 0
    for t in range(sizes_T.shape[0]):
        if (before + t) % GROUP == 0:
            groups[g, 0] = sums[0] + o
            groups[g, 1] = sums[1]
            g += 1
        o = put_varint(out, o, U(sizes_T[t]))
        sums[1] += U(sizes_T[t])
    sums[0] += o
    return np.int64(o), g


@kernel
def _take_sizes(data: Array, o: Any, skip: Any, sizes_T: Array) -> Any:
    """Decodes sizes behind the first `skip` ones at `data[o:]`; returns the sum of those."""
    o = U(o)
    before = U(0)
    for _ in range(skip):
        value, o = get_varint(data, o)
        before += value
    for t in range(sizes_T.shape[0]):
        sizes_T[t], o = get_varint(data, o)
    return before


class PositionsWriter:
    """Writes the positions of terms in the order of the dictionary."""

    def __init__(self, folder: Path) -> None:
        self._count = 0
        self._sums = np.zeros(2, np.uint64)
        self._files: list[BinaryIO] = [
            open(folder / name, "wb", buffering=0)  # noqa: SIM115
            for name in FILES
        ]

    def append(self, indptr_T1: Array, tfs_P: Array, positions_W: Array, block_size: int) -> None:
        """Adds terms: where each one's postings begin, their frequencies and positions."""
        count = len(indptr_T1) - 1
        indptr_T1, tfs_P = readonly(indptr_T1, np.int64), readonly(tfs_P, np.uint32)
        positions_W = readonly(positions_W, np.uint32)
        ends_P = np.cumsum(tfs_P, dtype=np.int64)
        starts_T1 = np.append(0, ends_P)[indptr_T1]
        assert starts_T1[-1] - starts_T1[0] == len(positions_W), "positions are not tfs"
        sizes_T = np.zeros(count, np.int64)
        start = 0
        while start < count:
            limit = starts_T1[start] + _SLICE
            stop = int(np.searchsorted(starts_T1, limit, side="right")) - 1
            stop = min(max(stop, start + 1), count)
            occurrences = int(starts_T1[stop] - starts_T1[start])
            out = np.empty(6 * occurrences + 16 * (stop - start) + 64, np.uint8)
            at = int(starts_T1[start] - starts_T1[0])
            valid, used = _encode(
                indptr_T1, tfs_P, positions_W, at, start, stop, block_size, out, sizes_T
            )
            assert valid, "positions must ascend within a document"
            write(self._files[0], out[:used])
            start = stop
        self._note(sizes_T)

    def copy(self, other: Positions) -> None:
        """Adds the terms of another segment, of the same documents."""
        for first in range(0, other.size, _SLICE):
            self._note(other.sizes(first, min(first + _SLICE, other.size))[0])
        write(self._files[0], other.data)

    def _note(self, sizes_T: Array) -> None:
        out = np.empty(10 * len(sizes_T), np.uint8)
        groups = np.empty((len(sizes_T) // GROUP + 1, 2), np.uint64)
        sizes_T = readonly(sizes_T, np.int64)
        used, rows = _put_sizes(sizes_T, self._count, self._sums, groups, out)
        write(self._files[1], out[:used])
        write(self._files[2], groups[:rows])
        self._count += len(sizes_T)

    def close(self) -> None:
        """Ends the files."""
        write(self._files[2], self._sums)
        for file in self._files:
            file.close()


class Positions:
    """The positions of an opened segment.

    Attributes:
        size: T, the number of terms.
    """

    def __init__(self, files: Files, size: int, block_size: int) -> None:
        """Checks the tables; positions are checked before they are decoded."""
        self._files = files
        self._block_size = block_size
        self.size = size
        for name in FILES[1:]:
            files.check(name)
        self._sizes = files.array("positions.sizes")
        self._groups = files.array("positions.groups", np.uint64).reshape(-1, 2)

    @property
    def data(self) -> Array:
        """All bytes, checked."""
        self._files.check("positions")
        return self._files.array("positions")

    def sizes(self, first: int, last: int) -> tuple[Array, int]:
        """Returns how many bytes the terms `first <= t < last` take, and where they begin."""
        sizes_T = np.empty(last - first, np.int64)
        if first == last:
            return sizes_T, 0
        group, skip = divmod(first, GROUP)
        at, begin = self._groups[group].tolist()
        return sizes_T, begin + int(_take_sizes(self._sizes, at, skip, sizes_T))

    def decode(self, first: int, indptr_T1: Array, tfs_P: Array) -> Array:
        """Returns the positions of consecutive terms' postings, one after another, uint32 [W]."""
        sizes_T, begin = self.sizes(first, first + len(indptr_T1) - 1)
        self._files.check("positions", begin, begin + int(sizes_T.sum()))
        out = np.empty(int(tfs_P.sum(dtype=np.int64)), np.uint32)
        data, size = self._files.array("positions"), self._block_size
        indptr_T1, tfs_P = readonly(indptr_T1, np.int64), readonly(tfs_P, np.uint32)
        _decode(data, begin, readonly(sizes_T), indptr_T1, tfs_P, size, out)
        return out

    def pick(self, term: int, tfs_P: Array, which_C: Array) -> tuple[Array, Array]:
        """Returns the positions in some of a term's documents.

        Args:
            term: its number in the dictionary.
            tfs_P: the frequencies of all its postings.
            which_C: which postings, ascending.

        Returns:
            where each document's positions begin (int64 [C + 1]), and the positions (uint32).
        """
        sizes_T, begin = self.sizes(term, term + 1)
        self._files.check("positions", begin, begin + int(sizes_T[0]))
        tfs_P, which_C = readonly(tfs_P, np.uint32), readonly(which_C, np.int64)
        starts_C1 = np.zeros(len(which_C) + 1, np.int64)
        np.cumsum(tfs_P[which_C], out=starts_C1[1:])
        out = np.empty(int(starts_C1[-1]), np.uint32)
        data = self._files.array("positions")
        _pick(data, begin, self._block_size, tfs_P, which_C, starts_C1, out)
        return starts_C1, out
