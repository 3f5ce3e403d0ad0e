"""The fields of a training line: each function returns one, or says what was expected.

Its ValueError is the end of a sentence that begins with "expected".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Protocol

_ROLE = re.compile(r"(pos|neg)(?:i|a)tives?(?:_\d+)?")

Record = dict[str, Any]
"""A JSON object: a line of training data."""


class QueryTexts(Protocol):
    """The texts that query ids refer to."""

    def query(self, query_id: str) -> str:
        """Returns a query's text; ValueError for an unknown id."""
        ...


def record_of(line: bytes) -> Record:
    """Returns a line's JSON object."""
    try:
        record = json.loads(line)
        if b"\\ud" in line.lower():  # half a surrogate pair cannot be encoded
            json.dumps(record, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise ValueError(f"UTF-8, broken at byte {error.start} of the line") from None
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text, found half a surrogate pair ({error.object[error.start]!r})"
        ) from None
    except RecursionError:
        raise ValueError("a JSON object, found one that is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"a JSON object ({error})") from None
    if not isinstance(record, dict):
        raise ValueError("a JSON object")
    return record


def cells_of(line: bytes, has_corpus: bool) -> list[str]:
    """Returns a line's columns: split at tabs, of ids also at blanks."""
    try:
        text = line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"UTF-8, broken at byte {error.start} of the line") from None
    return text.split() if has_corpus and "\t" not in text else text.split("\t")


def filled(value: Any, name: str) -> str:
    """Returns a value that is a text and not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} to be a text that is not empty, found {value!r:.40}")
    return value


def plain_names(record: Record) -> Record:
    """Returns a record with `query`, `pos` and `neg` for the names of sentence-transformers' data.

    Those are `anchor` (or `query`), `positive(s)` and `negative(s)`, `negative_1`, …: a text or a
    list of texts each.
    """
    if "pos" in record or not {"positive", "positives"} & record.keys():
        return record
    columns: dict[str, list[Any]] = {"pos": [], "neg": []}
    plain = {"query": record["anchor"]} if "anchor" in record and "query" not in record else {}
    for name, value in record.items():
        role = _ROLE.fullmatch(name)
        if role is None:
            if name != "anchor":
                plain[name] = value
        elif value is not None:
            texts = columns[role[1]]
            texts += value if isinstance(value, list) else [value]
    return {**plain, **columns}


def text_of(record: Mapping[str, Any], name: str) -> str:
    """Returns a text that is not empty."""
    return filled(record.get(name), name)


def optional_text(record: Mapping[str, Any], name: str) -> str | None:
    """Returns a text, None if it is absent."""
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} to be a text, found {value!r:.40}")
    return value


def query_of(record: Mapping[str, Any], query_id: str, texts: QueryTexts) -> str:
    """Returns the query's text, looked up by id where the line has none."""
    return text_of(record, "query") if "query" in record else texts.query(query_id)


def list_of(record: Mapping[str, Any], name: str, least: int) -> list[Any]:
    """Returns a list, empty if it is absent."""
    value = record.get(name)
    if value is None:
        value = []
    if not isinstance(value, list) or len(value) < least:
        wanted = "a list with at least one entry" if least else "a list"
        raise ValueError(f"{name} to be {wanted}, found {value!r:.40}")
    return value


def texts_of(record: Mapping[str, Any], name: str, least: int = 0) -> list[str]:
    """Returns a list of texts that are not empty."""
    return [filled(value, f"each of {name}") for value in list_of(record, name, least)]


def id_of(record: Mapping[str, Any], name: str = "query_id") -> str:
    """Returns an id as text, empty if it is absent."""
    value = record.get(name)
    return "" if value is None else str(value)


def ids_of(record: Mapping[str, Any], name: str, least: int = 0) -> list[str]:
    """Returns a list of ids as text."""
    return [str(value) for value in list_of(record, name, least)]


def passages_of(record: Mapping[str, Any], name: str, least: int = 0) -> list[str]:
    """Returns the contents of `{docid, title, text}` passages."""
    passages = []
    for value in list_of(record, name, least):
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            raise ValueError(f"{name} to hold {{docid, title, text}}, found {value!r:.40}")
        title = value.get("title")
        text = f"{title}\n{value['text']}" if title and title != "-" else value["text"]
        passages.append(filled(text, f"each of {name}"))
    return passages


def number_of(value: Any, name: str) -> float:
    """Returns a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} to be a number, found {value!r:.40}") from None
    if not math.isfinite(number) or isinstance(value, bool):
        raise ValueError(f"{name} to be a finite number, found {value!r:.40}")
    return number


def is_number(text: str) -> bool:
    """Returns whether a text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def numbers_of(record: Mapping[str, Any], name: str, count: int) -> tuple[float, ...] | None:
    """Returns a list of `count` numbers, None if it is absent."""
    values = record.get(name)
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(
            f"{name} to hold {count} numbers, one for each document, found {_size(values)}"
        )
    return tuple(number_of(value, name) for value in values)


def _size(value: Any) -> int | str:
    return len(value) if isinstance(value, list) else repr(value)[:40]


def both_scores(
    record: Mapping[str, Any], first: str, n_first: int, second: str, n_second: int
) -> tuple[float, ...] | None:
    """Returns two lists of scores as one; None without either."""
    values = []
    present = [name for name in (first, second) if record.get(name) is not None]
    for name, n in ((first, n_first), (second, n_second)):
        scores = record.get(name)
        if scores is None:
            if present and n:
                raise ValueError(f"{name} beside {present[0]}")
            continue
        if not isinstance(scores, list) or len(scores) != n:
            raise ValueError(f"{name} to hold {n} scores, one for each text, found {_size(scores)}")
        values += [number_of(score, name) for score in scores]
    return tuple(values) if present else None


def answers_of(record: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """Returns the answer and its negatives, and a teacher's scores of them."""
    answer = record.get("answer")
    if isinstance(answer, list):
        answer = answer[0] if answer else None
    if answer is not None and not isinstance(answer, str):
        raise ValueError(f"answer to be a text, found {answer!r:.40}")
    if answer is None or not answer.strip():
        return (), None
    negatives = texts_of(record, "neg_answer")
    scores = record.get("answer_scores")
    if record.get("neg_answer_scores") is None and isinstance(scores, list) and negatives:
        if len(scores) != 1 + len(negatives):
            raise ValueError(
                f"answer_scores to hold {1 + len(negatives)} scores (the answer's and those of "
                f"neg_answer), found {len(scores)}"
            )
        return (answer, *negatives), tuple(number_of(each, "answer_scores") for each in scores)
    if scores is not None and not isinstance(scores, list):
        record = {**record, "answer_scores": [scores]}
    both = both_scores(record, "answer_scores", 1, "neg_answer_scores", len(negatives))
    return (answer, *negatives), both
