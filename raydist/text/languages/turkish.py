"""Turkish: apostrophes, and the i whose dot is a letter's own."""

from __future__ import annotations

import re
import unicodedata

_APOSTROPHE = re.compile("['’]")
_DOT = "\u0307"  # combining, above


def before_apostrophe(word: str) -> str:
    """Returns what stands before the first apostrophe: suffixes of names come behind it."""
    return _APOSTROPHE.split(word, maxsplit=1)[0]


def lower_turkish(word: str) -> str:
    """Returns a word in lower case: of I becomes ı, of İ (one character or two) i."""
    if "I" not in word:
        return "".join(map(lower, word))
    out = ""
    dotted = False
    for i, letter in enumerate(word):
        if letter == "I":
            dotted = _dot_follows(word, i + 1)
            out += "i" if dotted else "ı"
            continue
        dotted = dotted and unicodedata.category(letter) == "Mn"
        if not (dotted and letter == _DOT):
            out += lower(letter)
    return out


def _dot_follows(word: str, at: int) -> bool:
    for mark in word[at:]:
        if unicodedata.category(mark) != "Mn":
            return False
        if mark == _DOT:
            return True
    return False


def lower(letter: str) -> str:
    """Returns a letter in lower case, always one character."""
    return letter.lower()[0]
