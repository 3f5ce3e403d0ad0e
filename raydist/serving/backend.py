"""The routes' interface to the models: calls, answers, and the backend that carries them.

Calls and answers travel between processes. The backend is in this process for tests and notebooks,
behind Ray Serve's handles in `app.py`.

Shapes: n texts, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from raydist.dense.spec import ByDocument
from raydist.records import Document
from raydist.reranking.highlights import Match
from raydist.reranking.spec import Truncation
from raydist.serving.errors import ServiceError
from raydist.text.passages import Passage


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of an answer: tokens that the model read, and milliseconds by stage.

    Attributes:
        tokens: all that the model read.
        cached_prefix_tokens: those that were not computed again.
        queue_ms: for a thread and for a batch.
        tokenize_ms: for tokens.
        infer_ms: from the first batch to the last.
        tokens_per_s: the replica's speed of late; 0 if it does not know.
    """

    tokens: int = 0
    cached_prefix_tokens: int = 0
    queue_ms: float = 0.0
    tokenize_ms: float = 0.0
    infer_ms: float = 0.0
    tokens_per_s: float = 0.0

    @property
    def computed_tokens(self) -> int:
        """The tokens that the model computed."""
        return self.tokens - self.cached_prefix_tokens

    @property
    def timings_ms(self) -> dict[str, float]:
        """Milliseconds by the stage's name."""
        return {"queue": self.queue_ms, "tokenize": self.tokenize_ms, "infer": self.infer_ms}


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """A replica as the ingress sees it.

    Attributes:
        pid: its process.
        queued_tokens: those that wait in it.
        tokens_per_s: its speed of late; 0 if it does not know.
        max_length: the tokens of a pair, or of a text to embed, that its model reads at most; 0 if
            there is no limit, or none that texts are cut to.
    """

    pid: int
    queued_tokens: int = 0
    tokens_per_s: float = 0.0
    max_length: int = 0


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """A request's options of scoring; None and 0 leave them to the server.

    Attributes:
        truncation: of a document that does not fit.
        max_tokens_per_doc: documents are cut to so many tokens first.
        instruction: the task of a reranker that follows instructions.
        raw_scores: whether scores are the model's logits.
        highlights: of how many of the best documents it is asked which tokens met.
    """

    truncation: Truncation | None = None
    max_tokens_per_doc: int = 0
    instruction: str | None = None
    raw_scores: bool = False
    highlights: int = 0


@dataclass(frozen=True, slots=True)
class ScoreCall:
    """One query and its documents.

    Attributes:
        query: the query's text.
        documents: texts.
        options: how they are scored.
        timeout_s: seconds after which the answer is of no use.
        patience_s: seconds that it may wait for its first batch.
    """

    query: str
    documents: Sequence[str]
    options: ScoreOptions = field(default_factory=ScoreOptions)
    timeout_s: float = 60.0
    patience_s: float = 60.0


@dataclass(frozen=True, slots=True)
class ScoreAnswer:
    """One score per document.

    Attributes:
        scores: larger is better.
        truncated: whether a part of the document or of the query was not read.
        chunks: in how many pieces the document was read.
        cost: tokens and milliseconds.
        warnings: deviations from the request.
        version: the model's.
        highlights: which tokens met, by the document's number.
    """

    scores: Sequence[float] = ()
    truncated: Sequence[bool] = ()
    chunks: Sequence[int] = ()
    cost: Cost = field(default_factory=Cost)
    warnings: Sequence[str] = ()
    version: str = ""
    highlights: Mapping[int, Sequence[Match]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScoreFailure:
    """The first of several calls that failed, and why."""

    number: int
    error: ServiceError


@dataclass(frozen=True, slots=True)
class EmbedCall:
    """Texts to embed.

    Attributes:
        texts: the texts.
        role: which instruction and tower they get.
        dimensions: keep the first so many; 0 keeps all.
        truncate: whether a text that does not fit is cut, or refused.
        terms: whether weights of terms are wanted, which sparse models alone have.
    """

    texts: Sequence[str]
    role: Literal["query", "document"]
    dimensions: int = 0
    truncate: bool = True
    terms: bool = False


@dataclass(frozen=True, slots=True)
class EmbedAnswer:
    """Float32 vectors [n, D] of the texts, and their cost (tokens are an estimate)."""

    vectors_nD: np.ndarray
    cost: Cost


@dataclass(frozen=True, slots=True)
class SearchCall:
    """A query, and what of each retriever is searched.

    Attributes:
        query: the text.
        depth: how many documents of each retriever.
        ids: those to search, None for all.
        filter: the condition on their columns, None without one.
        timeout_s: seconds after which the answer is of no use.
        partial: whether it is searched without the shards that are lost.
        by: how documents are ranked by their passages, None to rank what the indexes hold.
    """

    query: str
    depth: int
    ids: Sequence[str] | None = None
    filter: str | None = None
    timeout_s: float = 60.0
    partial: bool = False
    by: ByDocument | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A document with the score of each stage that saw it.

    Attributes:
        doc_id: its id.
        scores: by stage.
        document: its text; None where no store has it.
        store: the number of the store that has it.
    """

    doc_id: str
    scores: Mapping[str, float]
    document: Document | None = None
    store: int = 0


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Hits, best first.

    Attributes:
        hits: the hits.
        timings_ms: of each stage.
        searched: share of the documents that was searched.
    """

    hits: Sequence[Hit]
    timings_ms: Mapping[str, float]
    searched: float = 1.0


@dataclass(frozen=True, slots=True)
class SnippetCall:
    """A query, texts with the numbers of their stores, and the size of their snippets."""

    query: str
    texts: Sequence[tuple[str, int]]
    number: int
    length: int


class Backend(Protocol):
    """The models and the index. Methods raise ServiceError."""

    async def score(self, model: str, call: ScoreCall, /) -> ScoreAnswer:
        """Scores documents with a reranker."""
        ...

    async def score_many(
        self, model: str, calls: Sequence[ScoreCall], /
    ) -> Sequence[ScoreAnswer] | ScoreFailure:
        """Scores the documents of several queries; the first failure ends all."""
        ...

    async def embed(self, model: str, call: EmbedCall, /) -> EmbedAnswer:
        """Embeds texts."""
        ...

    async def search(self, call: SearchCall, /) -> SearchAnswer:
        """Searches the index."""
        ...

    async def snippets(self, call: SnippetCall, /) -> Sequence[Sequence[Passage]]:
        """Returns the passages of each text that match best."""
        ...

    async def check(self, model: str, /) -> None:
        """Raises if the model, or the index, does not work."""
        ...


class Metrics(Protocol):
    """Counters and gauges of the service."""

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts a request."""
        ...

    def computed(self, model: str, cost: Cost, documents: int) -> None:
        """Counts the cost of a scoring or an embedding."""
        ...

    def under_way(self, requests: int, tokens: int) -> None:
        """Sets the gauges of admitted work."""
        ...
