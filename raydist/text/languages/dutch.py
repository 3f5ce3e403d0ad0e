"""Dutch: Snowball's first stemmer (Porter's), and four words that Lucene stems by a list."""

from __future__ import annotations

import re

from raydist.text.languages.rules import Endings, letters, region

_LISTED = {"fiets": "fiets", "bromfiets": "bromfiets", "ei": "eier", "kind": "kinder"}
_VOWELS = "aeiouyè"
_PLAIN = letters("áä a éë e íï i óö o úü u")
_INFLECTED = Endings("heden ene en se s")
_DERIVED = Endings("end ing ig lijk baar bar")
_LONG_VOWEL = re.compile(r"(?<=[^aeiouyè])(aa|ee|oo|uu)[^aeiouyèI]\Z", re.DOTALL)


def _undoubled(word: str) -> str:
    return word[:-1] if word.endswith(("dd", "kk", "tt")) else word


def _marked(word: str) -> str:
    """Returns a word whose i and y are in upper case where they are consonants."""
    letters = list("Y" + word[1:] if word.startswith("y") else word)
    for i in range(len(letters) - 1):
        if letters[i] in _VOWELS:
            if letters[i + 1] == "i" and letters[i + 2 : i + 3] and letters[i + 2] in _VOWELS:
                letters[i + 1] = "I"
            elif letters[i + 1] == "y":
                letters[i + 1] = "Y"
    return "".join(letters)


def stem_dutch(word: str) -> str:
    """Returns the stem of a Dutch word."""
    if word in _LISTED:
        return _LISTED[word]
    word = _marked(word.translate(_PLAIN))
    first = region(word, _VOWELS)
    second = region(word, _VOWELS, first)
    first = max(first, 3)

    def without_en(stem: str) -> str | None:
        """Returns the stem before -en without its doubled consonant, None if -en stays."""
        if len(stem) < first or stem[-1] in _VOWELS or stem.endswith("gem"):
            return None
        return _undoubled(stem)

    def without_e(word: str) -> tuple[str, bool]:
        stem = word[:-1]
        if word.endswith("e") and len(stem) >= first and stem[-1] not in _VOWELS:
            return _undoubled(stem), True
        return word, False

    if end := _INFLECTED.of(word):
        if end.text == "heden":
            if len(end.stem) >= first:
                word = end.stem + "heid"
        elif end.text in ("en", "ene"):
            word = without_en(end.stem) or word
        elif len(end.stem) >= first and end.stem[-1] not in _VOWELS + "j":
            word = end.stem
    word, had_e = without_e(word)
    stem = word[:-4]
    if word.endswith("heid") and len(stem) >= second and not stem.endswith("c"):
        word = stem
        if word.endswith("en"):
            word = without_en(word[:-2]) or word
    if (end := _DERIVED.of(word)) and len(end.stem) >= second:
        if end.text in ("end", "ing"):
            word = end.stem
            stem = word[:-2]
            if word.endswith("ig") and len(stem) >= second and not stem.endswith("e"):
                word = stem
            else:
                word = _undoubled(word)
        elif end.text == "lijk":
            word, _ = without_e(end.stem)
        elif {"baar": True, "bar": had_e, "ig": not end.stem.endswith("e")}[end.text]:
            word = end.stem
    if _LONG_VOWEL.search(word):
        word = word[:-2] + word[-1]
    return word.replace("I", "i").replace("Y", "y")
