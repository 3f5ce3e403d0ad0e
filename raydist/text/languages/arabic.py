"""Arabic and Persian: letters that are written in several ways, and affixes.

L. S. Larkey, L. Ballesteros, M. E. Connell: Improving stemming for Arabic information retrieval
(SIGIR 2002), light stemmers.
"""

from __future__ import annotations

from raydist.text.languages.rules import letters

_ARABIC = letters("آأإ ا ى ي ة ه", removed="ـ\u064b\u064c\u064d\u064e\u064f\u0650\u0651\u0652")
_PERSIAN = letters("\u06cc\u06d2 \u064a \u06a9 \u0643 \u06c0\u06c1 \u0647", removed="\u0654")
_PREFIXES = ("ال", "وال", "بال", "كال", "فال", "لل", "و")
_SUFFIXES = ("ها", "ان", "ات", "ون", "ين", "يه", "ية", "ه", "ة", "ي")


def plain_arabic(word: str) -> str:
    """Returns a word without vowel signs, its alef, yeh and teh marbuta in one form."""
    return word.translate(_ARABIC)


def plain_persian(word: str) -> str:
    """Returns a word with Arabic's yeh, kaf and heh."""
    return word.translate(_PERSIAN)


def stem_arabic(word: str) -> str:
    """Returns a word without an article or conjunction and without its suffixes."""
    for prefix in _PREFIXES:
        if word.startswith(prefix) and len(word) >= max(4, len(prefix) + 2):
            word = word[len(prefix) :]
            break
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) >= len(suffix) + 2:
            word = word[: -len(suffix)]
    return word
