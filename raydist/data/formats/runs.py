"""Runs in the forms in use: TREC's, MS MARCO's, ColBERT's, Parquet, JSON, tables with a header.

Columns are separated as in judgements; those of a table whose first line names them, as in CSV.
"""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from raydist.data.files import (
    Line,
    PathLike,
    compression_of,
    first_line,
    read_blocks,
    read_lines,
    read_text,
)
from raydist.data.formats.judgements import (
    DOCUMENT,
    QUERY,
    bad_line,
    columns,
    form_of,
    id_of,
    json_rows,
    pick,
)
from raydist.data.formats.parquet import column_names, read_table
from raydist.data.sources import expand
from raydist.errors import DataError
from raydist.records import RUN, Run, as_run, by_score, repeated_rows
from raydist.run_writer import group_starts

RUN_SUFFIXES = (
    ".txt",
    ".run",
    ".res",
    ".trec",
    ".tsv",
    ".csv",
    ".parquet",
    ".pq",
    ".json",
    ".jsonl",
)
"""Suffixes of the runs that a directory stands for."""

_FORMS: dict[int, dict[str, pa.DataType]] = {
    6: {
        "query_id": pa.string(),
        "q0": pa.string(),
        "doc_id": pa.string(),
        "rank": pa.int64(),
        "score": pa.float32(),
        "tag": pa.string(),
    },
    4: {
        "query_id": pa.string(),
        "doc_id": pa.string(),
        "rank": pa.int64(),
        "score": pa.float32(),
    },
    3: {"query_id": pa.string(), "doc_id": pa.string(), "rank": pa.int64()},
}
_EXPECTED = (
    "6 columns (query Q0 document rank score tag), 4 (query document rank score) or 3 (query "
    "document rank)"
)


def parse_run(path: PathLike, *, sort: bool = False) -> Run:
    """Returns a run: TREC lines, `query document rank` with a score or without, Parquet, JSON, CSV.

    CSV has a header that names `query_id`, `doc_id` and `score`, or what they are called elsewhere,
    and commas or tabs. JSON is `{query: {document: score}}`, ordered by score, or an object with
    `query_id`, `doc_id` and `score` a line. The scores of three columns are the ranks' reciprocals.

    Args:
        path: the file, compressed or not.
        sort: order each query's documents by score; without it, a file in another order is an
            error.

    Raises:
        DataError: a bad line, rows that are not a ranking, or several files.
    """
    files = expand(path, RUN_SUFFIXES)
    if len(files) > 1:
        raise DataError(f"{path}: these are {len(files)} files; expected one run")
    file = files[0].path
    form = form_of(file)
    if form == "parquet" or re.search(r"\.(parquet|pq)$", file.lower()):
        return _parquet_run(file, sort)
    if form == "json":
        return _json_run(file, sort)
    separator = separator_of(first_line(file))
    return _table_run(file, separator, sort) if separator else _text_run(file, sort)


def separator_of(line: bytes) -> str:
    """Returns what separates a header's columns, comma or tab; empty if it is no run's header."""
    for separator in (b",", b"\t"):
        names = [cell.strip(b'"').decode("ascii", "replace") for cell in line.split(separator)]
        if all(any(name in names for name in usual) for usual in (QUERY, DOCUMENT, ("score",))):
            return separator.decode()
    return ""


def _run(path: str, table: pa.Table, tag: str, sort: bool, lines: bool = False) -> Run:
    """Returns the run of rows; names both places of a document that is ranked twice."""
    try:
        return Run.sorted(table, tag) if sort else Run(table, tag)
    except DataError as error:
        rows = repeated_rows(table)
        if rows is None:
            hint = " (sort=true orders a run by its scores)" if _is_sortable(table) else ""
            raise DataError(f"{path}: {error}{hint}") from error
    row = table.slice(rows[0], 1).to_pylist()[0]
    numbers = [row + 1 for row in rows]
    if lines:
        read = enumerate(line.number for line in read_lines(path))
        numbers = [number for i, number in read if i in rows]
    raise DataError(
        f"{path}, {'lines' if lines else 'rows'} {numbers[0]} and {numbers[1]}: query "
        f"{row['query_id']!r} ranks document {row['doc_id']!r} twice; remove one of them"
    )


def _is_sortable(table: pa.Table) -> bool:
    try:
        Run.sorted(table)
    except DataError:
        return False
    return True


