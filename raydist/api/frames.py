"""Arrow tables as the data frames of other libraries."""

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


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise ConfigError(f"to_{name}: {name} is not installed; pip install {name}") from None
