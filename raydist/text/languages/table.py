"""The languages that have an analyzer of their own: the filters of Lucene 9.9's, in its order.

Those that Anserini takes for a language; Japanese is cut into bigrams, as Chinese and Korean are,
where Lucene takes Kuromoji and its dictionary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from raydist.text.languages.arabic import plain_arabic, plain_persian, stem_arabic
from raydist.text.languages.cjk import even_width
from raydist.text.languages.dutch import stem_dutch
from raydist.text.languages.finnish import stem_finnish
from raydist.text.languages.hungarian import stem_hungarian
from raydist.text.languages.indic import (
    composed_indic,
    plain_bengali,
    plain_hindi,
    plain_telugu,
    stem_bengali,
    stem_hindi,
    stem_telugu,
)
from raydist.text.languages.indonesian import stem_indonesian
from raydist.text.languages.light import (
    plain_german,
    stem_french,
    stem_german,
    stem_italian,
    stem_portuguese,
    stem_spanish,
)
from raydist.text.languages.rules import Rule, in_units, western_digits, without_articles
from raydist.text.languages.russian import stem_russian
from raydist.text.languages.scandinavian import stem_danish, stem_norwegian, stem_swedish
from raydist.text.languages.turkish import before_apostrophe, lower_turkish

_LISTS = Path(__file__).with_name("stop_words")


@dataclass(frozen=True, slots=True)
class Language:
    """How the words of a language become terms.

    Attributes:
        name: in English.
        code: of ISO 639-1.
        stemmer: whose rules, in words.
        stem: the stemmer; None is Snowball's, of a package.
        normalized: what is done before stop words are dropped, in words and as rules.
        respelled: what is done after that, in words and as rules.
        source: whose stop words these are.
        cased: whether words come as they are written, not in lower case.
        bigrams: whether neighbouring characters become pairs.
        separator: a character of words that parts them here.
    """

    name: str
    code: str
    stemmer: str
    stem: Rule | None = None
    normalized: tuple[str, tuple[Rule, ...]] = ("", ())
    respelled: tuple[str, tuple[Rule, ...]] = ("", ())
    source: str = "Snowball"
    cased: bool = False
    bigrams: bool = False
    separator: str = ""

    @property
    def stops(self) -> tuple[str, ...]:
        """The words that are dropped."""
        return _words_of("cjk" if self.bigrams else self.code)

    def normalize(self, word: str) -> str:
        """Returns a word as it is compared with stop words."""
        for rule in self.normalized[1]:
            word = rule(word)
        return word

    def respell(self, word: str) -> str:
        """Returns a word as it is stemmed."""
        for rule in self.respelled[1]:
            word = rule(word)
        return word


@cache
def _words_of(name: str) -> tuple[str, ...]:
    return tuple((_LISTS / f"{name}.txt").read_text(encoding="utf-8").split())


def language_of(text: str) -> Language | None:
    """Returns the language of a name or code, None if it has no analyzer of its own."""
    return _BY_NAME.get(text.lower())


_ELISION = "elided articles are cut off"
_SAVOY = "light (Savoy)"
_SNOWBALL = "Snowball 2"
_SAVOYS_LIST = "J. Savoy"
_DIGITS = "decimal digits become 0 to 9"
_INDIC = f"{_DIGITS}, letters typed in parts become one"

LANGUAGES = (
    Language(
        "arabic",
        "ar",
        "light (Larkey)",
        in_units(stem_arabic),
        normalized=(_DIGITS, (western_digits,)),
        respelled=("alef, yeh and teh marbuta in one form, no vowel signs", (plain_arabic,)),
        source=_SAVOYS_LIST,
    ),
    Language(
        "bengali",
        "bn",
        "light (Sengupta and Chaudhuri)",
        in_units(stem_bengali),
        normalized=(
            f"{_INDIC}, one spelling of what sounds alike",
            (western_digits, composed_indic, plain_bengali),
        ),
        source=_SAVOYS_LIST,
    ),
    Language("danish", "da", _SNOWBALL, in_units(stem_danish)),
    Language("dutch", "nl", f"{_SNOWBALL} (Porter), four words by a list", in_units(stem_dutch)),
    Language("finnish", "fi", _SNOWBALL, in_units(stem_finnish)),
    Language(
        "french",
        "fr",
        _SAVOY,
        in_units(stem_french),
        normalized=(
            _ELISION,
            (without_articles("l m t qu n s j d c jusqu quoiqu lorsqu puisqu"),),
        ),
    ),
    Language(
        "german",
        "de",
        _SAVOY,
        in_units(stem_german),
        respelled=("ä, ae and a are one letter, as are ö, ü and ß with theirs", (plain_german,)),
    ),
    Language(
        "hindi",
        "hi",
        "light (Ramanathan and Rao)",
        in_units(stem_hindi),
        normalized=(
            f"{_INDIC}, long vowels become short, no nukta, virama or joiner",
            (western_digits, composed_indic, plain_hindi),
        ),
        source=_SAVOYS_LIST,
    ),
    Language("hungarian", "hu", _SNOWBALL, in_units(stem_hungarian)),
    Language("indonesian", "id", "Tala", in_units(stem_indonesian), source="F. Z. Tala"),
    Language(
        "italian",
        "it",
        _SAVOY,
        in_units(stem_italian),
        normalized=(
            _ELISION,
            (
                without_articles(
                    "c l all dall dell nell sull coll pell gl agl dagl degl negl sugl un m t s v d"
                ),
            ),
        ),
    ),
    Language("norwegian", "no", _SNOWBALL, in_units(stem_norwegian)),
    Language(
        "persian",
        "fa",
        "none",
        str,
        normalized=(
            f"zero-width non-joiners part words, {_DIGITS}, yeh, kaf and heh as in Arabic",
            (western_digits, plain_arabic, plain_persian),
        ),
        source=_SAVOYS_LIST,
        separator="\u200c",
    ),
    Language("portuguese", "pt", _SAVOY, in_units(stem_portuguese)),
    Language("russian", "ru", _SNOWBALL, in_units(stem_russian)),
    Language("spanish", "es", _SAVOY, in_units(stem_spanish)),
    Language("swedish", "sv", _SNOWBALL, in_units(stem_swedish)),
    Language(
        "telugu",
        "te",
        "light",
        in_units(stem_telugu),
        normalized=(
            f"{_INDIC}, long vowels become short; upper case stays",
            (western_digits, composed_indic, plain_telugu),
        ),
        source="Apache Lucene",
        cased=True,
    ),
    Language(
        "turkish",
        "tr",
        _SNOWBALL,
        normalized=(
            "cut at apostrophes, I becomes ı and İ i",
            (before_apostrophe, lower_turkish),
        ),
        source="Apache Lucene, with F. Can et al.",
        cased=True,
    ),
    *(
        Language(
            name,
            code,
            "none; neighbouring characters become pairs",
            str,
            normalized=("characters of full and half width are one", (even_width,)),
            source="Apache Lucene",
            bigrams=True,
        )
        for name, code in (("chinese", "zh"), ("japanese", "ja"), ("korean", "ko"))
    ),
)

_BY_NAME = {key: each for each in LANGUAGES for key in (each.name, each.code)}
