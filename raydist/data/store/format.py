"""The files of a document store: arrays, checksums, the index of ids, and the header.

Version 2 has 64-bit hashes, every 4096th of them as a fence, and checksums of pages (`sums.npy`)
and of the frames around the batches: a lookup reads and checks what it touches. Version 1, with
32-bit hashes and one checksum per file, is read too.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from raydist.data.store import idhash
from raydist.data.store.pages import page_sums
from raydist.disk import atomic
from raydist.errors import ArtifactError
from raydist.kernels.arrays import string_array

Codec = Literal["lz4", "zstd", "none"]

FORMAT = "raydist-document-store"
VERSION = 2
"""Version of the format of one folder, and the newest that can be read."""

JOINED_VERSION = 2
"""The same of a folder that joins others and says what is deleted."""

STORED = pa.schema([("title", pa.string()), ("text", pa.large_string())])
"""Schema of a part."""

ROW, PART, OFFSET, LENGTH = range(4)  # columns of blocks.npy; a CRC-32 follows
SUMS = "sums.npy"
_FILES = ("blocks.npy", "id_ends.npy", "ids.bin", "hashes.npy", "order.npy")
_FENCES = "fences.npy"
_SLICE = 1 << 18  # ids read at once


def write_index(folder: Path) -> idhash.Duplicates:
    """Writes the index of ids: hashes, rows and fences; returns the ids that occur twice."""
    ends_N1 = np.load(folder / "id_ends.npy", mmap_mode="r")
    count = len(ends_N1) - 1
    small = count < 1 << 32
    repeats = idhash.Repeats()
    with (
        ArrayFile(folder / "hashes.npy", np.uint64) as hashes,
        ArrayFile(folder / "order.npy", np.uint32 if small else np.int64) as order,
    ):
        for hashes_N, rows_N in idhash.sorted_hashes(_ids(folder, ends_N1), folder):
            hashes.append(hashes_N)
            order.append(rows_N)
            repeats.add(hashes_N, rows_N)
    hashes_N = np.load(folder / "hashes.npy", mmap_mode="r") if count else np.empty(0, np.uint64)
    save_array(folder / _FENCES, np.array(hashes_N[:: idhash.GROUP]))
    if not repeats.count:
        return repeats.duplicates(lambda rows: pa.array([], pa.large_string()))
    with pa.memory_map(str(folder / "ids.bin")) as mapped:
        ids = id_array(np.frombuffer(mapped.read_buffer(), np.uint8), ends_N1)
        return repeats.duplicates(lambda rows: ids.take(pa.array(rows)))


def _ids(folder: Path, ends_N1: np.ndarray) -> Iterator[pa.Array]:
    """Yields the ids, read from the file a slice at a time."""
    with open(folder / "ids.bin", "rb") as source:
        for start in range(0, len(ends_N1) - 1, _SLICE):
            ends = np.array(ends_N1[start : start + _SLICE + 1], np.int64)
            data = np.frombuffer(source.read(int(ends[-1] - ends[0])), np.uint8)
            yield id_array(data, ends - ends[0])


def id_array(data: np.ndarray, ends_N1: np.ndarray) -> pa.Array:
    """Returns ids as a large_string array over their bytes, without a copy."""
    return string_array(ends_N1, data, pa.large_string())


class ArrayFile:
    """Writes an array in NumPy's format, piece by piece; a context manager.

    Args:
        path: the file.
        dtype: of the elements.
        columns: the shape of a row, `()` for one dimension.
    """

    def __init__(self, path: Path, dtype: Any, columns: tuple[int, ...] = ()) -> None:
        self._dtype = np.dtype(dtype)
        self._columns = columns
        self._rows = 0
        self._file = open(path, "wb")  # noqa: SIM115
        self._write_header()

    def append(self, array: np.ndarray) -> None:
        """Adds elements, or rows of two dimensions."""
        self._rows += len(array)
        self._file.write(np.ascontiguousarray(array, self._dtype).data)

    def _write_header(self) -> None:
        # NumPy leaves room for the longest number of rows, so the header keeps its length.
        shape = (self._rows, *self._columns)
        head = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, head)

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.seek(0)
            self._write_header()


def save_array(path: Path, array: np.ndarray) -> None:
    """Writes an array in NumPy's format, the same bytes for the same values."""
    with ArrayFile(path, array.dtype, array.shape[1:]) as out:
        out.append(array)


def frame_sum(data: np.ndarray, blocks_B: np.ndarray, part: int) -> int:
    """Returns the CRC-32 of what surrounds the batches of a part: Arrow's schema and its end.

    Args:
        data: the part, uint8.
        blocks_B: of the store, in the order of the parts.
        part: its number.
    """
    first, last = np.searchsorted(blocks_B[:, PART], [part, part + 1])
    starts, sizes = blocks_B[first:last, OFFSET], blocks_B[first:last, LENGTH]
    begins, ends = np.append(0, starts + sizes), np.append(starts, len(data))
    crc = 0
    for gap in np.flatnonzero(ends > begins).tolist():
        crc = zlib.crc32(data[begins[gap] : ends[gap]].data, crc)
    return crc


def seal(folder: Path, parts: Sequence[str], facts: Mapping[str, int]) -> None:
    """Writes `store.json` with the sizes of all files, and the checksums, atomically."""
    sizes, sums = {}, []
    for name in sorted((*_FILES, _FENCES)):
        if (folder / name).exists():
            sizes[name] = (folder / name).stat().st_size
            sums.append(page_sums(folder / name))
    save_array(folder / SUMS, np.concatenate(sums))
    data = (folder / SUMS).read_bytes()
    blocks_B = np.load(folder / "blocks.npy")
    paths = [folder / "parts" / name for name in parts]
    frames = [frame_sum(np.memmap(path, mode="r"), blocks_B, n) for n, path in enumerate(paths)]
    about = {
        "format": FORMAT,
        "version": VERSION,
        **facts,
        "parts": {path.name: path.stat().st_size for path in paths},
        "frames": frames,
        "files": {name: {"bytes": size} for name, size in sizes.items()},
        "sums": {"bytes": len(data), "crc32": zlib.crc32(data)},
    }
    write_header(folder, about)


def write_header(folder: Path, about: Mapping[str, Any]) -> None:
    """Writes `store.json`, atomically."""
    text = json.dumps({**about, "crc32": _header_sum(about)}, sort_keys=True)
    with atomic(folder / "store.json") as partial:
        partial.write_text(text, encoding="utf-8")


def read_header(folder: Path) -> dict[str, Any]:
    """Returns what `store.json` says.

    Raises:
        ArtifactError: there is none, it is damaged, of a newer version, or of something else.
    """
    path = folder / "store.json"
    try:
        data = path.read_bytes()
        about: dict[str, Any] = json.loads(data)
        if about["format"] != FORMAT:
            raise ArtifactError(f"{path}: not of a document store")
        if about["version"] > JOINED_VERSION:
            raise ArtifactError(
                f"{path}: a document store of version {about['version']}; this raydist reads "
                f"up to {JOINED_VERSION}: update raydist"
            )
        changed = data != json.dumps(about, sort_keys=True).encode()
        if about.pop("crc32") != _header_sum(about) or changed:
            raise ArtifactError(f"{path} is damaged: its checksum is wrong")
        return about
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{folder}: not a complete document store: store.json is missing"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error


def _header_sum(about: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(about, sort_keys=True).encode())


def checksum(path: Path) -> int:
    """Returns a file's CRC-32."""
    crc = 0
    with open(path, "rb") as source:
        while chunk := source.read(1 << 20):
            crc = zlib.crc32(chunk, crc)
    return crc
