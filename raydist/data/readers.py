"""Reading documents, queries, qrels and runs in any of their formats: the room's front door.

A corpus is cut into splits by its bytes alone, and each split is read by itself:

    for split in plan_splits("corpus.jsonl"):
        for table in read_split(split):      # columns doc_id, title, text
            ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import pyarrow as pa

from raydist.data.files import PathLike, Paths
from raydist.data.formats import irds, jsonl, parquet, trec, tsv
from raydist.data.formats.judgements import parse_qrels, parse_run
from raydist.data.ids import IdList, Missing, Order, filter_documents, filter_qrels, filter_queries
from raydist.data.rejects import BadLines, Rejects
from raydist.data.sources import SUFFIXES, detect, expand
from raydist.data.splits import made, plan_file, plan_splits, several, shown
from raydist.errors import DataError
from raydist.records import Qrels, Query, Run

OnBad = Literal["error", "skip"]
Ids = IdList | PathLike | Iterable[str]

_QUERIES_NAMES = ("queries.jsonl", "queries.jsonl.gz", "queries.tsv")
_QRELS_NAMES = ("qrels.txt", "qrels/test.tsv", "qrels.tsv")


def read_split(
    split: Mapping[str, Any],
    *,
    fields: Mapping[str, str] | None = None,
    on_bad: OnBad = "error",
    rejects: Rejects | PathLike | None = None,
    encoding_errors: Literal["strict", "replace"] = "strict",
    max_rows: int = 0,
) -> Iterator[pa.Table]:
    """Yields a split's documents as tables of the schema DOCUMENTS, a few MB each.

    Args:
        split: one of `plan_splits`.
        fields: own names of id, title and text; the usual ones are found by themselves.
        on_bad: `error` stops at a bad line, `skip` counts it and goes on.
        rejects: where skipped lines are counted and written: a `Rejects` or a jsonl file's path.
        encoding_errors: `replace` reads broken UTF-8 and lone surrogates as U+FFFD.
        max_rows: stop after so many documents; 0 reads all.

    Raises:
        DataError: a bad line, with file, line number, excerpt and what was expected.
    """
    path, kind = str(split["path"]), split["format"]
    if rejects is not None and not isinstance(rejects, Rejects):
        rejects = Rejects(rejects)
    skipped = (rejects or Rejects()) if on_bad == "skip" else None
    compression = split.get("compression")
    bad = BadLines(path, skipped, compression=compression)
    replace = encoding_errors == "replace"
    start, stop = split.get("start", 0), split.get("stop")
    tables: Iterator[pa.Table]
    if kind == "irds":
        tables = irds.documents(path, start, stop)
    elif kind == "parquet":
        tables = parquet.read(path, split.get("group"), fields=fields, bad=bad, replace=replace)
    elif kind == "trec":
        tables = trec.read(path, start, stop, compression=compression, bad=bad, replace=replace)
    elif kind == "tsv":
        layout = tsv.sniff(path, fields)
        tables = tsv.read(
            path, start, stop, compression=compression, layout=layout, bad=bad, replace=replace
        )
    else:
        columns = jsonl.sniff(path, fields)
        tables = jsonl.read(
            path, start, stop, compression=compression, columns=columns, bad=bad, replace=replace
        )
    yield from _first(tables, max_rows)


def _first(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yields tables up to a number of rows, 0 for all."""
    left = rows
    for table in tables:
        if rows and table.num_rows >= left:
            yield table.slice(0, left)
            return
        left -= table.num_rows
        yield table


def read_kept(
    arguments: Mapping[str, Any],
    ids: str | None,
    exclude_ids: str | None,
    split: Mapping[str, Any],
    rejects: Any,
) -> Iterable[pa.Table]:
    """Yields those documents of a split that are asked for, as tables of the schema DOCUMENTS.

    Args:
        arguments: of `read_split`.
        ids: a file of the ids to keep.
        exclude_ids: a file of the ids to leave out.
        split: a descriptor of `plan_splits`.
        rejects: where skipped lines go, as for `read_split`.
    """
    tables = read_split(split, rejects=rejects, **arguments)
    if ids is None and exclude_ids is None:
        return tables
    keep, drop = (None if path is None else IdList.read(path) for path in (ids, exclude_ids))
    return filter_documents(tables, keep, drop, missing="ignore")


def read_documents(
    path: Paths,
    *,
    format: str | None = None,
    fields: Mapping[str, str] | None = None,
    ids: Ids | None = None,
    exclude_ids: Ids | None = None,
    missing: Missing = "error",
    order: Order = "source",
    max_docs: int = 0,
    on_bad: OnBad = "error",
    rejects: Rejects | PathLike | None = None,
    encoding_errors: Literal["strict", "replace"] = "strict",
) -> Iterator[pa.Table]:
    """Yields a corpus's documents as tables of the schema DOCUMENTS, in input order.

    Args:
        path: a path, glob, directory, URI or `irds:` id, or several.
        format: as for `plan_splits`.
        fields: as for `read_split`.
        ids: keep only these: an `IdList`, a file of ids, or ids.
        exclude_ids: leave these out.
        missing: what to do about `ids` that do not occur: `error`, `warn` or `ignore`.
        order: `source`, or `list` for the order of `ids`.
        max_docs: stop after so many documents; 0 reads all.
        on_bad: as for `read_split`.
        rejects: as for `read_split`; the user is told their number unless it is a `Rejects`.
        encoding_errors: as for `read_split`.

    Raises:
        DataError: as for `plan_splits` and `read_split`, or ids are missing.
    """
    skipped = rejects if isinstance(rejects, Rejects) else Rejects(rejects)
    keep = None if ids is None else IdList.of(ids)
    drop = None if exclude_ids is None else IdList.of(exclude_ids)
    tables = (
        table
        for split in plan_splits(path, format=format)
        for table in read_split(
            split, fields=fields, on_bad=on_bad, rejects=skipped, encoding_errors=encoding_errors
        )
    )
    if keep is not None or drop is not None:
        tables = filter_documents(tables, keep, drop, missing=missing, order=order)  # type: ignore[assignment]
    yield from _first(tables, max_docs)
    if skipped is not rejects:
        skipped.warn(shown(path))


