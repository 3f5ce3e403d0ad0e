"""Bigrams of Chinese, Japanese and Korean characters that stand side by side.

A character without a neighbour is a term itself; words of other scripts stay as they are.

Legend: N texts, W words, S distinct words, C characters (a word of another script counts as one).
"""

from __future__ import annotations

import numpy as np

from raydist.kernels.addresses import Array
from raydist.text.languages.cjk import is_cjk
from raydist.text.string_table import StringTable, joined

_NO_TERM = 0xFFFFFFFF
_WORDS = 1 << 18  # about so many at a time


class Bigrams:
    """The characters of the distinct words of a lexicon."""

    def __init__(self) -> None:
        self._words = self._size = 0  # how many words, and characters of them
        self._begins = np.zeros(1, np.int64)  # where each word's characters begin
        self._characters = np.zeros(0, np.uint64)  # code points
        self._cjk = np.zeros(0, bool)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the characters take."""
        return self._begins.nbytes + self._characters.nbytes + self._cjk.nbytes

    def learn(self, words: list[str], terms: list[str | None]) -> list[str | None]:
        """Takes new words with their terms, and returns the terms without those of CJK words."""
        cjk = [term is not None and is_cjk(word) for word, term in zip(words, terms, strict=True)]
        letters = [term if term and each else "-" for term, each in zip(terms, cjk, strict=True)]
        begins = self._size + np.cumsum([len(each) for each in letters])
        codes = np.frombuffer("".join(letters).encode("utf-32-le"), "<u4")
        self._begins = _extended(self._begins, self._words + 1, begins)
        self._characters = _extended(self._characters, self._size, codes)
        self._cjk = _extended(self._cjk, self._words, np.array(cjk))
        self._words += len(words)
        self._size += len(codes)
        return [None if each else term for term, each in zip(terms, cjk, strict=True)]

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
        begins_S1 = self._begins
        # Whether a word continues the one before it.
        cjk_W = self._cjk[words_W]
        joined_W = np.zeros(len(words_W), bool)
        joined_W[1:] = cjk_W[1:] & cjk_W[:-1] & (spans_2W[2::2] == spans_2W[1:-2:2])
        joined_W[ends_N[ends_N < len(words_W)]] = False
        # The same for characters.
        sizes_W = begins_S1[words_W + np.uint32(1)] - begins_S1[words_W]
        word_C = np.repeat(np.arange(len(words_W)), sizes_W)
        within_C = np.arange(len(word_C)) - np.repeat(np.cumsum(sizes_W) - sizes_W, sizes_W)
        character_C = self._characters[begins_S1[words_W[word_C]] + within_C]
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


def _extended(array: Array, used: int, values: Array) -> Array:
    """Returns an array with values behind those in use; a larger one where there is no room."""
    end = used + len(values)
    if end > len(array):
        larger = np.zeros(2 * end, array.dtype)
        larger[:used] = array[:used]
        array = larger
    array[used:end] = values
    return array


def _numbers(pairs: Array, terms: StringTable) -> Array:
    """Returns the numbers of pairs of code points (the second may be 0) as terms."""
    strings = pairs.astype("<u8").view("<U2") if len(pairs) else np.zeros(0, "<U2")
    return terms.add(*joined([string.encode() for string in strings.tolist()]))
