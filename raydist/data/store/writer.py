"""Writing a document store from tables of documents, a compressed batch of 64 KiB at a time."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raydist.data.files import PathLike
from raydist.data.store.format import STORED, Codec, save_array, seal, write_index
from raydist.kernels.arrays import string_array, string_buffers

_BLOCK_BYTES = 64 << 10
_FIRST_PART = "00000.arrow"


class StoreWriter:
    """Writes a store of one part from tables of documents, in order.

    The blocks depend on the documents alone, not on their division into tables.

    Args:
        folder: a folder that does not exist yet, or is empty.
        codec: `lz4`, `zstd` or `none`.
    """

    def __init__(self, folder: PathLike, *, codec: Codec = "lz4") -> None:
        self.folder = Path(folder)
        (self.folder / "parts").mkdir(parents=True, exist_ok=True)
        level = 1 if codec == "zstd" else None
        compression = None if codec == "none" else pa.Codec(codec, compression_level=level)
        self._sink = _Sink(self.folder / "parts" / _FIRST_PART)
        self._ids = _Sink(self.folder / "ids.bin")
        options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False)
        self._writer = pa.ipc.new_stream(self._sink, STORED, options=options)
        # The schema is written with the first batch: an empty one keeps it out of the first block.
        self._writer.write_batch(pa.RecordBatch.from_pylist([], STORED))
        self._pending: list[tuple[_Texts, _Texts]] = []
        self._pending_bytes = 0
        self._blocks: list[tuple[int, int, int, int, int]] = []
        self._lengths: list[np.ndarray] = []
        self._rows = self._empty = 0

    def append(self, table: pa.Table) -> None:
        """Adds a table of the schema DOCUMENTS."""
        if not table.num_rows:
            return
        ids = _Texts.of(table["doc_id"])
        self._lengths.append(np.diff(ids.ends_N1))
        self._ids.write(ids.data)
        titles, texts = _Texts.of(table["title"]), _Texts.of(table["text"])
        sizes = np.diff(titles.ends_N1) + np.diff(texts.ends_N1)
        self._empty += int(np.count_nonzero(sizes == 0))
        # A block ends with the row that fills it.
        ends = np.cumsum(sizes) + self._pending_bytes
        start = 0
        while start < len(ends):
            full = int(np.searchsorted(ends, _BLOCK_BYTES)) + 1
            stop = min(full, len(ends))
            self._pending.append((titles.slice(start, stop), texts.slice(start, stop)))
            self._pending_bytes = int(ends[stop - 1])
            if full <= len(ends):
                ends = ends - self._pending_bytes
                self._flush()
            start = stop

    def close(self, *, index: bool = True) -> dict[str, int]:
        """Finishes the store and returns `{documents, empty, bytes, blocks}`.

        Args:
            index: write the index of ids, which a shard to be concatenated does not need.
        """
        self._flush()
        self._writer.close()
        self._sink.close()
        self._ids.close()
        lengths = np.concatenate(self._lengths) if self._lengths else np.empty(0, np.int64)
        save_array(self.folder / "id_ends.npy", np.concatenate(([0], np.cumsum(lengths))))
        blocks = np.array(self._blocks, np.int64).reshape(-1, 5)
        save_array(self.folder / "blocks.npy", blocks)
        if index:
            write_index(self.folder)
        facts = {
            "documents": self._rows,
            "empty": self._empty,
            "bytes": self._sink.position,
            "blocks": len(blocks),
        }
        seal(self.folder, [_FIRST_PART], facts)
        return facts

    def _flush(self) -> None:
        if not self._pending:
            return
        titles, texts = zip(*self._pending)
        arrays = [_Texts.array(titles, np.int32), _Texts.array(texts, np.int64)]
        batch = pa.RecordBatch.from_arrays(arrays, schema=STORED)
        self._pending, self._pending_bytes = [], 0
        start = self._sink.position
        self._sink.crc = 0
        self._writer.write_batch(batch)
        length = self._sink.position - start
        self._blocks.append((self._rows, 0, start, length, self._sink.crc))
        self._rows += batch.num_rows


class _Sink(io.RawIOBase):
    """A file that knows its position and the CRC-32 of the bytes since `crc` was reset."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115
        self.position = 0
        self.crc = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.crc = zlib.crc32(data, self.crc)
        count = self._file.write(data)
        self.position += count
        return count

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()

    def close(self) -> None:
        self._file.close()
        super().close()


@dataclass(frozen=True, slots=True)
class _Texts:
    """Texts as their concatenated bytes and the end of each.

    Arrow arrays of the same values may differ in offsets and bitmaps; these do not, so that the
    bytes on disk depend on the values alone. `ends_N1` may start above 0, at the first byte.
    """

    data: memoryview
    ends_N1: np.ndarray

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> _Texts:
        array = column.combine_chunks().cast(pa.large_string())
        assert not array.null_count, "a document's id, title and text are never null"
        ends_N1, data = string_buffers(array)
        return cls(data[ends_N1[0] : ends_N1[-1]].data, ends_N1)

    def slice(self, start: int, stop: int) -> _Texts:
        ends = self.ends_N1[start : stop + 1]
        base = self.ends_N1[0]
        return _Texts(self.data[ends[0] - base : ends[-1] - base], ends)

    @staticmethod
    def array(parts: Sequence[_Texts], offsets: type[np.signedinteger[Any]]) -> pa.Array:
        ends_N1 = parts[0].ends_N1 - parts[0].ends_N1[0]
        for part in parts[1:]:
            shift = ends_N1[-1] - part.ends_N1[0]
            ends_N1 = np.concatenate((ends_N1, part.ends_N1[1:] + shift))
        data = parts[0].data if len(parts) == 1 else b"".join(part.data for part in parts)
        kind = pa.string() if offsets is np.int32 else pa.large_string()
        return string_array(ends_N1.astype(offsets), data, kind)
