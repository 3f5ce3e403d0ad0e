"""The passages of a text that match a query best, and where the query's words are in them.

Passages are chosen as Lucene's UnifiedHighlighter does: a text is a collection of its sentences,
and a passage scores by BM25 in it. Nothing of the index's statistics is needed.

Offsets count characters (code points).
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from raydist.text.analyzer import Analyzer

_K1, _B, _PIVOT = 1.2, 0.75, 87  # Lucene's PassageScorer
_SENTENCE = re.compile(
    r"""(?: [.?!…]+ ["'”’)\]]* \s+ (?![a-zà-öø-ÿа-яё])  # a small letter goes on
          | [。！？｡]+ [」』”’）]* \s*
          | \s*\n\s*\n\s* )""",
    re.VERBOSE,
)
_BREAK = re.compile(r"\s+")


class Match(NamedTuple):
    """A word of a text that is one of a query's terms."""

    start: int
    end: int
    term: str


class Passage(NamedTuple):
    """A part `text[start:end]` of a text, its score, and the spans of words that match."""

    start: int
    end: int
    score: float
    matches: tuple[tuple[int, int], ...]


def find_matches(text: str, query: str, analyzer: Analyzer) -> list[Match]:
    """Returns the words of a text whose terms the query has, in order; they do not overlap."""
    terms = {*analyzer.tokens(query)}
    term_of: dict[str, str | None] = {}
    matches: list[Match] = []
    for start, end, word in analyzer.words(text):
        if word not in term_of:
            term_of[word] = next((term for term in analyzer.tokens(word) if term in terms), None)
        if (term := term_of[word]) is not None:
            if matches:
                start = max(start, matches[-1].end)
            matches.append(Match(start, end, term))
    return matches


def passages(
    text: str, query: str, analyzer: Analyzer, number: int = 1, length: int = 200
) -> list[Passage]:
    """Returns the best passages in the order of the text; its beginning where nothing matches.

    Args:
        text: the document's.
        query: the query's.
        analyzer: of the index, so that words match as they do in a search.
        number: most passages.
        length: most characters of each: a sentence and those behind it as far as they fit, or a
            part of a long one.
    """
    text_end = len(text.rstrip())
    matches = find_matches(text, query, analyzer)
    sentences = list(_sentences(text, text_end))
    if not sentences:
        return []
    frequencies = Counter(match.term for match in matches)
    starts = [match.start for match in matches]
    candidates: list[tuple[int, int]] = []
    for i, (start, end) in enumerate(sentences):
        first = bisect_left(starts, start)
        if first == len(matches) or starts[first] >= end:
            continue
        if end - start > length:
            candidates += _cut(text, start, end, matches[first : bisect_left(starts, end)], length)
            continue
        for _, further in sentences[i + 1 :]:
            if further - start > length:
                break
            end = further
        candidates.append((start, end))
    scored = []
    for start, end in candidates:
        inside = matches[bisect_left(starts, start) : bisect_left(starts, end)]
        inside = [match for match in inside if match.end <= end]
        score = _score(inside, frequencies, end - start, start, len(text))
        scored.append(Passage(start, end, score, tuple((m.start, m.end) for m in inside)))
    chosen: list[Passage] = []
    for each in sorted(scored, key=lambda each: (-each.score, each.start)):
        if len(chosen) < number and all(
            each.end <= other.start or other.end <= each.start for other in chosen
        ):
            chosen.append(each)
    if not chosen:
        start = sentences[0][0]
        chosen = [Passage(start, _end_of_words(text, start, text_end, length), 0.0, ())]
    return sorted(chosen)


def highlighted(
    text: str, query: str, analyzer: Analyzer, marks: tuple[str, str], length: int = 160
) -> str:
    """Returns a short text or one's best passage, on one line, with marks around the query's words.

    Args:
        text: the document's.
        query: the query's.
        analyzer: of the index.
        marks: what stands before and behind a word.
        length: most characters of the passage.
    """
    if len(text) <= length:
        spans = tuple((match.start, match.end) for match in find_matches(text, query, analyzer))
        best = [Passage(0, len(text), 0.0, spans)]
    else:
        best = passages(text, query, analyzer, 1, length)
    line = ""
    for start, end, _, matches in best:
        at, line = start, "… " if start else ""
        for first, last in matches:
            line += text[at:first] + marks[0] + text[first:last] + marks[1]
            at = last
        line += text[at:end] + (" …" if end < len(text.rstrip()) else "")
    return _BREAK.sub(" ", line)


def _score(
    matches: Sequence[Match], frequencies: Counter[str], length: int, start: int, whole: int
) -> float:
    """Returns Lucene's score of a passage of `length` characters of a text of `whole`."""
    score = 0.0
    for term, frequency in Counter(match.term for match in matches).items():
        count = 1 + whole // _PIVOT
        weight = (_K1 + 1) * math.log(1 + (count + 0.5) / (frequencies[term] + 0.5))
        score += weight * frequency / (frequency + _K1 * (1 - _B + _B * length / _PIVOT))
    return score * (1 + 1 / math.log(_PIVOT + start))


def _sentences(text: str, end: int) -> Iterator[tuple[int, int]]:
    """Yields where sentences begin and end, without the blanks between them."""
    start = len(text) - len(text.lstrip())
    for gap in _SENTENCE.finditer(text, start, end):
        stop = gap.start() + len(gap.group().rstrip())
        if stop > start:
            yield start, stop
        start = gap.end()
    if start < end:
        yield start, end


def _cut(
    text: str, start: int, end: int, matches: Sequence[Match], length: int
) -> Iterator[tuple[int, int]]:
    """Yields parts of a long sentence: each begins some words before a match."""
    for match in matches:
        begin = max(start, min(match.start - length // 5, end - length))
        if begin > start:
            blank = _BREAK.search(text, begin - 1, match.start)
            begin = blank.end() if blank else match.start
        yield begin, _end_of_words(text, begin, end, length, match.end)


def _end_of_words(text: str, start: int, end: int, length: int, least: int = 0) -> int:
    """Returns where to end behind a whole word, at most `length` characters on if one fits."""
    if end - start <= length:
        return end
    stop = start + length
    last = max((blank.start() for blank in _BREAK.finditer(text, start + 1, stop + 1)), default=0)
    return max(last or stop, min(least, stop))
