"""From configurations to objects: the only module that knows both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raydist.config.reranker import (
    BiEncoderReranking,
    Bm25Reranking,
    CrossEncoderReranking,
    Qwen3Reranking,
    RerankerConfig,
)

if TYPE_CHECKING:
    from raydist.protocols import Reranker

__all__ = ["build_reranker"]


def build_reranker(config: RerankerConfig) -> Reranker:
    """Returns the reranker that a configuration describes, its model loaded."""
    if isinstance(config, Bm25Reranking):
        return _bm25(config)
    from raydist.rerank.rows import Options

    options = Options(truncation=config.truncation)
    common = config.model_dump(include={"model", "device", "dtype", "batch_tokens", "threads"})
    model = common.pop("model")
    if isinstance(config, CrossEncoderReranking):
        from raydist.rerank.cross_encoder import CrossEncoder

        return CrossEncoder(
            model,
            max_length=config.max_length,
            query_max_length=config.query_max_length,
            options=options,
            **common,
        )
    if isinstance(config, Qwen3Reranking):
        from raydist.rerank.qwen3 import Qwen3Reranker

        own = {"max_length", "task", "prefix", "suffix", "share_prefix"}
        return Qwen3Reranker(model, options=options, **common, **config.model_dump(include=own))
    assert isinstance(config, BiEncoderReranking)
    return _biencoder(config)


def _bm25(config: Bm25Reranking) -> Reranker:
    from raydist.rerank.bm25 import BM25Reranker

    if config.index is None:
        return BM25Reranker(k1=config.k1, b=config.b, epsilon=config.epsilon)
    from raydist.bow.index import BowIndex

    index = BowIndex.open(config.index)
    return BM25Reranker(tokens=index.analyzer.tokens, statistics=index, k1=config.k1, b=config.b)


def _biencoder(config: BiEncoderReranking) -> Reranker:
    from raydist.models.biencoder import BiEncoder
    from raydist.rerank.biencoder import BiEncoderReranker
    from raydist.rerank.cross_encoder import pick_device, pick_dtype

    device = pick_device(config.device)
    model = BiEncoder.load(config.model, dtype=pick_dtype(config.dtype, device), device=device)
    return BiEncoderReranker(model)
