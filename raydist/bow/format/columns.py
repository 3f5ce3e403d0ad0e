"""Metadata columns of a segment: an Arrow file of a row for each of its documents.

It is one of the segment's files (`columns`), which a segment without columns lacks. Its bytes
depend on the content alone, not on how the rows came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.errors import ArtifactError

COLUMNS = "columns"
"""Name of the file."""

_ROWS = 1 << 16  # of a record batch


def write_columns(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Writes the rows of tables, which are cast to the schema; returns how many there are."""
    rows = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for table in _batches(tables):
            whole = table.cast(schema, safe=False).combine_chunks()
            writer.write_table(whole, max_chunksize=_ROWS)
            rows += whole.num_rows
    return rows


def _batches(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yields tables of `_ROWS` rows, and the rest."""
    pending: list[pa.Table] = []
    rows = 0
    for table in tables:
        while table.num_rows:
            part = table.slice(0, _ROWS - rows)
            pending.append(part)
            rows += part.num_rows
            table = table.slice(part.num_rows)
            if rows == _ROWS:
                yield pa.concat_tables(pending, promote_options="permissive")
                pending, rows = [], 0
    if pending:
        yield pa.concat_tables(pending, promote_options="permissive")


def read_columns(path: Path, data: npt.NDArray[Any]) -> pa.Table:
    """Returns the rows of a file that is mapped; nothing is copied.

    Raises ArtifactError where it is no Arrow file.
    """
    try:
        return pa.ipc.open_file(pa.py_buffer(np.ascontiguousarray(data))).read_all()
    except pa.ArrowException as error:
        raise ArtifactError(f"{path} is corrupted: {error}; build the index again") from None
