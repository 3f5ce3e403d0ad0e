"""Writing document stores: a part at a time, and joining parts without compressing them again."""

from __future__ import annotations

import io
import json
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.data import idhash
from raydist.data.sources import PathLike

__all__ = [
    "FORMAT",
    "STORED",
    "VERSION",
    "Codec",
    "StoreWriter",
    "checksum",
    "concatenate",
    "id_array",
]

Codec = Literal["lz4", "zstd", "none"]

FORMAT = "raydist-document-store"
VERSION = 1
"""Version of the format that is written, and the newest that can be read."""

STORED = pa.schema([("title", pa.string()), ("text", pa.large_string())])
ROW, PART, OFFSET, LENGTH, CRC = range(5)  # columns of blocks.npy

_BLOCK_BYTES = 64 << 10
_FIRST_PART = "00000.arrow"


class StoreWriter:
    """Writes a store of one part from tables of documents, in order.

    Where a block ends depends on the documents alone, not on how they came in tables.

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
        self._held: list[pa.Table] = []
        self._held_bytes = 0
        self._blocks: list[tuple[int, int, int, int, int]] = []
        self._lengths: list[np.ndarray] = []
        self._rows = self._empty = 0

    def append(self, table: pa.Table) -> None:
        """Adds documents, a table of the schema DOCUMENTS."""
        if not table.num_rows:
            return
        ids = table["doc_id"].combine_chunks().cast(pa.large_string())
        lengths = pc.binary_length(ids).to_numpy(zero_copy_only=False)
        self._lengths.append(lengths.astype(np.int64))
        self._ids.write(_bytes_of(ids))
        stored = table.select(STORED.names).cast(STORED)
        sizes = sum(
            pc.binary_length(stored[name]).to_numpy(zero_copy_only=False).astype(np.int64)
            for name in STORED.names
        )
        self._empty += int(np.count_nonzero(sizes == 0))
        # A block ends with the row that fills it.
        ends = np.cumsum(sizes) + self._held_bytes
        start = 0
        while start < len(ends):
            full = int(np.searchsorted(ends, _BLOCK_BYTES))
            if full >= len(ends):
                self._held.append(stored.slice(start))
                self._held_bytes = int(ends[-1])
                break
            self._held.append(stored.slice(start, full + 1 - start))
            ends = ends - ends[full]
            start = full + 1
            self._flush()

    def close(self, *, index: bool = True) -> dict[str, Any]:
        """Finishes the store and returns `{documents, empty, bytes, blocks}`.

        Args:
            index: write what finds ids; a shard that is to be concatenated does without.
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
        if not self._held:
            return
        (batch,) = pa.concat_tables(self._held).combine_chunks().to_batches()
        self._held, self._held_bytes = [], 0
        start = self._sink.position
        self._sink.crc = 0
        self._writer.write_batch(batch)
        length = self._sink.position - start
        self._blocks.append((self._rows, 0, start, length, self._sink.crc))
        self._rows += batch.num_rows


class _Sink(io.RawIOBase):
    """A file that knows its position and the CRC-32 of what was written since `crc` was reset."""

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


def concatenate(stores: Sequence[PathLike], folder: PathLike) -> dict[str, Any]:
    """Joins stores into one, in order, linking their parts (copying across file systems).

    Args:
        stores: folders of stores, with or without an index.
        folder: a folder that does not exist yet, or is empty.

    Returns:
        `{documents, empty, bytes, blocks, duplicates, examples}`: how many documents repeat an
        earlier one's id, and up to ten `[id, first position, repeated position]`.

    Raises:
        ArtifactError: one of them is damaged.
    """
    from raydist.data.store import DocumentStore

    target = Path(folder)
    (target / "parts").mkdir(parents=True, exist_ok=True)
    blocks: list[np.ndarray] = []
    ends: list[np.ndarray] = [np.zeros(1, np.int64)]
    names: list[str] = []
    facts = {"documents": 0, "empty": 0, "bytes": 0, "blocks": 0}
    with open(target / "ids.bin", "wb") as ids:
        for path in stores:
            with DocumentStore.open(path) as store:
                table = store.blocks_B.copy()
                table[:, ROW] += facts["documents"]
                table[:, PART] += len(names)
                blocks.append(table)
                ends.append(store.id_ends_N1[1:] + ends[-1][-1])
                ids.write(store.id_bytes.tobytes())
                for part in store.parts:
                    names.append(f"{len(names):05d}.arrow")
                    _link(part, target / "parts" / names[-1])
                for key in facts:
                    facts[key] += store.facts[key]
    save_array(target / "id_ends.npy", np.concatenate(ends))
    save_array(
        target / "blocks.npy", np.concatenate(blocks) if blocks else np.empty((0, 5), np.int64)
    )
    duplicates = write_index(target)
    seal(target, names, facts)
    return {**facts, "duplicates": duplicates.count, "examples": [*map(list, duplicates.examples)]}


def write_index(folder: Path) -> idhash.Duplicates:
    """Writes what finds an id, `hashes.npy` and `order.npy`; returns the ids that occur twice."""
    ends_N1 = np.load(folder / "id_ends.npy", mmap_mode="r")
    data = np.fromfile(folder / "ids.bin", np.uint8)
    ids = id_array(data, ends_N1)
    hashes_N = idhash.hash_ids(ids)
    order_N = idhash.order_of(hashes_N)
    sorted_N = hashes_N[order_N]
    save_array(folder / "hashes.npy", sorted_N)
    save_array(folder / "order.npy", order_N.astype(np.uint32 if len(ids) < 1 << 32 else np.int64))
    return idhash.duplicates_in_order(ids, sorted_N, order_N)


def id_array(data: np.ndarray, ends_N1: np.ndarray) -> pa.Array:
    """Returns ids as a large_string array over their bytes, without a copy."""
    buffers = [None, pa.py_buffer(ends_N1), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(ends_N1) - 1, buffers)


def save_array(path: Path, array: np.ndarray) -> None:
    """Writes an array in NumPy's format, the same bytes for the same values."""
    with open(path, "wb") as out:
        np.lib.format.write_array(out, np.ascontiguousarray(array), version=(1, 0))


def seal(folder: Path, parts: Sequence[str], facts: dict[str, Any]) -> None:
    """Writes `store.json` with the sizes of the parts and the checksums of all else, atomically."""
    names = ["blocks.npy", "id_ends.npy", "ids.bin", "hashes.npy", "order.npy"]
    files = {}
    for name in names:
        if (folder / name).exists():
            files[name] = {
                "bytes": (folder / name).stat().st_size,
                "crc32": checksum(folder / name),
            }
    about = {
        "format": FORMAT,
        "version": VERSION,
        **facts,
        "parts": {name: (folder / "parts" / name).stat().st_size for name in parts},
        "files": files,
    }
    about["crc32"] = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    partial = folder / ".store.json.part"
    partial.write_text(json.dumps(about, sort_keys=True), encoding="utf-8")
    os.replace(partial, folder / "store.json")


def checksum(path: Path) -> int:
    """Returns a file's CRC-32."""
    crc = 0
    with open(path, "rb") as source:
        while chunk := source.read(1 << 20):
            crc = zlib.crc32(chunk, crc)
    return crc


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _bytes_of(ids: pa.Array) -> memoryview:
    """Returns the bytes of all values of a large_string array, one after the other."""
    _, ends, data = ids.buffers()
    ends_N1 = np.frombuffer(ends, np.int64, len(ids) + 1, ids.offset * 8)
    first, last = int(ends_N1[0]), int(ends_N1[-1])
    return memoryview(data)[first:last] if last > first else memoryview(b"")
