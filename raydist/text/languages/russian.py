"""Russian: Snowball's stemmer as of version 2."""

from __future__ import annotations

from raydist.text.languages.rules import Ending, Endings, region

_VOWELS = "аеиоуыэюя"


def _behind(behind_a: str, others: str) -> Endings:
    """Returns endings of which some follow only а or я."""
    return Endings(others, dict.fromkeys(behind_a.split(), "а"))


_GERUNDS = _behind("в вши вшись", "ив ыв ивши ывши ившись ывшись")
_ADJECTIVES = Endings("""
    ее ие ое ые ими ыми ей ий ой ый ем им ом ым его ого ему ому их ых ею ою ую юю ая яя
""")
_PARTICIPLES = _behind("ем нн вш щ ющ", "ивш ывш ующ")
_VERBS = _behind(
    "ла на ете йте ли й л ем н ло но нно ет ют ны ть ешь",
    """
    ила ыла ена ите ейте уйте или ыли ей уй ил ыл им ым ен ило ыло ено ует ит ыт уют ят ены
    ить ыть ишь ю ую
    """,
)
_NOUNS = Endings("""
    а ев ов е ие ье и еи ии ами ями иями й ей ией ий ой ам ем ием ом ям иям о у ах ях иях ы
    ь ю ию ью я ия ья
""")
_REFLEXIVE = Endings("сь ся")
_DERIVED = Endings("ост ость")
_SUPERLATIVE = Endings("ейш ейше")


def _fits(end: Ending, begin: int) -> bool:
    """Returns whether an ending has an а or я before it where it needs one."""
    return not end.value or (len(end.stem) > begin and end.stem[-1] in "ая")


def stem_russian(word: str) -> str:
    """Returns the stem of a Russian word."""
    word = word.replace("ё", "е")
    begin = next((i + 1 for i, letter in enumerate(word) if letter in _VOWELS), len(word))
    second = region(word, _VOWELS, region(word, _VOWELS))
    word = _without_inflection(word, begin)
    if len(word) > begin and word[-1] == "и":
        word = word[:-1]
    if (end := _DERIVED.of(word, begin)) and len(end.stem) >= second:
        word = end.stem
    if end := _SUPERLATIVE.of(word, begin):
        word = end.stem
    elif len(word) > begin and word[-1] == "ь":
        return word[:-1]
    if len(word) - begin >= 2 and word.endswith("нн"):
        word = word[:-1]
    return word


def _without_inflection(word: str, begin: int) -> str:
    end = _GERUNDS.of(word, begin)
    if end and _fits(end, begin):
        return end.stem
    if end := _REFLEXIVE.of(word, begin):
        word = end.stem
    if end := _ADJECTIVES.of(word, begin):
        word = end.stem
        end = _PARTICIPLES.of(word, begin)
        return end.stem if end and _fits(end, begin) else word
    end = _VERBS.of(word, begin)
    if end and _fits(end, begin):
        return end.stem
    end = _NOUNS.of(word, begin)
    return end.stem if end else word
