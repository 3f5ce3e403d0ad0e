"""German, French, Italian, Portuguese and Spanish: Savoy's light stemmers as Lucene has them.

J. Savoy: Light stemming approaches for the French, Portuguese, German and Hungarian languages (SAC
2006); Report on CLEF-2001 experiments.
"""

from __future__ import annotations

import re
from itertools import groupby

from raydist.text.languages.rules import letters

_GERMAN = letters("äàáâ a öòóô o ïìíî i üùúû u")
_BEFORE_S = tuple("bdfghklmnt")
_SPELLINGS = {"ä": "a", "ö": "o", "ü": "u", "ß": "ss", "ae": "a", "oe": "o", "ue": "u"}
_SPELLING = re.compile("[äöüß]|[ao]e|(?<![aeiouyqäöü])ue")


def plain_german(word: str) -> str:
    """Returns a word without umlauts and ß, however they are written."""
    return _SPELLING.sub(lambda match: _SPELLINGS[match[0]], word)


def stem_german(word: str) -> str:
    """Returns the stem of a German word."""
    word = word.translate(_GERMAN)
    size = len(word)
    if size > 5 and word.endswith("ern"):
        word = word[:-3]
    elif size > 4 and word.endswith(("em", "en", "er", "es")):
        word = word[:-2]
    elif size > 3 and (word[-1] == "e" or (word[-1] == "s" and word[-2] in _BEFORE_S)):
        word = word[:-1]
    size = len(word)
    if size > 5 and word.endswith("est"):
        return word[:-3]
    if size > 4 and (
        word.endswith(("er", "en")) or (word.endswith("st") and word[-3] in _BEFORE_S)
    ):
        return word[:-2]
    return word


# Ending, letters that a word must have more than, what takes its place, whether rules go on.
_FRENCH = (
    ("issement", 9, "ir", False),
    ("issant", 8, "ir", False),
    ("ement", 6, "e", False),
    ("ficatrice", 11, "fier", False),
    ("ficateur", 10, "fier", False),
    ("catrice", 9, "quer", False),
    ("cateur", 8, "quer", False),
    ("atrice", 8, "er", False),
    ("ateur", 7, "er", False),
    ("trice", 6, "teur", True),
    ("ième", 5, "", False),
    ("teuse", 7, "ter", False),
    ("teur", 6, "ter", False),
    ("euse", 5, "eu", False),
    ("ère", 8, "er", False),
    ("ive", 7, "if", False),
    ("folle", 4, "fou", False),
    ("molle", 4, "mou", False),
    ("nnelle", 9, "n", False),
    ("nnel", 9, "n", False),
    ("ète", 4, "et", True),
    ("ique", 8, "", True),
    ("esse", 8, "e", False),
    ("inage", 7, "in", False),
    ("isation", 9, "", False),
    ("isateur", 9, "", False),
    ("ation", 8, "", False),
    ("ition", 8, "", False),
)
_FRENCH_LETTERS = letters("àáâ a ô o èéê e ùû u î i ç c")


def stem_french(word: str) -> str:
    """Returns the stem of a French word."""
    if len(word) > 5 and word[-1] == "x":
        eau = word[-3:-1] == "au" and word[-4] != "e"
        word = word[:-2] + "l" if eau else word[:-1]
    if len(word) > 3 and word[-1] == "x":
        word = word[:-1]
    if len(word) > 3 and word[-1] == "s":
        word = word[:-1]
    for ending, size, place, goes_on in _FRENCH:
        if len(word) > size and word.endswith(ending):
            word = word.removesuffix(ending) + place
            if ending == "ement" and len(word) > 3 and word.endswith("ive"):
                word = word[:-2] + "f"
            elif ending == "isation" and len(word) > 5 and word.endswith("ual"):
                word = word[:-2] + "el"
            if not goes_on:
                break
    return _plain_french(word)


def _plain_french(word: str) -> str:
    """Returns a French stem without accents, doubled letters and a mute ending."""
    if len(word) > 4:
        runs = groupby(word.translate(_FRENCH_LETTERS))
        word = "".join(letter if letter.isalpha() else "".join(run) for letter, run in runs)
    if len(word) > 4 and word.endswith("ie"):
        word = word[:-2]
    if len(word) > 4:
        word = word.removesuffix("r")
        word = word.removesuffix("e")
        word = word.removesuffix("e")
        if word[-1] == word[-2] and word[-1].isalpha():
            word = word[:-1]
    return word


_ROMANCE = letters("àáâä a òóôö o èéêë e ùúûü u ìíîï i")


def stem_spanish(word: str) -> str:
    """Returns the stem of a Spanish word."""
    if len(word) < 5:
        return word
    word = word.translate(_ROMANCE)
    if word.endswith(("o", "a", "e")):
        return word[:-1]
    if word.endswith("ces"):
        return word[:-3] + "z"
    return word[:-2] if word.endswith(("os", "as", "es")) else word


def stem_italian(word: str) -> str:
    """Returns the stem of an Italian word."""
    if len(word) < 6:
        return word
    word = word.translate(_ROMANCE)
    if word.endswith(("ie", "he", "hi", "ii", "ia", "io")):
        return word[:-2]
    return word[:-1] if word.endswith(("e", "i", "a", "o")) else word


_PORTUGUESE_LETTERS = _ROMANCE | letters("ã a õ o ç c")
# Ending, letters that a word must have more than, what takes its place.
_PLURALS = (
    ("res", 4, "r"),
    ("ses", 4, "s"),
    ("les", 4, "l"),
    ("zes", 4, "z"),
    ("ns", 3, "m"),
    ("eis", 4, "el"),
    ("éis", 4, "el"),
    ("ais", 4, "al"),
    ("óis", 4, "ol"),
    ("is", 4, "il"),
    ("ões", 3, "ão"),
    ("ães", 3, "ão"),
    ("mente", 6, ""),
    ("s", 3, ""),
)
_FEMININES = (
    *((ending, 7, ending[:-1] + "o") for ending in ("inha", "iaca", "eira")),
    *((ending, 6, ending[:-1] + "o") for ending in ("osa", "ica", "ida", "ada", "iva", "ama")),
    ("ona", 6, "ão"),
    ("ora", 6, "or"),
    ("esa", 6, "ês"),
    ("na", 6, "no"),
)


def stem_portuguese(word: str) -> str:
    """Returns the stem of a Portuguese word."""
    if len(word) < 4:
        return word
    word = _replaced(word, _PLURALS)
    if len(word) > 3 and word[-1] == "a":
        word = _replaced(word, _FEMININES)
    if len(word) > 4 and word[-1] in "eao":
        word = word[:-1]
    return word.translate(_PORTUGUESE_LETTERS)


def _replaced(word: str, rules: tuple[tuple[str, int, str], ...]) -> str:
    for ending, size, place in rules:
        if len(word) > size and word.endswith(ending):
            return word.removesuffix(ending) + place
    return word
