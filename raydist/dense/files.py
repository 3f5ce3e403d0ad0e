"""Files of vectors: written batch by batch, mapped, and checked when they are read.

Beside an Arrow file lie its checksums (`vectors.json`): those of ids and columns are compared when
it is opened, those of vectors when they are first read.

Shapes: n rows, D dimensions.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from raydist.data.columns import PREFIX, type_name
from raydist.dense.forms import Precision, encode, vector_schema
from raydist.dense.segments import SHARDS
from raydist.disk import write_json
from raydist.errors import ArtifactError
from raydist.fingerprints import value_fingerprint
from raydist.shard_files import shard_path

FILE = "vectors.arrow"
FINE = "rescore.arrow"
"""The same vectors in a finer form, by which the best are scored."""


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
        self.dimension = dimension
        self.precision: Precision = precision
        self.rows = 0
        self._path = folder / file
        self._file = pa.OSFile(str(self._path), "wb")
        self._writer: Any = None

    def __enter__(self) -> VectorWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        if self.fine is not None:
            self.fine.__exit__(kind, *raised)
        if self._writer is None:
            self._open(None)
        self._writer.close()
        self._file.close()
        if kind is None:
            seal(self._path)

    def _open(self, columns: pa.Schema | None) -> None:
        self._schema = vector_schema(self.dimension, self.precision, columns)
        self._writer = pa.ipc.new_file(self._file, self._schema)

    @property
    def columns(self) -> dict[str, str]:
        """The names of the columns, with those of their types."""
        extra = [] if self._writer is None else self._schema.names
        names = [name for name in extra if name.startswith(PREFIX)]
        return {n.removeprefix(PREFIX): type_name(self._schema.field(n).type) for n in names}

    def append(
        self,
        doc_ids: Sequence[str] | pa.Array,
        vectors_nD: np.ndarray,
        columns: pa.Table | None = None,
    ) -> None:
        """Adds at least one row.

        Args:
            doc_ids: their ids.
            vectors_nD: float32.
            columns: metadata, always of one schema; the finer form has none.
        """
        assert len(vectors_nD)
        self.append_stored(doc_ids, *encode(vectors_nD, self.precision), columns)
        if self.fine is not None:
            self.fine.append(doc_ids, vectors_nD)

    def append_stored(
        self,
        doc_ids: Sequence[str] | pa.Array,
        stored: np.ndarray,
        scale_n: np.ndarray | None,
        columns: pa.Table | None = None,
    ) -> None:
        """Adds rows as `encode` returns them, to this form alone."""
        if self._writer is None:
            self._open(None if columns is None else columns.schema)
        kind = self._schema.field("vector").type
        flat = pa.array(stored.reshape(-1), kind.value_type)
        arrays = [pa.array(doc_ids, pa.string())]
        if columns is not None:
            arrays += [column.combine_chunks() for column in columns.columns]
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, kind.list_size))
        if scale_n is not None:
            arrays.append(pa.array(scale_n))
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        self.rows += len(stored)


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
        place = reader.schema.get_field_index("vector")
        for i in range(reader.num_record_batches):
            vectors: Sequence[Any] = reader.get_batch(i).columns[place:]  # with their scales
            first, last = vectors[0].buffers()[-1], vectors[-1].buffers()[-1]
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
                check_schema(path, pa.ipc.open_file(data).schema, manifest["dimension"], precision)
            except ArtifactError as error:
                yield str(error)


def check_schema(path: Path, schema: pa.Schema, dimension: int, precision: Precision) -> None:
    """Raises ArtifactError for a file of other vectors; it may have columns."""
    extra = [each for each in schema if each.name.startswith(PREFIX)]
    columns = pa.schema([each.with_name(each.name.removeprefix(PREFIX)) for each in extra])
    if not schema.equals(vector_schema(int(dimension), precision, columns)):
        raise ArtifactError(
            f"{path}: is not of the manifest's dimension or precision; embed the corpus again"
        )


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
