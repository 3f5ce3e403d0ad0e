"""Writes a run file part by part, so that the whole is never in memory.

The name of the file decides its form: `.parquet` and `.pq` are Parquet; `.jsonl` has an object a
line, with the documents' texts where they are known; `.csv` and `.tsv` have a header; all others
hold TREC lines. `.gz` behind the name of a text file compresses it.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.disk import atomic
from raydist.errors import DataError
from raydist.log import warn
from raydist.strings import text_of

if TYPE_CHECKING:
    from raydist.protocols import TextStore
    from raydist.records import Document

Write = Callable[[pa.Table], None]
"""Takes the next rows of a run, of which a Run has checked that they are a ranking."""

Columns = Callable[[Sequence[str]], Sequence[Mapping[str, Any] | None]]
"""The metadata of documents by id, as JSON has it; None for one without any."""

Form = Literal["trec", "jsonl", "csv", "tsv", "parquet"]
"""The form of a run file."""

COLUMNS = ("query_id", "doc_id", "rank", "score")
"""The columns of the tables, and the first keys of an object."""

CHOICE = "TREC run lines cannot carry blanks or empty ids; write .parquet, .jsonl, .csv or .tsv"
"""What to tell whoever writes TREC lines with such an id."""

_SUFFIXES: dict[str, Form] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
_ROWS = 1 << 16  # rows that become lines at a time
_JSON_ROWS = 1 << 10  # the same, with their texts
_BLANK = r"[ \t\n\r\f\v]"


def run_form(path: str | os.PathLike[str]) -> Form:
    """Returns the form that the name of a run file asks for."""
    name = Path(path)
    if name.suffix.lower() == ".gz":
        inner = _SUFFIXES.get(Path(name.stem).suffix.lower(), "trec")
        return "trec" if inner == "parquet" else inner
    return _SUFFIXES.get(name.suffix.lower(), "trec")


@contextlib.contextmanager
def open_run(
    path: str | os.PathLike[str],
    schema: pa.Schema,
    tag: str,
    texts: TextStore | None = None,
    columns: Columns | None = None,
) -> Iterator[Write]:
    """Gives a function that writes rows; the file appears when the block ends.

    A missing folder is created.

    Args:
        path: the file; its name decides the form (`run_form`).
        schema: that of the rows: query_id, doc_id, score.
        tag: the name of the run, for the forms that carry one: TREC lines, and Parquet as metadata.
        texts: the documents' texts, which `.jsonl` takes along.
        columns: their metadata, the same.

    Raises:
        DataError: an id holds a blank, which TREC lines cannot carry.
    """
    target = Path(path)
    form = run_form(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic(target) as partial:
        if form == "parquet":
            import pyarrow.parquet as pq

            options = {"compression": "zstd", "write_page_checksum": True}
            with pq.ParquetWriter(partial, schema.with_metadata({"tag": tag}), **options) as writer:
                yield writer.write_table
            return
        with _open_text(partial, packed=target.suffix.lower() == ".gz") as out:
            if form == "trec":
                yield trec_lines(out.write, tag)
            elif form == "jsonl":
                yield json_lines(out.write, texts, columns)
            else:
                yield _table_lines(out, "," if form == "csv" else "\t")


@contextlib.contextmanager
def _open_text(path: Path, packed: bool) -> Iterator[TextIO]:
    # Half a surrogate pair, which a text can hold, becomes an escape of JSON.
    options: dict[str, Any] = {
        "encoding": "utf-8",
        "errors": "backslashreplace",
        "newline": "\n",
    }
    with open(path, "wb") as raw:
        if not packed:
            with io.TextIOWrapper(raw, **options) as out:
                yield out
            return
        with (
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream,
            io.TextIOWrapper(stream, **options) as out,
        ):
            yield out


def trec_lines(write: Callable[[str], object], tag: str) -> Write:
    """Returns a function that writes rows as TREC lines.

    Each score is the shortest decimal that gives the float32 back; ranks begin at 1.
    """
    ranks_of = _Ranks()
    end = pa.scalar(f"{tag}\n")

    def write_table(table: pa.Table) -> None:
        for batch in table.to_batches(_ROWS):
            if not batch.num_rows:
                continue
            refuse_blanks(batch)
            lines = pc.binary_join_element_wise(
                batch["query_id"],
                pa.scalar("Q0"),
                batch["doc_id"],
                pa.array(ranks_of(batch["query_id"])).cast(pa.string()),
                batch["score"].cast(pa.string()),
                end,
                pa.scalar(" "),
            )
            write(str(text_of(lines), "utf-8"))

    return write_table


class _Ranks:
    """Counts the rows of each query, over batches that may cut one in two."""

    def __init__(self) -> None:
        self._last: str | None = None
        self._rank = 0

    def __call__(self, queries: pa.Array) -> np.ndarray:
        """Returns the ranks of the next rows, from 1; there is at least one."""
        starts = group_starts(queries)
        sizes = np.diff(np.append(starts, len(queries)))
        ranks: np.ndarray = np.arange(1, len(queries) + 1) - np.repeat(starts, sizes)
        if queries[0].as_py() == self._last:
            ranks[: sizes[0]] += self._rank
        self._last, self._rank = queries[-1].as_py(), int(ranks[-1])
        return ranks


def json_lines(
    write: Callable[[str], object], texts: TextStore | None, columns: Columns | None = None
) -> Write:
    """Returns a function that writes rows as JSON: `query_id, doc_id, rank, score, title, text`.

    Documents without a title or text have none of these keys. With `columns` there is an object of
    their metadata as well.
    """
    ranks_of = _Ranks()

    def quoted(value: str) -> str:
        return json.dumps(value, ensure_ascii=False)

    def write_table(table: pa.Table) -> None:
        for batch in table.to_batches(_JSON_ROWS):
            if not batch.num_rows:
                continue
            doc_ids = batch["doc_id"].to_pylist()
            query_ids = batch["query_id"].to_pylist()
            ranks = ranks_of(batch["query_id"]).tolist()
            scores = batch["score"].cast(pa.string()).to_pylist()
            documents: Sequence[Document | None] = [None] * len(doc_ids)
            if texts is not None:
                documents = texts.get(doc_ids)
            metadata = [None] * len(doc_ids) if columns is None else columns(doc_ids)
            rows = zip(query_ids, doc_ids, ranks, scores, documents, metadata)
            for query_id, doc_id, rank, score, document, values in rows:
                line = (
                    f'{{"query_id": {quoted(query_id)}, "doc_id": {quoted(doc_id)}, '
                    f'"rank": {rank}, "score": {score}'
                )
                if document is not None and document.title:
                    line += f', "title": {quoted(document.title)}'
                if document is not None and document.text:
                    line += f', "text": {quoted(document.text)}'
                if values is not None:
                    line += f', "columns": {json.dumps(values, ensure_ascii=False)}'
                write(line + "}\n")

    return write_table


def _table_lines(out: TextIO, separator: str) -> Write:
    """Returns a function that writes rows below a header, quoted where that is necessary."""
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerow(COLUMNS)
    ranks_of = _Ranks()

    def write_table(table: pa.Table) -> None:
        for batch in table.to_batches(_ROWS):
            if batch.num_rows:
                columns = (
                    batch["query_id"].to_pylist(),
                    batch["doc_id"].to_pylist(),
                    ranks_of(batch["query_id"]).tolist(),
                    batch["score"].cast(pa.string()).to_pylist(),
                )
                writer.writerows(zip(*columns))

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
            "as out=NAME.parquet or .jsonl, since TREC lines cannot carry it"
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
