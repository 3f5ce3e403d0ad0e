"""How text becomes terms, as one value that an index keeps and a search repeats.

The default equals Lucene's EnglishAnalyzer: UAX #29 words, 's cut off, lower case, 33 stop words,
Porter stems. Other languages are analysed as by the analyzer that Lucene has for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from raydist.errors import ArtifactError, ConfigError
from raydist.fingerprints import value_fingerprint
from raydist.text.languages.cjk import is_cjk
from raydist.text.languages.rules import in_units
from raydist.text.languages.table import LANGUAGES, Language, language_of
from raydist.text.languages.turkish import lower
from raydist.text.subwords import Subwords, SubwordTokenizer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from raydist.text.lexicon import Lexicon

    Array = npt.NDArray[np.uint32]

_STOPS = """
    a an and are as at be but by for if in into is it no not
    of on or such that the their then there these they this to was will with
"""
ENGLISH_STOP_WORDS = tuple(_STOPS.split())
"""The 33 words that Lucene's EnglishAnalyzer drops."""

STEMMERS = ("default", "porter", "snowball", "none")

_VERSION = 1  # of the rules: another version, another fingerprint
_LANGUAGES_VERSION = 1  # of the rules of languages but English
_REMEMBERED_STEMS = 1 << 20  # of a snowball stemmer
_REMEMBERED = 1 << 18  # distinct terms that a thread's lexicon for single texts may hold