def read_queries(
    path: Paths,
    *,
    format: str | None = None,
    fields: Mapping[str, str] | None = None,
    ids: Ids | None = None,
    exclude_ids: Ids | None = None,
    missing: Missing = "error",
    order: Order = "source",
    on_bad: OnBad = "error",
    rejects: Rejects | PathLike | None = None,
    encoding_errors: Literal["strict", "replace"] = "strict",
) -> list[Query]:
    """Returns queries in order: jsonl (BEIR, id/text), TSV, Parquet or TREC topics.

    Args:
        path: a path, glob, directory (its `queries.jsonl`), URI or `irds:` id, or several.
        format: `jsonl`, `tsv`, `parquet` or `trec`; by name or content if None.
        fields: own names of id and text; for TREC topics `text` is one or several of `title`,
            `desc` and `narr`, joined by `+`.
        ids: as for `read_documents`.
        exclude_ids: as for `read_documents`.
        missing: as for `read_documents`.
        order: as for `read_documents`.
        on_bad: as for `read_split`.
        rejects: as for `read_split`.
        encoding_errors: as for `read_split`.

    Raises:
        DataError: a bad line, no query at all, or a query id twice.
    """
    skipped = rejects if isinstance(rejects, Rejects) else Rejects(rejects)
    found: list[Query] = []
    for each in several(path):
        if irds.is_dataset(each):
            found.extend(irds.queries(each))
            continue
        for file in expand(made(each, "queries"), () if format else SUFFIXES, _QUERIES_NAMES):
            kind = detect(file.path, format)
            if kind == "trec":
                parts = tuple((fields or {}).get("text", "title").split("+"))
                found.extend(trec.parse_topics(file.path, parts, encoding_errors))
                continue
            for split in plan_file(file, kind, 1 << 62):
                for table in read_split(
                    split,
                    fields=fields,
                    on_bad=on_bad,
                    rejects=skipped,
                    encoding_errors=encoding_errors,
                ):
                    found.extend(map(Query, table["doc_id"].to_pylist(), table["text"].to_pylist()))
    if skipped is not rejects:
        skipped.warn(shown(path))
    if not found:
        raise DataError(f"{shown(path)}: no queries")
    seen: set[str] = set()
    for query in found:
        if query.query_id in seen:
            raise DataError(f"{shown(path)}: query id {query.query_id!r} stands here twice")
        seen.add(query.query_id)
    keep = None if ids is None else IdList.of(ids)
    drop = None if exclude_ids is None else IdList.of(exclude_ids)
    return filter_queries(found, keep, drop, missing=missing, order=order)


def read_qrels(
    path: Paths,
    *,
    ids: Ids | None = None,
    exclude_ids: Ids | None = None,
    missing: Missing = "error",
) -> Qrels:
    """Returns judgements `{query_id: {doc_id: relevance}}`: TREC, BEIR's TSV or plain TSV.

    Args:
        path: a path, glob, directory (its `qrels.txt` or `qrels/test.tsv`), URI or `irds:` id.
        ids: keep the judgements of these queries.
        exclude_ids: leave out those of these queries.
        missing: what to do about `ids` without judgements.

    Raises:
        DataError: a bad line, contradicting judgements, or none at all.
    """
    found: dict[str, dict[str, int]] = {}
    for each in several(path):
        if irds.is_dataset(each):
            parts = {each: irds.qrels(each)}
        else:
            files = expand(made(each, "qrels"), (".txt", ".tsv", ".qrels", ".qrel"), _QRELS_NAMES)
            parts = {file.path: parse_qrels(file.path) for file in files}
        for name, part in parts.items():
            for query, judged in part.items():
                for document, relevance in judged.items():
                    if found.setdefault(query, {}).setdefault(document, relevance) != relevance:
                        raise DataError(
                            f"{name}: {query!r} and {document!r} are judged {relevance} here "
                            f"and {found[query][document]} elsewhere"
                        )
    if not found:
        raise DataError(f"{shown(path)}: no judgements")
    keep = None if ids is None else IdList.of(ids)
    drop = None if exclude_ids is None else IdList.of(exclude_ids)
    return filter_qrels(found, keep, drop, missing=missing)


def read_run(path: PathLike, *, sort: bool = False) -> Run:
    """Returns a run: TREC's six columns, or Parquet with `query_id, doc_id, score`.

    Args:
        path: the file; `.gz` and `.zst` are read as well.
        sort: order each query's documents by score where the file does not do so.

    Raises:
        DataError: a bad line, or rows that are no ranking (unless `sort`).
    """
    return parse_run(path, sort=sort)
