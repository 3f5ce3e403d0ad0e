"""How text becomes terms, as one value that an index keeps and a search repeats.

The default equals Lucene's EnglishAnalyzer: UAX #29 words, 's cut off, lower case, 33 stop words,
Porter stems.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from raydist.errors import ArtifactError, ConfigError
from raydist.fingerprints import value_fingerprint

if TYPE_CHECKING:
    from raydist.text.lexicon import Lexicon

_STOPS = """
    a an and are as at be but by for if in into is it no not
    of on or such that the their then there these they this to was will with
"""
ENGLISH_STOP_WORDS = tuple(_STOPS.split())
"""The 33 words that Lucene's EnglishAnalyzer drops."""

STEMMERS = ("porter", "snowball", "none")

_VERSION = 1  # of the rules: another version, another fingerprint
_REMEMBERED_STEMS = 1 << 20  # of a snowball stemmer
_REMEMBERED = 1 << 18  # distinct terms that a thread's lexicon for single texts may hold


@dataclass(frozen=True, slots=True)
class Analyzer:
    """Turns text into terms.

    Attributes:
        language: decides the possessive filter and the default stop words (English has them), and
            the rules of the snowball stemmer.
        stemmer: `porter` (Lucene's, English), `snowball` (the language's) or `none`.
        stop_words: `default` (Lucene's 33 for English, none for other languages), `none`, or words
            of your own, compared in lower case.
    """

    language: str = "english"
    stemmer: str = "porter"
    stop_words: str | tuple[str, ...] = "default"

    def __post_init__(self) -> None:
        if self.stemmer not in STEMMERS:
            raise ConfigError(f"stemmer = {self.stemmer!r}: expected one of {', '.join(STEMMERS)}")
        if self.stemmer == "porter" and self.language != "english":
            raise ConfigError(
                f"stemmer = 'porter' is for English, language = {self.language!r}: "
                f"set stemmer to snowball or none"
            )
        if self.stemmer == "snowball" and self.language not in _snowball_languages():
            raise ConfigError(
                f"language = {self.language!r}: no snowball stemmer; expected one of "
                f"{', '.join(_snowball_languages())}"
            )
        if isinstance(self.stop_words, str):
            if self.stop_words not in ("default", "none"):
                raise ConfigError(
                    f"stop_words = {self.stop_words!r}: expected default, none or a list of words"
                )
        else:
            own = sorted({word.strip().lower() for word in self.stop_words} - {""})
            object.__setattr__(self, "stop_words", tuple(own) or "none")

    @property
    def stops(self) -> tuple[str, ...]:
        """The words that are dropped."""
        if not isinstance(self.stop_words, str):
            return self.stop_words
        english = self.stop_words == "default" and self.language == "english"
        return ENGLISH_STOP_WORDS if english else ()

    @property
    def fingerprint(self) -> str:
        """16 digits; equal for analyzers that give the same terms for every text."""
        return value_fingerprint(
            [_VERSION, self.language == "english", self._stemmer_name, sorted(self.stops)]
        )

    @property
    def _stemmer_name(self) -> str:
        return f"snowball {self.language}" if self.stemmer == "snowball" else self.stemmer

    def to_dict(self) -> dict[str, Any]:
        """Returns the analyzer as JSON values, with its fingerprint."""
        own = isinstance(self.stop_words, tuple)
        return {
            "language": self.language,
            "stemmer": self.stemmer,
            "stop_words": list(self.stop_words) if own else self.stop_words,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Analyzer:
        """Returns the analyzer that `to_dict` described.

        Raises ArtifactError if this version of raydist would give other terms.
        """
        stops = values["stop_words"]
        stops = stops if isinstance(stops, str) else tuple(stops)
        analyzer = cls(values["language"], values["stemmer"], stops)
        recorded = values.get("fingerprint", analyzer.fingerprint)
        if recorded != analyzer.fingerprint:
            raise ArtifactError(
                f"the analyzer {analyzer} has the fingerprint {analyzer.fingerprint}, recorded is "
                f"{recorded}: this version of raydist gives other terms; build the index again"
            )
        return analyzer

    def lexicon(self) -> Lexicon:
        """Returns a new, empty lexicon: the batch form, for one thread."""
        from raydist.text.lexicon import Lexicon

        return Lexicon(
            possessive=self.language == "english",
            stop_words=self.stops,
            stem=_snowball(self.language) if self.stemmer == "snowball" else None,
            porter=self.stemmer == "porter",
        )

    def tokens(self, text: str) -> list[str]:
        """Returns the terms of a text in order."""
        lexicons: dict[Any, tuple[Lexicon, list[str]]] = _LOCAL.__dict__
        lexicon, names = lexicons.get(self) or (self.lexicon(), [])
        terms = lexicon.numbers(text)
        if len(lexicon.terms) > len(names):
            new = lexicon.terms.strings(len(names))
            names += [term.decode("utf-8", "surrogatepass") for term in new.to_pylist()]
        if len(names) < _REMEMBERED:
            lexicons[self] = lexicon, names
        else:
            lexicons.pop(self, None)
        return [names[term] for term in terms.tolist()]

    def words(self, text: str) -> list[tuple[int, int, str]]:
        """Returns the words of a text, with stop words and endings: start, end, in lower case.

        Offsets count characters.
        """
        from raydist.text.tokenizer import words_of

        lower = text.lower() if text.isascii() else "".join(map(_lower, text))
        spans, at = [], 0
        for word in words_of(text):  # between words is nothing that could begin one
            start = lower.index(word, at)
            at = start + len(word)
            spans.append((start, at, word))
        return spans


_LOCAL = threading.local()


def _lower(character: str) -> str:
    """Returns a character in lower case, always one, as Lucene's filter does."""
    return character.lower()[0]


@lru_cache(maxsize=1)
def _snowball_languages() -> tuple[str, ...]:
    import snowballstemmer

    return tuple(sorted(snowballstemmer.algorithms()))


@lru_cache(maxsize=4)
def _snowball(language: str) -> Callable[[list[str]], list[str]]:
    """Returns the stemmer of a language, which remembers words (some 25,000 new ones a second)."""
    import snowballstemmer

    stem_all = snowballstemmer.stemmer(language).stemWords
    known: dict[str, str] = {}
    one_at_a_time = threading.Lock()  # the stemmer is not re-entrant

    def stem(words: list[str]) -> list[str]:
        with one_at_a_time:
            if len(known) > _REMEMBERED_STEMS:
                known.clear()
            new = [word for word in words if word not in known]
            known.update(zip(new, stem_all(new)))
            return [known[word] for word in words]

    return stem