@dataclass(frozen=True, slots=True)
class Analyzer:
    """Turns text into terms.

    Attributes:
        language: a name or a code of ISO 639-1; becomes the name.
        stemmer: `default` (the language's, as Lucene has it), `porter` (Lucene's, English),
            `snowball` (the language's of the snowballstemmer package) or `none`.
        stop_words: `default` (the language's; none where the stemmer of another language than
            English is set), `none`, or words of your own, which become as words of texts do before
            they are compared.
        normalize: whether all else is done that the language's analyzer does (elision, spellings,
            bigrams, its stop words); None: where its own stemmer is used.
        subwords: a tokenizer whose tokens are the terms, instead of all that.
    """

    language: str = "english"
    stemmer: str = "default"
    stop_words: str | tuple[str, ...] = "default"
    normalize: bool | None = None
    subwords: Subwords | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.subwords is not None:
            self._check_words_alone()
            return
        language, stemmer = canonical(self.language, self.stemmer)
        object.__setattr__(self, "language", language)
        object.__setattr__(self, "stemmer", stemmer)
        if self.stemmer not in STEMMERS:
            raise ConfigError(f"stemmer = {self.stemmer!r}: expected one of {', '.join(STEMMERS)}")
        if self.stemmer == "porter" and self.language != "english":
            raise ConfigError(
                f"stemmer = 'porter' is for English, language = {self.language!r}: "
                f"set stemmer to default, snowball or none"
            )
        if self.stemmer == "snowball" and self.language not in snowball_languages():
            raise ConfigError(
                f"language = {self.language!r}: no snowball stemmer; expected one of "
                f"{', '.join(snowball_languages())}"
            )
        if self._rules is None and (self.stemmer == "default" or self.normalize):
            raise ConfigError(
                f"language = {self.language!r}: has no analyzer of its own; expected one of "
                f"english, {', '.join(each.name for each in LANGUAGES)}, or stemmer=snowball | none"
            )
        if self.normalize is not None and (
            self.language == "english" or self.normalize == (self.stemmer == "default")
        ):
            object.__setattr__(self, "normalize", None)
        if isinstance(self.stop_words, str):
            if self.stop_words not in ("default", "none"):
                raise ConfigError(
                    f"stop_words = {self.stop_words!r}: expected default, none or a list of words"
                )
        else:
            own = {word.strip() for word in self.stop_words}
            if self._rules is None or not (self._normalizes and self._rules.cased):
                own = {word.lower() for word in own}
            object.__setattr__(self, "stop_words", tuple(sorted(own - {""})) or "none")

    def __str__(self) -> str:
        return repr(self if self.subwords is None else self.subwords)

    def _check_words_alone(self) -> None:
        """Raises ConfigError where anything is set that a tokenizer does not take."""
        for name, allowed in (
            ("language", ("english",)),
            ("stemmer", ("default", "none")),
            ("stop_words", ("default", "none")),
            ("normalize", (None,)),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}: analyzer.tokenizer makes the terms; leave one out")
        object.__setattr__(self, "stemmer", "none")
        object.__setattr__(self, "stop_words", "none")

    @property
    def stops(self) -> tuple[str, ...]:
        """The words that are dropped, as words of texts are when they are compared."""
        if not isinstance(self.stop_words, str):
            if self._rules is None or not self._normalizes:
                return self.stop_words
            return tuple(sorted({*map(self._rules.normalize, self.stop_words)} - {""}))
        if self.stop_words == "none":
            return ()
        if self.language == "english":
            return ENGLISH_STOP_WORDS
        return self._rules.stops if self._rules and self._normalizes else ()

    @property
    def _rules(self) -> Language | None:
        """The language's own, where it is not English."""
        return language_of(self.language)

    @property
    def _normalizes(self) -> bool:
        return self.stemmer == "default" if self.normalize is None else self.normalize

    @property
    def fingerprint(self) -> str:
        """16 digits; equal for analyzers that give the same terms for every text."""
        if self.subwords is not None:
            return value_fingerprint([_VERSION, "tokenizer", self.subwords.digest])
        values = [_VERSION, self.language == "english", self._stemmer_name, sorted(self.stops)]
        if self._normalizes or self.stemmer == "default":
            values += [_LANGUAGES_VERSION, self.language, self._normalizes]
        return value_fingerprint(values)

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
            **({} if self.normalize is None else {"normalize": self.normalize}),
            **({} if self.subwords is None else {"tokenizer": self.subwords.pack()}),
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Analyzer:
        """Returns the analyzer that `to_dict` described.

        Raises ArtifactError if this version of raydist would give other terms.
        """
        stops = values["stop_words"]
        stops = stops if isinstance(stops, str) else tuple(stops)
        packed = values.get("tokenizer")
        analyzer = cls(
            values["language"],
            values["stemmer"],
            stops,
            values.get("normalize"),
            None if packed is None else Subwords.unpack(packed),
        )
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

        if self.subwords is not None:
            return Lexicon(subwords=self.subwords)
        rules = self._rules
        if rules is not None and (self._normalizes or self.stemmer == "default"):
            normalizes = self._normalizes
            return Lexicon(
                stem=self._terms(rules),
                lower=not (normalizes and rules.cased),
                bigrams=normalizes and rules.bigrams,
                separator=rules.separator if normalizes else "",
            )
        return Lexicon(
            possessive=self.language == "english",
            stop_words=self.stops,
            stem=_snowball(self.language) if self.stemmer == "snowball" else None,
            porter=self.stemmer == "porter",
        )

    def _terms(self, rules: Language) -> Callable[[list[str]], list[str | None]]:
        """Returns what makes terms of words by the language's rules, None of stop words."""
        stops = frozenset(self.stops)
        normalizes = self._normalizes
        one, many = rules.stem, None
        if self.stemmer == "default" and one is None:
            one = in_units(_snowball_of_one(self.language))
        elif self.stemmer == "snowball":
            one, many = None, _snowball(self.language)
        elif self.stemmer == "none":
            one = None

        def terms(words: list[str]) -> list[str | None]:
            if normalizes:
                words = list(map(rules.normalize, words))
            kept = [word for word in words if word not in stops]
            if normalizes:
                kept = list(map(rules.respell, kept))
            stems = many(kept) if many else list(map(one, kept)) if one else kept
            rest = iter(stems)
            return [None if word in stops else next(rest) for word in words]

        return terms

    def tokens(self, text: str) -> list[str]:
        """Returns the terms of a text in order."""
        lexicon, names = self._remembered()
        return self._named(lexicon, names, lexicon.numbers(text))

    def positioned_tokens(self, text: str) -> list[tuple[str, int]]:
        """Returns the terms of a text in order, each with its position among the words."""
        import pyarrow as pa

        lexicon, names = self._remembered()
        data = pa.array([text.encode("utf-8", "surrogatepass")], pa.large_binary())
        terms, _, positions = lexicon.with_positions(data)
        return list(zip(self._named(lexicon, names, terms), positions.tolist(), strict=True))

    def _remembered(self) -> tuple[Lexicon, list[str]]:
        """Returns this thread's lexicon of single texts and the names of its terms."""
        lexicons: dict[Any, tuple[Lexicon, list[str]]] = _LOCAL.__dict__
        return lexicons.get(self) or (self.lexicon(), [])

    def _named(self, lexicon: Lexicon, names: list[str], terms: Array) -> list[str]:
        """Returns the names of terms, and remembers the lexicon unless it has become large."""
        if len(lexicon.terms) > len(names):
            new = lexicon.terms.strings(len(names))
            names += [term.decode("utf-8", "surrogatepass") for term in new.to_pylist()]
        lexicons: dict[Any, tuple[Lexicon, list[str]]] = _LOCAL.__dict__
        if len(names) < _REMEMBERED:
            lexicons[self] = lexicon, names
        else:
            lexicons.pop(self, None)
        return [names[term] for term in terms.tolist()]

    def words(self, text: str) -> list[tuple[int, int, str]]:
        """Returns the words of a text, with stop words and endings: start, end, in lower case.

        They are as they are written where the language's lower case is another. Bigrams overlap.
        Offsets count characters. With a tokenizer they are its tokens.
        """
        if self.subwords is not None:
            return SubwordTokenizer(self.subwords).spans(text)
        from raydist.text.tokenizer import words_of

        rules = self._rules if self._normalizes else None
        cased = rules is not None and rules.cased
        if rules and rules.separator:
            text = text.replace(rules.separator, " ")
        plain = text.lower() if text.isascii() else "".join(map(lower, text))
        plain = text if cased else plain
        spans, at = [], 0
        for word in words_of(text, lower=not cased):  # between words is nothing that could be one
            start = plain.index(word, at)
            at = start + len(word)
            spans.append((start, at, word))
        return _pairs(spans) if rules and rules.bigrams else spans


