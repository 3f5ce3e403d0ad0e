"""Configuration of the analyzer and of `raydist analyze`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, model_validator

from raydist.config.base import Block

if TYPE_CHECKING:
    from raydist.text.analyzer import Analyzer


def _words(value: Any) -> Any:
    """Reads `default`, `none`, or words parted by commas."""
    if not isinstance(value, str) or value in ("default", "none"):
        return value
    return [word.strip() for word in value.split(",") if word.strip()]


StopWords = Annotated[Literal["default", "none"] | tuple[str, ...], BeforeValidator(_words)]
"""`default`, `none`, or words of one's own."""


class AnalyzerConfig(Block):
    """How text becomes terms; the default is Lucene's EnglishAnalyzer."""

    primary: ClassVar[str | None] = "stemmer"

    language: str = "english"
    """Language of the snowball stemmer; English also cuts off 's and has stop words."""
    stemmer: Literal["porter", "snowball", "none"] = "porter"
    """`porter` is Lucene's for English, `snowball` the language's own."""
    stop_words: StopWords = "default"
    """`default` (Lucene's 33 for English, none for others), `none`, or a list."""

    @model_validator(mode="after")
    def _possible(self) -> AnalyzerConfig:
        self.build()
        return self

    def build(self) -> Analyzer:
        """Returns the analyzer; raises ConfigError (a ValueError) where the fields do not fit."""
        from raydist.text.analyzer import Analyzer

        return Analyzer(self.language, self.stemmer, self.stop_words)


class AnalyzeConfig(Block):
    """Shows the terms of texts."""

    primary: ClassVar[str | None] = "text"

    text: str | None = None
    """A text."""
    input: str | None = None
    """A file of texts, one per line (ended by a line feed alone)."""
    analyzer: AnalyzerConfig = AnalyzerConfig()
    """How text becomes terms."""
    index: str | None = None
    """An index whose analyzer is used instead."""

    @model_validator(mode="after")
    def _one_input(self) -> AnalyzeConfig:
        if (self.text is None) == (self.input is None):
            raise ValueError("give one of text= and input=")
        if self.index is not None and "analyzer" in self.model_fields_set:
            raise ValueError("give one of analyzer= and index=")
        return self
