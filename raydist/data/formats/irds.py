"""Collections of the ir_datasets package, by ids such as `irds:beir/nfcorpus/test`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from raydist.errors import DataError
from raydist.records import DOCUMENTS, Query

PREFIX = "irds:"

_SPLIT_DOCS = 100_000
_TABLE_DOCS = 10_000


def is_dataset(path: object) -> bool:
    """Returns whether a path is an ir_datasets id."""
    return isinstance(path, str) and path.startswith(PREFIX)


def splits(path: str) -> list[dict[str, Any]]:
    """Returns split descriptors of 100,000 documents each."""
    count = _dataset(path, "docs").docs_count()
    if count is None:
        return [{"path": path, "format": "irds", "start": 0, "stop": None}]
    return [
        {"path": path, "format": "irds", "start": start, "stop": min(count, start + _SPLIT_DOCS)}
        for start in range(0, count, _SPLIT_DOCS)
    ]


def documents(path: str, start: int, stop: int | None) -> Iterator[pa.Table]:
    """Yields the documents from `start` to `stop` as tables of the schema DOCUMENTS."""
    source = islice(_dataset(path, "docs").docs_iter()[start:stop], None)
    while batch := list(islice(source, _TABLE_DOCS)):
        rows = [_row(doc) for doc in batch]
        yield pa.table([pa.array(c, f.type) for c, f in zip(zip(*rows), DOCUMENTS)], DOCUMENTS)


def queries(path: str) -> list[Query]:
    """Returns the data set's queries."""
    found = _dataset(path, "queries").queries_iter()
    return [
        Query(str(q.query_id), str(getattr(q, "text", None) or q.default_text())) for q in found
    ]


def qrels(path: str) -> dict[str, dict[str, int]]:
    """Returns the data set's judgements."""
    found: dict[str, dict[str, int]] = {}
    for row in _dataset(path, "qrels").qrels_iter():
        found.setdefault(str(row.query_id), {})[str(row.doc_id)] = int(row.relevance)
    return found


def pairs(path: str) -> Iterator[tuple[str, str, str]] | None:
    """Returns the (query, better document, worse document) ids, None where there are none."""
    dataset = _dataset(path, "docs")
    if not dataset.has_docpairs():
        return None
    found = dataset.docpairs_iter()
    return ((str(p.query_id), str(p.doc_id_a), str(p.doc_id_b)) for p in found)


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
            f"{path}: this needs the package ir_datasets (pip install ir_datasets)"
        ) from error
    name = path.removeprefix(PREFIX)
    try:
        dataset = ir_datasets.load(name)
    except KeyError as error:
        raise DataError(f"{path}: ir_datasets knows no data set {name!r}") from error
    if not getattr(dataset, f"has_{kind}")():
        raise DataError(f"{path}: this data set has no {kind}")
    return dataset
