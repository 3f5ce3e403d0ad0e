"""Collections of the ir_datasets package, by ids such as `irds:beir/nfcorpus/test`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from raydist.data.columns import Column, Number, absent, fit, shown_by_values, table_of, typed
from raydist.data.formats.names import Naming
from raydist.errors import DataError
from raydist.records import Query

PREFIX = "irds:"

_SPLIT_DOCS = 100_000
_TABLE_DOCS = 10_000


def is_dataset(path: object) -> bool:
    """Returns whether a path is an ir_datasets id."""
    return isinstance(path, str) and path.startswith(PREFIX)


def split_rows(path: str) -> list[tuple[int, int | None]]:
    """Returns `(start, stop)` of stretches of 100,000 documents; None is the end."""
    count = _dataset(path, "docs").docs_count()
    if count is None:
        return [(0, None)]
    return [(start, min(count, start + _SPLIT_DOCS)) for start in range(0, count, _SPLIT_DOCS)]


def documents(
    path: str,
    start: int,
    stop: int | None,
    naming: Naming = Naming(),  # noqa: B008  immutable
) -> Iterator[pa.Table]:
    """Yields the documents from `start` to `stop` as tables of the schema DOCUMENTS."""
    columns = _columns(path, naming) if naming.columns else ()
    source = islice(_dataset(path, "docs").docs_iter()[start:stop], None)
    while batch := list(islice(source, _TABLE_DOCS)):
        rows = (_row(doc) + tuple(_value(doc, each) for each in columns) for doc in batch)
        yield table_of(rows, columns)


def _columns(path: str, naming: Naming) -> tuple[Column, ...]:
    """Returns the columns with the types that the first documents show."""
    first = list(islice(_dataset(path, "docs").docs_iter(), 100))
    shown = {}
    for each in naming.columns:
        if first and not hasattr(first[0], each.name):
            raise absent(path, each.name, list(first[0]._fields))
        values = [_plain(getattr(doc, each.name)) for doc in first]
        shown[each.name] = shown_by_values(values) or "string"
    return typed(naming.columns, shown)


def _value(doc: Any, column: Column) -> Any:
    try:
        return fit(_plain(getattr(doc, column.name)), column)
    except ValueError as error:
        raise DataError(f"document {doc.doc_id!r}: expected {error}") from None


def _plain(value: Any) -> Any:
    """Returns numbers as they are written."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Number(value) if number else value


def queries(path: str) -> list[Query]:
    """Returns the data set's queries."""
    return [
        Query(str(query.query_id), str(getattr(query, "text", None) or query.default_text()))
        for query in _dataset(path, "queries").queries_iter()
    ]


def qrels(path: str) -> Iterator[tuple[str, str, str, int]]:
    """Yields the (query, subtopic, document, grade) of each judgement."""
    for row in _dataset(path, "qrels").qrels_iter():
        subtopic = getattr(row, "subtopic_id", None) or getattr(row, "iteration", None) or "0"
        yield str(row.query_id), str(subtopic), str(row.doc_id), int(row.relevance)


def pairs(path: str) -> Iterator[tuple[str, str, str]] | None:
    """Returns the (query, better document, worse document) ids, None where there are none."""
    dataset = _dataset(path, "docs")
    if not dataset.has_docpairs():
        return None
    pairs = dataset.docpairs_iter()
    return ((str(p.query_id), str(p.doc_id_a), str(p.doc_id_b)) for p in pairs)


def _row(doc: Any) -> tuple[str, str, str]:
    """Returns id, title and text; other text fields are joined where there is no `text`."""
    title = getattr(doc, "title", "") or ""
    text = getattr(doc, "text", None)
    if text is None:
        title, text = "", doc.default_text()
    return str(doc.doc_id), str(title), str(text)


def _dataset(path: str, kind: str) -> Any:
    try:
        import ir_datasets
    except ImportError as error:
        raise DataError(
            f"{path}: needs the package ir_datasets: pip install ir_datasets"
        ) from error
    name = path.removeprefix(PREFIX)
    try:
        dataset = ir_datasets.load(name)
    except KeyError as error:
        raise DataError(f"{path}: ir_datasets has no data set {name!r}") from error
    if not getattr(dataset, f"has_{kind}")():
        raise DataError(f"{path}: this data set has no {kind}")
    return dataset
