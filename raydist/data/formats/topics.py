"""TREC topics: queries between `<top>` and `</top>`, or `<topic>` and `</topic>`.

XML is read by lxml, without entities of its own, DTDs or network. What is not well-formed is read
as SGML: elements need not be closed, and `<` and `&` may stand for themselves. Both give a topic's
number and the text of each of its elements.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from lxml import etree

from raydist import log
from raydist.data.files import compression_of, read_blocks, read_text
from raydist.data.rejects import Rejects
from raydist.data.scan import REPLACE
from raydist.errors import DataError
from raydist.records import Query

_DEFAULTS = (
    ("title",), ("query",), ("text",), ("question",), ("content",), ("disease", "gene"),
    ("summary",), ("desc",), ("description",),
)  # fmt: skip
"""What makes a query if nothing is chosen: the first of these that the topics have."""

_SYNONYMS = (("title", "query"), ("desc", "description"), ("narr", "narrative"))
_NUMBERS = ("num", "number", "id", "qid", "identifier")
_LABELS = {
    "num": "number", "title": "topic", "desc": "description", "narr": "narrative",
    "dom": "domain", "smry": "summary", "con": r"concept\(s\)", "fac": r"factor\(s\)",
    "nat": "nationality", "def": r"definition\(s\)",
}  # fmt: skip
_UNCLOSED = {*_LABELS, *_NUMBERS, "head", "query", "question", "description", "narrative"}
_BREAKS = {"p", "br", "div", "li", "ol", "ul", "td", "th", "tr"}
_MARKUP = {
    *_BREAKS, "a", "b", "em", "font", "i", "q", "s", "small", "span", "strong", "sub", "sup", "tt",
    "u",
}  # fmt: skip
_MAX_BYTES = 64 << 20
_WIDE = re.compile(rb"""(?i)\s*<\?xml[^>]*encoding\s*=\s*["'](?:utf-?(?:16|32)|ucs|iso-10646)""")
_TOKEN = re.compile(
    r"<!--.*?-->|<!\[CDATA\[(?P<raw>.*?)\]\]>|<[?!][A-Za-z][^<>]*>"
    r"""|<(?P<end>/?)(?P<name>[A-Za-z][\w.:-]*)(?P<more>(?:\s(?:[^<>"']|"[^"<]*"|'[^'<]*')*)?)/?>""",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r"""([A-Za-z][\w.:-]*)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")


class _Topic(NamedTuple):
    line: int
    number: str
    fields: dict[str, str]


def parse_topics(
    path: str, text: str | None = None, errors: str = "strict", rejects: Rejects | None = None
) -> list[Query]:
    """Returns the topics of a file, and says which of their elements are the queries.

    Args:
        path: the file.
        text: names of the elements that make the text, joined by `+`; `text` is what a topic has
            outside of elements. By default the title, or what these topics have in its place.
        errors: `strict` or `replace` for broken UTF-8.
        rejects: takes bad topics; without it the first one is an error.

    Raises:
        DataError: a topic lacks its number or a field, or there is no topic.
    """
    topics = _read(path, errors)
    if not topics:
        raise DataError(f"{path}: no <top> or <topic> element; this is not a file of TREC topics")
    known = list(dict.fromkeys(name for topic in topics for name in topic.fields))
    chosen = _choose(path, known, text)
    queries = []
    for topic in topics:
        parts = [_field(topic.fields, name) for name in chosen]
        words = " ".join(filter(None, parts))
        if topic.number and None not in parts and words:
            queries.append(Query(topic.number, words))
            continue
        missing = "num" if not topic.number else chosen[parts.index(None) if None in parts else 0]
        excerpt = " ".join([topic.number, *topic.fields.values()])[:200].strip()
        state = f"<{missing}> inside <top>" if missing != "text" else "text inside <topic>"
        if rejects is None:
            raise DataError.at(path, topic.line, excerpt, f"{state} (on_bad=skip skips it)")
        rejects.add(path, topic.line, excerpt, f"expected {state}")
    others = [name for name in known if name not in chosen]
    choice = ""
    if others:
        choice = f" (others: {', '.join(others)}; choose with queries.fields.text={others[0]})"
    log.say(f"{path}: {'+'.join(chosen)} of {log.count(len(queries), 'topic')}{choice}")
    return queries


def _choose(path: str, known: list[str], text: str | None) -> list[str]:
    """Returns the names, as the file has them, of the elements that make the queries."""
    if text is None:
        defaults = (names for names in _DEFAULTS if names[0] in known)
        wanted = next(defaults, None)
        if wanted is None and len(known) > 1:
            raise DataError(
                f"{path}: the topics have {', '.join(known)}; expected one or several of them as "
                f"queries.fields.text={known[0]}"
            )
        return list(wanted or known or ["title"])
    fields = dict.fromkeys(known, "")
    chosen = []
    for name in (part.strip() for part in text.lower().split("+")):
        if _field(fields, name) is None:
            raise DataError(
                f"{path}: queries.fields.text = {text!r}: no topic has {name!r}; "
                f"expected one or several of {', '.join(known) or 'none'}, joined by +"
            )
        chosen.append(name if name in fields else next(n for n in _synonyms(name) if n in fields))
    return chosen


def _synonyms(name: str) -> tuple[str, ...]:
    return next((names for names in _SYNONYMS if name in names), (name,))


def _field(fields: dict[str, str], name: str) -> str | None:
    return next((fields[each] for each in (name, *_synonyms(name)) if each in fields), None)


def _read(path: str, errors: str) -> list[_Topic]:
    blocks = []
    size = 0
    for _, block in read_blocks(path, compression=compression_of(path)):
        blocks.append(block)
        if (size := size + len(block)) > _MAX_BYTES:
            raise DataError(f"{path}: more than {_MAX_BYTES >> 20} MiB; expected a file of topics")
    data = b"".join(blocks)
    if errors == "replace":
        data = data.decode("utf-8", "replace").encode()
    try:
        return list(_xml_topics(path, data))
    except etree.XMLSyntaxError as error:
        if data.lstrip().startswith(b"<?xml"):
            reason = str(error.msg).split(", line")[0]
            raise DataError(
                f"{path}, line {error.lineno}: {reason}: expected XML, as the first line says; "
                "fix it, or remove that line to have the file read as SGML"
            ) from error
    return list(_sgml_topics(path, read_text(path, errors, REPLACE)))


def _topic(line: int, attributes: dict[str, str], parts: Iterable[tuple[str, str]]) -> _Topic:
    """Returns the topic of an element's attributes and the texts inside, in order."""
    pieces: dict[str, list[str]] = {}
    for name, words in parts:
        pieces.setdefault(name, []).append(words)
    fields = {name: " ".join("".join(each).split()) for name, each in pieces.items()}
    for name, label in _LABELS.items():
        if name in fields:
            fields[name] = re.sub(rf"(?i)^{label}\s*:\s*", "", fields[name])
    if not fields.get("text"):
        fields.pop("text", None)
    numbers = (attributes.get(name, "").strip() for name in _NUMBERS)
    number = next(filter(None, numbers), "")
    for name in _NUMBERS:
        inside = fields.pop(name, "")
        number = number or inside
    return _Topic(line, number, fields)


def _xml_topics(path: str, data: bytes) -> Iterator[_Topic]:
    recoded = _WIDE.match(data[:200])  # the file was UTF-16, as it says, and is read as UTF-8
    parser = etree.XMLParser(
        encoding="utf-8" if recoded else None,
        resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False,
        remove_comments=True, remove_pis=True,
    )  # fmt: skip
    root = etree.fromstring(data, parser)
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and any(True for _ in declared.iterentities()):
        raise DataError(
            f"{path}: declares entities, which are not read; write out what they stand for"
        )
    topics = [each for each in root.iter(etree.Element) if _name(each) in ("top", "topic")]
    # NTCIR and CLEF have <queries>, each <query> with a number inside.
    for each in topics or (child for child in root if any(_name(c) in _NUMBERS for c in child)):
        attributes = {etree.QName(k).localname.lower(): v for k, v in each.attrib.items()}
        yield _topic(each.sourceline, attributes, _xml_parts(each))


def _xml_parts(topic: Any) -> Iterator[tuple[str, str]]:
    own = [topic.text or ""]
    for child in topic:
        name = _name(child)
        if name and name not in _MARKUP:
            yield name, f" {''.join(_texts(child))}"
            own.append(" ")
        else:
            own.extend(_texts(child))
        own.append(child.tail or "")
    yield "text", "".join(own)


def _texts(element: Any) -> Iterator[str]:
    """Yields the text in an element and its children, in order."""
    name = _name(element)
    if not name:  # an entity of a DTD that is not read
        yield html.unescape(element.text or "")
        return
    around = " " if name in _BREAKS else ""
    yield around + (element.text or "")
    for child in element:
        yield from _texts(child)
        yield child.tail or ""
    yield around


def _name(element: Any) -> str:
    """Returns an element's name without namespace, in lower case; empty for an entity."""
    return etree.QName(element).localname.lower() if isinstance(element.tag, str) else ""


def _sgml_topics(path: str, text: str) -> Iterator[_Topic]:
    start: re.Match[str] | None = None
    tokens: list[re.Match[str]] = []
    for token in _TOKEN.finditer(text):
        name = (token["name"] or "").lower()
        if name in ("top", "topic"):
            if start is not None:
                yield _sgml_topic(text, start, tokens, token.start())
            start = None if token["end"] else token
            tokens = []
        elif start is not None:
            tokens.append(token)
        elif name in ("num", "number"):
            line = text.count("\n", 0, token.start()) + 1
            raise DataError.at(path, line, token.group(), "<top> before it")
    if start is not None:
        yield _sgml_topic(text, start, tokens, len(text))


def _sgml_topic(text: str, start: re.Match[str], tokens: list[re.Match[str]], stop: int) -> _Topic:
    attributes = {
        name.lower(): html.unescape(double or single or bare)
        for name, double, single, bare in _ATTRIBUTE.findall(start["more"])
    }
    parts = _sgml_parts(text, start.end(), tokens, stop)
    return _topic(text.count("\n", 0, start.start()) + 1, attributes, parts)


def _sgml_parts(
    text: str, at: int, tokens: list[re.Match[str]], stop: int
) -> Iterator[tuple[str, str]]:
    """Yields `(name, text)`: an element ends with its end tag or, without one, with the next."""
    field, closed = "text", False
    for i, token in enumerate(tokens):
        yield field, html.unescape(text[at : token.start()])
        at = token.end()
        name = (token["name"] or "").lower()
        if token["raw"] is not None:
            yield field, token["raw"]
        elif name and token["end"]:
            if name == field:
                field, closed = "text", False
                yield field, " "
        elif name and not closed and name not in _MARKUP:
            line = text[text.rfind("\n", 0, token.start()) + 1 : token.start()]
            if field == "text" or name in _UNCLOSED or not line.strip():
                field, closed = name, _is_closed(tokens[i + 1 :], name)
                yield field, " "
        if name in _BREAKS:
            yield field, " "
    yield field, html.unescape(text[at:stop])


def _is_closed(tokens: list[re.Match[str]], name: str) -> bool:
    ends = (bool(token["end"]) for token in tokens if (token["name"] or "").lower() == name)
    return next(ends, False)
