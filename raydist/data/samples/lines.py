"""The line formats of training data: one function per format turns a line into a `Sample`.

A function takes a line's bytes and the texts that ids in it refer to; its ValueError says what was
expected. Formats, in the words of the systems they come from:

====================  ==============================================================================
`flagembedding`       jsonl: query, pos, neg?, pos_scores?, neg_scores?, answer?, neg_answer?,
                      answer_scores?, neg_answer_scores?, prompt?, type?; with score_source "run"
                      (mined negatives) the scores are no teacher's and are ignored;
                      sentence-transformers' anchor, positive, negative_1, … are the same
`tevatron`            jsonl: query | query_text, positive_passages | positive_document_ids,
                      negative_passages | negative_document_ids (ids need a corpus)
`lists`               jsonl: query_id, query?, candidates: [{id, score, text?}] (a teacher's list)
`ids`                 jsonl: query_id, query?, pos, neg, pos_scores?, neg_scores?: document ids
`triples`             TSV: query, positive, negative, as texts or as ids
`pairs`               TSV: score_1, score_2, query, doc_1, doc_2, as texts or as ids
====================  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from raydist.data.samples.fields import (
    answers_of,
    both_scores,
    cells_of,
    filled,
    id_of,
    ids_of,
    is_number,
    number_of,
    numbers_of,
    optional_text,
    passages_of,
    plain_names,
    query_of,
    record_of,
    text_of,
    texts_of,
)
from raydist.records import Sample


class Texts(Protocol):
    """The texts that ids refer to."""

    def documents(self, doc_ids: Sequence[str]) -> list[str]:
        """Returns the documents' texts; ValueError names an unknown id."""
        ...

    def query(self, query_id: str) -> str:
        """Returns a query's text; ValueError for an unknown id."""
        ...

    @property
    def has_documents(self) -> bool:
        """Whether there is a corpus."""
        ...


def sniff(line: bytes, has_corpus: bool) -> str:
    """Returns the format of a file by its first line; ValueError if it is in none of them."""
    if line.lstrip().startswith(b"{"):
        names = plain_names(record_of(line)).keys()
        if {"positive_passages", "positive_document_ids"} & names:
            return "tevatron"
        if "candidates" in names:
            return "lists"
        if "pos" in names and "query" in names:
            return "flagembedding"
        if "pos" in names and "query_id" in names:
            return "ids"
        raise ValueError(
            "query and pos (or anchor and positive), or query and candidates, or query and "
            "positive_passages, "
            f"found the keys {', '.join(sorted(names)) or 'none'}"
        )
    cells = cells_of(line, has_corpus)
    if len(cells) == 3:
        return "triples"
    if len(cells) == 5 and is_number(cells[0]) and is_number(cells[1]):
        return "pairs"
    raise ValueError(
        "a JSON object, three tab-separated columns (query, positive, negative) or five "
        "(score_1, score_2, query, doc_1, doc_2)"
    )


def overrides(line: bytes) -> dict[str, int]:
    """Returns the settings for its data set that a jsonl line has."""
    if not line.lstrip().startswith(b"{"):
        return {}
    record = record_of(line)
    settings = {}
    for name in ("train_group_size", "batch_size"):
        value = record.get(name)
        if value is not None:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} to be a positive whole number, found {value!r}")
            settings[name] = value
    return settings


def _flagembedding(line: bytes, texts: Texts) -> Sample:
    record = plain_names(record_of(line))
    positives = texts_of(record, "pos", least=1)
    negatives = texts_of(record, "neg")
    documents = len(positives) + len(negatives)
    answers, answer_scores = answers_of(record)
    scores = both_scores(record, "pos_scores", len(positives), "neg_scores", len(negatives))
    if record.get("score_source") == "run":  # mined: how they were retrieved, not a teacher's word
        scores = None
    return Sample(
        query=text_of(record, "query"),
        documents=(*positives, *negatives),
        positives=len(positives),
        doc_ids=_named([*ids_of(record, "pos_id"), *ids_of(record, "neg_id")], documents),
        scores=scores,
        answer=answers[0] if answers else None,
        negative_answers=answers[1:],
        answer_scores=answer_scores,
        query_id=id_of(record),
        prompt=optional_text(record, "prompt"),
        kind=optional_text(record, "type") or "",
    )


def _named(ids: Sequence[str], documents: int) -> tuple[str, ...] | None:
    """Returns the ids if every document has one."""
    return tuple(ids) if len(ids) == documents and all(ids) else None


