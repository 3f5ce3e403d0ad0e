"""What can be set of an analyzer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from raydist.spec import ADDED, FromText

if TYPE_CHECKING:
    from raydist.text.analyzer import Analyzer


def _words(text: str) -> str | list[str]:
    """Reads `default`, `none`, or words separated by commas."""
    if text in ("default", "none"):
        return text
    return [word.strip() for word in text.split(",") if word.strip()]


StopWords = Annotated[Literal["default", "none"] | tuple[str, ...], FromText(_words)]
"""`default`, `none`, or words of one's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzerSpec:
    """How text becomes terms; the default is Lucene's EnglishAnalyzer."""

    primary: ClassVar[str] = "stemmer"

    language: str = "english"
    """A language by its name or code (german, de): the analyzer that Lucene has for it."""
    stemmer: Literal["default", "porter", "snowball", "none"] = "default"
    """`default` is the language's own, which for English is `porter`, Lucene's; `snowball` is that
    of the snowballstemmer package."""
    stop_words: StopWords = "default"
    """`default` (the language's; none where another stemmer is set for another language than
    English), `none`, or a list."""
    normalize: Annotated[bool | None, ADDED] = None
    """With a stemmer that is set: whether all else is done that the language's analyzer does
    (elision, spellings, bigrams, its stop words). English always does it."""

    def __post_init__(self) -> None:
        analyzer = self.build()
        for name in ("language", "stemmer", "normalize"):
            object.__setattr__(self, name, getattr(analyzer, name))

    def build(self) -> Analyzer:
        """Returns the analyzer; raises ConfigError (a ValueError) where the fields do not fit."""
        from raydist.text.analyzer import Analyzer

        return Analyzer(self.language, self.stemmer, self.stop_words, self.normalize)
