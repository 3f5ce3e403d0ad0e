"""TREC documents: SGML between `<DOC>` and `</DOC>`, in capitals or not, with attributes or not.

What counts as a document's text are the elements that Anserini's TrecCollection indexes, and
DATELINE. A record with a DOCHDR, or without TEXT but with an HTML element, is a web page: its text
is what a browser shows.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import lxml.etree
import lxml.html
import pyarrow as pa

from raydist.data.files import head
from raydist.data.scan import SplitScan, utf8_problem
from raydist.records import document_table

_TITLES = ("title", "headline", "hl", "head", "ttl")
_BODIES = {"text", "lp", "leadpara"}
_CONTENT = {*_TITLES, *_BODIES, "dd", "date", "dateline"}
_KNOWN = {"docno", "dochdr", "url", *_CONTENT}
_ELEMENT = re.compile(r"<(/?)([DdHhLlTtUu][A-Za-z]*)(?:\s[^<>]*)?>")  # of a known name's letter
_TAG = re.compile(r"<(/?)([A-Za-z!?][^\s<>]*)[^<>]*>")
_RECORD = re.compile(rb"(?i)<(/?)doc(?:\s[^<>]*)?>")
_NUMBER = re.compile(rb"(?i)\s*<docno[\s>]")
_COMMENT = re.compile(r"(?s)<!--.*?-->")
_CDATA = re.compile(r"(?s)<!\[CDATA\[(.*?)\]\]>")
_HTML = re.compile(r"(?i)<html[\s>]")
_WRAPPING = re.compile(rb"(?s)<!--.*?-->|<\?.*?\?>|</?[A-Za-z!][^<>]*>")


def end_of_record(path: str) -> bytes:
    """Returns how a document of this file ends: `</DOC>`, `</doc>`, `</Doc >`."""
    start = head(path)
    if closed := re.search(rb"(?i)</doc\s*>", start):
        return closed.group()
    opened = re.search(rb"(?i)<(doc)[\s>]", start)
    return b"</%s>" % (opened.group(1) if opened else b"DOC")


def read(scan: SplitScan) -> Iterator[pa.Table]:
    """Yields the documents of a split.

    A bad record is named by the line of its `<DOC>`; what lies between records and is more than
    a comment or the tag of an element around them, by its own.
    """
    first = scan.start == 0
    for offset, data in scan.blocks(end_of_record(scan.path)):
        rows = [row for row in _records(data, offset, scan, first) if row is not None]
        if rows:
            yield document_table(rows)
        first = False


def _records(
    data: bytes, offset: int, scan: SplitScan, first: bool
) -> Iterator[tuple[str, str, str] | None]:
    """Yields the documents of a block; what is wrong is reported in the order of the lines."""
    counted = row = edge = 0
    opened: re.Match[bytes] | None = None

    def report(at: int, excerpt: bytes, expected: str) -> None:
        nonlocal counted, row
        row += data.count(b"\n", counted, at)
        counted = at
        scan.report(offset, row, excerpt.lstrip(), expected)

    def check_outside(stop: int) -> None:
        between = data[edge:stop]
        if between and not between.isspace():
            rest = _WRAPPING.sub(lambda tag: b" " * len(tag.group()), between)
            if text := rest.lstrip():
                report(edge + len(rest) - len(text), text, "<DOC> before this text")

    for tag in _RECORD.finditer(data):
        first = False
        if tag.group(1):
            if opened is None:
                check_outside(tag.start())
                report(tag.start(), tag.group(), "a <DOC> that this tag ends")
            else:
                body = data[opened.end() : tag.start()]
                parsed = _document(body, offset + opened.end(), scan.replace)
                if isinstance(parsed, str):
                    report(opened.start(), body, parsed)
                else:
                    yield parsed
            opened, edge = None, tag.end()
        elif opened is None:
            check_outside(tag.start())
            opened = tag
        elif _NUMBER.match(data, tag.end()):
            report(opened.start(), data[opened.end() : tag.start()], "</DOC> before the next <DOC>")
            opened = tag
    if opened is not None:
        report(opened.start(), data[opened.end() :], "</DOC> before the file ends")
    elif first and data.strip():
        report(0, data, "a <DOC> element; this file has none")
    else:
        check_outside(len(data))


def _document(body: bytes, offset: int, replace: bool) -> tuple[str, str, str] | str:
    try:
        return parse_document(body.decode())
    except UnicodeDecodeError:
        problem = utf8_problem(body, offset)
        return (
            parse_document(body.decode("utf-8", "replace")) if replace or not problem else problem
        )


def parse_document(body: str) -> tuple[str, str, str] | str:
    """Returns `(doc_id, title, text)` of the markup between `<DOC>` and `</DOC>`.

    The title is the first of TITLE, HEADLINE, HL, HEAD and TTL. The text is that of the elements
    TEXT, LP, LEADPARA, DD, DATE, DATELINE and of further titles, in their order, or everything but
    id, title and URL where there is neither TEXT nor LP nor LEADPARA. Markup is dropped, entities
    are replaced. Returns what was expected if the document has no id.
    """
    if "!" in body and "<!" in body:  # one character is found many times faster
        body = _COMMENT.sub(" ", _CDATA.sub(lambda data: html.escape(data.group(1)), body))
    spans = _elements(body)
    number = spans.get("docno")
    doc_id = _plain(body[number[0][1] : number[0][2]]).strip() if number else ""
    if not number or not doc_id:
        return "<DOCNO>id</DOCNO> inside <DOC>"
    if header := spans.get("dochdr"):
        return doc_id, *_page(body[header[0][3] :])
    if "text" not in spans and (page := _HTML.search(body)):
        return doc_id, *_page(body[page.start() :])
    holes = [(number[0][0], number[0][3])]
    title = ""
    name = next((name for name in _TITLES if name in spans), None)
    if name is not None:
        outer, inner, stop, end = spans[name][0]
        title = " ".join(_plain(body[inner:stop]).split())
        holes.append((outer, end))
    if _BODIES.isdisjoint(spans):
        parts = [(0, len(body))]
        holes += [(outer, end) for outer, _, _, end in spans.get("url", [])]
        holes.sort()
    else:
        parts = _outermost(spans, holes)
    texts = (_plain(_without(body, start, stop, holes)).strip() for start, stop in parts)
    return doc_id, title, "\n".join(filter(None, texts))


def _outermost(
    spans: dict[str, list[tuple[int, int, int, int]]], holes: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Returns where the content of elements begins and ends that lie inside no other ones."""
    every = sorted(span for name, each in spans.items() if name in _CONTENT for span in each)
    parts: list[tuple[int, int]] = []
    last = 0
    for outer, inner, stop, end in every:
        if outer >= last:
            last = end
            if (outer, end) not in holes:
                parts.append((inner, stop))
    return parts


