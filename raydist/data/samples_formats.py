"""The line formats of training data: one function per format turns a line into a `Sample`.

A function takes a line's bytes and the texts that ids in it refer to, and raises ValueError saying
what it expected. Formats, in the words of the systems they come from:

====================  ==============================================================================
`flagembedding`       jsonl: query, pos, neg?, pos_scores?, neg_scores?, answer?, neg_answer?,
                      answer_scores?, neg_answer_scores?, prompt?, type?
`tevatron`            jsonl: query | query_text, positive_passages | positive_document_ids,
                      negative_passages | negative_document_ids (ids need a corpus)
`lists`               jsonl: query_id, query?, candidates: [{id, score, text?}] (a teacher's list)
`ids`                 jsonl: query_id, query?, pos, neg, pos_scores?, neg_scores?: document ids
`triples`             TSV: query, positive, negative, as texts or as ids
`pairs`               TSV: score_1, score_2, query, doc_1, doc_2, as texts or as ids
====================  ==============================================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from raydist.records import Sample

__all__ = ["FORMATS", "Texts", "overrides", "sniff"]


class Texts(Protocol):
    """Where ids become texts."""

    def documents(self, doc_ids: Sequence[str]) -> list[str]:
        """Returns the documents' texts; ValueError names an id that is not there."""
        ...

    def query(self, query_id: str) -> str:
        """Returns a query's text; ValueError if it is not there."""
        ...

    @property
    def has_documents(self) -> bool:
        """Whether a corpus was given."""
        ...


def sniff(line: bytes, has_corpus: bool) -> str:
    """Returns the format of a file by its first line; ValueError if it is none."""
    if line.lstrip().startswith(b"{"):
        names = _record(line).keys()
        if {"positive_passages", "positive_document_ids"} & names:
            return "tevatron"
        if "candidates" in names:
            return "lists"
        if "pos" in names and "query" in names:
            return "flagembedding"
        if "pos" in names and "query_id" in names:
            return "ids"
        raise ValueError(
            "query and pos, or query and candidates, or query and positive_passages, "
            f"found the keys {', '.join(sorted(names)) or 'none'}"
        )
    cells = _cells(line, has_corpus)
    if len(cells) == 3:
        return "triples"
    if len(cells) == 5 and _is_number(cells[0]) and _is_number(cells[1]):
        return "pairs"
    raise ValueError(
        "a JSON object, three tab-separated columns (query, positive, negative) or five "
        "(score_1, score_2, query, doc_1, doc_2)"
    )


def overrides(line: bytes) -> dict[str, int]:
    """Returns the settings that a jsonl line carries for its data set, where it has any."""
    if not line.lstrip().startswith(b"{"):
        return {}
    record = _record(line)
    found = {}
    for name in ("train_group_size", "batch_size"):
        value = record.get(name)
        if value is not None:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} to be a positive whole number, found {value!r}")
            found[name] = value
    return found


def _flagembedding(line: bytes, texts: Texts) -> Sample:
    record = _record(line)
    positives = _texts(record, "pos", least=1)
    negatives = _texts(record, "neg")
    answers, answer_scores = _answers(record)
    return Sample(
        query=_text(record, "query"),
        documents=(*positives, *negatives),
        positives=len(positives),
        scores=_both(record, "pos_scores", len(positives), "neg_scores", len(negatives)),
        answer=answers[0] if answers else None,
        negative_answers=answers[1:],
        answer_scores=answer_scores,
        query_id=str(record.get("query_id") or ""),
        prompt=_optional(record, "prompt"),
        kind=_optional(record, "type") or "",
    )


def _tevatron(line: bytes, texts: Texts) -> Sample:
    record = _record(line)
    query = _text(record, "query" if "query" in record else "query_text")
    if "positive_document_ids" in record:
        positive_ids = _ids(record, "positive_document_ids", least=1)
        negative_ids = _ids(record, "negative_document_ids")
        documents = texts.documents([*positive_ids, *negative_ids])
        count = len(positive_ids)
    else:
        positives = _passages(record, "positive_passages", least=1)
        documents = [*positives, *_passages(record, "negative_passages")]
        count = len(positives)
    return Sample(
        query=query,
        documents=tuple(documents),
        positives=count,
        query_id=str(record.get("query_id") or ""),
    )


def _lists(line: bytes, texts: Texts) -> Sample:
    """A teacher's list, best first; equal scores keep their order."""
    record = _record(line)
    candidates = record.get("candidates")
    if not isinstance(candidates, list) or not candidates:
        raise ValueError("candidates to be a list of {id, score}, with at least one")
    scores, ids, found = [], [], []
    for candidate in candidates:
        if not isinstance(candidate, dict) or "score" not in candidate:
            raise ValueError(f"candidates to be a list of {{id, score}}, found {candidate!r:.60}")
        scores.append(_number(candidate["score"], "score"))
        ids.append(str(candidate.get("id", candidate.get("doc_id", ""))))
        found.append(candidate.get("text"))
    if any(text is None for text in found):
        found = list(texts.documents(ids))
    order = sorted(range(len(ids)), key=lambda i: -scores[i])
    query_id = str(record.get("query_id") or "")
    return Sample(
        query=_query(record, query_id, texts),
        documents=tuple(str(found[i]) for i in order),
        scores=tuple(scores[i] for i in order),
        doc_ids=tuple(ids[i] for i in order),
        query_id=query_id,
        prompt=_optional(record, "prompt"),
    )


