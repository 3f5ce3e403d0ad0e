"""Parquet documents and queries: row groups are splits, columns are chosen by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raydist.data.columns import Column, absent, converted, schema_of, shown_by_type, typed
from raydist.data.files import open_input
from raydist.data.formats.names import USUAL_NAMES, Naming, id_name, missing, roles, usual
from raydist.data.scan import REPLACE, SplitScan
from raydist.errors import DataError

_BATCH_ROWS = 16384
_TEXTS = (pa.string(), pa.large_string(), pa.string_view())


def row_groups(path: str) -> list[int]:
    """Returns the number of rows of each row group.

    Raises:
        DataError: not a Parquet file, or a damaged one.
    """
    with _open(path) as file:
        meta = file.metadata
        return [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]


def columns_of(path: str, schema: pa.Schema, naming: Naming) -> dict[str, str]:
    """Returns `{"id": name, "title": name, "text": name}`; a file without titles lacks that key.

    Args:
        path: the file, for messages.
        schema: its schema.
        naming: own names.

    Raises:
        DataError: a column is missing or neither text nor a list of texts nor, for ids, whole
            numbers.
    """
    names = schema.names
    columns: dict[str, str] = {}
    for role in USUAL_NAMES:
        if role == "id":
            name = id_name(path, names, naming)
        else:
            name = naming.fields.get(role) or usual(role, names)
        empty = name in names and pa.types.is_null(schema.field(name).type)
        if role == "title" and (name is None or empty):
            continue
        if name is None or name not in names:
            raise missing(path, names, naming, role)
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if role != "id" and _is_list(kind):
            kind = kind.value_type
        if not (kind in _TEXTS or (role == "id" and pa.types.is_integer(kind))):
            raise DataError(
                f"{path}: column {name!r} ({role}) is {schema.field(name).type}; expected strings"
            )
        columns[role] = name
    return columns


def extra_of(path: str, schema: pa.Schema, naming: Naming) -> tuple[Column, ...]:
    """Returns the metadata to read, with the types of the file's columns.

    Raises:
        DataError: a column is missing, or of a type that is not stored.
    """
    shown = {}
    for each in naming.columns:
        if each.name not in schema.names:
            raise absent(path, each.name, schema.names)
        kind = shown_by_type(schema.field(each.name).type)
        if kind is None:
            raise DataError(
                f"{path}: corpus.columns: {each.name!r} is {schema.field(each.name).type}; "
                "expected numbers, strings, bools or times"
            )
        shown[each.name] = kind
    return typed(naming.columns, shown)


def describe_columns(path: str, schema: pa.Schema, naming: Naming) -> str:
    """Returns what columns are taken for."""
    return roles(columns_of(path, schema, naming), schema.names, naming)


def describe(path: str, naming: Naming) -> str:
    """Returns what the columns of a file are taken for."""
    with _open(path) as file:
        return describe_columns(path, file.schema_arrow, naming)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def read(scan: SplitScan, group: int | None, naming: Naming) -> Iterator[pa.Table]:
    """Yields the documents of one row group, or of all, as tables of the schema DOCUMENTS.

    A row whose id or text is null is a bad line; its number is that of the row, from 1.
    """
    path = scan.path
    with _open(path) as file:
        columns = columns_of(path, file.schema_arrow, naming)
        meta = file.metadata
        groups = range(meta.num_row_groups) if group is None else [group]
        for each in groups:
            row = sum(meta.row_group(i).num_rows for i in range(each))
            extra = extra_of(path, file.schema_arrow, naming)
            names = sorted({*columns.values(), *(column.name for column in extra)})
            rows = file.iter_batches(_BATCH_ROWS, [each], names, use_threads=False)
            with damage(f"{path}: row group {each}"):
                yield from documents(rows, columns, scan, row, extra)


def batches(path: str) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a file, all columns; an empty batch at least.

    Raises:
        DataError: not a Parquet file, or a damaged one.
    """
    with _open(path) as file:
        yield pa.RecordBatch.from_pylist([], schema=file.schema_arrow)
        with damage(f"{path}: this Parquet file"):
            yield from file.iter_batches(_BATCH_ROWS, use_threads=False)