def _tevatron(line: bytes, texts: Texts) -> Sample:
    record = record_of(line)
    query = text_of(record, "query" if "query" in record else "query_text")
    if "positive_document_ids" in record:
        positive_ids = ids_of(record, "positive_document_ids", least=1)
        negative_ids = ids_of(record, "negative_document_ids")
        ids = [*positive_ids, *negative_ids]
        documents = texts.documents(ids)
        count = len(positive_ids)
    else:
        positives = passages_of(record, "positive_passages", least=1)
        documents = [*positives, *passages_of(record, "negative_passages")]
        count = len(positives)
        passages = [*record["positive_passages"], *(record.get("negative_passages") or [])]
        ids = [id_of(passage, "docid") for passage in passages]
    return Sample(
        query=query,
        documents=tuple(documents),
        positives=count,
        doc_ids=_named(ids, len(documents)),
        query_id=id_of(record),
    )


def _lists(line: bytes, texts: Texts) -> Sample:
    """A teacher's list, best first; equal scores keep their order."""
    record = record_of(line)
    candidates = record.get("candidates")
    if not isinstance(candidates, list) or not candidates:
        raise ValueError("candidates to be a list of {id, score}, with at least one")
    scores, ids, texts_of_ids = [], [], []
    for candidate in candidates:
        if not isinstance(candidate, dict) or "score" not in candidate:
            raise ValueError(f"candidates to be a list of {{id, score}}, found {candidate!r:.60}")
        scores.append(number_of(candidate["score"], "score"))
        ids.append(str(candidate.get("id", candidate.get("doc_id", ""))))
        texts_of_ids.append(candidate.get("text"))
    written = [filled(t, "text of a candidate") for t in texts_of_ids if t is not None]
    documents = written if len(written) == len(ids) else texts.documents(ids)
    order = sorted(range(len(ids)), key=lambda i: -scores[i])
    query_id = id_of(record)
    return Sample(
        query=query_of(record, query_id, texts),
        documents=tuple(documents[i] for i in order),
        scores=tuple(scores[i] for i in order),
        doc_ids=tuple(ids[i] for i in order),
        query_id=query_id,
        prompt=optional_text(record, "prompt"),
    )


def _by_id(line: bytes, texts: Texts) -> Sample:
    record = record_of(line)
    positives, negatives = ids_of(record, "pos"), ids_of(record, "neg")
    if not positives and not negatives:
        raise ValueError("pos and neg to hold document ids, found none")
    query_id = id_of(record)
    ids = [*positives, *negatives]
    return Sample(
        query=query_of(record, query_id, texts),
        documents=tuple(texts.documents(ids)),
        positives=len(positives),
        labels=numbers_of(record, "labels", len(ids)),
        scores=both_scores(record, "pos_scores", len(positives), "neg_scores", len(negatives)),
        query_id=query_id,
        doc_ids=tuple(ids),
        prompt=optional_text(record, "prompt"),
    )


def _triples(line: bytes, texts: Texts) -> Sample:
    cells = cells_of(line, texts.has_documents)
    if len(cells) != 3:
        raise ValueError(f"3 columns (query, positive, negative), found {len(cells)}")
    query, positive, negative = cells
    if texts.has_documents:
        documents = tuple(texts.documents([positive, negative]))
        return Sample(texts.query(query), documents, query_id=query, doc_ids=(positive, negative))
    names = ("query", "positive", "negative")
    query, *pair = (filled(cell, name) for cell, name in zip(cells, names))
    return Sample(query, tuple(pair))


def _pairs(line: bytes, texts: Texts) -> Sample:
    cells = cells_of(line, texts.has_documents)
    if len(cells) != 5:
        raise ValueError(f"5 columns (score_1, score_2, query, doc_1, doc_2), found {len(cells)}")
    scores = [number_of(cells[0], "score_1"), number_of(cells[1], "score_2")]
    query, docs = cells[2], cells[3:]
    if scores[1] > scores[0]:
        scores, docs = scores[::-1], docs[::-1]
    if not texts.has_documents:
        docs = [filled(doc, "doc_1 and doc_2") for doc in docs]
        return Sample(filled(query, "query"), tuple(docs), scores=tuple(scores))
    return Sample(
        texts.query(query),
        tuple(texts.documents(docs)),
        scores=tuple(scores),
        query_id=query,
        doc_ids=tuple(docs),
    )


FORMATS: dict[str, Callable[[bytes, Texts], Sample]] = {
    "flagembedding": _flagembedding,
    "tevatron": _tevatron,
    "lists": _lists,
    "ids": _by_id,
    "triples": _triples,
    "pairs": _pairs,
}
UNJUDGED = ("lists", "pairs")
"""Formats with a teacher's scores alone: no document is known to be relevant."""
