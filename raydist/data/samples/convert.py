"""Runs with their texts as lists of candidates or training samples, and samples in other forms."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from raydist import log
from raydist.data.files import PathLike, first_line, read_lines
from raydist.data.formats.runs import separator_of
from raydist.data.samples.fields import Record
from raydist.data.samples.judged import LeftOut, samples_of
from raydist.data.samples.lines import FORMATS, sniff
from raydist.data.samples.sample_set import StoredTexts
from raydist.data.sources import expand
from raydist.data.store.reader import DocumentStore
from raydist.disk import atomic
from raydist.errors import DataError
from raydist.records import Qrels, Run, Sample
from raydist.run_writer import COLUMNS

SampleForm = Literal["flagembedding", "tevatron", "rerank"]


def kind_of(path: PathLike) -> Literal["run", "samples"]:
    """Returns what a file holds, by its name and first line.

    Raises:
        DataError: neither a run nor training samples.
    """
    file = expand(path)[0].path
    if re.search(r"\.(parquet|pq)$", file.lower()):
        return "run"
    line = first_line(file)
    if (len(line.split()) == 6 and not line.startswith(b"{")) or separator_of(line):
        return "run"
    if line.startswith(b"{") and all(f'"{key}":'.encode() in line for key in COLUMNS):
        return "run"
    try:
        sniff(line, False)
    except ValueError as error:
        excerpt = line.decode("utf-8", "backslashreplace")
        raise DataError.at(
            path, 1, excerpt, f"a run line of 6 columns, or a sample: {error}"
        ) from None
    return "samples"


def rerank_lines(
    run: Run,
    queries: Mapping[str, str],
    store: DocumentStore,
    *,
    depth: int = 0,
    missing: Literal["error", "drop"] = "error",
) -> Iterator[Record]:
    """Yields one `{query_id, query, candidates: [{id, text, score}]}` per query of a run.

    Args:
        run: the ranking.
        queries: texts by id.
        store: the documents.
        depth: candidates of a query; 0 is all.
        missing: whether a candidate without text is an error or dropped.

    Raises:
        DataError: a query or a document has no text.
    """
    for query_id, doc_ids, scores in run.top(depth) if depth else run:
        if query_id not in queries:
            raise DataError(f"query {query_id!r} of the run is not among the queries")
        candidates = []
        for doc_id, document, score in zip(doc_ids, store.get(doc_ids), scores.tolist()):
            if document is not None:
                candidates.append({"id": doc_id, "text": document.contents, "score": score})
            elif missing == "error":
                raise DataError(
                    f"document {doc_id!r}, ranked for query {query_id!r}, is not in the corpus "
                    "(missing=drop drops such documents)"
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
) -> Iterator[Record]:
    """Yields training samples: positives are judged, negatives are retrieved and not relevant.

    Args:
        run: the ranking that negatives come from, best first.
        queries: texts by id.
        qrels: the judgements.
        store: the documents; those without text are dropped, and counted in a warning.
        form: of the records.
        positives: all that are `judged`, or the `retrieved` ones, then with the run's scores.
        relevance: lowest grade of a positive.
        negatives: how many; 0 takes all.
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
    """Writes jsonl atomically, gzipped if the name ends with `.gz`; returns the number of lines."""
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with atomic(path) as partial, open(partial, "wb") as raw:
        lines = gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.suffix == ".gz" else raw
        for record in records:
            # Half a surrogate pair, which an escape in JSON can hold, stays an escape.
            text = json.dumps(record, ensure_ascii=False)
            lines.write(text.encode("utf-8", "backslashreplace") + b"\n")
            count += 1
        if lines is not raw:
            lines.close()
    return count


def convert_samples(
    source: PathLike,
    form: SampleForm,
    *,
    documents: DocumentStore | None = None,
    queries: DocumentStore | None = None,
) -> Iterator[Record]:
    """Yields the samples of a file of any known format as records of another form.

    Args:
        source: training data in a format that its first line shows.
        form: of the records.
        documents: the texts of document ids, if the file holds ids.
        queries: the texts of query ids.

    Raises:
        DataError: a line is not a sample.
    """
    texts = StoredTexts(documents, queries)
    lost = 0
    for file in expand(source):
        parse = None
        for number, _, line in read_lines(file.path):
            try:
                parse = parse or FORMATS[sniff(line, texts.has_documents)]
                sample = parse(line, texts)
                record = sample_record(sample, form)
            except ValueError as error:
                excerpt = line.decode("utf-8", "backslashreplace")
                raise DataError.at(file.path, number, excerpt, str(error)) from None
            lost += form == "tevatron" and (sample.scores or sample.answer) is not None
            yield record
    if lost:
        what = log.count(lost, "sample")
        log.warn(f"scores and answers of {what} are left out: Tevatron's form cannot hold them")


def run_of_samples(
    source: PathLike,
    *,
    documents: DocumentStore | None = None,
    queries: DocumentStore | None = None,
) -> Run:
    """Returns the ranking of a file's samples by their scores; arguments as `convert_samples`."""
    lists = convert_samples(source, "rerank", documents=documents, queries=queries)
    return Run.from_lists(
        (
            each["query_id"],
            [candidate["id"] for candidate in each["candidates"]],
            [candidate["score"] for candidate in each["candidates"]],
        )
        for each in lists
    )


def sample_record(sample: Sample, form: SampleForm) -> Record:
    """Returns a sample as a record of FlagEmbedding's or Tevatron's form, or as a list.

    Raises:
        ValueError: a list needs ids and scores, which the sample lacks.
    """
    count = sample.positives
    if form == "rerank":
        if not (sample.query_id and sample.doc_ids and sample.scores):
            raise ValueError(
                "query_id, document ids and scores in a sample that is to become a ranking"
            )
        ranked = sorted(
            zip(sample.doc_ids, sample.documents, sample.scores), key=lambda each: -each[2]
        )
        candidates = [{"id": id, "text": text, "score": score} for id, text, score in ranked]
        return {"query_id": sample.query_id, "query": sample.query, "candidates": candidates}
    if form == "tevatron":
        ids = sample.doc_ids or ("",) * len(sample.documents)
        passages = [
            {"docid": doc_id, "title": "", "text": text}
            for doc_id, text in zip(ids, sample.documents)
        ]
        return {
            "query_id": sample.query_id,
            "query": sample.query,
            "positive_passages": passages[:count],
            "negative_passages": passages[count:],
        }
    record: Record = {
        "query": sample.query,
        "pos": list(sample.documents[:count]),
        "neg": list(sample.documents[count:]),
    }
    if sample.scores is not None:
        record["pos_scores"] = list(sample.scores[:count])
        record["neg_scores"] = list(sample.scores[count:])
    if sample.answer is not None:
        record["answer"] = sample.answer
        if sample.negative_answers:
            record["neg_answer"] = list(sample.negative_answers)
        if sample.answer_scores is not None:
            record["answer_scores"] = list(sample.answer_scores[:1])
            if sample.negative_answers:
                record["neg_answer_scores"] = list(sample.answer_scores[1:])
    if sample.query_id:
        record["query_id"] = sample.query_id
    if sample.prompt is not None:
        record["prompt"] = sample.prompt
    if sample.kind:
        record["type"] = sample.kind
    if sample.doc_ids is not None:
        record["pos_id"] = list(sample.doc_ids[:count])
        record["neg_id"] = list(sample.doc_ids[count:])
    return record
