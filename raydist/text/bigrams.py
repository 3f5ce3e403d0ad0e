"""Bigrams of Chinese, Japanese and Korean characters that stand side by side.

A character without a neighbour is a term itself; words of other scripts stay as they are.

Legend: N texts, W words, S distinct words, C characters (a word of another script counts as one).
"""

from __future__ import annotations

import numpy as np

from raydist.kernels.addresses import Array
from raydist.text.languages.cjk import is_cjk
from raydist.text.string_table import PAD, StringTable

_NO_TERM = 0xFFFFFFFF
_WORDS = 1 << 18  # about so many at a time


class Bigrams:
    """The characters of the distinct words of a lexicon."""

    def __init__(self) -> None:
        self._first = [0]  # [S + 1] where each word's characters begin
        self._characters: list[int] = []  # code points
        self._cjk: list[bool] = []
        self._arrays: tuple[Array, Array, Array] | None = None

    def learn(self, words: list[str], terms: list[str | None]) -> list[str | None]:
        """Takes new words with their terms, and returns the terms without those of CJK words."""
        self._arrays = None
        kept: list[str | None] = []
        for word, term in zip(words, terms, strict=True):
            cjk = bool(term) and is_cjk(word)
            self._characters += map(ord, term) if cjk and term else [0]
            self._first.append(len(self._characters))
            self._cjk.append(cjk)
            kept.append(None if cjk else term)
        return kept

    def terms(
        self, words_W: Array, spans_2W: Array, ends_N: Array, term_of_S: Array, terms: StringTable
    ) -> tuple[Array, Array]:
        """Returns the terms of all texts and their number in each text.

        Args:
            words_W: the words of all texts.
            spans_2W: where each begins and ends, in bytes.
            ends_N: where the words of each text end.
            term_of_S: the terms of words of other scripts.
            terms: receives the bigrams.
        """
        if self._arrays is None:
            self._arrays = (
                np.array(self._first, np.int64),
                np.array(self._characters, np.uint64),
                np.array(self._cjk, bool),
            )
        parts, lengths_N = [], np.zeros(len(ends_N), np.uint32)
        ends_N = ends_N.astype(np.int64)
        text = word = 0
        while text < len(ends_N):
            last = max(text + 1, int(np.searchsorted(ends_N, word + _WORDS, side="right")))
            end = int(ends_N[last - 1])
            if end > word:
                part, lengths_N[text:last] = self._terms(
                    words_W[word:end],
                    spans_2W[2 * word : 2 * end],
                    ends_N[text:last] - word,
                    term_of_S,
                    terms,
                )
                parts.append(part)
            text, word = last, end
        return np.concatenate(parts) if parts else np.zeros(0, np.uint32), lengths_N

    def _terms(
        self, words_W: Array, spans_2W: Array, ends_N: Array, term_of_S: Array, terms: StringTable
    ) -> tuple[Array, Array]:
        assert self._arrays is not None
        first_S1, characters, cjk_S = self._arrays
        # Whether a word continues the one before it.
        cjk_W = cjk_S[words_W]
        joined_W = np.zeros(len(words_W), bool)
        joined_W[1:] = cjk_W[1:] & cjk_W[:-1] & (spans_2W[2::2] == spans_2W[1:-2:2])
        joined_W[ends_N[ends_N < len(words_W)]] = False
        # The same for characters.
        sizes_W = first_S1[words_W + np.uint32(1)] - first_S1[words_W]
        word_C = np.repeat(np.arange(len(words_W)), sizes_W)
        within_C = np.arange(len(word_C)) - np.repeat(np.cumsum(sizes_W) - sizes_W, sizes_W)
        character_C = characters[first_S1[words_W[word_C]] + within_C]
        joined_C = (within_C > 0) | joined_W[word_C]
        continues_C = np.append(joined_C[1:], False)
        cjk_C = cjk_W[word_C]
        # A character is a term with the next one, alone, or, behind others, no more.
        next_C = np.where(continues_C, np.append(character_C[1:], 0), 0).astype(np.uint64)
        pair_C = character_C | next_C << np.uint64(32)
        term_C = term_of_S[words_W[word_C]].astype(np.uint32)
        kept_C = np.where(cjk_C, continues_C | ~joined_C, term_C != _NO_TERM)
        pairs_C = cjk_C & kept_C
        unique, inverse = np.unique(pair_C[pairs_C], return_inverse=True)
        term_C[pairs_C] = _numbers(unique, terms)[inverse]
        through_W = np.cumsum(np.bincount(word_C[kept_C], minlength=len(words_W)))
        return term_C[kept_C], np.diff(np.append(0, through_W)[ends_N], prepend=0)


def _numbers(pairs: Array, terms: StringTable) -> Array:
    """Returns the numbers of pairs of code points (the second may be 0) as terms."""
    strings = pairs.astype("<u8").view("<U2") if len(pairs) else np.zeros(0, "<U2")
    data = [string.encode() for string in strings.tolist()]
    starts = np.zeros(len(data) + 1, np.uint64)
    np.cumsum([len(each) for each in data], out=starts[1:])
    return terms.add(np.frombuffer(bytearray(b"".join(data) + bytes(PAD)), np.uint8), starts)
