"""Converters between the files that verbs read and write.

Runs between TREC's form and Parquet; a run with its texts into the lists that rerankers and
distillation read, or with judgements into training samples. Samples are converted in
`convert_samples.py`.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from raydist import log
from raydist.data.convert_samples import SampleForm, sample_record
from raydist.data.files import PathLike, head
from raydist.data.ids import IdList, filter_documents
from raydist.data.readers import read_run
from raydist.data.samples import StoredTexts
from raydist.data.samples_formats import FORMATS, sniff
from raydist.data.samples_judged import LeftOut, samples_of
from raydist.data.sources import expand
from raydist.data.store_reader import DocumentStore
from raydist.errors import DataError
from raydist.records import Qrels, Run


def kind_of(path: PathLike) -> Literal["run", "samples"]:
    """Returns what a file holds, by its name and first line.

    Raises:
        DataError: neither a run nor training samples.
    """
    file = expand(path)[0].path
    if re.search(r"\.(parquet|pq)$", file.lower()):
        return "run"
    first = head(file).removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    if len(first.split()) == 6 and not first.startswith(b"{"):
        return "run"
    try:
        sniff(first, False)
    except ValueError as error:
        shown = first.decode("utf-8", "backslashreplace")
        raise DataError.at(
            path, 1, shown, f"a run line of 6 columns, or a sample: {error}"
        ) from None
    return "samples"


def write_run(run: Run, out: PathLike) -> None:
    """Writes a run: Parquet with its tag if the name ends so, else TREC lines (gzipped if .gz)."""
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".parquet", ".pq"):
        table = run.table.replace_schema_metadata({"tag": run.tag})
        partial = _partial(path)
        pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
        os.replace(partial, path)
    elif path.suffix == ".gz":
        plain = path.with_name(f".{path.name}.{os.getpid()}.txt")
        run.write(plain)
        partial = _partial(path)
        partial.write_bytes(gzip.compress(plain.read_bytes(), 6, mtime=0))
        plain.unlink()
        os.replace(partial, path)
    else:
        run.write(path)


def convert_run(source: PathLike, out: PathLike, *, sort: bool = False) -> int:
    """Converts a run between TREC's form and Parquet; returns the number of rows.

    Scores come back bit for bit in both directions.
    """
    run = read_run(source, sort=sort)
    write_run(run, out)
    return len(run)


def store_of(tables: Iterable[Any], doc_ids: Iterable[str], folder: PathLike) -> DocumentStore:
    """Returns a store of the documents with certain ids; absent ones are simply not in it.

    Args:
        tables: tables of the schema DOCUMENTS, as `read_documents` yields them.
        doc_ids: the ids; repeated ones count once.
        folder: where the store is made.
    """
    wanted = IdList(tuple(dict.fromkeys(doc_ids)))
    return DocumentStore.create(filter_documents(tables, wanted, missing="ignore"), folder)


def rerank_lines(
    run: Run,
    queries: Mapping[str, str],
    store: DocumentStore,
    *,
    depth: int = 0,
    missing: Literal["error", "drop"] = "error",
) -> Iterator[dict[str, Any]]:
    """Yields one `{query_id, query, candidates: [{id, text, score}]}` per query of a run.

    Args:
        run: the ranking.
        queries: texts by id.
        store: the documents.
        depth: candidates of a query; 0 is all.
        missing: whether a candidate without text is an error or left out.

    Raises:
        DataError: a query or a document has no text.
    """
    for query_id, doc_ids, scores in run.top(depth) if depth else run:
        if query_id not in queries:
            raise DataError(f"query {query_id!r} of the run has no text")
        candidates = []
        for doc_id, document, score in zip(doc_ids, store.get(doc_ids), scores.tolist()):
            if document is not None:
                candidates.append({"id": doc_id, "text": document.contents, "score": score})
            elif missing == "error":
                raise DataError(
                    f"document {doc_id!r}, ranked for query {query_id!r}, is not in the corpus "
                    "(missing=drop leaves such documents out)"
                )
        if candidates:
            yield {"query_id": query_id, "query": queries[query_id], "candidates": candidates}


def run_samples(
    run: Run,
    queries: Mapping[str, str],
    qrels: Qrels,
    store: DocumentStore,
    *,
    form: SampleForm = "flagembedding",
    positives: Literal["judged", "retrieved"] = "judged",
    relevance: int = 1,
    negatives: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yields training samples: positives are judged, negatives are retrieved and not relevant.

    Args:
        run: the ranking that negatives come from, best first.
        queries: texts by id.
        qrels: the judgements.
        store: the documents; those without text are left out, and their number is said.
        form: of the records.
        positives: `judged`, or only those that were `retrieved` (then with the run's scores).
        relevance: least grade of a positive.
        negatives: how many of them; 0 is all.
    """
    left_out = LeftOut()
    lines = samples_of(
        queries,
        qrels=qrels,
        run=run,
        known=store,
        left_out=left_out,
        positives=positives,
        relevance=relevance,
    )
    texts = StoredTexts(store, None)
    for line in lines:
        if negatives:
            for name in ("neg", "neg_scores"):
                if name in line:
                    line[name] = line[name][:negatives]
            line.pop("labels", None)
        yield sample_record(FORMATS["ids"](json.dumps(line).encode(), texts), form)
    for note in left_out.notes:
        log.warn(note)


def write_lines(records: Iterable[Mapping[str, Any]], out: PathLike) -> int:
    """Writes records as jsonl (gzipped if the name ends with .gz), all or nothing.

    Returns:
        How many there were.
    """
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    count = 0
    try:
        with open(partial, "wb") as raw:
            packed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.suffix == ".gz" else raw
            for record in records:
                packed.write(_line(record))
                count += 1
            packed.flush()
            if packed is not raw:
                packed.close()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _line(record: Mapping[str, Any]) -> bytes:
    # Half a surrogate pair, which an escape in JSON can hold, stays an escape.
    text = json.dumps(record, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"
