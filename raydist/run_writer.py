"""Writes a run file part by part, so that the whole is never in memory: TREC lines or Parquet."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.disk import atomic
from raydist.errors import DataError
from raydist.log import warn
from raydist.strings import text_of

Write = Callable[[pa.Table], None]
"""Takes the next rows of a run, of which a Run has checked that they are a ranking."""

PARQUET = (".parquet", ".pq")
"""Suffixes of Parquet files; a file of another name holds TREC lines."""

CHOICE = "TREC run lines cannot carry blanks or empty ids; write a file that ends with .parquet"
"""What to tell whoever writes TREC lines with such an id."""

_ROWS = 1 << 16  # rows that become lines at a time
_BLANK = r"[ \t\n\r\f\v]"


@contextlib.contextmanager
def open_run(path: str | os.PathLike[str], schema: pa.Schema, tag: str) -> Iterator[Write]:
    """Gives a function that writes rows; the file appears when the block ends.

    The form follows from the name: Parquet with the tag as metadata (`.parquet`, `.pq`), else TREC
    lines, gzipped if it ends with `.gz`. A missing folder is created.

    Args:
        path: the file.
        schema: that of the rows: query_id, doc_id, score.
        tag: the name of the run.

    Raises:
        DataError: an id holds a blank, which TREC lines cannot carry.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic(target) as partial:
        if target.suffix in PARQUET:
            import pyarrow.parquet as pq

            options = {"compression": "zstd", "write_page_checksum": True}
            with pq.ParquetWriter(partial, schema.with_metadata({"tag": tag}), **options) as writer:
                yield writer.write_table
        elif target.suffix == ".gz":
            with (
                open(partial, "wb") as raw,
                gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
                io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as out,
            ):
                yield trec_lines(out.write, tag)
        else:
            with open(partial, "w", encoding="utf-8", newline="\n") as out:
                yield trec_lines(out.write, tag)


def trec_lines(write: Callable[[str], object], tag: str) -> Write:
    """Returns a function that writes rows as TREC lines.

    Each score is the shortest decimal that gives the float32 back; ranks begin at 1.
    """
    last, rank = None, 0
    end = pa.scalar(f"{tag}\n")

    def write_table(table: pa.Table) -> None:
        nonlocal last, rank
        for batch in table.to_batches(_ROWS):
            if not batch.num_rows:
                continue
            refuse_blanks(batch)
            queries = batch["query_id"]
            starts = group_starts(queries)
            sizes = np.diff(np.append(starts, len(queries)))
            ranks = np.arange(1, len(queries) + 1) - np.repeat(starts, sizes)
            if queries[0].as_py() == last:  # a query's rows may lie in two batches
                ranks[: sizes[0]] += rank
            last, rank = queries[-1].as_py(), int(ranks[-1])
            lines = pc.binary_join_element_wise(
                queries,
                pa.scalar("Q0"),
                batch["doc_id"],
                pa.array(ranks).cast(pa.string()),
                batch["score"].cast(pa.string()),
                end,
                pa.scalar(" "),
            )
            write(str(text_of(lines), "utf-8"))

    return write_table


def refuse_blanks(rows: pa.RecordBatch | pa.Table) -> None:
    """Raises DataError for an id of a run that TREC lines cannot carry."""
    for name in ("query_id", "doc_id"):
        bad = first_blank(rows[name])
        if bad is not None:
            raise DataError(f"{name} {bad!r}: {CHOICE}")


def first_blank(ids: pa.Array | pa.ChunkedArray) -> str | None:
    """Returns the first id that is empty or has a blank, which TREC lines cannot carry, or None."""
    chunks = ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]
    if not any(_may_be_blank(chunk) for chunk in chunks):
        return None
    bad = pc.or_(pc.match_substring_regex(ids, _BLANK), pc.equal(ids, ""))
    place = pc.index(bad, pa.scalar(True)).as_py()
    return None if place < 0 else str(ids[place].as_py())


def _may_be_blank(ids: pa.Array) -> bool:
    """Returns whether some id is empty, or the bytes between the first and the last have a blank.

    It costs a hundredth of a look at each id.
    """
    if ids.null_count or pc.min(pc.binary_length(ids)).as_py() == 0:
        return True
    text = np.frombuffer(text_of(ids), np.uint8)
    return bool(((text == ord(" ")) | (text - np.uint8(ord("\t")) < 5)).any())


def warn_of_blank(doc_id: str | None) -> None:
    """Warns early of what a search of the documents will refuse, if there is such an id."""
    if doc_id is not None:
        warn(
            f"the document id {doc_id!r} is empty or holds a blank: searches must write their runs "
            "as out=NAME.parquet, since TREC lines cannot carry it"
        )


def group_starts(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Returns the first row of each stretch of equal values, int64."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    starts = []
    row, last = 0, None
    for chunk in chunks:
        if not len(chunk):
            continue
        changed = pc.not_equal(chunk.slice(1), chunk.slice(0, len(chunk) - 1))
        inside = np.flatnonzero(changed.to_numpy(zero_copy_only=False)) + 1
        if row == 0 or chunk[0].as_py() != last:
            starts.append(np.array([row], np.int64))
        starts.append(inside + row)
        row, last = row + len(chunk), chunk[-1].as_py()
    return np.concatenate(starts) if starts else np.zeros(0, np.int64)
