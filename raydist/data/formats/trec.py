"""TREC SGML: documents between `<DOC>` and `</DOC>`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import pyarrow as pa

from raydist.data.files import head
from raydist.data.scan import SplitScan, utf8_problem
from raydist.records import document_table

_TITLES = ("title", "headline", "hl", "head", "ttl")
_KNOWN = {"docno", "text", *_TITLES}
_TAG = re.compile(r"<(/?)([A-Za-z!?][^\s<>]*)[^<>]*>")


def end_of_record(path: str) -> bytes:
    """Returns how a document of this file ends: `</DOC>` or `</doc>`."""
    first = re.search(rb"<(doc|DOC)>", head(path))
    return b"</doc>" if first and first.group(1) == b"doc" else b"</DOC>"


def read(scan: SplitScan) -> Iterator[pa.Table]:
    """Yields the documents of a split; a bad record is named by the line of its `<DOC>`."""
    end = end_of_record(scan.path)
    begin = end.replace(b"/", b"")
    for offset, data in scan.blocks(end):
        rows: list[tuple[str, str, str]] = []
        at = counted = row = 0
        while (opened := data.find(begin, at)) >= 0:
            closed = data.find(end, opened)
            inner = opened + len(begin)
            body = data[inner : closed if closed >= 0 else len(data)]
            parsed = _document(body, offset + inner, scan.replace)
            if closed < 0:
                parsed = f"{end.decode()} before the file ends"
            if isinstance(parsed, str):
                row += data.count(b"\n", counted, opened)
                counted = opened
                scan.report(offset, row, body.lstrip(), parsed)
            else:
                rows.append(parsed)
            at = closed + len(end) if closed >= 0 else len(data)
        if rows:
            yield document_table(rows)


def _document(body: bytes, offset: int, replace: bool) -> tuple[str, str, str] | str:
    problem = utf8_problem(body, offset)
    return problem if problem and not replace else parse_document(body.decode("utf-8", "replace"))


def parse_document(body: str) -> tuple[str, str, str] | str:
    """Returns `(doc_id, title, text)` of the markup between `<DOC>` and `</DOC>`.

    The title is the first of TITLE, HEADLINE, HL, HEAD and TTL; the text is that of the TEXT
    elements, or everything but id and title where there are none. Markup is dropped, entities are
    replaced. Returns what was expected if the document has no id.
    """
    spans = _elements(body)
    number = spans.get("docno")
    doc_id = _plain(body[number[0][1] : number[0][2]]).strip() if number else ""
    if not number or not doc_id:
        return "<DOCNO>id</DOCNO> inside <DOC>"
    holes = [(number[0][0], number[0][3])]
    title = ""
    name = next((name for name in _TITLES if name in spans), None)
    if name is not None:
        outer, inner, stop, end = spans[name][0]
        title = " ".join(_plain(body[inner:stop]).split())
        holes.append((outer, end))
    texts = [(inner, stop) for _, inner, stop, _ in spans.get("text", [])] or [(0, len(body))]
    parts = (_plain(_without(body, start, stop, holes)).strip() for start, stop in texts)
    return doc_id, title, "\n".join(filter(None, parts))


def _elements(body: str) -> dict[str, list[tuple[int, int, int, int]]]:
    """Returns `(start, start of content, end of content, end)` of the elements of each name."""
    spans: dict[str, list[tuple[int, int, int, int]]] = {}
    opened: dict[str, tuple[int, int]] = {}
    for tag in _TAG.finditer(body):
        name = tag.group(2).lower()
        if name not in _KNOWN:
            continue
        if not tag.group(1):
            opened.setdefault(name, tag.span())
        elif name in opened:
            spans.setdefault(name, []).append((*opened.pop(name), *tag.span()))
    return spans


def _without(body: str, start: int, stop: int, holes: list[tuple[int, int]]) -> str:
    pieces = []
    for first, last in sorted(holes):
        if start <= first and last <= stop:
            pieces.append(body[start:first])
            start = last
    return "".join([*pieces, body[start:stop]])


def _plain(markup: str) -> str:
    """Returns text without tags, its entities replaced."""
    if "<" not in markup and "&" not in markup:
        return markup
    return html.unescape(_TAG.sub(" ", markup))