def read_table(path: str, names: list[str] | None = None) -> pa.Table:
    """Returns named columns of a whole file, or all.

    Raises:
        DataError: damaged, or a column is missing.
    """
    with _open(path) as file:
        missing = [name for name in names or () if name not in file.schema_arrow.names]
        if missing:
            present = ", ".join(file.schema_arrow.names[:12])
            raise DataError(f"{path}: no column {missing[0]!r}; it has {present}")
        with damage(f"{path}: this Parquet file"):
            table = file.read(names, use_threads=False)
            table.validate(full=True)
        return table


def column_names(path: str) -> list[str]:
    """Returns the names of a file's columns.

    Raises:
        DataError: not a Parquet file, or a damaged one.
    """
    with _open(path) as file:
        return list(file.schema_arrow.names)


def _open(path: str) -> pq.ParquetFile:
    source = open_input(path)
    try:
        return pq.ParquetFile(source, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        source.close()
        raise DataError(f"{path}: not a Parquet file, or damaged: {error}") from error


@contextlib.contextmanager
def damage(what: str) -> Iterator[None]:
    """Turns what Arrow says of a file's content into a DataError: `what` is damaged."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{what} is damaged: {error}") from error


def documents(
    batches: Iterable[pa.RecordBatch],
    columns: Mapping[str, str],
    scan: SplitScan,
    row: int = 0,
    extra: Sequence[Column] = (),
) -> Iterator[pa.Table]:
    """Yields the documents of batches of rows, in the schema DOCUMENTS.

    Args:
        batches: the rows.
        columns: as `columns_of` says.
        scan: reports bad rows.
        row: number of the first row in the file, from 0.
        extra: metadata to read, typed.
    """
    for batch in batches:
        yield _documents(batch, columns, row, scan, extra)
        row += batch.num_rows


def _documents(
    batch: pa.RecordBatch,
    columns: Mapping[str, str],
    row: int,
    scan: SplitScan,
    extra: Sequence[Column],
) -> pa.Table:
    arrays = {}
    good = np.ones(batch.num_rows, bool)
    reasons: dict[int, str] = {}
    for role, name in columns.items():
        array = batch[name]
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if _is_list(array.type):
            end = pa.scalar("\n" if role == "text" else " ", pa.large_string())
            array = pc.binary_join(array.cast(pa.large_list(pa.large_string())), end)
        if not pa.types.is_integer(array.type):
            array = _text(array, reasons, scan.replace)
        arrays[role] = array.cast(pa.large_string() if role == "text" else pa.string())
    empty = pc.equal(pc.binary_length(arrays["id"]), 0).fill_null(False)
    wrong = [
        (pc.is_null(arrays["id"]), f"an id in column {columns['id']!r}, not null"),
        (pc.is_null(arrays["text"]), f"a text in column {columns['text']!r}, not null"),
        (empty, f"an id that is not empty in column {columns['id']!r}"),
    ]
    for mask, reason in wrong:
        for index in np.flatnonzero(mask.to_numpy(zero_copy_only=False)).tolist():
            reasons.setdefault(index, reason)
    values = []
    for column in extra:
        array = batch[column.name]
        if array.type in _TEXTS:
            array = _text(array, reasons, scan.replace)
        array, misfits = converted(array, column)
        values.append(array)
        reasons = misfits | reasons
    for index, reason in sorted(reasons.items()):
        good[index] = False
        scan.report_number(row + index + 1, str(arrays["id"][index].as_py()), reason)
    titles = arrays.get("title")
    titles = pa.repeat("", batch.num_rows) if titles is None else titles.fill_null("")
    schema = schema_of(extra)
    table = pa.table([arrays["id"], titles, arrays["text"], *values], schema.names)
    return (table.filter(pa.array(good)) if reasons else table).cast(schema)


def _text(array: pa.Array, reasons: dict[int, str], replace: bool) -> pa.Array:
    """Returns an array that is UTF-8 throughout; broken values are replaced or get a reason."""
    array = array.cast(pa.large_string()) if array.type == pa.string_view() else array
    try:
        array.validate(full=True)
        return array
    except pa.ArrowInvalid:
        pass
    large = pa.types.is_large_string(array.type)
    values = array.view(pa.large_binary() if large else pa.binary()).to_pylist()
    for index, value in enumerate(values):
        try:
            values[index] = None if value is None else value.decode()
        except UnicodeDecodeError as error:
            values[index] = value.decode("utf-8", "replace")
            if not replace:
                reasons[index] = (
                    f"UTF-8; byte {error.start} of the value (0x{value[error.start]:02x}) is not; "
                    f"{REPLACE}"
                )
    return pa.array(values, pa.large_string())
