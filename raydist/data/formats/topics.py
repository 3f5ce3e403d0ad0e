"""TREC topics: queries between `<top>` and `</top>`, or `<topic>` and `</topic>`."""

from __future__ import annotations

import html
import re

from raydist.data.files import read_text
from raydist.data.scan import REPLACE
from raydist.errors import DataError
from raydist.records import Query

TOPIC_FIELDS = ("title", "desc", "narr")

_TAG = re.compile(r"<(/?)([A-Za-z!?][^\s<>]*)[^<>]*>")


def parse_topics(
    path: str, fields: tuple[str, ...] = ("title",), errors: str = "strict"
) -> list[Query]:
    """Returns the topics of a TREC topic file, whether or not its elements are closed.

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
    text = read_text(path, errors, REPLACE)
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
        raise DataError(f"{path}: no <top> element; this is not a TREC topic file")
    return queries


def _topic_part(topic: str, name: str) -> str | None:
    tags = {"title": "title|query", "desc": "desc|description", "narr": "narr|narrative"}[name]
    content = re.search(
        rf"(?is)<(?:{tags})>\s*(?:topic:|description:|narrative:)?(.*?)(?=<|\Z)", topic
    )
    return None if content is None else " ".join(_plain(content.group(1)).split())


def _plain(markup: str) -> str:
    """Returns text without tags, its entities replaced."""
    if "<" not in markup and "&" not in markup:
        return markup
    return html.unescape(_TAG.sub(" ", markup))
