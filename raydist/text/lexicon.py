"""The batch form of an analyzer: texts in Arrow buffers become numbers of distinct terms.

Stop words and stems are looked up once for each distinct word; the texts only meet arrays.

Legend: N texts, W words, S distinct words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from raydist.kernels.addresses import Array, Words, addresses, view
from raydist.kernels.arrays import string_buffers
from raydist.kernels.jit import kernel
from raydist.text import porter
from raydist.text.bigrams import Bigrams
from raydist.text.scan import Tables
from raydist.text.string_table import PAD, StringTable, TableArrays, joined
from raydist.text.subwords import Subwords, SubwordTokenizer
from raydist.text.tokenizer import WORDS, Tokenizer, tokenize

Stem = Callable[[list[str]], Sequence[str | None]]

_NO_TERM = 0xFFFFFFFF
_READY, _CRAMPED, _UNKNOWN = 0, 1, 2  # outcomes of `_terms_of_text`
_NO_TERMS = np.zeros(0, np.uint32)


class Terms(NamedTuple):
    """The terms of words."""

    term_of: Words  # [S]


@kernel
def _words_to_terms(
    words_W: Array, ends_N: Array, term_of_S: Array, lengths_N: Array, positions_W: Array
) -> Any:
    """Replaces words by terms in place, closing the gaps of stop words; returns the terms left.

    `positions` receives the number of each term's word in its text, unless it is empty.
    """
    filled = np.uint64(0)
    begin = np.uint64(0)
    for text in range(ends_N.shape[0]):
        before = filled
        for w in range(begin, ends_N[text]):
            term = term_of_S[words_W[w]]
            words_W[filled] = term
            if positions_W.shape[0]:
                positions_W[filled] = w - begin
            if term != np.uint32(0xFFFFFFFF):
                filled += np.uint64(1)
        begin = ends_N[text]
        lengths_N[text] = filled - before
    return filled


@kernel
def _terms_of_text(table: Array, more: Array, possessive: Any, known: Any, size: Any) -> Any:
    """Replaces the words of one text by terms.

    Args:
        table: addresses of a tokenizer's arrays.
        more: the address of `term_of_S`.
        possessive: whether a final 's is cut off.
        known: how many words have terms.
        size: bytes of the text, 0 to continue after an outcome that was not _READY.

    Returns:
        _READY and the number of terms; _CRAMPED where the tokenizer needs more room; _UNKNOWN where
        there are words without terms yet.
    """
    tables = view(table, np.uint64(0), Tables)
    place = tables.place
    if size:
        tables.offsets[1] = size
        place[:] = np.uint64(0)
    if not tokenize(table, possessive):
        return _CRAMPED, np.int64(0)
    if view(table, WORDS, TableArrays).used[0] > known:
        return _UNKNOWN, np.int64(0)
    words_W = tables.tokens
    term_of_S = view(more, np.uint64(0), Terms).term_of
    filled = np.uint64(0)
    for w in range(place[2]):
        term = term_of_S[words_W[w]]
        words_W[filled] = term
        filled += np.uint64(term != np.uint32(_NO_TERM))
    return _READY, np.int64(filled)


class Lexicon:
    """Analyses texts and numbers their distinct terms in the order of first appearance.

    It belongs to one thread.

    Attributes:
        terms: the distinct terms.
    """

    def __init__(
        self,
        *,
        possessive: bool = False,
        stop_words: Iterable[str] = (),
        stem: Stem | None = None,
        porter: bool = False,
        lower: bool = True,
        bigrams: bool = False,
        separator: str = "",
        subwords: Subwords | None = None,
    ) -> None:
        """Creates an empty lexicon.

        Args:
            possessive: whether a final 's is cut off.
            stop_words: words that are dropped, in lower case.
            stem: returns the terms of words, None for those that are dropped; without it words are
                their terms.
            porter: stems by Lucene's English stemmer instead of `stem`.
            lower: whether words are in lower case before all else.
            bigrams: whether the terms of Chinese, Japanese and Korean words are bigrams.
            separator: a character that is read as blanks.
            subwords: a tokenizer whose tokens are the terms as they are, without all that.
        """
        self.terms = StringTable()
        self._stem = stem
        self._porter = porter
        self._bigrams = Bigrams() if bigrams else None
        self._separator = separator.encode()
        self._compiled = Tokenizer(possessive=possessive, lower=lower, spans=bigrams)
        self._tokenizer: Tokenizer | SubwordTokenizer = self._compiled
        if subwords is not None:
            self._tokenizer = SubwordTokenizer(subwords)
        self._words = self._tokenizer.words
        stops = [word.encode() for word in stop_words if word]
        self._words.add(*joined(stops))
        self._term_of = np.full(max(1024, 2 * len(stops)), _NO_TERM, np.uint32)
        self._known = len(self._words)
        self._text = np.zeros(1 << 10, np.uint8)
        self._bounds = np.zeros(2, np.int64)
        self._end = np.zeros(1, np.uint64)
        self._more = addresses([self._term_of])
        self._aimed = False

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the lexicon holds."""
        characters = self._bigrams.nbytes if self._bigrams is not None else 0
        return self._words.nbytes + self.terms.nbytes + self._term_of.nbytes + characters

    def __call__(self, texts: pa.Array | pa.ChunkedArray) -> tuple[Array, Array]:
        """Returns the terms of all texts, uint32 [W], and terms per text, uint32 [N].

        The first array is valid until the next call.
        """
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks()
        offsets_N1, data = string_buffers(texts)
        return self.analyze(data, offsets_N1)

    def with_positions(self, texts: pa.Array | pa.ChunkedArray) -> tuple[Array, Array, Array]:
        """Returns what a call returns, and each term's position in its text, uint32 [W].

        Words that are dropped have positions, too; bigrams have them one after another.
        """
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks()
        offsets_N1, data = string_buffers(texts)
        return self._analyze(data, offsets_N1, True)

    def analyze(self, data: Array, offsets_N1: Array) -> tuple[Array, Array]:
        """Does the same for texts as bytes (uint8) and offsets (int64), both read-only."""
        return self._analyze(data, offsets_N1, False)[:2]

    def _analyze(
        self, data: Array, offsets_N1: Array, positioned: bool
    ) -> tuple[Array, Array, Array]:
        self._aimed = False
        if self._separator:
            text = data.tobytes().replace(self._separator, b" " * len(self._separator))
            data = np.frombuffer(text, np.uint8)
        words_W, ends_N = self._tokenizer(data, offsets_N1)
        self._learn()
        if self._bigrams is not None:
            spans = self._compiled.spans[: 2 * len(words_W)]
            found = self._bigrams.terms(words_W, spans, ends_N, self._term_of, self.terms)
            return *found, _ordinals(found[1]) if positioned else _NO_TERMS
        lengths_N = np.empty(len(ends_N), np.uint32)
        positions_W = np.empty(len(words_W) if positioned else 0, np.uint32)
        filled = _words_to_terms(words_W, ends_N, self._term_of, lengths_N, positions_W)
        return words_W[:filled], lengths_N, positions_W[:filled].copy()

    def numbers(self, text: str) -> Array:
        """Returns the terms of one text, uint32 [W], valid until the next call."""
        data = text.encode("utf-8", "surrogatepass")
        size = len(data)
        if not size:
            return _NO_TERMS
        if self._bigrams is not None or self._tokenizer is not self._compiled:
            offsets = np.array([0, size], np.int64)
            return self.analyze(np.frombuffer(data + bytes(PAD), np.uint8), offsets)[0]
        if self._separator:
            data = data.replace(self._separator, b" " * len(self._separator))
        tokenizer = self._compiled
        if size > len(self._text):
            self._text = np.zeros(2 * size, np.uint8)
            self._aimed = False
        self._text.data[:size] = data
        if not self._aimed:
            tokenizer.aim(self._text, self._bounds, self._end)
            self._aimed = True
        while True:
            known, possessive = self._known, tokenizer.possessive
            outcome, count = _terms_of_text(tokenizer.table, self._more, possessive, known, size)
            if outcome == _READY:
                return tokenizer.tokens[:count]
            if outcome == _CRAMPED:
                tokenizer.make_room()
            else:
                self._learn()
            size = 0

    def _learn(self) -> None:
        """Finds the terms of the words that are new since the last call."""
        first, last = self._known, len(self._words)
        if first == last:
            return
        if last > len(self._term_of):
            larger = np.empty(2 * last, np.uint32)
            larger[:first] = self._term_of[:first]
            self._term_of = larger
            self._more = addresses([larger])
        starts = self._words.starts[first : last + 1]
        data = self._words.heap[int(starts[0]) : int(starts[-1]) + PAD]
        starts = starts - starts[0]
        if self._porter:
            out = np.zeros(len(data) + len(starts) + PAD, np.uint8)
            stems = np.empty(len(starts), np.uint64)
            porter.stem_words(data, starts, *porter.RULES, out, stems)
            data, starts = out, stems
        elif self._stem is not None:
            words = self._words.strings(first, last).cast(pa.large_string()).to_pylist()
            terms = list(self._stem(words))
            if self._bigrams is not None:
                terms = self._bigrams.learn(words, terms)
            data, starts = joined([(term or "").encode() for term in terms])
        self._term_of[first:last] = self.terms.add(data, starts)
        self._known = last


def _ordinals(lengths_N: Array) -> Array:
    """Returns the number of each term in its text, uint32 [W]."""
    starts_N = np.cumsum(lengths_N, dtype=np.int64) - lengths_N
    total = int(lengths_N.sum(dtype=np.int64))
    return (np.arange(total) - np.repeat(starts_N, lengths_N)).astype(np.uint32)
