"""Configuration of `raydist index` and `raydist analyze`."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from raydist.bow.spec import IndexSpec
from raydist.config.base import Block, Flat, Verb, execution
from raydist.data.columns import Column
from raydist.data.spec import CorpusSource
from raydist.spec import ADDED, Reads
from raydist.text.spec import AnalyzerSpec


class IndexConfig(Verb):
    """Builds a bag-of-words index of a corpus."""

    corpus: CorpusSource | None = None
    """The documents."""
    delete: Annotated[str | None, Reads(), ADDED] = None
    """Instead of `corpus`: a file of ids to delete from the index, one per line."""
    purge: bool = execution(False)
    """With `delete`: rewrite the segments concerned, which removes the bytes at once; otherwise the
    next `raydist merge` removes them."""
    out: str = Field(min_length=1)
    """The folder to write."""
    indexing: Flat[IndexSpec]

    def identity(self) -> dict[str, Any]:
        """Returns the fields that decide the result.

        A build is the same for all values of `duplicates` but `last`.
        """
        last = {"duplicates": "last"} if self.indexing.duplicates == "last" else {}
        return {**super().identity(), **last}

    @model_validator(mode="after")
    def _fields_are_texts(self) -> IndexConfig:
        fields = self.indexing.fields
        columns = self.corpus.columns if self.corpus is not None else ()
        names = ["title", "text", *(Column.of(each).name for each in columns)]
        for name in fields:
            if name not in names:
                raise ValueError(
                    f"fields: no field {name!r}: expected some of {', '.join(names)}; "
                    "corpus.columns= names further ones"
                )
            if not re.fullmatch(r"\w[\w-]*", name):
                raise ValueError(f"fields: {name!r}: expected a name of letters, digits, _ and -")
        if len(set(fields)) < len(fields):
            raise ValueError("fields: a name occurs twice")
        return self

    @model_validator(mode="after")
    def _documents_or_ids(self) -> IndexConfig:
        if (self.corpus is None) == (self.delete is None):
            raise ValueError("give one of corpus=, documents to index, and delete=, ids to remove")
        if self.purge and self.delete is None:
            raise ValueError(
                "purge: give delete= too; raydist merge removes what is deleted already"
            )
        return self


class AnalyzeConfig(Block):
    """Shows the terms of texts."""

    primary: ClassVar[str | None] = "text"

    text: str | None = None
    """A text to analyze."""
    input: Annotated[str | None, Reads()] = None
    """A file of texts, one per line (only a line feed ends a line)."""
    analyzer: AnalyzerSpec = AnalyzerSpec()
    """How text becomes terms."""
    index: Annotated[str | None, Reads("output")] = None
    """An index whose analyzer is used instead."""

    @model_validator(mode="after")
    def _one_input(self) -> AnalyzeConfig:
        if (self.text is None) == (self.input is None):
            raise ValueError("give one of text= and input=")
        if self.index is not None and "analyzer" in self.model_fields_set:
            raise ValueError("give one of analyzer= and index=")
        return self
