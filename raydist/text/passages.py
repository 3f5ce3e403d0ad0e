"""The passages of a text that match a query best, and where the query's words are in them.

Passages are chosen as Lucene's UnifiedHighlighter does: a text is a collection of its sentences,
and a passage scores by BM25 in it. Nothing of the index's statistics is needed.

Offsets count characters (code points). The time is linear in the text, whatever it is.

Legend: M matches, C candidates for a passage, B blanks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raydist.text.analyzer import Analyzer

Array = npt.NDArray[Any]

_K1, _B, _PIVOT = 1.2, 0.75, 87  # Lucene's PassageScorer
_SENTENCE = re.compile(
    r"""(?: (?<![.?!…]) [.?!…]++ ["'”’)\]]*+ \s++ (?![a-zà-öø-ÿа-яё])  # a small letter continues
          | [。！？｡]++ [」』”’）]*+ \s*+
          | (?<!\s) \s*\n\s*\n\s* )""",
    re.VERBOSE,
)
_BREAK = re.compile(r"\s+")
_WORDS = 64  # distinct words that are looked at together


Match = tuple[int, int, str]
"""A word of a text that is one of a query's terms: its start, its end and the term."""


class Passage(NamedTuple):
    """A part `text[start:end]` of a text, its score, and the spans of words that match."""

    start: int
    end: int
    score: float
    matches: tuple[tuple[int, int], ...]


def find_matches(text: str, query: str, analyzer: Analyzer) -> list[Match]:
    """Returns the words of a text whose terms the query has, in order; they do not overlap."""
    words = analyzer.words(text)
    if analyzer.subwords is not None:  # a token alone may be another one
        tokens = frozenset(analyzer.tokens(query))
        return _joined([word for word in words if word[2] in tokens])
    distinct = list(dict.fromkeys(word for _, _, word in words))
    terms = frozenset(analyzer.tokens(query))
    term_of: dict[str, str] = {}
    for first in range(0, len(distinct), _WORDS):
        term_of |= _terms_of(distinct[first : first + _WORDS], terms, analyzer)
    matches: list[Match] = []
    end_before = 0
    for start, end, word in words:
        if (term := term_of.get(word)) is not None:
            matches.append((max(start, end_before), end, term))
            end_before = end
    return matches


def _joined(matches: Sequence[Match]) -> list[Match]:
    """Returns the matches of subwords, those side by side as one."""
    joined: list[Match] = []
    for start, end, term in matches:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]), joined[-1][2])
        else:
            joined.append((start, end, term))
    return joined


def _terms_of(words: Sequence[str], terms: frozenset[str], analyzer: Analyzer) -> dict[str, str]:
    """Returns the words that are some of the terms, with these."""
    tokens = analyzer.tokens("\n".join(words))
    if terms.isdisjoint(tokens):
        return {}
    if len(words) == 1:
        return {words[0]: next(term for term in tokens if term in terms)}
    half = len(words) // 2
    return _terms_of(words[:half], terms, analyzer) | _terms_of(words[half:], terms, analyzer)


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
    sentences = np.array(list(_sentences(text, text_end)), np.int64).reshape(-1, 2)
    if not len(sentences):
        return []
    matches = find_matches(text, query, analyzer)
    blanks = _Blanks(text)
    spans = [(start, end) for start, end, _ in matches]
    spans_M2 = np.array(spans, np.int64).reshape(-1, 2)
    starts_C, ends_C = _candidates(sentences, spans_M2, length, blanks)
    first_C = np.searchsorted(spans_M2[:, 0], starts_C)
    last_C = np.maximum(first_C, np.searchsorted(spans_M2[:, 1], ends_C, side="right"))
    scores_C = _scores([term for _, _, term in matches], first_C, last_C, starts_C, ends_C, text)
    chosen: list[Passage] = []
    order = np.lexsort((starts_C, -scores_C))
    while len(order) and len(chosen) < number:
        best = order[0]
        start, end = int(starts_C[best]), int(ends_C[best])
        inside = tuple(spans[first_C[best] : last_C[best]])
        chosen.append(Passage(start, end, float(scores_C[best]), inside))
        order = order[(ends_C[order] <= start) | (starts_C[order] >= end)]
    if not chosen:
        first = sentences[:1, 0]
        (stop,) = blanks.ends_of_words(first, np.array([text_end]), length, first)
        chosen = [Passage(int(first[0]), int(stop), 0.0, ())]
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
        spans = tuple((a, z) for a, z, _ in find_matches(text, query, analyzer))
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


