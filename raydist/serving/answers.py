"""Answers of the HTTP service, in the form that several vendors' clients read at once."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = [
    "ApiVersion",
    "DocumentText",
    "Embedding",
    "EmbeddingsResponse",
    "ErrorBody",
    "ErrorEnvelope",
    "Kind",
    "Meta",
    "ModelInfo",
    "ModelList",
    "RerankResponse",
    "RerankResult",
    "ScoreResponse",
    "SearchResponse",
    "SearchResult",
    "Usage",
]


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


class DocumentText(_Answer):
    """A document in a result."""

    text: str


class RerankResult(_Answer):
    """One document's place in the ranking."""

    index: int
    """Its position in the request."""
    id: str | int | None = None
    """Its own id, if it had one."""
    relevance_score: float
    """Larger is better."""
    document: DocumentText | None = None
    """Its text, if asked for."""
    truncated: bool = False
    """Whether a part of it was not read."""
    chunks: int = 1
    """In how many pieces it was read."""


class Usage(_Answer):
    """Tokens of a request."""

    prompt_tokens: int = 0
    total_tokens: int = 0
    cached_prefix_tokens: int = 0
    """Tokens of shared prefixes that were not computed again."""


class ApiVersion(_Answer):
    """Cohere's version block."""

    version: str = "2"


class Meta(_Answer):
    """About the answer."""

    api_version: ApiVersion = ApiVersion()
    warnings: list[str] = []
    timings_ms: dict[str, float] = {}
    """Milliseconds by stage."""
    model_version: str | None = None
    """The registry's version of the model, or its folder's fingerprint."""


class RerankResponse(_Answer):
    """Results best first; equal scores in the request's order."""

    id: str
    object: Literal["rerank"] = "rerank"
    model: str
    results: list[RerankResult]
    data: list[RerankResult]
    """The same under Voyage's name."""
    usage: Usage
    meta: Meta


class ScoreResponse(_Answer):
    """One score per document, in the request's order."""

    id: str
    object: Literal["score"] = "score"
    model: str
    scores: list[float]
    usage: Usage
    meta: Meta


class Embedding(_Answer):
    """One text's vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsResponse(_Answer):
    """Vectors in the order of the texts."""

    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: Usage


class SearchResult(_Answer):
    """One found document."""

    rank: int
    id: str
    score: float
    """The last stage's score."""
    scores: dict[str, float]
    """The score of each stage that saw it."""
    title: str | None = None
    text: str | None = None


class SearchResponse(_Answer):
    """Found documents, best first."""

    id: str
    object: Literal["search"] = "search"
    results: list[SearchResult]
    timings_ms: dict[str, float]
    """Milliseconds by stage."""


Kind = Literal["reranker", "embedder", "index"]


class ModelInfo(_Answer):
    """A served model."""

    id: str
    object: Literal["model"] = "model"
    owned_by: str = "raydist"
    kind: Kind


class ModelList(_Answer):
    """All served models."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


class ErrorBody(_Answer):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str


class ErrorEnvelope(_Answer):
    """The form of every error."""

    error: ErrorBody
