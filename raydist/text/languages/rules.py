"""What the rules of languages are made of: replacements, and the longest ending of a word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import NamedTuple

Rule = Callable[[str], str]
"""Changes a word."""


class Ending(NamedTuple):
    """An ending that a word has."""

    text: str
    stem: str  # what stands before it
    value: str


class Endings:
    """Finds the longest of some endings; each has a value."""

    def __init__(self, plain: str, values: Mapping[str, str] | None = None) -> None:
        """Takes endings, separated by blanks, without a value, and others with one."""
        self._values = dict.fromkeys(plain.split(), "") | dict(values or {})
        self._lengths = sorted({len(each) for each in self._values}, reverse=True)

    def of(self, word: str, begin: int = 0) -> Ending | None:
        """Returns the longest ending that lies in `word[begin:]`."""
        room = len(word) - begin
        for length in self._lengths:
            if length <= room and (value := self._values.get(word[-length:])) is not None:
                return Ending(word[-length:], word[:-length], value)
        return None


def replacing(mapping: Mapping[str, str]) -> Rule:
    """Returns a rule that replaces strings, longer ones first, in one pass."""
    longest_first = sorted(mapping, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    return lambda word: pattern.sub(lambda match: mapping[match[0]], word)


def letters(text: str, removed: str = "") -> dict[int, str]:
    """Returns the table of `str.translate` for pairs of letters: of `àáâ a`, three become a."""
    words = text.split()
    table = {ord(old): new for olds, new in zip(words[::2], words[1::2]) for old in olds}
    return table | dict.fromkeys(map(ord, removed), "")


def western_digits(word: str) -> str:
    """Returns a word with the decimal digits of all scripts as 0 to 9."""
    if word.isascii():
        return word
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in word)


def without_articles(articles: str) -> Rule:
    """Returns a rule that cuts off an elided article: what stands before the first apostrophe."""
    known = frozenset(articles.split())

    def cut(word: str) -> str:
        for i, character in enumerate(word):
            if character in "'’":
                return word[i + 1 :] if word[:i] in known else word
        return word

    return cut


def in_units(stem: Rule) -> Rule:
    """Returns a stemmer that counts UTF-16 units, as Java does."""

    def stem_units(word: str) -> str:
        if max(word, default="") <= "\uffff":
            return stem(word)
        data = word.encode("utf-16-le", "surrogatepass")
        units = "".join(chr(data[i] | data[i + 1] << 8) for i in range(0, len(data), 2))
        return stem(units).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    return stem_units


def region(word: str, vowels: str, begin: int = 0) -> int:
    """Returns where Snowball's region begins: behind the first consonant behind a vowel."""
    size = len(word)
    while begin < size and word[begin] not in vowels:
        begin += 1
    while begin < size and word[begin] in vowels:
        begin += 1
    return min(begin + 1, size)
