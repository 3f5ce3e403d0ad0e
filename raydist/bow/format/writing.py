"""Writing a segment: terms in order, streamed to packed or raw postings.

Legend: N documents, T terms, P postings, S strings, K numbers beside a string.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.format import dictionary, positions
from raydist.bow.format.columns import COLUMNS, write_columns
from raydist.bow.format.files import seal, write
from raydist.bow.format.lengths import pack_lengths
from raydist.bow.format.order import ORDER, inverse, renumbered
from raydist.bow.format.positions import PositionsWriter
from raydist.bow.format.postings import LAYOUT, Encoding, encode
from raydist.bow.formulas import norm_bytes
from raydist.kernels.addresses import addresses
from raydist.kernels.arrays import readonly, string_buffers

Array = npt.NDArray[Any]

PADDING = bytes(16)
"""Behind a segment's postings: unpacking reads 64 bits at a time."""

_SLICE = 1 << 20  # postings encoded at once
_NO_BYTES = readonly(np.empty(0, np.uint8))


class StringsWriter:
    """Writes front-coded strings to a file and its table of groups to another."""

    def __init__(self, folder: Path, name: str, numbers: int) -> None:
        self.count = 0
        self._written = 0
        self._previous = _NO_BYTES
        self._sums = np.zeros(numbers, np.uint64)
        self._file: BinaryIO = open(folder / name, "wb", buffering=0)  # noqa: SIM115
        self._groups: BinaryIO = open(folder / f"{name}.groups", "wb", buffering=0)  # noqa: SIM115

    def append(self, strings: pa.LargeBinaryArray, numbers_SK: Array) -> None:
        """Adds strings, each with its row of numbers."""
        count = len(strings)
        if not count:
            return
        offsets_S1, data = string_buffers(strings)
        span = int(offsets_S1[-1] - offsets_S1[0])
        columns = numbers_SK.shape[1]
        out = np.empty(span + (20 + 10 * columns) * count, np.uint8)
        groups = np.empty((count // dictionary.GROUP + 1, 1 + columns), np.uint64)
        used, rows = dictionary.put(
            offsets_S1,
            data,
            readonly(numbers_SK, np.uint64),
            self.count,
            self._previous,
            self._sums,
            self._written,
            groups,
            out,
        )
        write(self._file, out[:used])
        write(self._groups, groups[:rows])
        self._previous = readonly(data[offsets_S1[-2] : offsets_S1[-1]].copy())
        self._written += used
        self.count += count

    def close(self) -> None:
        """Ends both files."""
        end = np.concatenate(([np.uint64(self._written)], self._sums)).astype(np.uint64)
        write(self._groups, end)
        self._file.close()
        self._groups.close()


class SegmentWriter:
    """Writes a segment; terms come in ascending byte order, over as many appends as you like."""

    def __init__(
        self,
        folder: Path,
        *,
        lengths_N: Array,
        doc_ids: pa.Array | pa.ChunkedArray | Iterator[pa.Array] | None,
        compress: bool = True,
        block_size: int = 128,
        with_positions: bool = False,
        columns: tuple[pa.Schema, Iterable[pa.Table]] | None = None,
        order_N: Array | None = None,
    ) -> None:
        """Begins a segment in `folder`, creating it if needed.

        Args:
            folder: an empty or absent folder.
            lengths_N: tokens per document.
            doc_ids: external ids, as many as documents; an iterator is read at the end. None for a
                part that `concatenate` joins to a first part that has them.
            compress: bit-packed postings; False writes raw arrays.
            block_size: postings per block, 8 to 4096.
            with_positions: whether terms come with their positions.
            columns: the documents' metadata, its schema and its rows, read at the end.
            order_N: the documents in the order of their slots, for a reordered segment.
        """
        assert 8 <= block_size <= 4096, block_size
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lengths_N = np.ascontiguousarray(lengths_N, np.uint32)
        self._norms_N = norm_bytes(self._lengths_N)
        self._order_N = order_N
        self._slots_N = None if order_N is None else inverse(order_N)
        self._slot_norms_N = readonly(self._norms_N if order_N is None else self._norms_N[order_N])
        self._doc_ids = doc_ids
        self._columns = columns
        self._compress = compress
        self._block_size = block_size
        self._least = np.full(256, 256, np.uint16)
        self._scratch = np.empty(0, np.uint8)
        self._terms = StringsWriter(folder, "terms", 2)
        names = ["postings"] if compress else ["postings", "docs", "tfs"]
        self._files: dict[str, BinaryIO] = {
            name: open(folder / name, "wb", buffering=0)  # noqa: SIM115
            for name in names
        }
        self._positions = PositionsWriter(folder) if with_positions else None
        self._postings = 0
        self._last_term: bytes | None = None

    def append(
        self,
        terms: pa.LargeBinaryArray,
        indptr_T1: Array,
        docs_P: Array,
        tfs_P: Array,
        positions_W: Array | None = None,
    ) -> None:
        """Adds terms with their postings.

        Args:
            terms: ascending, above all terms before.
            indptr_T1: where each term's postings begin and end in the two arrays.
            docs_P: document numbers in this segment, ascending within a term.
            tfs_P: term frequencies, at least 1.
            positions_W: of each posting as many positions as its frequency, ascending.
        """
        count = len(terms)
        if not count:
            return
        first, last = terms[0].as_py(), terms[count - 1].as_py()
        assert self._last_term is None or self._last_term < first, "terms must ascend"
        self._last_term = last
        indptr_T1 = readonly(indptr_T1, np.int64)
        docs_P, tfs_P = readonly(docs_P, np.uint32), readonly(tfs_P, np.uint32)
        df_T = np.diff(indptr_T1)
        assert df_T.min() > 0, "a term without postings"
        if self._slots_N is not None:
            own = slice(int(indptr_T1[0]), int(indptr_T1[-1]))
            indptr_T1 = readonly(indptr_T1 - indptr_T1[0])
            renumber = renumbered(self._slots_N, indptr_T1, docs_P[own], tfs_P[own], positions_W)
            docs_P, tfs_P, positions_W = readonly(renumber[0]), readonly(renumber[1]), renumber[2]
        sizes_T = np.zeros(count, np.int64)
        lists = indptr_T1, docs_P, tfs_P, self._slot_norms_N, self._least
        start = 0
        while start < count:
            stop = int(np.searchsorted(indptr_T1, indptr_T1[start] + _SLICE, side="right")) - 1
            stop = min(max(stop, start + 1), start + _SLICE // 8, count)
            need = 10 * int(indptr_T1[stop] - indptr_T1[start]) + 32 * (stop - start) + 16
            if len(self._scratch) < need:
                self._scratch = np.empty(need, np.uint8)
            table = addresses(Encoding(*lists, self._scratch, sizes_T))
            valid, used = encode(table, start, stop, self._block_size, self._compress)
            assert valid, "documents must ascend within a term and tfs be at least 1"
            write(self._files["postings"], self._scratch[:used])
            start = stop
        if not self._compress:
            span = slice(int(indptr_T1[0]), int(indptr_T1[-1]))
            write(self._files["docs"], docs_P[span])
            write(self._files["tfs"], tfs_P[span])
        assert (positions_W is None) == (self._positions is None), "with positions or without"
        if self._positions is not None and positions_W is not None:
            self._positions.append(indptr_T1, tfs_P, positions_W, self._block_size)
        self._terms.append(terms, np.stack([df_T, sizes_T], axis=1))
        self._postings += int(df_T.sum())

    def close(self) -> dict[str, int]:
        """Completes the segment; returns its documents, terms, postings, tokens and bytes."""
        self._terms.close()
        for file in self._files.values():
            file.write(PADDING)
            file.close()
        names = ["terms", "terms.groups", *self._files, "norms", "lengths"]
        self._slot_norms_N.tofile(self._folder / "norms")
        pack_lengths(self._lengths_N, self._norms_N).tofile(self._folder / "lengths")
        if self._doc_ids is not None:
            count = _write_ids(self._folder, self._doc_ids)
            assert count == len(self._lengths_N), (count, len(self._lengths_N))
            names += ["ids", "ids.groups"]
        if self._order_N is not None:
            self._order_N.astype(np.uint32).tofile(self._folder / ORDER)
            names.append(ORDER)
        if self._positions is not None:
            self._positions.close()
            names += positions.FILES
        if self._columns is not None:
            count = write_columns(self._folder / COLUMNS, *self._columns)
            assert count == len(self._lengths_N), (count, len(self._lengths_N))
            names.append(COLUMNS)
        return finish(
            self._folder,
            names,
            {
                "compress": self._compress,
                "block_size": self._block_size,
                "documents": len(self._lengths_N),
                "nonempty": int(np.count_nonzero(self._lengths_N)),
                "terms": self._terms.count,
                "postings": self._postings,
                "tokens": int(self._lengths_N.sum(dtype=np.int64)),
                "layout": LAYOUT,
            },
        )


def finish(folder: Path, files: list[str], about: dict[str, Any]) -> dict[str, int]:
    """Seals a segment and returns its statistics."""
    header = seal(folder, files, about)
    names = ("documents", "terms", "postings", "tokens")
    return {name: about[name] for name in names} | {
        "bytes": sum(entry["bytes"] for entry in header["files"].values())
    }


def _write_ids(folder: Path, doc_ids: pa.Array | pa.ChunkedArray | Iterator[pa.Array]) -> int:
    writer = StringsWriter(folder, "ids", 0)
    if isinstance(doc_ids, pa.ChunkedArray):
        doc_ids = iter(doc_ids.chunks)
    for chunk in [doc_ids] if isinstance(doc_ids, pa.Array) else doc_ids:
        for start in range(0, len(chunk), _SLICE):
            part = chunk.slice(start, _SLICE).cast(pa.large_binary())
            writer.append(part, np.empty((len(part), 0), np.uint64))
    writer.close()
    return writer.count
