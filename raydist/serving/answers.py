"""Answers of the HTTP service, in the form that several vendors' clients read at once.

What an answer has thousands of are dictionaries: they cost a tenth of models.
"""

from __future__ import annotations

from typing import Literal, NotRequired

from pydantic import BaseModel, ConfigDict, with_config
from typing_extensions import TypedDict


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


_DOCUMENTED = ConfigDict(use_attribute_docstrings=True)


@with_config(_DOCUMENTED)
class DocumentText(TypedDict):
    """A document in a result."""

    text: str
    """The document's text."""


@with_config(_DOCUMENTED)
class Highlight(TypedDict):
    """A token of the query and the document's token that is most similar to it."""

    query: list[int]
    """Where the first begins and ends in the query, in characters."""
    document: list[int] | None
    """Where the other begins and ends in the document; null if it is a special token."""
    similarity: float
    """Of their vectors."""


@with_config(_DOCUMENTED)
class RerankResult(TypedDict):
    """One document's place in the ranking."""

    index: int
    """Its position in the request."""
    id: NotRequired[str | int]
    """Its own id, if it has one."""
    relevance_score: float
    """Larger is better."""
    document: NotRequired[DocumentText]
    """Its text, with `return_documents`."""
    truncated: bool
    """Whether a part of it was not read."""
    chunks: int
    """Pieces in which it was read."""
    highlights: NotRequired[list[Highlight]]
    """Which tokens met, in the query's order, with `return_highlights`. The similarities add up to
    the score, with those of special and expansion tokens."""
    score: NotRequired[float]
    """`relevance_score` again, for mixedbread's clients (those that send `input`)."""
    input: NotRequired[str]
    """Its text, with mixedbread's `return_input`."""


class Usage(_Answer):
    """Tokens of a request."""

    prompt_tokens: int = 0
    """Tokens that the model read; an estimate for embeddings."""
    total_tokens: int = 0
    """The same: nothing is generated."""
    cached_prefix_tokens: int = 0
    """Tokens of shared prefixes that were computed once only."""


class ApiVersion(_Answer):
    """Cohere's version block."""

    version: str = "2"
    """Of Cohere's API."""


class Meta(_Answer):
    """About the answer."""

    api_version: ApiVersion = ApiVersion()
    """For Cohere's clients."""
    warnings: list[str] = []
    """Deviations from the request, such as truncated documents."""
    timings_ms: dict[str, float] = {}
    """Milliseconds by stage."""
    model_version: str | None = None
    """The registry's version of the model, or its folder's fingerprint."""


class RerankResponse(_Answer):
    """Results best first; equal scores in the request's order."""

    id: str
    """The request's X-Request-Id, or a new id."""
    object: Literal["rerank"] = "rerank"
    """The type of this object."""
    model: str
    """The model that answered."""
    results: list[RerankResult]
    """The documents, best first."""
    data: list[RerankResult]
    """The same under Voyage's name."""
    usage: Usage
    """Tokens of the request."""
    meta: Meta
    """Warnings, timings, the model's version."""


@with_config(_DOCUMENTED)
class ScoredPair(TypedDict):
    """A pair's score, in vLLM's form."""

    index: int
    """The pair's position in the request."""
    object: Literal["score"]
    """The type of this object."""
    score: float
    """Larger is better."""


class ScoreResponse(_Answer):
    """One score per pair, in the request's order."""

    id: str
    """The request's X-Request-Id, or a new id."""
    object: Literal["list"] = "list"
    """The type of this object."""
    created: int
    """Seconds since 1970."""
    model: str
    """The model that answered."""
    scores: list[float]
    """Larger is better."""
    data: list[ScoredPair]
    """The same in vLLM's form."""
    usage: Usage
    """Tokens of the request."""
    meta: Meta
    """Warnings, timings, the model's version."""


@with_config(_DOCUMENTED)
class TeiRank(TypedDict):
    """One document's place in the ranking, in TEI's form."""

    index: int
    """Its position in the request."""
    score: float
    """Larger is better."""
    text: NotRequired[str]
    """Its text, with `return_text`."""


