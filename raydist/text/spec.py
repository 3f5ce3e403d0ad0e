"""What can be set of an analyzer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from raydist.spec import ADDED, FromText, Reads

if TYPE_CHECKING:
    from raydist.text.analyzer import Analyzer
    from raydist.text.subwords import Subwords


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
    tokenizer: Annotated[str | None, Reads(), ADDED] = None
    """A folder with a Hugging Face `tokenizer.json`, or the file: its tokens are the terms, instead
    of all else here. The index carries it."""

    def __post_init__(self) -> None:
        if self.tokenizer is not None and Path(self.tokenizer).is_dir():
            object.__setattr__(self, "tokenizer", str(Path(self.tokenizer) / "tokenizer.json"))
        analyzer = self.build()
        for name in ("language", "stemmer", "normalize"):
            object.__setattr__(self, name, getattr(analyzer, name))

    def build(self) -> Analyzer:
        """Returns the analyzer; raises ConfigError (a ValueError) where the fields do not fit."""
        from raydist.text.analyzer import Analyzer

        subwords = None if self.tokenizer is None else _subwords(self.tokenizer)
        return Analyzer(self.language, self.stemmer, self.stop_words, self.normalize, subwords)


def _subwords(path: str) -> Subwords:
    from raydist.text.subwords import Subwords

    return Subwords.read(Path(path).expanduser())
