"""The part of a text that matches a query best, and the spans of the query's words in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

Span = tuple[int, int]

_WORD = re.compile(r"[^\W_]+(?:['\u2019.][^\W_]+)*")


def snippet(
    text: str, terms: Collection[str], tokens: Callable[[str], Sequence[str]], width: int = 160
) -> tuple[str, list[Span]]:
    """Returns at most `width` characters of a text, and the spans of its words that match.

    It is the first window among those with most distinct terms and, of these, most matches; the
    beginning of a text without any.

    Args:
        text: the document's.
        terms: the query's terms, as the analyzer gives them.
        tokens: the analyzer; it gets one word at a time.
        width: of the snippet in characters.
    """
    known: dict[str, str | None] = {}
    matches: list[tuple[int, int, str]] = []
    for word in _WORD.finditer(text):
        name = word.group()
        if name not in known:
            known[name] = next((term for term in tokens(name) if term in terms), None)
        term = known[name]
        if term is not None:
            matches.append((word.start(), word.end(), term))
    best, start = (0, 0), 0
    for i, (begin, _, _) in enumerate(matches):
        inside = [term for _, end, term in matches[i:] if end <= begin + width]
        value = len(set(inside)), len(inside)
        if value > best:
            best, start = value, begin
    start, end = _window(text, start, width)
    cut = text[start:end]
    left, right = "… " if start else "", " …" if end < len(text) else ""
    shift = len(left) - start
    spans = [(a + shift, b + shift) for a, b, _ in matches if start <= a and b <= end]
    return left + re.sub(r"\s", " ", cut) + right, spans


def _window(text: str, first: int, width: int) -> Span:
    """Returns a stretch of whole words around the match that begins at `first`."""
    if len(text) <= width:
        return 0, len(text)
    start = max(0, min(first - width // 8, len(text) - width))
    end = min(len(text), start + width)
    while 0 < start < first and not text[start - 1].isspace():
        start += 1
    cut = end
    while cut < len(text) and cut > start and not text[cut].isspace():
        cut -= 1
    return start, cut if cut > first else end


def highlight(text: str, spans: Sequence[Span], before: str, after: str) -> str:
    """Returns the text with marks around the spans."""
    parts, at = [], 0
    for start, end in spans:
        parts += [text[at:start], before, text[start:end], after]
        at = end
    return "".join([*parts, text[at:]])
