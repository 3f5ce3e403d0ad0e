"""Configuration of `raydist rerank` and `raydist score`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raydist.config.base import Flat, Verb
from raydist.data.spec import CorpusSource, QueriesSource, RunSource
from raydist.reranking.spec import RerankerSpec, Reranking
from raydist.spec import ADDED, Reads


class RerankingConfig(Verb):
    """The fields of `rerank` and `score`."""

    run: RunSource
    """The candidates of each query."""
    queries: QueriesSource
    """The queries' texts."""
    corpus: CorpusSource | None = None
    """The documents' texts."""
    index: Annotated[str | None, Reads("output")] = None
    """An index folder whose document store has the texts, instead of `corpus`."""
    out: str = Field(min_length=1)
    """The file to write."""
    reranking: Flat[Reranking]

    @model_validator(mode="after")
    def _one_source_of_texts(self) -> RerankingConfig:
        if (self.corpus is None) == (self.index is None):
            raise ValueError("one of corpus and index is required: the documents' texts")
        return self


class RerankConfig(RerankingConfig):
    """Reorders a run."""

    reranker: RerankerSpec
    """bm25, Qwen/Qwen3-Reranker-0.6B (or -4B, -8B), or a model's folder."""
    tag: str = Field("raydist", min_length=1, pattern=r"^\S+$")
    """The new run's tag."""


class ScoreConfig(RerankingConfig):
    """Scores a run's documents with a teacher, for distillation."""

    teacher: RerankerSpec
    """bm25, Qwen/Qwen3-Reranker-0.6B (or -4B, -8B), or a model's folder."""
    missing: Literal["error", "drop"] = "error"
    """A candidate without text is an error, or is dropped."""
    raw: Annotated[bool, ADDED] = False
    """Logits where the teacher gives probabilities: they keep what a sigmoid near 0 or 1 loses."""
