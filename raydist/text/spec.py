"""What can be set of an analyzer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from raydist.spec import FromText

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
    """Language of the snowball stemmer; English also cuts off 's and has stop words."""
    stemmer: Literal["porter", "snowball", "none"] = "porter"
    """`porter` is Lucene's for English, `snowball` the language's own."""
    stop_words: StopWords = "default"
    """`default` (Lucene's 33 for English, none for others), `none`, or a list."""

    def __post_init__(self) -> None:
        self.build()

    def build(self) -> Analyzer:
        """Returns the analyzer; raises ConfigError (a ValueError) where the fields do not fit."""
        from raydist.text.analyzer import Analyzer

        return Analyzer(self.language, self.stemmer, self.stop_words)