class TeiInfo(_Answer):
    """What is served, in TEI's form; limits are this service's own."""

    model_id: str
    """The first model's name."""
    model_sha: str | None = None
    """Not known."""
    model_dtype: str = "float32"
    """Of scores and vectors."""
    model_type: dict[str, dict[str, str]]
    """`reranker` or `embedding`."""
    max_client_batch_size: int
    """Texts of a request."""
    max_concurrent_requests: int
    """Requests under way."""
    auto_truncate: bool = True
    """Texts that do not fit are cut unless a request says otherwise."""
    version: str
    """Of raydist."""


class Embedding(_Answer):
    """One text's vector."""

    object: Literal["embedding"] = "embedding"
    """The type of this object."""
    index: int
    """The text's position in the request."""
    embedding: list[float] | str
    """Numbers, or the same in base64 (float32 is little-endian)."""


class EmbeddingsResponse(_Answer):
    """Vectors in the order of the texts."""

    object: Literal["list"] = "list"
    """The type of this object."""
    model: str
    """The model that answered."""
    data: list[Embedding]
    """One entry per text."""
    usage: Usage
    """Tokens of the request."""


class SparseTerm(_Answer):
    """A term of a text with its weight, in TEI's form."""

    index: int
    """The term's number in the model's vocabulary."""
    value: float
    """Its weight."""


class CohereEmbeddings(_Answer):
    """Vectors in Cohere's form."""

    id: str
    """The request's X-Request-Id, or a new id."""
    response_type: Literal["embeddings_by_type", "embeddings_floats"]
    """The second for v1 without `embedding_types`."""
    embeddings: dict[str, list[list[float]] | list[str]] | list[list[float]]
    """Vectors by kind of number, in the order of the texts; for v1 the vectors alone."""
    texts: list[str]
    """The request's."""
    meta: dict[str, object]
    """`api_version`, and `billed_units` with the tokens."""


class Snippet(_Answer):
    """A passage of a document's text."""

    text: str
    """The passage."""
    start: int
    """Where it begins in the document's text, in characters (code points)."""
    marks: list[tuple[int, int]]
    """Where words of the query begin and end in the passage, in characters."""
    score: float
    """Its BM25 score among the text's sentences; 0 where nothing matches."""


class SearchResult(_Answer):
    """A hit."""

    rank: int
    """From 1."""
    id: str
    """The document's id in the index."""
    score: float
    """The last stage's score."""
    scores: dict[str, float]
    """Its score in each stage that ranked it."""
    title: str | None = None
    """Its title, if it has one."""
    text: str | None = None
    """Its text, where the index keeps texts."""
    snippets: list[Snippet] | None = None
    """Its best passages, in the order of the text, with `snippets`."""


class SearchResponse(_Answer):
    """Hits, best first."""

    id: str
    """The request's X-Request-Id, or a new id."""
    object: Literal["search"] = "search"
    """The type of this object."""
    results: list[SearchResult]
    """At most `k` of them."""
    warnings: list[str] = []
    """Deviations from the request, such as hits that were not reranked."""
    searched: float | None = None
    """Share of the documents that was searched, with `partial`."""
    timings_ms: dict[str, float]
    """Milliseconds by stage."""


Kind = Literal["reranker", "embedder", "index"]


class ModelInfo(_Answer):
    """A served model."""

    id: str
    """Its name in requests."""
    object: Literal["model"] = "model"
    """The type of this object."""
    created: int = 0
    """When the service was started, in seconds since 1970."""
    owned_by: str = "raydist"
    """Its owner."""
    kind: Kind
    """What it is for."""


class ModelList(_Answer):
    """All served models."""

    object: Literal["list"] = "list"
    """The type of this object."""
    data: list[ModelInfo]
    """Rerankers first."""


class ErrorBody(_Answer):
    """What went wrong."""

    message: str
    """For people: what is wrong, and what is allowed."""
    type: str
    """The kind of error, by status."""
    param: str | None = None
    """The field at fault."""
    code: str
    """For programs."""


class ErrorEnvelope(_Answer):
    """The form of every error."""

    error: ErrorBody
    """What went wrong; its message alone in TEI's contract."""
    message: str
    """The error's message, where Cohere's clients read it."""
    detail: str
    """The error's message, where Voyage's and Jina's clients read it."""
