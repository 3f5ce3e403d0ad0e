"""Spills: the postings of a split on disk, between inverting and merging.

A spill holds the postings of consecutive documents by ascending term, in plain arrays: two files,
one of them mapped. It is written and read once, by the same build, so it is neither packed nor
checksummed.

Legend: N documents, T terms, P postings.
"""

from __future__ import annotations

import json
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.format.columns import write_columns
from raydist.bow.format.files import write
from raydist.kernels.arrays import readonly, string_array, string_buffers
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64

_HEADER, _DATA, _COLUMNS = "run.json", "run.bin", "columns.arrow"
_ALIGN = 64


@dataclass(frozen=True, slots=True)
class Postings:
    """Inverted documents.

    Attributes:
        terms: ascending by bytes, large_binary [T].
        indptr_T1: where each term's postings begin in the two arrays, int64.
        docs_P: documents, ascending within a term, uint32.
        tfs_P: term frequencies, uint32.
        lengths_N: terms per document, uint32.
        doc_ids: external ids, string or large_string [N].
        positions_W: of each posting as many positions as its frequency, None if not wanted.
        columns: metadata, None where there is none [N].
    """

    terms: pa.LargeBinaryArray
    indptr_T1: Array
    docs_P: Array
    tfs_P: Array
    lengths_N: Array
    doc_ids: pa.Array
    positions_W: Array | None = None
    columns: pa.Table | None = None