_LOCAL = threading.local()


def canonical(language: str, stemmer: str) -> tuple[str, str]:
    """Returns a language's name, whatever it is called by, and the stemmer that default is."""
    known = language_of(language)
    name = known.name if known else language
    name = "english" if name.lower() in ("en", "english") else name
    return name, "porter" if (name, stemmer) == ("english", "default") else stemmer


def _pairs(spans: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Returns words with each two neighbouring CJK characters as one, in place of those."""
    pairs: list[tuple[int, int, str]] = []
    alone = False  # whether the last is a character that has no neighbour yet
    end_of_run = -1
    for start, end, word in spans:
        if not is_cjk(word):
            pairs.append((start, end, word))
            alone, end_of_run = False, -1
            continue
        for at, letter in enumerate(word, start):
            if at == end_of_run:
                pair = (at - 1, at + 1, pairs[-1][2][-1] + letter)
                if alone:
                    pairs[-1] = pair
                else:
                    pairs.append(pair)
                alone = False
            else:
                pairs.append((at, at + 1, letter))
                alone = True
            end_of_run = at + 1
    return pairs


@lru_cache(maxsize=1)
def snowball_languages() -> tuple[str, ...]:
    """Returns the languages of the snowballstemmer package."""
    import snowballstemmer

    return tuple(sorted(snowballstemmer.algorithms()))


def _snowball_of_one(language: str) -> Callable[[str], str]:
    stem = _snowball(language)
    return lambda word: stem([word])[0]


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
