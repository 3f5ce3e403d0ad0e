"""Samples between the forms of FlagEmbedding and Tevatron, and into lists and runs.

Lists of candidates and runs are made of samples that have ids and scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from raydist import log
from raydist.data.files import PathLike, compression_of, read_blocks
from raydist.data.samples import StoredTexts
from raydist.data.samples_formats import FORMATS, sniff
from raydist.data.sources import expand
from raydist.data.store_reader import DocumentStore
from raydist.errors import DataError
from raydist.records import Run, Sample

SampleForm = Literal["flagembedding", "tevatron", "rerank"]


def convert_samples(
    source: PathLike,
    form: SampleForm,
    *,
    documents: DocumentStore | None = None,
    queries: DocumentStore | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields the samples of a file of any known format as records of another form.

    Args:
        source: training data; its format is told by its first line.
        form: of the records.
        documents: where document ids become texts, if the file holds ids.
        queries: where query ids become texts.

    Raises:
        DataError: a line is no sample.
    """
    texts = StoredTexts(documents, queries)
    lost = 0
    for file in expand(source):
        parse = None
        number = 0
        for _, block in read_blocks(file.path, compression=compression_of(file.path)):
            for line in block.split(b"\n"):
                number += 1
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if not line.strip():
                    continue
                try:
                    parse = parse or FORMATS[sniff(line, texts.has_documents)]
                    sample = parse(line, texts)
                    record = sample_record(sample, form)
                except ValueError as error:
                    shown = line.decode("utf-8", "backslashreplace")
                    raise DataError.at(file.path, number, shown, str(error)) from None
                lost += form == "tevatron" and (sample.scores or sample.answer) is not None
                yield record
            # The block ends with a line end, after which no line begins.
            number -= block.endswith(b"\n")
    if lost:
        log.warn(f"{lost} samples had scores or answers; Tevatron's form has no place for them")


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


def sample_record(sample: Sample, form: SampleForm) -> dict[str, Any]:
    """Returns a sample as a record of FlagEmbedding's or Tevatron's form, or as a list.

    Raises:
        ValueError: a list needs ids and scores, which the sample lacks.
    """
    count = sample.positives
    if form == "rerank":
        if not (sample.query_id and sample.doc_ids and sample.scores):
            raise ValueError(
                "a sample with query_id, document ids and a teacher's scores, which make a ranking"
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
    record: dict[str, Any] = {
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