def write_spill(folder: Path, postings: Postings) -> dict[str, int]:
    """Writes a spill; returns its documents, empty ones, terms, postings and tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    tfs = postings.tfs_P
    ids = postings.doc_ids.cast(pa.large_binary())
    arrays = {
        "docs": postings.docs_P,
        "tfs": tfs.astype(np.min_scalar_type(int(tfs.max(initial=0)))),
        "indptr": postings.indptr_T1,
        "lengths": postings.lengths_N,
    }
    if postings.positions_W is not None:
        largest = int(postings.positions_W.max(initial=0))
        arrays["positions"] = postings.positions_W.astype(np.min_scalar_type(largest))
    for name, strings in (("terms", postings.terms), ("ids", ids)):
        offsets, data = string_buffers(strings)
        arrays[f"{name}.ends"] = offsets - offsets[0]
        arrays[name] = data[offsets[0] : offsets[-1]]
    places = {}
    with open(folder / _DATA, "wb", buffering=0) as out:
        position = 0
        for name, array in arrays.items():
            gap = -position % _ALIGN
            out.write(bytes(gap))
            position += gap
            places[name] = [array.dtype.str, position, len(array)]
            write(out, array)
            position += array.nbytes
    if postings.columns is not None:
        write_columns(folder / _COLUMNS, postings.columns.schema, [postings.columns])
    about = {
        "documents": len(postings.lengths_N),
        "empty": int(np.count_nonzero(postings.lengths_N == 0)),
        "terms": len(postings.terms),
        "postings": len(postings.docs_P),
        "tokens": int(postings.lengths_N.sum(dtype=np.int64)),
    }
    (folder / _HEADER).write_text(json.dumps({**about, "places": places}), encoding="utf-8")
    return about


class Spill:
    """A spill opened for reading; its arrays are read-only views of one map.

    Attributes:
        about: what `write_spill` returned.
        terms: ascending by bytes, large_binary [T].
        indptr_T1: as in `Postings`.
        docs_P: as in `Postings`.
        tfs_P: as in `Postings`, in the smallest type that holds them.
        lengths_N: as in `Postings`.
        doc_ids: large_string [N].
        positions_W: as in `Postings`, in the smallest type that holds them.
        columns: as in `Postings`.
    """

    def __init__(self, folder: Path) -> None:
        header = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
        self._places = header.pop("places")
        self.about: dict[str, int] = header
        with open(folder / _DATA, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.docs_P = self._array("docs")
        self.tfs_P = self._array("tfs")
        self.indptr_T1 = self._array("indptr")
        self.lengths_N = self._array("lengths")
        self.terms = self._strings("terms", pa.large_binary())
        self.doc_ids = self._strings("ids", pa.large_string())
        self.positions_W = self._array("positions") if "positions" in self._places else None
        self.columns: pa.Table | None = None
        if (columns := folder / _COLUMNS).exists():
            self.columns = pa.ipc.open_file(pa.memory_map(str(columns))).read_all()

    def _array(self, name: str) -> Array:
        kind, position, count = self._places[name]
        dtype = np.dtype(kind)
        if not count:
            return readonly(np.empty(0, dtype))
        return np.frombuffer(self._map, dtype, count, position)

    def _strings(self, name: str, kind: pa.DataType) -> pa.Array:
        return string_array(self._array(f"{name}.ends"), self._array(name), kind)

    def release(self) -> None:
        """Drops the pages that were read; the next use reads them again."""
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def below(self, term: bytes) -> int:
        """Returns how many terms are below `term` in byte order."""
        low, high = 0, len(self.terms)
        while low < high:
            middle = (low + high) // 2
            if self.terms[middle].as_py() < term:
                low = middle + 1
            else:
                high = middle
        return low


@kernel
def _words(data_H: Array, offsets_S1: Array, rows: Array, depth: Any, words: Array) -> None:
    """Puts the bytes `8 depth ..` of the strings `rows` into words that sort as they do."""
    for i in range(rows.shape[0]):
        at = U(offsets_S1[rows[i]]) + (U(depth) << U(3))
        end = min(U(offsets_S1[rows[i] + 1]), at + U(8))
        word = U(0)
        shift = U(56)
        while at < end:
            word |= U(data_H[at]) << shift
            shift -= U(8)
            at += U(1)
        words[i] = word


def byte_order(strings: pa.Array, *, distinct: bool) -> tuple[Array, Array]:
    """Returns the ascending byte order of a large_binary array.

    Args:
        strings: what is ordered.
        distinct: whether no string occurs twice; if so, the sort need not be stable,
            which is faster.

    Returns:
        the row of each rank, int64 [S], equal strings by row; and whether its string differs from
        that of the rank before, bool [S].
    """
    offsets_S1, data_H = string_buffers(strings)
    count = len(strings)
    order = np.arange(count)
    if not count:
        return order, np.empty(0, bool)
    words = np.empty(count, np.uint64)
    _words(data_H, offsets_S1, order, 0, words)
    order = np.argsort(words, kind=None if distinct else "stable")
    words = words[order]
    new = np.ones(count, bool)
    new[1:] = words[1:] != words[:-1]
    lengths = np.diff(offsets_S1)
    places = np.arange(count)
    depth = 1
    while True:
        # Strings that share their beginning with others of which some are longer.
        group = np.cumsum(new[places])
        longer = lengths[order[places]] > 8 * depth
        sizes = np.bincount(group)
        active = (sizes > 1) & (np.bincount(group, weights=longer) > 0)
        keep = active[group]
        places, group = places[keep], group[keep]
        if not len(places):
            return _with_zeros(order, new, lengths)
        rows = order[places]
        words = np.empty(len(rows), np.uint64)
        _words(data_H, offsets_S1, rows, depth, words)
        inner = np.lexsort((words, group))
        order[places] = rows[inner]
        words = words[inner]
        new[places[1:]] |= (words[1:] != words[:-1]) & (group[1:] == group[:-1])
        depth += 1


def _with_zeros(order: Array, new: Array, lengths_S: Array) -> tuple[Array, Array]:
    """Returns the order of strings of which some may differ in the zero bytes at their end alone.

    Words are padded with zeros, so these are still together, as if they were equal.
    """
    lengths = lengths_S[order]
    if not (~new[1:] & (lengths[1:] != lengths[:-1])).any():
        return order, new
    group = np.cumsum(new)
    inner = np.lexsort((lengths, group))
    order, lengths = order[inner], lengths[inner]
    new = new.copy()
    new[1:] |= lengths[1:] != lengths[:-1]
    return order, new
