"""Danish, Norwegian and Swedish: Snowball's stemmers as of version 2."""

from __future__ import annotations

from raydist.text.languages.rules import Endings, region

_DANISH = Endings("""
    hed ethed ered e erede ende erende ene erne ere en heden eren er heder erer s heds es endes
    erendes enes ernes eres ens hedens erens ers ets erets et eret
""")
_DANISH_2 = Endings("ig lig elig els", {"løst": "løs"})
_NORWEGIAN = Endings(
    """
    a e ede ande ende ane ene hetene en heten ar er heter s as es edes endes enes hetenes ens
    hetens ers ets et het ast
    """,
    {"erte": "er", "ert": "er"},
)
_NORWEGIAN_2 = Endings("leg eleg ig eig lig elig els lov elov slov hetslov")
_SWEDISH = Endings("""
    a arna erna heterna orna ad e ade ande arne are aste en anden aren heten ern ar er heter or s
    as arnas ernas ornas es ades andes ens arens hetens erns at andet het ast
""")
_SWEDISH_2 = Endings("ig lig els", {"löst": "lös", "fullt": "full"})


def _region(word: str, vowels: str) -> int:
    return max(region(word, vowels), min(3, len(word)))


def _without_last_of(word: str, begin: int, pairs: tuple[str, ...]) -> str:
    return word[:-1] if len(word) - begin >= 2 and word.endswith(pairs) else word


def stem_danish(word: str) -> str:
    """Returns the stem of a Danish word."""
    vowels = "aeiouyæåø"
    begin = _region(word, vowels)
    pairs = ("gd", "dt", "gt", "kt")
    if (end := _DANISH.of(word, begin)) and (
        end.text != "s" or end.stem[-1:] in tuple("abcdfghjklmnoprtvyzå")
    ):
        word = end.stem
    word = _without_last_of(word, begin, pairs)
    if word.endswith("igst"):
        word = word[:-2]
    if end := _DANISH_2.of(word, begin):
        word = end.stem + end.value
        if not end.value:
            word = _without_last_of(word, begin, pairs)
    if len(word) > begin and word[-2:-1] == word[-1] and word[-1] in "bcdfghjklmnpqrstvwxz":
        word = word[:-1]
    return word


def stem_norwegian(word: str) -> str:
    """Returns the stem of a Norwegian word."""
    vowels = "aeiouyæåø"
    begin = _region(word, vowels)
    if end := _NORWEGIAN.of(word, begin):
        before = end.stem[-1:]
        if (
            end.text != "s"
            or before in tuple("bcdfghjlmnoprtvyz")
            or (before == "k" and len(end.stem) > 1 and end.stem[-2] not in vowels)
        ):
            word = end.stem + end.value
    word = _without_last_of(word, begin, ("dt", "vt"))
    if end := _NORWEGIAN_2.of(word, begin):
        word = end.stem
    return word


def stem_swedish(word: str) -> str:
    """Returns the stem of a Swedish word."""
    begin = _region(word, "aeiouyäåö")
    if (end := _SWEDISH.of(word, begin)) and (
        end.text != "s" or end.stem[-1:] in tuple("bcdfghjklmnoprtvy")
    ):
        word = end.stem
    word = _without_last_of(word, begin, ("dd", "gd", "nn", "dt", "gt", "kt", "tt"))
    if end := _SWEDISH_2.of(word, begin):
        word = end.stem + end.value
    return word
