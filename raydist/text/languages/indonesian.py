"""Indonesian: Tala's stemmer.

F. Z. Tala: A study of stemming effects on information retrieval in Bahasa Indonesia (2003).
"""

from __future__ import annotations

_VOWELS = "aeiou"
# Prefix, what stands for it, whether a vowel follows it, the affix that it is a form of.
_FIRST = (
    ("meng", "", False, "meng"),
    ("meny", "s", True, "meng"),
    ("men", "", False, "meng"),
    ("mem", "", False, "meng"),
    ("me", "", False, "meng"),
    ("peng", "", False, "peng"),
    ("peny", "s", True, "peng"),
    ("peny", "", False, "peng"),
    ("pen", "t", True, "peng"),
    ("pen", "", False, "peng"),
    ("pem", "", False, "peng"),
    ("di", "", False, "di"),
    ("ter", "", False, "ter"),
    ("ke", "", False, "ke"),
)
# Suffixes, and the prefixes with which they do not occur.
_SUFFIXES = (
    ("kan", {"ke", "peng", "pe"}),
    ("an", {"di", "meng", "ter"}),
    ("i", {"ber", "ke", "peng"}),
)


class _Word:
    """A word that loses its affixes as long as it has more than two syllables."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.syllables = sum(letter in _VOWELS for letter in text)
        self.prefixes: set[str] = set()

    def cut(self, text: str) -> bool:
        self.text = text
        self.syllables -= 1
        return True

    def cut_ending(self, *endings: str) -> bool:
        if self.syllables > 2:
            for ending in endings:
                if self.text.endswith(ending):
                    return self.cut(self.text.removesuffix(ending))
        return False

    def cut_first_prefix(self) -> bool:
        if self.syllables > 2:
            for prefix, place, before_vowel, affix in _FIRST:
                rest = self.text.removeprefix(prefix)
                if rest != self.text and (not before_vowel or rest[:1] in tuple(_VOWELS)):
                    self.prefixes.add(affix)
                    return self.cut(place + rest)
        return False

    def cut_second_prefix(self) -> bool:
        text = self.text
        if self.syllables <= 2:
            return False
        if text.startswith("ber") or text == "belajar":
            self.prefixes.add("ber")
            return self.cut(text[3:])
        if text.startswith("be") and text[3:5] == "er" and text[2] not in _VOWELS:
            self.prefixes.add("ber")
            return self.cut(text[2:])
        if text.startswith("per") or text == "pelajar":
            return self.cut(text[3:])
        if text.startswith("pe"):
            self.prefixes.add("pe")
            return self.cut(text[2:])
        return False

    def cut_suffix(self) -> bool:
        for suffix, excluded in _SUFFIXES:
            if (
                self.syllables > 2
                and self.text.endswith(suffix)
                and not self.prefixes & excluded
                and not (suffix == "i" and self.text.endswith("si"))
            ):
                return self.cut(self.text.removesuffix(suffix))
        return False


def stem_indonesian(text: str) -> str:
    """Returns the stem of an Indonesian word."""
    word = _Word(text)
    word.cut_ending("kah", "lah", "pun")
    word.cut_ending("ku", "mu", "nya")
    if word.cut_first_prefix():
        if word.cut_suffix():
            word.cut_second_prefix()
    else:
        word.cut_second_prefix()
        word.cut_suffix()
    return word.text
