"""Qrels in the forms in use: TREC's four columns, three columns, Parquet, JSON.

In text, tabs separate the columns of a line that has any, so that ids may hold blanks; other lines
are cut at ASCII blanks, and at nothing else that Unicode calls a space.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from raydist.data.files import Line, PathLike, head, read_lines, read_text
from raydist.data.formats import irds
from raydist.data.formats.parquet import read_table
from raydist.data.scan import utf8_problem
from raydist.errors import DataError
from raydist.records import DiversityQrels, Qrels

QUERY = ("query_id", "query-id", "qid", "q_id", "topic_id", "query", "topic")
DOCUMENT = ("doc_id", "corpus-id", "corpus_id", "docno", "pid", "docid", "document_id", "doc")
"""The usual names, best first: PyTerrier's `docid` counts documents, MS MARCO's is the parent's."""
_GRADE = ("relevance", "rel", "score", "label", "grade")
_SUBTOPIC = ("subtopic_id", "subtopic", "iteration")
_RELEVANT = ("answer_pids", "gold_ids")
"""Names of a query's list of relevant documents: LoTTE's, BRIGHT's."""

_Form = tuple[int, int | None, int, int]
"""The columns of query, subtopic, document and grade."""

_TEXT_FORMS: dict[int, _Form] = {3: (0, None, 1, 2), 4: (0, 1, 2, 3)}
_EXPECTED = "query 0 document relevance (TREC), or query document relevance"
_HEADER = re.compile(rb"(?i)(query[-_]?id|qid|topic[-_]?id)[ \t]")

_JSON = re.compile(
    rb"""(?s)\s*(?:\[\s*)?(?:\{\s*"(?:[^"\\]|\\.)*"\s*:|\{\s*\}\s*(?:[],]|\Z)|\]\s*\Z)"""
)  # an id may begin with a bracket


class Judgement(NamedTuple):
    """A grade, where it stands in its file, and the subtopic (TREC's second column)."""

    place: str
    query_id: str
    doc_id: str
    relevance: int
    subtopic: str


def parse_qrels(files: Iterable[str]) -> Qrels:
    """Returns the judgements of some files together.

    A pair may be repeated with the same grade. If the second column of a query's lines varies, it
    is the subtopic: these are then DiversityQrels, in which a pair has a grade for each subtopic.

    Raises:
        DataError: a bad line, or a pair that is judged twice with different grades.
    """
    files = list(files)
    qrels: dict[str, dict[str, int]] = {}
    only: dict[str, str] = {}  # the subtopic of all the judgements of a query so far
    subtopics: dict[str, dict[tuple[str, str], int]] = {}
    for path in files:
        for row in judgements(path):
            query, document, grade = row.query_id, row.doc_id, row.relevance
            judged = qrels.setdefault(query, {})
            if query not in subtopics:
                subtopic = only.setdefault(query, row.subtopic)
                if row.subtopic == subtopic:
                    if judged.setdefault(document, grade) != grade:
                        raise _contradiction(files, path, row)
                    continue
                subtopics[query] = {(each, subtopic): g for each, g in judged.items()}
            if subtopics[query].setdefault((document, row.subtopic), grade) != grade:
                raise _contradiction(files, path, row)
            judged[document] = max(grade, judged.get(document, grade))
    if not subtopics:
        return qrels
    for query, judged in qrels.items():
        subtopics.setdefault(query, {(each, only[query]): g for each, g in judged.items()})
    return DiversityQrels(qrels, subtopics)


def _contradiction(files: list[str], path: str, row: Judgement) -> DataError:
    """Returns the error that names both places of a pair."""
    key = (row.query_id, row.doc_id, row.subtopic)
    file, first = next(
        (file, each)
        for file in files
        for each in judgements(file)
        if (each.query_id, each.doc_id, each.subtopic) == key
    )
    where = first.place if file == path else f"{file}, {first.place}"
    return DataError(
        f"{path}, {row.place}: query {row.query_id!r}, document {row.doc_id!r}: judged "
        f"{row.relevance} here and {first.relevance} on {where}; remove one of them"
    )