def _parquet_run(path: str, sort: bool) -> Run:
    present = dict.fromkeys(column_names(path))
    names = [pick(path, present, usual) for usual in (QUERY, DOCUMENT, ("score",))]
    table = read_table(path, names)
    tag = (table.schema.metadata or {}).get(b"tag", b"raydist").decode("utf-8", "replace")
    try:
        table = as_run(table)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"{path}: expected ids as {names[0]} and {names[1]}, numbers as {names[2]}: {error}"
        ) from error
    return _run(path, table, tag, sort)


def _json_run(path: str, sort: bool) -> Run:
    names: dict[str, str] = {}
    queries, documents, scores = [], [], []
    for place, row in json_rows(path, "score"):
        names = names or {
            "query": pick(path, row, QUERY),
            "document": pick(path, row, DOCUMENT),
            "score": pick(path, row, ("score",)),
        }
        sort = sort or place.startswith("query ")  # a mapping's order means nothing
        queries.append(id_of(path, place, row, names["query"]))
        documents.append(id_of(path, place, row, names["document"]))
        score = row.get(names["score"])
        if isinstance(score, bool) or not isinstance(score, int | float) or not _is_finite(score):
            raise DataError(f"{path}, {place}: expected a finite number as score, not {score!r}")
        scores.append(score)
    column = np.array(scores, np.float32)
    return _run(path, pa.table([queries, documents, column], schema=RUN), "raydist", sort)


def _table_run(path: str, separator: str, sort: bool) -> Run:
    text = io.StringIO(read_text(path).removeprefix("\ufeff"), newline="")
    rows = csv.reader(text, delimiter=separator, strict=True)
    header = next(rows)
    names = {name: number for number, name in enumerate(header)}
    query, document, score = (names[pick(path, names, n)] for n in (QUERY, DOCUMENT, ("score",)))
    queries, documents, scores = [], [], []
    try:
        for row in rows:
            place = f"line {rows.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(f"{path}, {place}: {len(row)} columns, expected {len(header)}")
            if not (row[query] and row[document]):
                raise DataError(f"{path}, {place}: expected ids, not an empty column")
            if not _is_finite(row[score]):
                raise DataError(
                    f"{path}, {place}: expected a finite number as score, not {row[score]!r}"
                )
            queries.append(row[query])
            documents.append(row[document])
            scores.append(float(row[score]))
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: {error}") from error
    column = np.array(scores, np.float32)
    return _run(path, pa.table([queries, documents, column], schema=RUN), "raydist", sort)


def _text_run(path: str, sort: bool) -> Run:
    tables: list[pa.Table] = []
    tag, width, line = "", 0, 1
    for offset, data in read_blocks(path, compression=compression_of(path)):
        if not width and (start := data.strip()):
            width = len(columns(path, Line(line, offset, start.split(b"\n", 1)[0])))
        table = _block(data, width)
        if table is None:
            table = _by_lines(path, line, offset, data, width)
        if "tag" in table.column_names and not tag and table.num_rows:
            tag = table["tag"][0].as_py()
        if width == 3:
            reciprocal = pc.divide(1.0, table["rank"].cast(pa.float64()))
            table = table.append_column("score", reciprocal.cast(pa.float32()))
        tables.append(table.select([*RUN.names, "rank"]))
        line += data.count(b"\n")
    if not tables:
        return Run(RUN.empty_table())
    table = pa.concat_tables(tables)
    if width == 4:
        _check_counted(path, table)
    table = table.select(RUN.names)
    if width == 3:
        _check_ranks(path, table, sort)
    return _run(path, table, tag or "raydist", sort, lines=True)


def _check_counted(path: str, table: pa.Table) -> None:
    """Raises unless ranks count each query's rows, so that judgements are not read as a run."""
    queries, ranks = table["query_id"], table["rank"].to_numpy()
    starts = group_starts(queries)
    counts = np.arange(len(ranks)) - np.repeat(starts, np.diff(np.append(starts, len(ranks))))
    odd = np.flatnonzero(ranks - counts != np.clip(ranks[:1], 0, 1))
    if len(odd) or pc.all(pc.is_in(table["doc_id"], pa.array(["0", "Q0"]))).as_py():
        row = int(odd[0]) if len(odd) else 0
        raise DataError(
            f"{path}: query {queries[row].as_py()!r}: {ranks[row]} in the third of four columns; "
            "expected the ranks 1, 2, ... of each query in order (query document rank score)"
        )


