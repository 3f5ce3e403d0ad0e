"""From a spec to a reranker."""

from __future__ import annotations

from dataclasses import fields

from raydist import storage
from raydist.errors import ConfigError
from raydist.protocols import Reranker
from raydist.reranking.spec import (
    BiEncoderSpec,
    Bm25Spec,
    CrossEncoderSpec,
    NeuralSpec,
    Qwen3Spec,
    RerankerSpec,
)


def load_reranker(spec: RerankerSpec, *, raw: bool = False) -> Reranker:
    """Returns the reranker that a spec describes, its model loaded.

    Args:
        spec: the model, and how it runs.
        raw: scores are logits where they would be probabilities.
    """
    if isinstance(spec, Bm25Spec):
        return _bm25(spec)
    spec = _known(spec)
    if isinstance(spec, BiEncoderSpec):
        from raydist.reranking.biencoder import BiEncoderReranker

        return BiEncoderReranker(spec)
    if isinstance(spec, CrossEncoderSpec):
        from raydist.reranking.cross_encoder import CrossEncoder

        return CrossEncoder(spec, raw=raw)
    from raydist.reranking.qwen3 import Qwen3Reranker

    return Qwen3Reranker(spec, raw=raw)


def _known(
    spec: CrossEncoderSpec | Qwen3Spec | BiEncoderSpec,
) -> CrossEncoderSpec | Qwen3Spec | BiEncoderSpec:
    """Returns a spec by what the folder is now: it may not have been there when it was named."""
    if not isinstance(spec, CrossEncoderSpec) or "://" in spec.model:
        return spec
    from raydist.models.folders.kinds import settled_kind
    from raydist.models.folders.packaged import local_folder

    folder = local_folder(spec.model)
    if folder is None or settled_kind(folder) in (None, "crossencoder"):
        return spec
    shared = {each.name: getattr(spec, each.name) for each in fields(NeuralSpec)}
    return BiEncoderSpec(model=spec.model, **shared)


def _bm25(spec: Bm25Spec) -> Reranker:
    from raydist.reranking.bm25 import BM25Reranker

    if spec.index is None:
        if spec.analyzer is None:
            return BM25Reranker(k1=spec.k1, b=spec.b, epsilon=spec.epsilon)
        tokens = spec.analyzer.build().tokens
        return BM25Reranker(tokens=tokens, statistics="candidates", k1=spec.k1, b=spec.b)
    from raydist.bow.index import BowIndex

    index = BowIndex.open(storage.local(spec.index))
    if index.analyzer is None:
        raise ConfigError(
            f"reranker.index = {spec.index}: has no analyzer: it holds weighted terms"
        )
    return BM25Reranker(tokens=index.analyzer.tokens, statistics=index, k1=spec.k1, b=spec.b)
