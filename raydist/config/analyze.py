"""Configuration of `raydist analyze`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from raydist.config.base import Block
from raydist.text.spec import AnalyzerSpec


class AnalyzeConfig(Block):
    """Shows the terms of texts."""

    primary: ClassVar[str | None] = "text"

    text: str | None = None
    """A text."""
    input: str | None = None
    """A file of texts, one per line (ended by a line feed alone)."""
    analyzer: AnalyzerSpec = AnalyzerSpec()
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