def _page(markup: str) -> tuple[str, str]:
    """Returns title and text of a web page, without scripts, styles and comments."""
    parser = lxml.html.HTMLParser(
        encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True
    )
    data = markup.replace("\0", " ").encode()
    try:
        root = lxml.html.document_fromstring(data, parser)
    except lxml.etree.ParserError:  # it is empty
        return "", ""
    element = root.find(".//title")
    title = "" if element is None else " ".join("".join(element.itertext()).split())
    lxml.etree.strip_elements(root, "script", "style", "title", with_tail=False)
    lines = " ".join(root.itertext()).splitlines()
    return title, "\n".join(filter(None, (" ".join(line.split()) for line in lines)))


def _elements(body: str) -> dict[str, list[tuple[int, int, int, int]]]:
    """Returns `(start, start of content, end of content, end)` of the elements of each name.

    Of an element inside one of the same name, the outer one counts. One that is never closed ends
    with the next that is.
    """
    spans: dict[str, list[tuple[int, int, int, int]]] = {}
    opened: dict[str, list[tuple[int, int]]] = {}
    for tag in _ELEMENT.finditer(body):
        ends, name = tag.groups()
        if (name := name.lower()) not in _KNOWN:
            continue
        if not ends:
            opened.setdefault(name, []).append(tag.span())
        elif opened.get(name):
            outer, each = opened[name].pop(), spans.setdefault(name, [])
            while each and each[-1][0] > outer[0]:
                each.pop()
            each.append((*outer, *tag.span()))
    for name, unclosed in opened.items():
        each = spans.get(name, [])
        for start, inner in unclosed:
            at = next((i for i, span in enumerate(each) if span[3] > start), None)
            if at is not None and each[at][0] > start:
                each[at] = (start, inner, *each[at][2:])
    return spans


def _without(body: str, start: int, stop: int, holes: list[tuple[int, int]]) -> str:
    pieces = []
    for first, last in holes:
        if start <= first and last <= stop:
            pieces.append(body[start:first])
            start = last
    return "".join([*pieces, body[start:stop]])


def _plain(markup: str) -> str:
    """Returns text without tags, its entities replaced."""
    if "<" not in markup and "&" not in markup:
        return markup
    return html.unescape(_TAG.sub(" ", markup))
