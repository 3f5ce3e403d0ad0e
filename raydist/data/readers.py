"""Reading documents, queries, qrels and runs in any of their formats: the room's front door.

A corpus is cut into splits by its bytes alone, and each split is read by itself:

    for split in plan_splits("corpus.jsonl"):
        for table in read_split(split):      # columns doc_id, title, text
            ...

What is read is a path (or paths), or the spec that names it with all that can be set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

import pyarrow as pa

from raydist import log
from raydist.data.columns import Column
from raydist.data.files import PathLike, Paths
from raydist.data.formats import arrow, csv, irds, json, jsonl, parquet, topics, trec, tsv
from raydist.data.formats.judgements import parse_qrels
from raydist.data.formats.names import Naming
from raydist.data.formats.runs import parse_run
from raydist.data.ids import IdList, filter_documents, filter_qrels, filter_queries
from raydist.data.parts import QRELS, QUERIES
from raydist.data.rejects import Rejects
from raydist.data.scan import SplitScan
from raydist.data.sources import InputFile, detect, join_paths
from raydist.data.spec import CorpusSource, QrelsSource, QueriesSource, RunSource
from raydist.data.splits import Split, plan_file, plan_splits
from raydist.errors import DataError
from raydist.records import DiversityQrels, Qrels, Query, Run


def read_split(
    split: Split,
    source: CorpusSource | QueriesSource | None = None,
    *,
    rejects: Rejects | PathLike | None = None,
) -> Iterator[pa.Table]:
    """Yields a split's documents as tables of the schema DOCUMENTS, a few MB each.

    Args:
        split: one of `plan_splits`.
        source: how to read it; without it the usual names count, and a bad line is an error.
        rejects: counts and writes the bad lines that `source` skips; a path is that of a jsonl
            file.

    Raises:
        DataError: a bad line, with file, line number, excerpt and what was expected.
    """
    if "parts" in split:
        return chain.from_iterable(
            read_split(part, source, rejects=rejects) for part in split["parts"]
        )
    path, kind = split["path"], split["format"]
    start, stop = split.get("start", 0), split.get("stop")
    naming = naming_of(source)
    scan = SplitScan(
        path,
        Rejects.of(rejects) if source is not None and source.on_bad == "skip" else None,
        start=start,
        stop=stop,
        compression=split.get("compression"),
        replace=source is not None and source.encoding_errors == "replace",
    )
    if kind == "irds":
        return irds.documents(path, start, stop, naming)
    if kind == "parquet":
        return parquet.read(scan, split.get("group"), naming)
    if kind == "arrow":
        return arrow.read(scan, naming)
    if kind == "trec":
        if naming.columns:
            raise DataError(f"{path}: corpus.columns: TREC documents have none; convert them first")
        return trec.read(scan)
    if kind == "tsv":
        return tsv.read(scan, tsv.sniff(path, naming))
    if kind == "csv":
        return csv.read(scan, *csv.sniff(path, naming))
    if kind == "json":
        return json.read(scan, json.sniff(path, naming)[0])
    return jsonl.read(scan, jsonl.sniff(path, naming))


def naming_of(source: CorpusSource | QueriesSource | None) -> Naming:
    """Returns the names of fields that a source has, and whose they are."""
    if source is None:
        return Naming()
    fields = source.fields.mapping() or {}
    if isinstance(source, QueriesSource):
        return Naming(fields, "queries")
    return Naming(fields, "corpus", tuple(map(Column.of, source.columns)))


def settings_of(corpus: CorpusSource) -> dict[str, Any]:
    """Returns the settings that decide which documents are read from the same files."""
    settings: dict[str, Any] = {"format": corpus.format, "fields": corpus.fields.mapping()}
    if corpus.columns:
        settings["columns"] = list(corpus.columns)
    if corpus.encoding_errors != "strict":
        settings["encoding_errors"] = corpus.encoding_errors
    return {name: value for name, value in settings.items() if value}


def announce(splits: Sequence[Split], source: CorpusSource | QueriesSource) -> None:
    """Says what the columns of a source are taken for, by the first file of each format.

    Raises:
        DataError: it is not clear, which is better said before work begins than by a worker.
    """
    parts = chain.from_iterable(split.get("parts", [split]) for split in splits)
    first: dict[str, str] = {}
    for part in parts:
        first.setdefault(part["format"], part["path"])
    for kind, path in first.items():
        if kind in _SHOWN and (columns := _SHOWN[kind](path, naming_of(source))):
            _say(f"{path}: {columns}")


@cache
def _say(message: str) -> None:
    """Prints a message, once."""
    log.say(message)


_SHOWN: dict[str, Callable[[str, Naming], str]] = {
    "jsonl": jsonl.describe,
    "json": json.describe,
    "tsv": tsv.describe,
    "csv": csv.describe,
    "parquet": parquet.describe,
    "arrow": arrow.describe,
}


def read_kept(
    source: CorpusSource, split: Split, rejects: Rejects | PathLike | None
) -> Iterator[pa.Table]:
    """Yields the documents of a split, those of the source's id lists if it has any.

    Ids that no document has are ignored: no single split can know (`ids.report_absent`).
    """
    tables = read_split(split, source, rejects=rejects)
    keep, drop = _id_lists(source)
    if keep is None and drop is None:
        return tables
    return filter_documents(tables, keep, drop, missing="ignore")


def read_documents(
    source: CorpusSource | Paths, *, max_docs: int = 0, rejects: Rejects | None = None
) -> Iterator[pa.Table]:
    """Yields a corpus's documents as tables of the schema DOCUMENTS, in input order.

    Args:
        source: the corpus.
        max_docs: stop after so many documents; 0 reads all.
        rejects: counts the skipped lines; without it the source's `rejects` has them, and a warning
            says how many there are.

    Raises:
        DataError: there is no such input, a bad line, or an id of a list that no document has.
    """
    source = CorpusSource.of(source)
    skipped = Rejects(source.rejects) if rejects is None else rejects
    splits = plan_splits(source.paths, format=source.format)
    announce(splits, source)
    tables = (table for split in splits for table in read_split(split, source, rejects=skipped))
    keep, drop = _id_lists(source)
    if keep is not None or drop is not None:
        tables = filter_documents(  # type: ignore[assignment]
            tables, keep, drop, missing=source.missing, order=source.order
        )
    yield from _first(tables, max_docs)
    if rejects is None:
        skipped.warn(join_paths(source.paths))


def _first(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yields tables up to a number of rows, 0 for all."""
    left = rows
    for table in tables:
        if rows and table.num_rows >= left:
            yield table.slice(0, left)
            return
        left -= table.num_rows
        yield table


