"""Vector shards: what `embed` writes and dense search reads, memory-mapped.

A folder holds `shards/00000/vectors.arrow`, `shards/00001/...` and a manifest; what was added later
lies in segments (segments.py). A shard is an Arrow IPC file, not compressed, of `doc_id, vector`
(and `scale` for int8), so that a reader maps it, with checksums in `vectors.json`. Live rows are
numbered through the shards in order: a row number is the corpus order. A position counts the
deleted rows, too.

Shapes: N rows in all, n rows of a block, D dimensions.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from raydist.data.store.idhash import HashIndex
from raydist.dense.segments import KIND, SHARDS, lives_of, segments_of
from raydist.disk import write_json
from raydist.errors import ArtifactError, ConfigError
from raydist.fingerprints import value_fingerprint
from raydist.kernels.bits import Bits
from raydist.manifest import open_generation
from raydist.shard_files import shard_path

FILE = "vectors.arrow"
FINE = "rescore.arrow"
"""The same vectors in a finer form, by which the best are scored."""
Precision = Literal["float32", "float16", "int8", "binary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_STORED = {
    "float32": pa.float32(),
    "float16": pa.float16(),
    "int8": pa.int8(),
    "binary": pa.uint8(),
}


Stored = tuple[pa.Array, np.ndarray, np.ndarray | None]
"""Ids, their vectors as `encode` returns them, and their scales."""


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
    """Writes one shard, batch by batch; use as a context manager.

    Attributes:
        rows: written so far.
        fine: writes the finer form, None where there is to be none.
    """

    def __init__(
        self,
        folder: Path,
        dimension: int,
        precision: Precision = "float32",
        rescore: Precision | Literal["none"] = "none",
        *,
        file: str = FILE,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=file == FINE)
        self.fine = None
        if rescore != "none":
            self.fine = VectorWriter(folder, dimension, rescore, file=FINE)
        self.schema = vector_schema(dimension, precision)
        self.precision: Precision = precision
        self.rows = 0
        self._path = folder / file
        self._file = pa.OSFile(str(self._path), "wb")
        self._writer = pa.ipc.new_file(self._file, self.schema)

    def __enter__(self) -> VectorWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        if self.fine is not None:
            self.fine.__exit__(kind, *raised)
        self._writer.close()
        self._file.close()
        if kind is None:
            seal(self._path)

    def append(self, doc_ids: Sequence[str] | pa.Array, vectors_nD: np.ndarray) -> None:
        """Adds at least one row; `vectors_nD` is float32."""
        assert len(vectors_nD)
        self.append_stored(doc_ids, *encode(vectors_nD, self.precision))
        if self.fine is not None:
            self.fine.append(doc_ids, vectors_nD)

    def append_stored(
        self, doc_ids: Sequence[str] | pa.Array, stored: np.ndarray, scale_n: np.ndarray | None
    ) -> None:
        """Adds rows as `encode` returns them, to this form alone."""
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
    """Vectors in shards, as one sequence of rows; deleted ones are none.

    Attributes:
        batches: all record batches in row order, mapped.
        sections: the batches' vectors in their files, checked when first read; none in memory.
        live: which positions are live, None if all are.
        kept: of each batch which of its rows are live, None if all are.
        offsets: the first row of each batch, and the number of rows at the end.
        dimension: D.
        precision: how vectors are stored.
        manifest: the folder's manifest; empty for vectors in memory.
        fine: the same rows in a finer form, None if there is none.
    """

    batches: tuple[pa.RecordBatch, ...]
    sections: tuple[Section, ...]
    live: Bits | None
    kept: tuple[np.ndarray | None, ...]
    offsets: np.ndarray
    dimension: int
    precision: Precision
    manifest: Mapping[str, Any]
    fine: VectorShards | None = None

    @classmethod
    def open(cls, folder: str | Path) -> VectorShards:
        """Maps a folder that `embed` completed.

        Raises:
            ArtifactError: incomplete, of another kind, or a shard is missing or damaged.
        """
        return open_generation(folder, [KIND], partial(cls.map, folder))

    @classmethod
    def map(cls, folder: str | Path, manifest: Mapping[str, Any]) -> VectorShards:
        """Maps a folder by its manifest, or by the facts that will be in it.

        Raises:
            ArtifactError: a shard is missing or damaged.
        """
        mapped = cls._map(folder, manifest, FILE)
        finer = manifest.get("rescore_precision", "none")
        if finer == "none":
            return mapped
        return replace(mapped, fine=cls._map(folder, {**manifest, "precision": finer}, FINE))

    @classmethod
    def _map(cls, folder: str | Path, manifest: Mapping[str, Any], file: str) -> VectorShards:
        batches: list[pa.RecordBatch] = []
        sections: list[Section] = []
        schema = vector_schema(int(manifest["dimension"]), manifest["precision"])
        for name, facts in segments_of(manifest).items():
            shards = Path(folder) / name / SHARDS
            first = len(batches)
            for number in range(int(facts["shards"])):
                path = shard_path(shards, number) / file
                data, vectors = open_sections(path)
                reader = pa.ipc.open_file(data)
                if reader.schema != schema:
                    raise ArtifactError(
                        f"{path}: is not of the manifest's dimension or precision; embed the "
                        "corpus again"
                    )
                batches.extend(reader.get_batch(i) for i in range(reader.num_record_batches))
                sections += vectors
            rows = sum(batch.num_rows for batch in batches[first:])
            if rows != int(facts["documents"]):
                raise ArtifactError(
                    f"{shards}: {rows} vectors, the manifest says {facts['documents']}; embed the "
                    "corpus again"
                )
        return cls._of(batches, sections, schema, manifest, lives_of(Path(folder), manifest))

    @classmethod
    def in_memory(cls, doc_ids: Sequence[str], vectors_ND: np.ndarray) -> VectorShards:
        """Returns float32 vectors that are at hand under the same interface."""
        schema = vector_schema(vectors_ND.shape[1], "float32")
        flat = pa.array(np.ascontiguousarray(vectors_ND, np.float32).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, vectors_ND.shape[1])
        batch = pa.record_batch([pa.array(doc_ids, pa.string()), column], schema=schema)
        return cls._of([batch], [], schema, {}, [None])

    @classmethod
    def _of(
        cls,
        batches: Sequence[pa.RecordBatch],
        sections: Sequence[Section],
        schema: pa.Schema,
        manifest: Mapping[str, Any],
        lives: Sequence[Bits | None],
    ) -> VectorShards:
        kept: list[np.ndarray | None] = [None] * len(batches)
        live = None
        if any(each is not None for each in lives):
            documents = [int(each["documents"]) for each in segments_of(manifest).values()]
            pairs = zip(documents, lives)
            flags = np.concatenate([np.ones(n, bool) if b is None else b.flags for n, b in pairs])
            live = Bits.of(flags)
            ends = np.cumsum([batch.num_rows for batch in batches])
            parts = np.split(flags, ends[:-1])
            kept = [None if part.all() else np.flatnonzero(part) for part in parts]
        sizes = [b.num_rows if rows is None else len(rows) for b, rows in zip(batches, kept)]
        offsets = np.cumsum([0, *sizes], dtype=np.int64)
        metadata = {key.decode(): value.decode() for key, value in schema.metadata.items()}
        precision: Any = metadata["precision"]
        dimension = int(metadata["dimension"])
        return cls(
            tuple(batches),
            tuple(sections),
            live,
            tuple(kept),
            offsets,
            dimension,
            precision,
            manifest,
        )

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @property
    def finest(self) -> VectorShards:
        """The finer form if there is one, else this one."""
        return self if self.fine is None else self.fine

    @property
    def end(self) -> int:
        """The position behind the last row."""
        return len(self) if self.live is None else self.live.size

    @property
    def doc_ids(self) -> pa.ChunkedArray:
        """All document ids in row order."""
        return pa.chunked_array(list(self.id_parts()), pa.string())

    def id_parts(self) -> Iterator[pa.Array]:
        """Yields the document ids in row order, batch by batch."""
        for batch, rows in zip(self.batches, self.kept):
            ids = batch["doc_id"]
            yield ids if rows is None else ids.take(pa.array(rows))

    def numbers(self, positions: np.ndarray) -> np.ndarray:
        """Returns the row numbers of live rows by their positions."""
        return positions if self.live is None else self.live.rank(positions)

    def at_numbers(self, rows: np.ndarray) -> np.ndarray:
        """Returns the positions of rows."""
        return rows if self.live is None else self.live.select(rows)

    def pick_ids(self, positions: np.ndarray) -> pa.Array:
        """Returns the document ids of live rows by their positions, large_string."""
        return self.ids_at(self.numbers(positions))

    def find(self, doc_ids: pa.Array) -> np.ndarray:
        """Returns the position of each document, int64; -1 where there is none."""
        rows = self.rows_of(doc_ids)
        rows[rows >= 0] = self.at_numbers(rows[rows >= 0])
        return rows

    def rows_of(self, doc_ids: pa.Array) -> np.ndarray:
        """Returns the row of each document, int64; -1 where there is none."""
        return self._hashed.find(doc_ids)

    @cached_property
    def _hashed(self) -> HashIndex:
        return HashIndex.build(self.id_parts(), len(self), self.ids_at)

    def ids_at(self, rows: np.ndarray) -> pa.Array:
        """Returns the document ids of any rows, in their order, large_string."""
        number = np.searchsorted(self.offsets, rows, "right") - 1
        order = np.argsort(number, kind="stable")
        parts = [pa.array([], pa.large_string())]
        batches, starts = np.unique(number[order], return_index=True)
        for batch, own in zip(batches.tolist(), np.split(rows[order], starts[1:])):
            ids = self.batches[batch]["doc_id"].take(pa.array(self._within(batch, own)))
            parts.append(ids.cast(pa.large_string()))
        return pa.concat_arrays(parts).take(pa.array(np.argsort(order, kind="stable")))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns the float32 vectors [n, D] of rows `start` to `stop` (a view where it can be)."""
        parts = [
            decode(stored, scale, self.precision, self.dimension)
            for _, stored, scale in self.stored(start, stop)
        ]
        if not parts:
            return np.empty((0, self.dimension), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def stored(self, start: int, stop: int) -> Iterator[Stored]:
        """Yields the ids of rows `start` to `stop`, with their vectors and scales as stored."""
        stop = min(stop, len(self))
        number = int(np.searchsorted(self.offsets, start, "right")) - 1
        while start < stop:
            begin, end = int(self.offsets[number]), int(self.offsets[number + 1])
            if last := min(stop, end) - start:
                rows = self.kept[number]
                at: Any = slice(start - begin, start - begin + last)
                at = at if rows is None else rows[at]
                stored, scale = self._stored(number)
                ids = self.batches[number]["doc_id"]
                ids = ids[at] if rows is None else ids.take(pa.array(at))
                yield ids, stored[at], None if scale is None else scale[at]
            start, number = min(stop, end), number + 1

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Returns the float32 vectors [n, D] of any rows, in their order."""
        out = np.empty((len(rows), self.dimension), np.float32)
        number = np.searchsorted(self.offsets, rows, "right") - 1
        for batch in np.unique(number).tolist():
            places = np.flatnonzero(number == batch)
            stored, scale = self._stored(batch)
            own = self._within(batch, rows[places])
            own_scale = None if scale is None else scale[own]
            out[places] = decode(stored[own], own_scale, self.precision, self.dimension)
        return out

    def _within(self, number: int, rows: np.ndarray) -> np.ndarray:
        """Returns where rows of a batch lie in it."""
        own, kept = rows - self.offsets[number], self.kept[number]
        return np.asarray(own if kept is None else kept[own])

    def _stored(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        if self.sections:
            self.sections[number].check()
        batch = self.batches[number]
        width = batch["vector"].type.list_size
        stored = batch["vector"].flatten().to_numpy(zero_copy_only=True).reshape(-1, width)
        return stored, batch["scale"].to_numpy() if self.precision == "int8" else None

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
    """Yields what is wrong with each shard: missing, damaged, or not what the manifest says.

    Args:
        folder: of a segment.
        manifest: the segment's facts.
    """
    forms = {FILE: manifest["precision"], FINE: manifest.get("rescore_precision", "none")}
    for file, precision in forms.items():
        for number in range(int(manifest["shards"]) if precision != "none" else 0):
            path = shard_path(folder / SHARDS, number) / file
            try:
                data, sections = open_sections(path)
                for section in sections:
                    section.check()
                if pa.ipc.open_file(data).schema != vector_schema(
                    int(manifest["dimension"]), precision
                ):
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