def _check_ranks(path: str, table: pa.Table, sort: bool) -> None:
    """Raises unless the ranks of each query rise, so that a score or a grade is not read as one."""
    if sort:
        table = by_score(table)
    queries, scores = table["query_id"], table["score"]
    same = pc.equal(queries[1:], queries[:-1])
    rows = np.flatnonzero(pc.and_(same, pc.greater_equal(scores[1:], scores[:-1])).to_numpy())
    if len(rows) and repeated_rows(table) is None:
        before, after = (round(1 / scores[int(rows[0]) + i].as_py()) for i in (0, 1))
        hint = "" if after == before else " (sort=true orders a run by its ranks)"
        raise DataError(
            f"{path}: query {queries[int(rows[0])].as_py()!r}: {after} comes after {before} in the "
            f"third of three columns; expected ranks that rise, not scores or grades{hint}"
        )


def _block(data: bytes, width: int) -> pa.Table | None:
    """Returns the rows of a block of plain run lines, or None if any line is odd."""
    kinds = _FORMS.get(width)
    data = data.replace(b"\r\n", b"\n")
    if kinds is None or re.search(rb"[\r\0\f\v]", data):
        return None
    mark = "\t" if b"\t" in data else " "
    if mark == "\t" and re.search(rb" [\t\n]|[\t\n] |\t\n|\n\t|\A[ \t]|[ \t]\Z", data):
        return None
    if mark == " " and (b"  " in data or b" \n" in data or b"\n " in data or data.startswith(b" ")):
        data = re.sub(rb" +", b" ", data).replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ")
    if not data.strip():
        return pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data),
            read_options=pyarrow.csv.ReadOptions(
                column_names=list(kinds), use_threads=False, block_size=len(data) + 1
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=mark, quote_char=False),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=kinds, null_values=[], strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    empty = any(
        pc.any(pc.equal(pc.binary_length(table[name]), 0)).as_py()
        for name in ("query_id", "doc_id")
    )
    if width == 3:
        good = bool(pc.min(table["rank"]).as_py() > 0)
    else:
        good = bool(np.isfinite(table["score"].to_numpy()).all())
    return table if good and not empty else None


def _by_lines(path: str, first: int, offset: int, data: bytes, width: int) -> pa.Table:
    """Returns the rows of a block, read line by line, or raises the error for a bad one."""
    rows: list[list[str]] = []
    for number, raw in enumerate(data.split(b"\n"), first):
        line = Line(number, offset, raw)
        offset += len(raw) + 1
        if not raw.strip():
            continue
        cells = columns(path, line)
        rank = cells[3 if width == 6 else 2] if len(cells) == width in _FORMS else ""
        expected = ""
        if len(cells) != width or width not in _FORMS:
            expected = f"{_EXPECTED}, not {len(cells)}"
            if width in _FORMS:
                expected = f"{width} columns like the lines before, not {len(cells)}"
        elif not all(cells):
            expected = "no empty column"
        elif not re.fullmatch(r"[+-]?\d{1,18}", rank, re.ASCII):
            expected = f"a whole number as rank, not {rank!r}"
        elif width == 3 and int(rank) < 1:
            expected = f"a rank of 1 or more, not {rank}"
        elif width > 3 and not _is_finite(score := cells[4 if width == 6 else 3]):
            expected = f"a finite number as score, not {score!r}"
        if expected:
            raise bad_line(path, line, expected)
        rows.append(cells)
    kinds = _FORMS.get(width, _FORMS[6])  # of a block without lines
    texts = dict(zip(kinds, zip(*rows))) if rows else dict.fromkeys(kinds, ())
    arrays: dict[str, pa.Array] = {}
    for name, kind in kinds.items():
        values: object = texts[name]
        if name == "rank":
            values = [int(cell) for cell in texts[name]]
        elif name == "score":
            values = np.array([float(cell) for cell in texts[name]], np.float32)
        arrays[name] = pa.array(values, kind)
    return pa.table(arrays)


def _is_finite(cell: str | float) -> bool:
    try:
        return "_" not in str(cell) and abs(float(cell)) <= float(np.finfo(np.float32).max)
    except ValueError:
        return False