def read_queries(source: QueriesSource | Paths) -> list[Query]:
    """Returns queries in order: jsonl (BEIR, id/text), TSV, Parquet, TREC topics or `irds:` ids.

    A directory stands for its `queries.jsonl`. A warning says how many lines were skipped.

    Raises:
        DataError: there is no such input, a bad line, no query at all, or a query id twice.
    """
    source = QueriesSource.of(source)
    rejects = Rejects(source.rejects)
    queries: list[Query] = []
    for path in source.paths:
        if irds.is_dataset(path):
            queries.extend(irds.queries(path))
            continue
        for file in QUERIES.files(path, source.format):
            queries.extend(_queries_of(file, source, rejects))
    name = join_paths(source.paths)
    rejects.warn(name)
    if not queries:
        raise DataError(f"{name}: no queries")
    seen: set[str] = set()
    for query in queries:
        if query.query_id in seen:
            raise DataError(f"{name}: query id {query.query_id!r} occurs twice")
        seen.add(query.query_id)
    keep, drop = _id_lists(source)
    return filter_queries(queries, keep, drop, missing=source.missing, order=source.order)


def _queries_of(file: InputFile, source: QueriesSource, rejects: Rejects) -> Iterator[Query]:
    kind = detect(file.path, source.format)
    if kind == "trec":
        skipped = rejects if source.on_bad == "skip" else None
        yield from topics.parse_topics(
            file.path, source.fields.text, source.encoding_errors, skipped
        )
        return
    splits = plan_file(file, kind, 1 << 62)
    announce(splits, source)
    for split in splits:
        for table in read_split(split, source, rejects=rejects):
            yield from map(Query, table["doc_id"].to_pylist(), table["text"].to_pylist())


def read_qrels(source: QrelsSource | Paths) -> Qrels:
    """Returns judgements `{query_id: {doc_id: relevance}}`: TREC, TSV, Parquet or JSON.

    A directory stands for its `qrels.txt` or `qrels/test.tsv`.

    Raises:
        DataError: there is no such input, a bad line, contradicting judgements, or none at all.
    """
    source = QrelsSource.of(source)
    files: list[str] = []
    for path in source.paths:
        if irds.is_dataset(path):
            files.append(path)
        else:
            files.extend(file.path for file in QRELS.files(path))
    qrels = parse_qrels(files)
    if not qrels:
        raise DataError(f"{join_paths(source.paths)}: no judgements")
    keep, drop = _id_lists(source)
    chosen = filter_qrels(qrels, keep, drop, missing=source.missing)
    if isinstance(qrels, DiversityQrels):
        return DiversityQrels(chosen, qrels.subtopics)
    return chosen


def read_run(source: RunSource | PathLike) -> Run:
    """Returns a run: TREC's six columns, MS MARCO's three, ColBERT's four, Parquet or JSON.

    Raises:
        DataError: a bad line, rows that are not a ranking, or several files.
    """
    source = RunSource.of(source)
    return parse_run(source.path, sort=source.sort)


def _id_lists(
    source: CorpusSource | QueriesSource | QrelsSource,
) -> tuple[IdList | None, IdList | None]:
    """Returns the ids to keep and those to leave out, None for all and none."""
    keep, drop = source.ids, source.exclude_ids
    return (
        None if keep is None else IdList.read(keep),
        None if drop is None else IdList.read(drop),
    )
