"""Qrels and runs in their text forms: TREC, BEIR's TSV, plain TSV, and Parquet for runs."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from raydist.data.files import PathLike, compression_of, read_blocks, read_text
from raydist.data.formats.parquet import read_table
from raydist.data.scan import utf8_problem
from raydist.data.sources import expand
from raydist.errors import DataError
from raydist.records import RUN, Run

_QRELS_FORMS = {3: (0, 1, 2), 4: (0, 2, 3)}
_HEADER = re.compile(r"(?i)(query[-_]?id|qid)\s")


def parse_qrels(path: PathLike) -> dict[str, dict[str, int]]:
    """Returns the judgements of one file: TREC's 4 columns, or query, document and relevance.

    Blanks or tabs separate the columns; a header like BEIR's is skipped.

    Raises:
        DataError: a line with another number of columns, a relevance that is not a whole number, or
            a pair that is judged twice with different relevances.
    """
    qrels: dict[str, dict[str, int]] = {}
    width = 0
    for number, line in enumerate(read_text(path).split("\n"), 1):
        cells = line.split()
        if not cells:
            continue
        if not width and _HEADER.match(line):
            continue
        width = width or len(cells)
        if len(cells) != width or width not in _QRELS_FORMS:
            expected = "query 0 document relevance (TREC), or query document relevance"
            raise DataError.at(
                path, number, line, expected + (f", {width} columns" if width in (3, 4) else "")
            )
        query, document, relevance = (cells[i] for i in _QRELS_FORMS[width])
        if not re.fullmatch(r"[+-]?\d{1,9}", relevance):
            raise DataError.at(
                path, number, line, f"a whole number as relevance, not {relevance!r}"
            )
        judged = qrels.setdefault(query, {})
        if judged.setdefault(document, int(relevance)) != int(relevance):
            earlier = f"one relevance per pair; an earlier line says {judged[document]}"
            raise DataError.at(path, number, line, earlier)
    return qrels


def parse_run(path: PathLike, *, sort: bool = False) -> Run:
    """Returns a run: TREC's six columns, or Parquet with `query_id, doc_id, score`.

    Args:
        path: the file, compressed or not.
        sort: order each query's documents by score; without it, a file in another order is an
            error.

    Raises:
        DataError: a bad line, or rows that are not a ranking.
    """
    file = expand(path)[0].path
    if re.search(r"\.(parquet|pq)$", file.lower()):
        return _parquet_run(file, sort)
    tables: list[pa.Table] = []
    tag = ""
    line = 1
    for offset, data in read_blocks(file, compression=compression_of(file)):
        table = _block(data)
        if table is None:
            table = _by_lines(file, line, offset, data)
        tag = tag or (table["tag"][0].as_py() if table.num_rows else "")
        tables.append(table.select(RUN.names))
        line += data.count(b"\n")
    table = pa.concat_tables(tables) if tables else RUN.empty_table()
    return _run(file, table, tag or "raydist", sort)


def _run(path: str, table: pa.Table, tag: str, sort: bool) -> Run:
    try:
        return Run.sorted(table, tag) if sort else Run(table, tag)
    except DataError as error:
        hint = "" if sort else " (sort=true orders a run by its scores)"
        raise DataError(f"{path}: {error}{hint}") from error


def _parquet_run(path: str, sort: bool) -> Run:
    table = read_table(path, RUN.names)
    tag = (table.schema.metadata or {}).get(b"tag", b"raydist").decode("utf-8", "replace")
    try:
        table = table.cast(RUN)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{path}: expected the columns {RUN}: {error}") from error
    return _run(path, table.replace_schema_metadata(None), tag, sort)


_COLUMNS: dict[str, pa.DataType] = {
    "query_id": pa.string(),
    "q0": pa.string(),
    "doc_id": pa.string(),
    "rank": pa.int64(),
    "score": pa.float32(),
    "tag": pa.string(),
}


def _block(data: bytes) -> pa.Table | None:
    """Returns the rows of a block of plain run lines, or None if any line is odd."""
    data = data.replace(b"\t", b" ").replace(b"\r\n", b"\n")
    if b"  " in data or b" \n" in data or b"\n " in data or data.startswith(b" "):
        data = re.sub(rb" +", b" ", data).replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ")
    if not data.strip():
        return pa.table({name: pa.array([], kind) for name, kind in _COLUMNS.items()})
    if b"\r" in data or b"\0" in data:
        return None
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data),
            read_options=pyarrow.csv.ReadOptions(
                column_names=list(_COLUMNS), use_threads=False, block_size=len(data) + 1
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=" ", quote_char=False),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=_COLUMNS, null_values=[], strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    empty = any(
        pc.any(pc.equal(pc.binary_length(table[name]), 0)).as_py()
        for name in ("query_id", "doc_id")
    )
    finite = bool(np.isfinite(table["score"].to_numpy()).all())
    return table if finite and not empty else None


def _by_lines(path: str, first: int, offset: int, data: bytes) -> pa.Table:
    """Returns the rows of a block, read line by line, or raises the error for a bad one."""
    rows: list[list[str]] = []
    for number, raw in enumerate(data.split(b"\n"), first):
        at, offset = offset, offset + len(raw) + 1
        line = raw.decode("utf-8", "backslashreplace")
        cells = line.split()
        if not cells:
            continue
        expected = ""
        if len(cells) != 6:
            expected = f"6 columns (query Q0 document rank score tag), not {len(cells)}"
        elif not re.fullmatch(r"[+-]?\d{1,18}", cells[3]):
            expected = f"a whole number as rank, not {cells[3]!r}"
        elif not _is_finite(cells[4]):
            expected = f"a finite number as score, not {cells[4]!r}"
        else:
            expected = utf8_problem(raw, at, "convert the file to UTF-8") or ""
        if expected:
            raise DataError.at(path, number, line, expected)
        rows.append(cells)
    columns = list(zip(*rows)) if rows else [()] * 6
    return pa.table(
        {
            name: pa.array(
                np.array([float(c) for c in cells], np.float32) if name == "score" else cells, kind
            )
            for (name, kind), cells in zip(_COLUMNS.items(), columns)
            if name != "rank"
        }
    )


def _is_finite(cell: str) -> bool:
    try:
        return "_" not in cell and abs(float(cell)) <= float(np.finfo(np.float32).max)
    except ValueError:
        return False