def judgements(path: str) -> Iterator[Judgement]:
    """Yields the judgements of one file, or of an `irds:` data set, in their order.

    Raises:
        DataError: a line with another number of columns, or a relevance that is no whole number.
    """
    if irds.is_dataset(path):
        for number, (query, subtopic, document, grade) in enumerate(irds.qrels(path), 1):
            yield Judgement(f"row {number}", query, document, grade, subtopic)
        return
    form = form_of(path)
    if form == "text":
        yield from _text(path)
        return
    rows = parquet_rows(path) if form == "parquet" else json_rows(path, "relevance")
    names: dict[str, str | None] = {}
    for place, row in _without_lists(rows):
        names = names or {
            "query_id": pick(path, row, QUERY),
            "doc_id": pick(path, row, DOCUMENT),
            "relevance": pick(path, row, _GRADE),
            "subtopic": next((name for name in _SUBTOPIC if name in row), None),
        }
        value = row.get(names["relevance"] or "")
        if isinstance(value, bool) or not isinstance(value, int | float) or value % 1:
            raise DataError(f"{path}, {place}: expected a whole number as relevance, not {value!r}")
        query, document = (id_of(path, place, row, names[k]) for k in ("query_id", "doc_id"))
        subtopic = str(row.get(names["subtopic"] or "", "0"))
        yield Judgement(place, query, document, int(value), subtopic)


