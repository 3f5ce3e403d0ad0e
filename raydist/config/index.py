"""Configuration of `raydist index` and `raydist analyze`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from raydist.config.base import Block, Verb, execution
from raydist.data.spec import CorpusSource
from raydist.spec import Bytes
from raydist.text.spec import AnalyzerSpec


class IndexConfig(Verb):
    """Builds a bag-of-words index of a corpus."""

    corpus: CorpusSource | None = None
    """The documents."""
    delete: str | None = execution(None)
    """Instead of `corpus`: a file of ids to delete from the index, one per line."""
    out: str = Field(min_length=1)
    """The folder to write."""
    analyzer: AnalyzerSpec = AnalyzerSpec()
    """How text becomes terms."""
    max_docs: int = Field(0, ge=0)
    """Index only the first documents; 0 indexes all."""
    merge: bool = True
    """Merge into one segment; false leaves one per split, or more if a split fills the memory."""
    compress: bool = True
    """Bit-packed postings; false writes plain arrays."""
    block_size: int = Field(128, ge=8, le=4096)
    """Postings per block, the unit that a search can skip."""
    store: bool = True
    """Store the texts, for snippets, reranking and training."""
    split_bytes: Bytes = 32 << 20
    """Size of a split of the corpus, the unit of work and of restart."""
    duplicates: Literal["error", "warn"] = execution("error")
    """A document id that occurs twice is an error, or a warning."""
    batch_size: int = execution(10_000, ge=1)
    """Documents analysed at once."""
    memory_per_worker: Bytes = execution(1 << 30)
    """Memory of a worker for documents and postings; its programs take about 300 MB more."""
    workers: int = execution(0, ge=0)
    """Ray actors; 0 works in this process, without Ray."""
    cpus_per_worker: float = execution(1.0, gt=0)
    """CPUs of an actor."""

    @model_validator(mode="after")
    def _documents_or_ids(self) -> IndexConfig:
        if (self.corpus is None) == (self.delete is None):
            raise ValueError("give one of corpus=, documents to index, and delete=, ids to remove")
        return self


class AnalyzeConfig(Block):
    """Shows the terms of texts."""

    primary: ClassVar[str | None] = "text"

    text: str | None = None
    """A text to analyze."""
    input: str | None = None
    """A file of texts, one per line (only a line feed ends a line)."""
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
