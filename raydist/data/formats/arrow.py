"""Arrow files, and the folders that Hugging Face's `Dataset.save_to_disk` writes.

Only the table is read: nothing of such a folder is executed, and the package datasets is not
needed.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from raydist.data.files import open_input
from raydist.data.formats.names import Naming
from raydist.data.formats.parquet import (
    columns_of,
    damage,
    describe_columns,
    documents,
    extra_of,
)
from raydist.data.scan import SplitScan
from raydist.errors import DataError

_STATE, _SPLITS = "state.json", "dataset_dict.json"


def dataset_files(path: str, where: pafs.FileSystem, folder: str) -> list[str] | None:
    """Returns the Arrow files of a folder of `save_to_disk` in order, None if it is none.

    Raises:
        DataError: it has several splits, or rows that are chosen by a file of numbers.
    """
    splits = _json(path, where, posixpath.join(folder, _SPLITS)).get("splits")
    if splits:
        names = ", ".join(f"{path.rstrip('/')}/{name}" for name in splits)
        if len(splits) > 1:
            raise DataError(f"{path}: this data set has several splits; choose one of {names}")
        folder = posixpath.join(folder, str(splits[0]))
    state = _json(path, where, posixpath.join(folder, _STATE))
    if "_data_files" not in state:
        return None
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise DataError(
            f"{path}: this data set is a selection of rows; save it again after flatten_indices()"
        )
    return [posixpath.join(folder, each["filename"]) for each in state["_data_files"]]


def _json(path: str, where: pafs.FileSystem, name: str) -> dict[str, Any]:
    try:
        with where.open_input_file(name) as source:
            value = json.loads(bytes(source.read()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: {posixpath.basename(name)} cannot be read: {error}") from error
    return value if isinstance(value, dict) else {}


def describe(path: str, naming: Naming) -> str:
    """Returns what the columns of a file are taken for."""
    with open_input(path) as source:
        schema = _open(path, source).schema
    return describe_columns(path, schema, naming)


def read(scan: SplitScan, naming: Naming) -> Iterator[pa.Table]:
    """Yields the documents of a file as tables of the schema DOCUMENTS.

    A row whose id or text is null is a bad line; its number is that of the row, from 1.
    """
    with open_input(scan.path) as source:
        reader = _open(scan.path, source)
        columns = columns_of(scan.path, reader.schema, naming)
        with damage(f"{scan.path}: this Arrow file"):
            extra = extra_of(scan.path, reader.schema, naming)
            names = {*columns.values(), *(column.name for column in extra)}
            yield from documents(_checked(_batches(reader), names), columns, scan, extra=extra)


def batches(path: str) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a file, all columns; an empty batch at least.

    Raises:
        DataError: not an Arrow file, or a damaged one.
    """
    with open_input(path) as source:
        reader = _open(path, source)
        yield pa.RecordBatch.from_pylist([], schema=reader.schema)
        with damage(f"{path}: this Arrow file"):
            yield from _batches(reader)


def _open(path: str, source: pa.NativeFile) -> pa.RecordBatchReader | pa.RecordBatchFileReader:
    try:
        start = source.read(6)
        source.seek(0)
        return pa.ipc.open_file(source) if start == b"ARROW1" else pa.ipc.open_stream(source)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not an Arrow file, or damaged: {error}") from error


def _checked(
    batches: Iterable[pa.RecordBatch], columns: Collection[str]
) -> Iterator[pa.RecordBatch]:
    """Yields batches, or raises ArrowInvalid where the offsets of a column lead outside its data.

    Broken UTF-8 is no such damage.
    """
    bare = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    for batch in batches:
        for array in map(batch.column, columns):
            kind = bare.get(array.type)
            (array if kind is None else array.view(kind)).validate(full=True)
        yield batch


def _batches(
    reader: pa.RecordBatchReader | pa.RecordBatchFileReader,
) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchFileReader):
        yield from map(reader.get_batch, range(reader.num_record_batches))
    else:
        yield from reader