def _without_lists(
    rows: Iterable[tuple[str, dict[str, Any]]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields rows, of a query with a list of relevant documents one for each of them."""
    for place, row in rows:
        name = next((each for each in _RELEVANT if isinstance(row.get(each), list)), None)
        if name is None:
            yield place, row
            continue
        query = next((row[each] for each in ("query_id", "qid", "id", "_id") if each in row), None)
        for document in row[name]:
            yield place, {"query_id": query, "doc_id": document, "relevance": 1}


def _text(path: str) -> Iterator[Judgement]:
    width, document, others, header = 0, "", False, b""
    form: _Form | None = None
    for line in read_lines(path):
        if line.data == header:  # of a file that was joined to another one
            continue
        cells = columns(path, line)
        if not width:
            width, form = len(cells), _TEXT_FORMS.get(len(cells))
            if _HEADER.match(line.data):
                header, form = line.data, _named(path, line, cells)
                continue
        if len(cells) != width or form is None:
            more = f", {width} columns" if form else ", not the 6 columns of a run" * (width == 6)
            raise bad_line(path, line, _EXPECTED + more)
        query, subtopic, document, grade = ("0" if i is None else cells[i] for i in form)
        if not re.fullmatch(r"[+-]?\d{1,9}(\.0+)?", grade, re.ASCII):
            raise bad_line(path, line, f"a whole number as relevance, not {grade!r}")
        others = others or document not in ("0", "Q0")
        yield Judgement(f"line {line.number}", query, document, int(float(grade)), subtopic)
    if document and not others and width == 4 and not header:
        raise DataError(
            f"{path}: the third column, that of the documents, is {document!r} in all lines; "
            f"expected {_EXPECTED}"
        )


def _named(path: str, line: Line, names: list[str]) -> _Form | None:
    """Returns which columns a header names; those of its width where it has unusual names.

    Raises:
        DataError: it names neither documents nor grades.
    """
    names = [name.lower() for name in names]
    document, grade, subtopic = (
        next((names.index(name) for name in usual if name in names), None)
        for usual in (DOCUMENT, _GRADE, _SUBTOPIC)
    )
    if document is None and grade is None:
        raise bad_line(path, line, "a header with columns such as doc_id and relevance")
    if document is None or grade is None:
        return _TEXT_FORMS.get(len(names))
    return 0, subtopic, document, grade


def columns(path: str, line: Line) -> list[str]:
    """Returns the columns of a line: between tabs, or between blanks where there is no tab.

    Raises:
        DataError: the line is not UTF-8.
    """
    if problem := utf8_problem(line.data, line.offset, "convert the file to UTF-8"):
        raise bad_line(path, line, problem)
    data = line.data.strip()  # of bytes: ASCII blanks only
    cells = [cell.strip() for cell in data.split(b"\t")] if b"\t" in data else data.split()
    return [cell.decode() for cell in cells]


def bad_line(path: PathLike, line: Line, expected: str) -> DataError:
    """Returns the error for a line; says what separates columns where that may surprise."""
    text = line.data.decode("utf-8", "backslashreplace").strip("\r")
    hint = ""
    if "\t" in text and " " in text:
        hint = " (tabs separate this line's columns)"
    elif "," in text and not re.search(r"\s", text.strip()):
        hint = " (tabs or blanks separate columns, commas do not)"
    return DataError.at(path, line.number, text, expected + hint)


def form_of(path: str) -> str:
    """Returns `parquet`, `json` or `text` by a file's first bytes."""
    start = head(path, 4096)
    if start.startswith(b"PAR1"):
        return "parquet"
    return "json" if _JSON.match(start) else "text"


def pick(path: str, row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Returns the first of some usual names that a row has."""
    name = next((each for each in names if each in row), None)
    if name is None:
        raise DataError(
            f"{path}: no field {' or '.join(names[:3])}; there are {', '.join(row)}: rename one, "
            "or write the file as TREC lines"
        )
    return name


def id_of(path: str, place: str, row: Mapping[str, Any], name: str | None) -> str:
    """Returns a field that is an id: text that is not empty, or a whole number."""
    value = row.get(name or "")
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"{path}, {place}: expected an id as {name}, not {value!r}")
    return str(value)


def parquet_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields a table's rows and their places."""
    batches = read_table(path).to_batches(1 << 14)
    rows = (row for batch in batches for row in batch.to_pylist())
    for number, row in enumerate(rows, 1):
        yield f"row {number}", row


def json_rows(path: str, value: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields rows and their places: of JSON lines, of an array, or of `{query: {document: value}}`.

    Args:
        path: the file.
        value: the name of the value of a nested mapping.

    Raises:
        DataError: something else, or a key that occurs twice.
    """
    several = False
    for line in read_lines(path):
        place = f"line {line.number}"
        try:
            parsed = _parse(path, line.data, place)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if several:
                raise bad_line(path, line, f"JSON: {error}") from error
            yield from _json_rows(path, place, _whole(path), value)
            return
        several = True
        yield from _json_rows(path, place, parsed, value)


def _whole(path: str) -> Any:
    """Returns the one value of a file."""
    try:
        return _parse(path, read_text(path).encode(), "the file")
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: expected JSON, one value or an object on each line: {error}"
        ) from error


def _json_rows(
    path: str, place: str, parsed: Any, value: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(parsed, list):
        for i, row in enumerate(parsed, 1):
            yield from _json_rows(path, f"item {i}", row, value)
    elif not isinstance(parsed, dict):
        raise DataError(f"{path}, {place}: expected an object, not {parsed!r:.60}")
    elif any(isinstance(each, dict) for each in parsed.values()) and not _is_row(parsed):
        for query, documents in parsed.items():
            if not isinstance(documents, dict):
                expected = f"expected {{document: {value}}}, not {documents!r:.60}"
                raise DataError(f"{path}: query {query!r}: {expected}")
            for document, each in documents.items():
                yield f"query {query!r}", {"query_id": query, "doc_id": document, value: each}
    elif parsed:
        yield place, parsed


def _is_row(value: Mapping[str, Any]) -> bool:
    """Returns whether an object is a row whose other members, as `columns`, may be objects."""
    return all(isinstance(value.get(name), str | int) for name in ("query_id", "doc_id"))


def _parse(path: str, data: bytes, place: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys: dict[str, Any] = {}
        for key, each in pairs:
            if key in keys:
                raise DataError(f"{path}, {place}: the key {key!r} occurs twice in one object")
            keys[key] = each
        return keys

    return json.loads(data, object_pairs_hook=unique)