def _scores(
    terms: Sequence[str], first_C: Array, last_C: Array, starts_C: Array, ends_C: Array, text: str
) -> Array:
    """Returns Lucene's scores of passages, float64 [C].

    Args:
        terms: of the text's matches.
        first_C: the first match of each passage.
        last_C: the match behind its last one.
        starts_C: where each begins.
        ends_C: where it ends.
        text: the whole.
    """
    names = list(dict.fromkeys(terms))
    place = {name: number for number, name in enumerate(names)}
    numbers_M = np.array([place[term] for term in terms], np.int64)
    count = 1 + len(text) // _PIVOT
    norms_C = _K1 * (1 - _B + _B * (ends_C - starts_C) / _PIVOT)
    scores_C = np.zeros(len(starts_C), np.float64)
    for number in range(len(names)):
        before_M1 = np.concatenate(([0], np.cumsum(numbers_M == number)))
        tf_C = before_M1[last_C] - before_M1[first_C]
        weight = (_K1 + 1) * np.log(1 + (count + 0.5) / (before_M1[-1] + 0.5))
        scores_C += weight * tf_C / (tf_C + norms_C)
    return np.asarray(scores_C * (1 + 1 / np.log(_PIVOT + starts_C)))


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


def _candidates(
    sentences: Array, spans_M2: Array, length: int, blanks: _Blanks
) -> tuple[Array, Array]:
    """Returns where passages with matches may begin and end: int64 [C] each, beginnings ascend.

    A sentence takes those behind it as far as they fit; a long one is cut around its matches, so
    that each part begins some words before one.
    """
    starts, ends = sentences.T
    first = np.searchsorted(spans_M2[:, 0], starts)
    last = np.searchsorted(spans_M2[:, 0], ends)
    last_fitting = np.searchsorted(ends, starts + length, side="right") - 1
    short = ends - starts <= length
    whole = short & (first < last)
    parts = [(starts[whole], ends[last_fitting[whole]])]
    cut = ~short & (first < last)
    if cut.any():
        owner = np.repeat(np.flatnonzero(cut), (last - first)[cut])
        inside = np.concatenate([np.arange(a, z) for a, z in zip(first[cut], last[cut])])
        match_starts, match_ends = spans_M2[inside].T
        begin = np.minimum(match_starts - length // 5, ends[owner] - length)
        begin = np.maximum(starts[owner], begin)
        later = begin > starts[owner]
        begin[later] = blanks.next_words(begin[later], match_starts[later])
        parts.append((begin, blanks.ends_of_words(begin, ends[owner], length, match_ends)))
    starts_C, ends_C = (np.concatenate(each) for each in zip(*parts))
    order = np.argsort(starts_C, kind="stable")
    return starts_C[order], ends_C[order]


class _Blanks:
    """The blanks between the words of a text."""

    def __init__(self, text: str) -> None:
        spans = [blank.span() for blank in _BREAK.finditer(text)]
        self._starts_B, self._ends_B = np.array(spans, np.int64).reshape(-1, 2).T

    def next_words(self, begin_C: Array, stops_C: Array) -> Array:
        """Returns the first word's beginning from each place on, the stop if none is before it."""
        if not len(self._starts_B):
            return stops_C
        blank = np.searchsorted(self._ends_B, begin_C - 1, side="right")
        known = blank < len(self._starts_B)
        blank[~known] = 0
        known &= self._starts_B[blank] < stops_C
        return np.where(known, np.minimum(self._ends_B[blank], stops_C), stops_C)

    def ends_of_words(self, begin_C: Array, ends_C: Array, length: int, least_C: Array) -> Array:
        """Returns where to end behind a whole word, at most `length` on if one fits."""
        stops_C = begin_C + length
        last_C = np.zeros(len(begin_C), np.int64)
        if len(self._starts_B):
            blank = np.searchsorted(self._starts_B, stops_C, side="right") - 1
            known = blank >= 0
            blank[~known] = 0
            known &= self._ends_B[blank] > begin_C + 1
            last_C[known] = np.maximum(self._starts_B[blank], begin_C + 1)[known]
        cut_C = np.where(last_C > 0, last_C, stops_C)
        cut_C = np.maximum(cut_C, np.minimum(least_C, stops_C))
        return np.where(ends_C - begin_C <= length, ends_C, cut_C)
