"""Chinese, Japanese and Korean: widths of characters, and which words bigrams are made of."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

_HALF, _FULL = range(0xFF65, 0xFFA0), range(0xFF01, 0xFF5F)
_KANA = {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in _HALF}
_WIDTHS = str.maketrans({chr(code): chr(code - 0xFEE0) for code in _FULL})
_MARKS = {"\uff9e": "\u3099", "\uff9f": "\u309a"}  # voiced, half voiced


def even_width(word: str) -> str:
    """Returns a word with ASCII's letters in half and katakana in full width."""
    word = word.translate(_WIDTHS)
    if not any(letter in _KANA for letter in word):
        return word
    out = ""
    for letter in word:
        mark = _MARKS.get(letter)
        if mark and out:
            whole = unicodedata.normalize("NFC", out[-1] + mark)
            if len(whole) == 1 and "\u30a6" <= out[-1] <= "\u30fd":
                out = out[:-1] + whole
                continue
        out += _KANA.get(letter, letter)
    return out


_WORDS = r"""
    (?: [\p{Script=Han}--\p{WB=ALetter}] | \p{Script=Hiragana}
      | \p{WB=Katakana} (?: MARK* \p{WB=Katakana} )* | HANGUL (?: MARK* HANGUL )* )
    MARK*
"""
_SETS = {
    "HANGUL": r"[\p{Script=Hangul}&&\p{WB=ALetter}]",
    # The signs listed were format characters in Unicode 12.1, which the tokenizer follows.
    "MARK": r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}"
    r"\u0600-\u0605\u06dd\u070f\u08e2\U000110bd\U000110cd]",
}


@cache
def _pattern() -> Any:
    import regex

    pattern = _WORDS
    for name, members in _SETS.items():
        pattern = pattern.replace(name, members)
    return regex.compile(pattern, regex.VERBOSE | regex.VERSION1)


def is_cjk(word: str) -> bool:
    """Returns whether a word of the tokenizer is Han, kana or Hangul alone."""
    return _pattern().fullmatch(word) is not None
