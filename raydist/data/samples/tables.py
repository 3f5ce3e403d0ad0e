"""Training data in Parquet and Arrow files becomes lines of JSON, which are read by row.

Columns are those of the line formats; Hugging Face's data sets come as files of these kinds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from raydist.data.files import head
from raydist.data.formats import arrow, parquet
from raydist.disk import atomic
from raydist.log import Progress


def is_table(file: str) -> bool:
    """Returns whether a file is Parquet or Arrow, by its first bytes."""
    return head(file, 6).startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"))


def column_names(file: str) -> list[str]:
    """Returns the names of a table's columns."""
    names: list[str] = next(iter(_batches(file))).schema.names
    return names


def as_lines(files: Sequence[str], folder: Path, rows: int = 0) -> tuple[str, ...]:
    """Returns files of lines: a table's rows are written into the folder as JSON objects.

    Args:
        files: any files of training data.
        folder: takes the lines.
        rows: writes only the first rows of a table; 0 = all.

    Raises:
        DataError: a table is damaged.
    """
    return tuple(
        _written(file, folder / f"table-{i:05}.jsonl", rows) if is_table(file) else file
        for i, file in enumerate(files)
    )


def _written(file: str, target: Path, rows: int) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic(target) as partial,
        open(partial, "w", encoding="utf-8") as out,
        Progress(f"read {Path(file).name}", unit="row") as progress,
    ):
        records = chain.from_iterable(batch.to_pylist() for batch in _batches(file))
        for record in islice(records, rows or None):
            filled = {name: value for name, value in record.items() if value is not None}
            out.write(json.dumps(filled, ensure_ascii=False, default=str) + "\n")
            progress.advance(1)
    return str(target)


def _batches(file: str) -> Iterator[pa.RecordBatch | Any]:
    if head(file, 4) == b"PAR1":
        return parquet.batches(file)
    return arrow.batches(file)
