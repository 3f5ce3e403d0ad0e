"""Vector shards: what `embed` writes and dense search reads, memory-mapped.

A folder holds `shards/00000/vectors.arrow`, `shards/00001/...` and a manifest. A shard is an Arrow
IPC file, not compressed, of `doc_id, vector` (and `scale` for int8), so that a reader maps it, with
checksums in `vectors.json`. Rows are numbered through the shards in order: a row number is the
corpus order.

Shapes: N rows in all, n rows of a block, D dimensions.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from raydist.disk import write_json
from raydist.errors import ArtifactError, ConfigError
from raydist.fingerprints import value_fingerprint
from raydist.manifest import read_manifest
from raydist.shard_files import shard_path

KIND = "vectors"
SHARDS = "shards"
FILE = "vectors.arrow"
Precision = Literal["float32", "float16", "int8", "binary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_STORED = {
    "float32": pa.float32(),
    "float16": pa.float16(),
    "int8": pa.int8(),
    "binary": pa.uint8(),
}


def vector_schema(dimension: int, precision: Precision) -> pa.Schema:
    """Returns a shard's Arrow schema; `binary` packs eight dimensions into a byte."""
    width = -(-dimension // 8) if precision == "binary" else dimension
    fields = [("doc_id", pa.string()), ("vector", pa.list_(_STORED[precision], width))]
    if precision == "int8":
        fields.append(("scale", pa.float32()))
    return pa.schema(fields, metadata={"dimension": str(dimension), "precision": precision})


def encode(vectors_nD: np.ndarray, precision: Precision) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the stored form of float32 vectors, and the scale of each row for int8.

    int8 keeps `round(127 v / max|v|)` with the row's `max|v| / 127`; binary keeps signs.

    Raises:
        ConfigError: a value is beyond float16.
    """
    match precision:
        case "float32":
            return np.ascontiguousarray(vectors_nD, np.float32), None
        case "float16":
            most = float(np.abs(vectors_nD).max(initial=0))
            if most > float(np.finfo(np.float16).max):
                raise ConfigError(
                    f"precision=float16: a vector has a value of {most:g}, float16 ends at 65504; "
                    "use float32 or int8"
                )
            return vectors_nD.astype(np.float16), None
        case "int8":
            scale_n = np.abs(vectors_nD).max(axis=1, initial=0).astype(np.float32) / 127
            safe_n = np.where(scale_n > 0, scale_n, 1).astype(np.float32)
            return np.rint(vectors_nD / safe_n[:, None]).astype(np.int8), scale_n
        case "binary":
            return np.packbits(vectors_nD > 0, axis=1), None


def decode(
    stored_nD: np.ndarray, scale_n: np.ndarray | None, precision: Precision, dimension: int
) -> np.ndarray:
    """Returns the float32 vectors [n, D] that a stored form stands for; binary gives -1 and 1."""
    match precision:
        case "float32":
            return np.asarray(stored_nD, np.float32)
        case "float16":
            return stored_nD.astype(np.float32)
        case "int8":
            assert scale_n is not None
            return np.asarray(stored_nD * scale_n[:, None], np.float32)
        case "binary":
            bits_nD = np.unpackbits(stored_nD, axis=1, count=dimension)
            return np.asarray(bits_nD * np.float32(2) - np.float32(1), np.float32)


class VectorWriter:
    """Writes one shard, batch by batch; use as a context manager."""

    def __init__(self, folder: Path, dimension: int, precision: Precision = "float32") -> None:
        folder.mkdir(parents=True)
        self.schema = vector_schema(dimension, precision)
        self.precision: Precision = precision
        self.rows = 0
        self._path = folder / FILE
        self._file = pa.OSFile(str(self._path), "wb")
        self._writer = pa.ipc.new_file(self._file, self.schema)

    def __enter__(self) -> VectorWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        self._writer.close()
        self._file.close()
        if kind is None:
            seal(self._path)

    def append(self, doc_ids: Sequence[str] | pa.Array, vectors_nD: np.ndarray) -> None:
        """Adds at least one row; `vectors_nD` is float32."""
        assert len(vectors_nD)
        stored, scale_n = encode(vectors_nD, self.precision)
        field = self.schema.field("vector").type
        flat = pa.array(stored.reshape(-1), field.value_type)
        columns = [
            pa.array(doc_ids, pa.string()),
            pa.FixedSizeListArray.from_arrays(flat, field.list_size),
        ]
        if scale_n is not None:
            columns.append(pa.array(scale_n))
        self._writer.write_batch(pa.record_batch(columns, schema=self.schema))
        self.rows += len(stored)


@dataclass(frozen=True)
class VectorShards:
    """Vectors in shards, as one sequence of rows.

    Attributes:
        batches: all record batches in row order, mapped.
        sections: the batches' vectors in their files, checked when first read; none in memory.
        offsets: the first row of each batch, and the number of rows at the end.
        dimension: D.
        precision: how vectors are stored.
        manifest: the folder's manifest; empty for vectors in memory.
    """

    batches: tuple[pa.RecordBatch, ...]
    sections: tuple[Section, ...]
    offsets: np.ndarray
    dimension: int
    precision: Precision
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> VectorShards:
        """Maps a folder that `embed` completed.

        Raises:
            ArtifactError: incomplete, of another kind, or a shard is missing or damaged.
        """
        return cls.map(folder, read_manifest(folder, [KIND]))

    @classmethod
    def map(cls, folder: str | Path, manifest: Mapping[str, Any]) -> VectorShards:
        """Maps a folder by its manifest, or by the facts that will be in it.

        Raises:
            ArtifactError: a shard is missing or damaged.
        """
        shards = [shard_path(Path(folder) / SHARDS, i) for i in range(int(manifest["shards"]))]
        batches: list[pa.RecordBatch] = []
        sections: list[Section] = []
        schema = vector_schema(int(manifest["dimension"]), manifest["precision"])
        for shard in shards:
            path = shard / FILE
            data, vectors = open_sections(path)
            reader = pa.ipc.open_file(data)
            if reader.schema != schema:
                raise ArtifactError(
                    f"{path}: is not of the manifest's dimension or precision; embed the corpus "
                    "again"
                )
            batches.extend(reader.get_batch(i) for i in range(reader.num_record_batches))
            sections += vectors
        mapped = cls._of(batches, sections, schema, manifest)
        if len(mapped) != int(manifest["documents"]):
            raise ArtifactError(
                f"{Path(folder) / SHARDS}: {len(mapped)} vectors, the manifest says "
                f"{manifest['documents']}; embed the corpus again"
            )
        return mapped

    @classmethod
    def in_memory(cls, doc_ids: Sequence[str], vectors_ND: np.ndarray) -> VectorShards:
        """Returns float32 vectors that are at hand under the same interface."""
        schema = vector_schema(vectors_ND.shape[1], "float32")
        flat = pa.array(np.ascontiguousarray(vectors_ND, np.float32).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, vectors_ND.shape[1])
        batch = pa.record_batch([pa.array(doc_ids, pa.string()), column], schema=schema)
        return cls._of([batch], [], schema, {})

    @classmethod
    def _of(
        cls,
        batches: Sequence[pa.RecordBatch],
        sections: Sequence[Section],
        schema: pa.Schema,
        manifest: Mapping[str, Any],
    ) -> VectorShards:
        offsets = np.cumsum([0, *(batch.num_rows for batch in batches)], dtype=np.int64)
        metadata = {key.decode(): value.decode() for key, value in schema.metadata.items()}
        precision: Any = metadata["precision"]
        dimension = int(metadata["dimension"])
        return cls(tuple(batches), tuple(sections), offsets, dimension, precision, manifest)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @property
    def doc_ids(self) -> pa.ChunkedArray:
        """All document ids in row order."""
        return pa.chunked_array([batch["doc_id"] for batch in self.batches], pa.string())

    def ids_at(self, rows: np.ndarray) -> pa.Array:
        """Returns the document ids of any rows, in their order, large_string."""
        number = np.searchsorted(self.offsets, rows, "right") - 1
        order = np.argsort(number, kind="stable")
        parts = [pa.array([], pa.large_string())]
        batches, starts = np.unique(number[order], return_index=True)
        for batch, own in zip(batches, np.split(rows[order], starts[1:])):
            ids = self.batches[batch]["doc_id"].take(pa.array(own - self.offsets[batch]))
            parts.append(ids.cast(pa.large_string()))
        return pa.concat_arrays(parts).take(pa.array(np.argsort(order, kind="stable")))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns the float32 vectors [n, D] of rows `start` to `stop` (a view where it can be)."""
        stop = min(stop, len(self))
        first = int(np.searchsorted(self.offsets, start, "right")) - 1
        parts = []
        while start < stop:
            begin, end = int(self.offsets[first]), int(self.offsets[first + 1])
            parts.append(self._decoded(first, start - begin, min(stop, end) - begin))
            start, first = min(stop, end), first + 1
        if not parts:
            return np.empty((0, self.dimension), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Returns the float32 vectors [n, D] of any rows, in their order."""
        out = np.empty((len(rows), self.dimension), np.float32)
        number = np.searchsorted(self.offsets, rows, "right") - 1
        for batch in np.unique(number):
            positions = np.flatnonzero(number == batch)
            stored, scale = self._stored(int(batch))
            own = rows[positions] - self.offsets[batch]
            own_scale = None if scale is None else scale[own]
            out[positions] = decode(stored[own], own_scale, self.precision, self.dimension)
        return out

    def _stored(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        if self.sections:
            self.sections[number].check()
        batch = self.batches[number]
        width = batch["vector"].type.list_size
        stored = batch["vector"].flatten().to_numpy(zero_copy_only=True).reshape(-1, width)
        return stored, batch["scale"].to_numpy() if self.precision == "int8" else None

    def _decoded(self, number: int, start: int, stop: int) -> np.ndarray:
        stored, scale = self._stored(number)
        own_scale = None if scale is None else scale[start:stop]
        return decode(stored[start:stop], own_scale, self.precision, self.dimension)

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yields `(first row, float32 vectors [n, D])`, cut at multiples of `size`.

        The cut ignores shard borders, so whatever is computed per block does not depend on them.
        """
        for start in range(0, len(self), size):
            yield start, self.read(start, start + size)


class Section:
    """A part of a mapped file, compared with its checksum once."""

    def __init__(self, path: Path, data: memoryview, crc32: int) -> None:
        self._path = path
        self._data: memoryview | None = data
        self._crc32 = crc32

    def check(self) -> None:
        """Raises ArtifactError if the bytes are not those that were written."""
        data = self._data
        if data is not None and zlib.crc32(data) != self._crc32:
            raise _corrupted(self._path, "a checksum does not match")
        self._data = None


def seal(path: Path) -> None:
    """Writes the checksums of a complete Arrow file of vectors beside it."""
    with pa.memory_map(str(path)) as source:
        data = source.read_buffer()
        reader = pa.ipc.open_file(data)
        cuts = [0]
        for i in range(reader.num_record_batches):
            columns: Sequence[Any] = reader.get_batch(i).columns[1:]  # after the ids
            first, last = columns[0].buffers()[-1], columns[-1].buffers()[-1]
            cuts += [first.address - data.address, last.address + last.size - data.address]
        cuts.append(data.size)
        view = memoryview(data)
        sections = [[stop, zlib.crc32(view[start:stop])] for start, stop in pairwise(cuts)]
    write_json(_beside(path), {"sections": sections, "check": value_fingerprint(sections)})


def faults_of(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is wrong with each shard: missing, damaged, or not what the manifest says."""
    schema = vector_schema(int(manifest["dimension"]), manifest["precision"])
    for number in range(int(manifest["shards"])):
        path = shard_path(folder / SHARDS, number) / FILE
        try:
            data, sections = open_sections(path)
            for section in sections:
                section.check()
            if pa.ipc.open_file(data).schema != schema:
                yield f"{path}: is not of the manifest's dimension or precision; embed again"
        except ArtifactError as error:
            yield str(error)


def open_sections(path: Path) -> tuple[pa.Buffer, list[Section]]:
    """Maps a file that `seal` knows; returns it with a section for each record batch's vectors.

    Raises:
        ArtifactError: the file or its checksums are missing or damaged, but for the vectors.
    """
    beside = _beside(path)
    try:
        about = json.loads(beside.read_text(encoding="utf-8"))
        sections, check = about["sections"], about["check"]
    except OSError as error:
        raise _corrupted(beside, error.strerror or str(error)) from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _corrupted(beside, str(error)) from None
    if check != value_fingerprint(sections):
        raise _corrupted(beside, "its checksum does not match")
    try:
        size = path.stat().st_size
        if size != sections[-1][0]:
            raise _corrupted(path, f"{size} bytes, expected {sections[-1][0]}")
        data = pa.memory_map(str(path)).read_buffer()
    except OSError as error:
        raise _corrupted(path, error.strerror or str(error)) from None
    view, start, parts = memoryview(data), 0, []
    for stop, crc32 in sections:
        parts.append(Section(path, view[start:stop], crc32))
        start = stop
    for section in parts[::2]:
        section.check()
    return data, parts[1::2]


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def _corrupted(path: Path, why: str) -> ArtifactError:
    return ArtifactError(f"{path}: {why}; embed the corpus again")
