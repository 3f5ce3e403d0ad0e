"""Arrow tables as the data frames of other libraries, and the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raydist.errors import ConfigError

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa


def to_pandas(table: pa.Table) -> pandas.DataFrame:
    """Returns a table as a DataFrame of pandas."""
    _import("pandas")
    return table.to_pandas()


def to_polars(table: pa.Table) -> Any:
    """Returns a table as a DataFrame of Polars."""
    return _import("polars").from_arrow(table)


def plain(table: pa.Table) -> pa.Table:
    """Returns a table without what only data frames have: views, categories, metadata."""
    import pyarrow as pa

    table = table.replace_schema_metadata(None).combine_chunks()
    columns = [
        _decoded(column)
        if pa.types.is_dictionary(column.type)
        else column.cast(_plain(column.type))
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns the values of a column of categories."""
    import pyarrow as pa

    kind = _plain(column.type.value_type)
    chunks = [each.dictionary.cast(kind).take(each.indices) for each in column.chunks]
    return pa.chunked_array(chunks, kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Returns the type of the same values in which all that reads Parquet can take them."""
    import pyarrow as pa

    if kind == pa.string_view():
        return pa.large_string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.large_list(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    return kind


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise ConfigError(f"to_{name}: {name} is not installed; pip install {name}") from None
