"""Vector shards: what `embed` writes and dense search reads, memory-mapped.

A folder holds `shards/00000/vectors.arrow`, `shards/00001/...` and a manifest; what was added later
lies in segments (segments.py). A shard is an Arrow IPC file, not compressed, of `doc_id`, columns,
`vector` (and `scale` for int8), so that a reader maps it (files.py). Live rows are numbered through
the shards in order: a row number is the corpus order. A position counts the deleted rows, too.

Shapes: N rows in all, P positions, n rows of a block, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from raydist.data.columns import PREFIX, named_schema
from raydist.data.store.idhash import HashIndex
from raydist.dense.files import FILE, FINE, Section, check_schema, open_sections
from raydist.dense.forms import Precision, decode, vector_schema
from raydist.dense.segments import KIND, SHARDS, live_of, segments_of
from raydist.errors import ArtifactError
from raydist.kernels.bits import Bits
from raydist.manifest import open_generation
from raydist.shard_files import shard_path


class Stored(NamedTuple):
    """Documents as they are stored.

    Attributes:
        ids: of the documents.
        vectors: as `encode` returns them.
        scale: of each vector, None where the form has none.
        columns: metadata, None where there is none.
    """

    ids: pa.Array
    vectors: np.ndarray
    scale: np.ndarray | None
    columns: pa.Table | None


class Stretch(NamedTuple):
    """Consecutive files of a segment.

    Attributes:
        segment: its name.
        files: their numbers.
        first: the position of their first row in the segment.
    """

    segment: str
    files: range
    first: int


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
        files: of each batch the segment, and the number of its file there; none in memory.
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
    files: tuple[tuple[str, int], ...] = ()

    @classmethod
    def open(cls, folder: str | Path) -> VectorShards:
        """Maps a folder that `embed` completed.

        Raises:
            ArtifactError: incomplete, of another kind, or a shard is missing or damaged.
        """
        return open_generation(folder, [KIND], partial(cls.map, folder))

    @classmethod
    def map(
        cls,
        folder: str | Path,
        manifest: Mapping[str, Any],
        only: Sequence[Stretch] | None = None,
    ) -> VectorShards:
        """Maps a folder by its manifest, or by the facts that will be in it.

        Args:
            folder: of the vectors.
            manifest: the folder's.
            only: the files whose rows are wanted, in order; the folder needs no others.

        Raises:
            ArtifactError: a shard is missing or damaged.
        """
        mapped = cls._map(folder, manifest, FILE, only)
        finer = manifest.get("rescore_precision", "none")
        if finer == "none":
            return mapped
        facts = {**manifest, "precision": finer}
        return replace(mapped, fine=cls._map(folder, facts, FINE, only))

    @classmethod
    def _map(
        cls,
        folder: str | Path,
        manifest: Mapping[str, Any],
        file: str,
        only: Sequence[Stretch] | None,
    ) -> VectorShards:
        batches: list[pa.RecordBatch] = []
        sections: list[Section] = []
        files: list[tuple[str, int]] = []
        flags: list[tuple[int, np.ndarray | None]] = []
        schema = vector_schema(int(manifest["dimension"]), manifest["precision"])
        columns = list(manifest.get("columns", ())) if file == FILE else []
        segments = segments_of(manifest)
        whole = (Stretch(n, range(int(each["shards"])), 0) for n, each in segments.items())
        for name, numbers, start in whole if only is None else only:
            shards = Path(folder) / name / SHARDS
            first = len(batches)
            for number in numbers:
                path = shard_path(shards, number) / file
                data, vectors = open_sections(path)
                reader = pa.ipc.open_file(data)
                check_schema(path, reader.schema, manifest["dimension"], manifest["precision"])
                batches.extend(reader.get_batch(i) for i in range(reader.num_record_batches))
                extra = [n[len(PREFIX) :] for n in reader.schema.names if n.startswith(PREFIX)]
                if extra != columns and reader.num_record_batches:
                    raise ArtifactError(f"{path}: has other columns; embed the corpus again")
                sections += vectors
                files += [(name, number)] * reader.num_record_batches
            rows = sum(batch.num_rows for batch in batches[first:])
            if only is None and rows != int(segments[name]["documents"]):
                raise ArtifactError(
                    f"{shards}: {rows} vectors, the manifest says {segments[name]['documents']}; "
                    "embed the corpus again"
                )
            live = live_of(Path(folder), manifest, name)
            flags.append((rows, None if live is None else live.flags[start : start + rows]))
        live_P = None
        if any(own is not None for _, own in flags):
            live_P = np.concatenate([np.ones(n, bool) if own is None else own for n, own in flags])
        mapped = cls._of(batches, sections, schema, manifest, live_P)
        return replace(mapped, files=tuple(files))

    @classmethod
    def in_memory(cls, doc_ids: Sequence[str], vectors_ND: np.ndarray) -> VectorShards:
        """Returns float32 vectors that are at hand under the same interface."""
        schema = vector_schema(vectors_ND.shape[1], "float32")
        flat = pa.array(np.ascontiguousarray(vectors_ND, np.float32).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, vectors_ND.shape[1])
        batch = pa.record_batch([pa.array(doc_ids, pa.string()), column], schema=schema)
        return cls._of([batch], [], schema, {}, None)

    @classmethod
    def _of(
        cls,
        batches: Sequence[pa.RecordBatch],
        sections: Sequence[Section],
        schema: pa.Schema,
        manifest: Mapping[str, Any],
        live_P: np.ndarray | None,
    ) -> VectorShards:
        kept: list[np.ndarray | None] = [None] * len(batches)
        live = None
        if live_P is not None:
            live = Bits.of(live_P)
            ends = np.cumsum([batch.num_rows for batch in batches])
            parts = np.split(live_P, ends[:-1])
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

    def stretches(self, rows: range) -> tuple[list[Stretch], int]:
        """Returns the files that have some rows, and the first row of these files."""
        if not rows:
            return [], rows.start
        ends = np.searchsorted(self.offsets, [rows.start, rows.stop - 1], "right") - 1
        first, last = self.files.index(self.files[ends[0]]), int(ends[1])
        starts = np.cumsum([0, *(batch.num_rows for batch in self.batches)])
        segments = [segment for segment, _ in self.files]
        found = []
        for segment, group in groupby(range(first, last + 1), segments.__getitem__):
            own = list(group)
            files = range(self.files[own[0]][1], self.files[own[-1]][1] + 1)
            before = starts[own[0]] - starts[segments.index(segment)]
            found.append(Stretch(segment, files, int(before)))
        return found, int(self.offsets[first])

    @property
    def doc_ids(self) -> pa.ChunkedArray:
        """All document ids in row order."""
        return pa.chunked_array(list(self.id_parts()), pa.string())

    def id_parts(self) -> Iterator[pa.Array]:
        """Yields the document ids in row order, batch by batch."""
        for batch, rows in zip(self.batches, self.kept):
            ids = batch["doc_id"]
            yield ids if rows is None else ids.take(pa.array(rows))

    @cached_property
    def columns(self) -> pa.Table | None:
        """Metadata of the documents in row order, None without any."""
        parts = []
        for number, rows in enumerate(self.kept):
            columns = self._columns(number)
            if columns is None:
                return None
            parts.append(columns if rows is None else columns.take(pa.array(rows)))
        return pa.concat_tables(parts) if parts else None

    def _columns(self, number: int) -> pa.Table | None:
        """Returns the columns of a batch, of the types that all of them have together."""
        types = self.manifest.get("columns")
        if not types or PREFIX + next(iter(types)) not in self.batches[number].schema.names:
            return None
        batch = self.batches[number].select([PREFIX + name for name in types])
        table = pa.Table.from_batches([batch]).rename_columns(list(types))
        return table.cast(named_schema(types), safe=False)

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
        return decode(*self.read_stored(start, stop), self.precision, self.dimension)

    def read_stored(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the vectors of rows `start` to `stop`, and their scales, as they are stored."""
        parts = []
        for number, own in self._parts(start, stop):
            vectors, scale = self._stored(number)
            parts.append((vectors[own], None if scale is None else scale[own]))
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return self.take_stored(np.empty(0, np.int64))
        scales = [scale for _, scale in parts if scale is not None]
        joined = np.concatenate([vectors for vectors, _ in parts])
        return joined, np.concatenate(scales) if scales else None

    def stored(self, start: int, stop: int) -> Iterator[Stored]:
        """Yields rows `start` to `stop` in parts."""
        for number, own in self._parts(start, stop):
            vectors, scale = self._stored(number)
            rows, columns = pa.array(np.arange(len(vectors))[own]), self._columns(number)
            yield Stored(
                self.batches[number]["doc_id"].take(rows),
                vectors[own],
                None if scale is None else scale[own],
                None if columns is None else columns.take(rows),
            )

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, Any]]:
        """Yields batches that have rows `start` to `stop`, and where these lie in them."""
        stop = min(stop, len(self))
        number = int(np.searchsorted(self.offsets, start, "right")) - 1
        while start < stop:
            begin, end = int(self.offsets[number]), int(self.offsets[number + 1])
            if last := min(stop, end) - start:
                own, kept = slice(start - begin, start - begin + last), self.kept[number]
                yield number, own if kept is None else kept[own]
            start, number = min(stop, end), number + 1

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Returns the float32 vectors [n, D] of any rows, in their order."""
        return decode(*self.take_stored(rows), self.precision, self.dimension)

    def take_stored(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the vectors of any rows, and their scales, as they are stored."""
        kind = vector_schema(self.dimension, self.precision).field("vector").type
        out = np.empty((len(rows), kind.list_size), kind.value_type.to_pandas_dtype())
        out_scale = np.empty(len(rows), np.float32) if self.precision == "int8" else None
        number = np.searchsorted(self.offsets, rows, "right") - 1
        for batch in np.unique(number).tolist():
            places = np.flatnonzero(number == batch)
            stored, scale = self._stored(batch)
            own = self._within(batch, rows[places])
            out[places] = stored[own]
            if scale is not None and out_scale is not None:
                out_scale[places] = scale[own]
        return out, out_scale

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
