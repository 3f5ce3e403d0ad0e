"""TREC SGML: documents between `<DOC>` and `</DOC>`, topics between `<top>` and `</top>`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import pyarrow as pa

from raydist.data.rejects import BadLines, utf8_problem
from raydist.data.sources import head, read_blocks, read_text
from raydist.errors import DataError
from raydist.records import DOCUMENTS, Query

__all__ = ["TOPIC_FIELDS", "end_of_record", "parse_document", "parse_topics", "read"]

TOPIC_FIELDS = ("title", "desc", "narr")

_TITLES = ("title", "headline", "hl", "head", "ttl")
_TAG = re.compile(r"</?[A-Za-z!?][^<>]*>")
_DOC = re.compile(rb"<doc>(.*?)</doc>", re.IGNORECASE | re.DOTALL)
_OPEN = re.compile(rb"<doc>", re.IGNORECASE)


def end_of_record(path: str) -> bytes:
    """Returns how a document of this file ends: `</DOC>` or `</doc>`."""
    found = re.search(rb"<(doc|DOC)>", head(path))
    return b"</doc>" if found and found.group(1) == b"doc" else b"</DOC>"


def read(
    path: str,
    start: int = 0,
    stop: int | None = None,
    *,
    compression: str | None,
    bad: BadLines,
    replace: bool = False,
) -> Iterator[pa.Table]:
    """Yields the documents of a byte range as tables of the schema DOCUMENTS.

    Arguments are those of `jsonl.read`; a bad record is named by the line of its `<DOC>`.
    """
    end = end_of_record(path)
    for offset, data in read_blocks(path, start, stop, compression=compression, end=end):
        rows: list[tuple[str, str, str]] = []
        done = 0
        for match in _DOC.finditer(data):
            body = match.group(1)
            problem = utf8_problem(body, offset + match.start(1))
            row = data.count(b"\n", 0, match.start())
            if problem and not replace:
                bad.report(offset, row, body.lstrip(), problem)
            else:
                parsed = parse_document(body.decode("utf-8", "replace"))
                if isinstance(parsed, str):
                    bad.report(offset, row, body.lstrip(), parsed)
                else:
                    rows.append(parsed)
            done = match.end()
        rest = _OPEN.search(data, done)
        if rest is not None:
            row = data.count(b"\n", 0, rest.start())
            bad.report(offset, row, data[rest.start() :], f"{end.decode()} before the file ends")
        if rows:
            yield pa.table([pa.array(c, f.type) for c, f in zip(zip(*rows), DOCUMENTS)], DOCUMENTS)
        bad.passed(data)


def parse_document(body: str) -> tuple[str, str, str] | str:
    """Returns `(doc_id, title, text)` of what stands between `<DOC>` and `</DOC>`.

    The title is the first of TITLE, HEADLINE, HL, HEAD and TTL; the text is what the TEXT elements
    hold, or everything but id and title where there are none. Markup is dropped, entities are read.
    Returns what was expected instead if the document has no id.
    """
    number = re.search(r"(?is)<docno>(.*?)</docno>", body)
    if number is None or not number.group(1).strip():
        return "<DOCNO>id</DOCNO> inside <DOC>"
    rest = body[: number.start()] + body[number.end() :]
    title = ""
    for name in _TITLES:
        found = re.search(rf"(?is)<{name}>(.*?)</{name}>", rest)
        if found is not None:
            title = " ".join(_plain(found.group(1)).split())
            rest = rest[: found.start()] + rest[found.end() :]
            break
    parts = re.findall(r"(?is)<text>(.*?)</text>", rest) or [rest]
    text = "\n".join(filter(None, (_plain(part).strip() for part in parts)))
    return _plain(number.group(1)).strip(), title, text


def _plain(markup: str) -> str:
    return html.unescape(_TAG.sub(" ", markup))


def parse_topics(
    path: str, fields: tuple[str, ...] = ("title",), errors: str = "strict"
) -> list[Query]:
    """Returns the topics of a TREC topic file, elements closed or not.

    Args:
        path: the file.
        fields: which of `title`, `desc` and `narr` make the text, joined by a blank.
        errors: `strict` or `replace` for broken UTF-8.

    Raises:
        DataError: a topic lacks its number or a field, or there is no topic.
    """
    unknown = [name for name in fields if name not in TOPIC_FIELDS]
    if unknown:
        raise DataError(f"topic field {unknown[0]!r}: expected {', '.join(TOPIC_FIELDS)}")
    text = read_text(path, errors)
    queries: list[Query] = []
    starts = [match.start() for match in re.finditer(r"(?i)<top(ic)?[\s>]", text)]
    for start, stop in zip(starts, [*starts[1:], len(text)]):
        topic = re.split(r"(?i)</top(?:ic)?>", text[start:stop])[0]
        line = text.count("\n", 0, start) + 1
        number = re.search(
            r'(?i)^<topic[^>]*number="?([^">]+)|<num>\s*(?:number:)?\s*([^\s<]+)', topic
        )
        parts = [_topic_part(topic, name) for name in fields]
        if number is None or None in parts:
            missing = "<num>" if number is None else f"<{fields[parts.index(None)]}>"
            raise DataError.at(path, line, topic, f"{missing} inside <top>")
        query_id = (number.group(1) or number.group(2)).strip()
        queries.append(Query(query_id, " ".join(filter(None, parts))))
    if not queries:
        raise DataError(f"{path}: no <top> element: not a TREC topic file")
    return queries


def _topic_part(topic: str, name: str) -> str | None:
    tags = {"title": "title|query", "desc": "desc|description", "narr": "narr|narrative"}[name]
    found = re.search(
        rf"(?is)<(?:{tags})>\s*(?:topic:|description:|narrative:)?(.*?)(?=<|\Z)", topic
    )
    return None if found is None else " ".join(_plain(found.group(1)).split())
