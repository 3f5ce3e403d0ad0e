"""The files of a document store: arrays, checksums, the index of ids, and the header."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from raydist.data.store import idhash
from raydist.disk import atomic

Codec = Literal["lz4", "zstd", "none"]

FORMAT = "raydist-document-store"
VERSION = 1
"""Version of the format that is written, and the newest that can be read."""

STORED = pa.schema([("title", pa.string()), ("text", pa.large_string())])
"""Schema of a part."""

ROW, PART = 0, 1  # columns of blocks.npy; offset, length and CRC-32 follow


def write_index(folder: Path) -> idhash.Duplicates:
    """Writes the index of ids, `hashes.npy` and `order.npy`; returns the ids that occur twice."""
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


def seal(folder: Path, parts: Sequence[str], facts: Mapping[str, int]) -> None:
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
    with atomic(folder / "store.json") as partial:
        partial.write_text(json.dumps(about, sort_keys=True), encoding="utf-8")


def checksum(path: Path) -> int:
    """Returns a file's CRC-32."""
    crc = 0
    with open(path, "rb") as source:
        while chunk := source.read(1 << 20):
            crc = zlib.crc32(chunk, crc)
    return crc
