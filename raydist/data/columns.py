"""Metadata columns of documents: the fields of a corpus that are stored beside its texts, typed.

A file's column has one type: the user's (`year:int64`), or the one that the file's first records
show. Whole numbers and others together are float64, any other mixture is string. A value that
spells one of the type is read as it (`"2020"` as a number, 2020 as a string); what does not is a
bad line. Of several files, int64 and float64 give float64; other differences are an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from raydist.errors import DataError
from raydist.records import DOCUMENTS

TYPES: Mapping[str, pa.DataType] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.large_string(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us"),
}
"""Types of columns by name; timestamps are UTC."""

PREFIX = "column:"
"""Of the names of columns in tables of documents, since one may be called text."""
_INTEGER = re.compile(r"[+-]?[0-9]+")
_PLAIN_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")  # 007 is no number
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?")
_BOOLS = {"true": True, "false": False, "1": True, "0": False}


class Number(str):
    """A JSON number as it was written."""


class Column(NamedTuple):
    """A column to read.

    Attributes:
        name: in the file, and in the index.
        type: one of the keys of TYPES, None for what the file shows.
    """

    name: str
    type: str | None = None

    @classmethod
    def of(cls, text: str) -> Column:
        """Returns the column of `year` or `year:int64`."""
        name, _, kind = text.rpartition(":")
        return cls(name, kind) if name and kind in TYPES else cls(text)


def type_name(kind: pa.DataType) -> str:
    """Returns the name of a column's type."""
    return next(name for name, each in TYPES.items() if each == kind)


def typed(columns: Iterable[Column], shown: Mapping[str, str]) -> tuple[Column, ...]:
    """Returns the columns with the types that a file shows where they have none."""
    return tuple(each if each.type else Column(each.name, shown[each.name]) for each in columns)


def absent(path: object, name: str, names: Sequence[str], remedy: str = "") -> DataError:
    """Returns the error for a file without a column."""
    return DataError(
        f"{path}: corpus.columns: no column {name!r}; it has {', '.join(names[:12])}{remedy}"
    )


def shown_by_values(values: Iterable[Any]) -> str | None:
    """Returns the type that values of JSON show, None if all are null."""
    kinds = {_kind_of_value(value) for value in values if value is not None}
    if not kinds:
        return None
    if kinds == {"int64", "float64"}:
        return "float64"
    return kinds.pop() if len(kinds) == 1 else "string"


def _kind_of_value(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Number):
        return "int64" if _INTEGER.fullmatch(value) else "float64"
    return "string"


def shown_by_cells(cells: Iterable[str]) -> str:
    """Returns the type that the cells of a table in text form show; empty ones say nothing."""
    some = [cell for cell in cells if cell]
    tests: dict[str, Callable[[str], object]] = {
        "int64": lambda cell: _PLAIN_INTEGER.fullmatch(cell) and abs(int(cell)) < 1 << 63,
        "float64": _NUMBER.fullmatch,
        "bool": lambda cell: cell.lower() in ("true", "false"),
        "timestamp": _TIME.fullmatch,
    }
    shown = (kind for kind, test in tests.items() if all(map(test, some)))
    kind = next(shown, "string") if some else "string"
    if kind == "float64" and any(re.match("[+-]?0[0-9]", cell) for cell in some):
        return "string"
    return kind


