"""Finnish: Snowball's stemmer as of version 2."""

from __future__ import annotations

from raydist.text.languages.rules import Ending, Endings, region

_VOWELS = "aeiouyäö"
_CONSONANTS = "bcdfghjklmnpqrstvwxz"
_LONG = ("aa", "ee", "ii", "oo", "uu", "ää", "öö")
_PARTICLES = Endings("pa sti kaan han kin hän kään ko pä kö")
_POSSESSIVES = Endings("nsa mme nne ni si an en än nsä")
# Which endings a possessive follows.
_BEFORE = {
    "an": ("lla", "na", "ssa", "ta", "lta", "sta"),
    "än": ("llä", "nä", "ssä", "tä", "ltä", "stä"),
    "en": ("lle", "ine"),
}
# The values say what a case follows: a letter, V a consonant and a vowel, I a vowel and i,
# L a long vowel, N anything, of which a long vowel or ie loses its last letter.
_CASES = {
    **{"a": "V", "ä": "V", "n": "N", "den": "I", "tten": "I", "siin": "I", "seen": "L"},
    **{"han": "a", "hen": "e", "hin": "i", "hon": "o", "hän": "ä", "hön": "ö"},
    **{"tta": "e", "ttä": "e", "ta": "", "tä": "", "lle": "", "ine": "", "ksi": ""},
    **{"lla": "", "llä": "", "na": "", "nä": "", "ssa": "", "ssä": "", "lta": "", "ltä": ""},
    **{"sta": "", "stä": ""},
}
_CASE_LENGTHS = (4, 3, 2, 1)
_COMPARED = Endings("eja mma imma mpa impa mmi immi mpi impi ejä mmä immä mpä impä")
_COMPARED_PLURAL = Endings("mma imma")


def stem_finnish(word: str) -> str:
    """Returns the stem of a Finnish word."""
    first = region(word, _VOWELS)
    second = region(word, _VOWELS, first)
    if end := _PARTICLES.of(word, first):
        if end.text == "sti":
            word = end.stem if len(end.stem) >= second else word
        elif end.stem[-1:] in tuple(_VOWELS + "nt"):
            word = end.stem
    if end := _POSSESSIVES.of(word, first):
        word = _without_possessive(end, word)
    stem = _without_case(word, first)
    has_case = stem is not None
    word = word if stem is None else stem
    word = _without_comparison(word, second, _COMPARED)
    if has_case:
        if len(word) > first and word[-1] in "ij":
            word = word[:-1]
    elif len(word) - first >= 2 and word[-1] == "t" and word[-2] in _VOWELS:
        word = _without_comparison(word[:-1], second, _COMPARED_PLURAL)
    return _tidied(word, first)


def _without_possessive(end: Ending, word: str) -> str:
    if end.text == "si":
        return word if end.stem.endswith("k") else end.stem
    if end.text == "ni":
        return end.stem[:-1] + "i" if end.stem.endswith("kse") else end.stem
    if end.text in _BEFORE:
        return end.stem if end.stem.endswith(_BEFORE[end.text]) else word
    return end.stem


def _without_case(word: str, first: int) -> str | None:
    """Returns a word without its case, None if it has none."""
    for length in _CASE_LENGTHS:
        rule = _CASES.get(word[-length:]) if len(word) - first >= length else None
        if rule is None:
            continue
        stem = word[:-length]
        if rule == "I":
            if len(stem) - first >= 2 and stem[-1] == "i" and stem[-2] in "aeiouäö":
                return stem
        elif rule == "L":
            if len(stem) - first >= 2 and stem.endswith(_LONG):
                return stem
        elif rule == "N":
            return stem[:-1] if stem.endswith((*_LONG, "ie")) else stem
        elif rule == "V":
            fits = len(stem) > 1 and stem[-1] in _VOWELS and stem[-2] in _CONSONANTS
            return stem if fits else None
        else:
            return stem if stem.endswith(rule) else None
    return None


def _without_comparison(word: str, second: int, endings: Endings) -> str:
    end = endings.of(word, second)
    if end is None or (len(end.text) == 3 and end.text[0] == "m" and end.stem.endswith("po")):
        return word
    return end.stem


def _tidied(word: str, first: int) -> str:
    if len(word) < first:
        return word
    if len(word) - first >= 2 and word.endswith(_LONG):
        word = word[:-1]
    if len(word) - first >= 2 and word[-1] in "aeiä" and word[-2] in _CONSONANTS:
        word = word[:-1]
    if len(word) - first >= 2 and word.endswith(("oj", "uj")):
        word = word[:-1]
    if len(word) - first >= 2 and word.endswith("jo"):
        word = word[:-1]
    last = len(word) - 1
    while last >= 0 and word[last] in _VOWELS:
        last -= 1
    if last > 0 and word[last] in _CONSONANTS and word[last - 1] == word[last]:
        word = word[:last] + word[last + 1 :]
    return word
