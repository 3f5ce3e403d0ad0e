"""The order of documents by a column instead of their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raydist.errors import ConfigError

Array = npt.NDArray[Any]


def column_keys(sort: str, columns: pa.Table | None) -> Array:
    """Returns numbers in whose ascending order the documents are sorted, int64 by position.

    Args:
        sort: a column's name, with a minus in front for the largest value first; documents without
            a value are last either way.
        columns: of the index.

    Raises:
        ConfigError: there is no such column.
    """
    names = [] if columns is None else columns.column_names
    name, falling = sort_column(sort, names)
    if columns is None or name not in names:
        has = f"the index has {', '.join(names)}" if names else "the index has no columns"
        raise ConfigError(f"sort = {sort!r}: no column {name!r}; {has}")
    values = columns[name].combine_chunks()
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    order = "descending" if falling else "ascending"
    ranks = pc.rank(values, sort_keys=order, tiebreaker="dense")  # nulls come last
    return np.asarray(ranks.to_numpy(), np.int64)


def sort_column(sort: str, names: Sequence[str]) -> tuple[str, bool]:
    """Returns the name of the column that an order is by, and whether the largest is first."""
    falling = sort.startswith("-") and sort not in names
    return (sort[1:] if falling else sort), falling


def first_by(keys: Array, docs: Array, scores: Array, k: int) -> tuple[Array, Array]:
    """Returns the first k documents by their keys, ties by score and then in input order."""
    order = np.lexsort((docs, -scores, keys[docs]))[:k]
    return docs[order], scores[order]


def descending(count: int) -> Array:
    """Returns the scores of documents that a column orders: a ranking's fall with its ranks."""
    return np.arange(count, 0, -1).astype(np.float32)