def shown_by_type(kind: pa.DataType) -> str | None:
    """Returns the type of a column by its Arrow type, None for types that no column can have."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = {
        "int64": pa.types.is_integer(kind),
        "float64": pa.types.is_floating(kind) or pa.types.is_decimal(kind),
        "bool": pa.types.is_boolean(kind),
        "timestamp": pa.types.is_timestamp(kind) or pa.types.is_date(kind),
        "string": kind in (pa.string(), pa.large_string(), pa.string_view(), pa.null()),
    }
    return next((name for name, holds in tests.items() if holds), None)


def parse(text: str, kind: str) -> Any:
    """Returns the value that a text spells.

    Raises ValueError if it spells none of the type.
    """
    if kind == "int64" and _INTEGER.fullmatch(text) and -(1 << 63) <= int(text) < 1 << 63:
        return int(text)
    if kind == "float64" and _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    if kind == "bool" and text.lower() in _BOOLS:
        return _BOOLS[text.lower()]
    if kind == "timestamp" and _TIME.fullmatch(text):
        time = datetime.fromisoformat(text)
        return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)
    if kind == "string":
        return str(text)
    raise ValueError(text)


def fit(value: Any, column: Column) -> Any:
    """Returns a value of JSON, or a cell, as the column's type has it; None stays.

    Raises ValueError with what was expected.
    """
    kind = column.type or "string"
    if value is None:
        return None
    text = str(value).lower() if isinstance(value, bool) else value
    try:
        if not isinstance(text, str) or (kind != "bool" and kind != "string" and text is not value):
            raise ValueError(value)
        return parse(text, kind)
    except ValueError:
        shown = value if isinstance(value, bool | str) else f"a {type(value).__name__}"
        remedy = "" if kind == "string" else f"; corpus.columns={column.name}:string reads texts"
        raise ValueError(
            f"{kind} in the column {column.name!r}, not {str(shown)[:60]!r}{remedy}"
        ) from None


def table_of(rows: Iterable[tuple[Any, ...]], columns: Sequence[Column]) -> pa.Table:
    """Returns the table of `(doc_id, title, text, *values)` rows."""
    schema = schema_of(columns)
    cells = list(zip(*rows)) or [()] * len(schema)
    arrays = [pa.array(each, field.type) for each, field in zip(cells, schema)]
    return pa.table(arrays, schema=schema)


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """Returns the schema of documents with typed columns."""
    extra = [pa.field(PREFIX + each.name, TYPES[each.type or "string"]) for each in columns]
    return pa.schema([*DOCUMENTS, *extra])


def converted(values: pa.Array, column: Column) -> tuple[pa.Array, dict[int, str]]:
    """Returns an array as the column's type has it, and what is wrong with which rows.

    Of a column of texts an empty one is null, but where texts are wanted.
    """
    kind = TYPES[column.type or "string"]
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if values.type in (pa.string_view(), pa.string()):
        values = values.cast(pa.large_string())
    is_text = pa.types.is_large_string(values.type)
    if is_text and kind != values.type:
        empty = pc.equal(pc.binary_length(values), 0)
        values = pc.if_else(empty, pa.scalar(None, values.type), values)
    elif pa.types.is_timestamp(values.type) and values.type.tz is not None:
        values = values.cast(pa.timestamp(values.type.unit, "UTC")).cast(
            pa.timestamp(values.type.unit)
        )
    try:
        return values.cast(kind, safe=not pa.types.is_timestamp(values.type)), {}
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    wrong: dict[int, str] = {}
    fitted = []
    for row, value in enumerate(values.to_pylist()):
        try:
            text = value if value is None or isinstance(value, bool | str) else str(value)
            fitted.append(fit(text, column))
        except ValueError as error:
            wrong[row] = str(error)
            fitted.append(None)
    return pa.array(fitted, kind), wrong


def split_columns(table: pa.Table) -> tuple[pa.Table, pa.Table | None]:
    """Returns documents, and their columns by name, None if there are none."""
    extra = [name for name in table.column_names if name.startswith(PREFIX)]
    if not extra:
        return table, None
    names = [name.removeprefix(PREFIX) for name in extra]
    return table.select(DOCUMENTS.names), table.select(extra).rename_columns(names)


def named_schema(types: Mapping[str, str]) -> pa.Schema:
    """Returns the schema of columns by the names of their types."""
    return pa.schema([(name, TYPES[kind]) for name, kind in types.items()])


def common_schema(schemas: Sequence[pa.Schema], places: Sequence[object] = ()) -> pa.Schema:
    """Returns the schema that the columns of several parts of an index have together.

    Args:
        schemas: with the same names in the same order.
        places: names of the parts, for messages.

    Raises:
        DataError: they have types that do not go together.
    """
    fields = []
    for number, field in enumerate(schemas[0] if schemas else ()):
        kinds = {type_name(schema.field(number).type): i for i, schema in enumerate(schemas)}
        if kinds.keys() == {"int64", "float64"}:
            field = field.with_type(pa.float64())
        elif len(kinds) > 1:
            where = "; ".join(
                f"{kind}{f' in {places[i]}' if places else ''}" for kind, i in kinds.items()
            )
            raise DataError(
                f"column {field.name!r} has several types ({where}): choose one, such as "
                f"corpus.columns={field.name}:string"
            )
        fields.append(field)
    return pa.schema(fields)


def columns_of(parts: Sequence[Mapping[str, Any]], places: Sequence[object]) -> dict[str, Any]:
    """Returns the types of the columns of parts of an output as a fact, if there are any.

    Args:
        parts: facts of each.
        places: where the parts come from, for messages.

    Raises:
        DataError: they have types that do not go together.
    """
    some = [(each["columns"], place) for each, place in zip(parts, places) if each.get("columns")]
    if not some:
        return {}
    schema = common_schema([named_schema(kinds) for kinds, _ in some], [place for _, place in some])
    return {"columns": {each.name: type_name(each.type) for each in schema}}
