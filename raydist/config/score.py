"""Configuration of `raydist score`."""

from __future__ import annotations

from typing import Literal

from raydist.config.rerank import Reranking
from raydist.rerank.spec import RerankerSpec


class ScoreConfig(Reranking):
    """Scores a run's documents with a teacher, for distillation."""

    teacher: RerankerSpec
    """bm25, Qwen/Qwen3-Reranker-0.6B (or -4B, -8B), or a model's folder."""
    missing: Literal["error", "drop"] = "error"
    """A candidate without text is an error, or is left out."""