def _by_id(line: bytes, texts: Texts) -> Sample:
    record = _record(line)
    positives, negatives = _ids(record, "pos"), _ids(record, "neg")
    if not positives and not negatives:
        raise ValueError("pos and neg to hold document ids, found none")
    query_id = str(record["query_id"])
    ids = [*positives, *negatives]
    labels = record.get("labels")
    return Sample(
        query=_query(record, query_id, texts),
        documents=tuple(texts.documents(ids)),
        positives=len(positives),
        labels=None if labels is None else tuple(float(v) for v in labels),
        scores=_both(record, "pos_scores", len(positives), "neg_scores", len(negatives)),
        query_id=query_id,
        doc_ids=tuple(ids),
        prompt=_optional(record, "prompt"),
    )


def _triples(line: bytes, texts: Texts) -> Sample:
    cells = _cells(line, texts.has_documents)
    if len(cells) != 3:
        raise ValueError(f"3 columns (query, positive, negative), found {len(cells)}")
    query, positive, negative = cells
    if texts.has_documents:
        documents = tuple(texts.documents([positive, negative]))
        return Sample(texts.query(query), documents, query_id=query, doc_ids=(positive, negative))
    return Sample(query, (positive, negative))


def _pairs(line: bytes, texts: Texts) -> Sample:
    cells = _cells(line, texts.has_documents)
    if len(cells) != 5:
        raise ValueError(f"5 columns (score_1, score_2, query, doc_1, doc_2), found {len(cells)}")
    scores = [_number(cells[0], "score_1"), _number(cells[1], "score_2")]
    query, docs = cells[2], cells[3:]
    if scores[1] > scores[0]:
        scores, docs = scores[::-1], docs[::-1]
    if not texts.has_documents:
        return Sample(query, tuple(docs), scores=tuple(scores))
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


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"UTF-8, broken at byte {error.start} of the line") from None
    except ValueError as error:
        raise ValueError(f"a JSON object ({error})") from None
    if not isinstance(record, dict):
        raise ValueError("a JSON object")
    return record


def _cells(line: bytes, has_corpus: bool) -> list[str]:
    try:
        text = line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"UTF-8, broken at byte {error.start} of the line") from None
    return text.split() if has_corpus and "\t" not in text else text.split("\t")


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} to be a text that is not empty, found {value!r:.40}")
    return value


def _optional(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} to be a text, found {value!r:.40}")
    return value


def _query(record: Mapping[str, Any], query_id: str, texts: Texts) -> str:
    return _text(record, "query") if "query" in record else texts.query(query_id)


def _list(record: Mapping[str, Any], name: str, least: int) -> list[Any]:
    value = record.get(name)
    if value is None:
        value = []
    if not isinstance(value, list) or len(value) < least:
        wanted = "a list with at least one entry" if least else "a list"
        raise ValueError(f"{name} to be {wanted}, found {value!r:.40}")
    return value


def _texts(record: Mapping[str, Any], name: str, least: int = 0) -> list[str]:
    values = _list(record, name, least)
    for value in values:
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name} to hold texts that are not empty, found {value!r:.40}")
    return values


def _ids(record: Mapping[str, Any], name: str, least: int = 0) -> list[str]:
    return [str(value) for value in _list(record, name, least)]


def _passages(record: Mapping[str, Any], name: str, least: int = 0) -> list[str]:
    found = []
    for value in _list(record, name, least):
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            raise ValueError(f"{name} to hold {{docid, title, text}}, found {value!r:.40}")
        title = value.get("title")
        found.append(f"{title}\n{value['text']}" if title and title != "-" else value["text"])
    return found


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} to be a number, found {value!r:.40}") from None
    if not math.isfinite(number) or isinstance(value, bool):
        raise ValueError(f"{name} to be a finite number, found {value!r:.40}")
    return number


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _both(
    record: Mapping[str, Any], first: str, n_first: int, second: str, n_second: int
) -> tuple[float, ...] | None:
    """Two lists of scores as one; None without either."""
    values = []
    given = [name for name in (first, second) if record.get(name) is not None]
    for name, n in ((first, n_first), (second, n_second)):
        scores = record.get(name)
        if scores is None:
            if given and n:
                raise ValueError(f"{name} as well where there is {given[0]}")
            continue
        if not isinstance(scores, list) or len(scores) != n:
            count = len(scores) if isinstance(scores, list) else repr(scores)[:40]
            raise ValueError(f"{name} to hold {n} scores, one for each text, found {count}")
        values += [_number(score, name) for score in scores]
    return tuple(values) if given else None


def _answers(record: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """The answer and its negatives, and a teacher's scores of them."""
    answer = record.get("answer")
    if isinstance(answer, list):
        answer = answer[0] if answer else None
    if answer is None or answer == "":
        return (), None
    if not isinstance(answer, str):
        raise ValueError(f"answer to be a text, found {answer!r:.40}")
    negatives = _texts(record, "neg_answer")
    given = record.get("answer_scores")
    flat = {
        **record,
        "answer_scores": given if given is None or isinstance(given, list) else [given],
    }
    if record.get("neg_answer_scores") is None and isinstance(given, list) and negatives:
        if len(given) != 1 + len(negatives):
            raise ValueError(
                f"answer_scores to hold {1 + len(negatives)} scores (the answer's and those of "
                f"neg_answer), found {len(given)}"
            )
        return (answer, *negatives), tuple(_number(v, "answer_scores") for v in given)
    scores = _both(flat, "answer_scores", 1, "neg_answer_scores", len(negatives))
    return (answer, *negatives), scores
