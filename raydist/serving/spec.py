"""What can be set of services beside their models: limits, replicas; and their load."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from raydist.data.spec import CorpusSource, QueriesSource
from raydist.spec import ADDED, Bytes

MAX_ENTRIES = 20_000
"""Entries of a list beyond which it is not even read, whatever the limits say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """RequestLimits of one request, and of all together."""

    max_body_bytes: Bytes = 16 << 20
    """Bytes of a request's body."""
    max_documents: Annotated[int, Ge(1), Le(MAX_ENTRIES)] = 2048
    """Documents of a request."""
    max_query_chars: Annotated[int, Ge(1)] = 32_768
    """Characters of a query."""
    max_text_chars: Annotated[int, Ge(1)] = 1_000_000
    """Characters of a document."""
    max_tokens: Annotated[int, Ge(1)] = 2_000_000
    """Estimated tokens of a request."""
    queue_tokens: Annotated[int, Ge(1)] = 500_000
    """Estimated tokens under way for each replica of a model; more is answered with 429."""
    max_requests: Annotated[int, Ge(1)] = 256
    """Requests under way for each replica of a model; more is answered with 429."""
    max_wait_s: Annotated[float, Gt(0)] = 10.0
    """Seconds that the work under way may take at the measured speed; more is answered with 429."""
    deadline_s: Annotated[float, Gt(0)] = 60.0
    """Seconds after which a request is answered with 504."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolLimits:
    """RequestLimits of what a language model may ask of a tool, and of what it is told."""

    max_query_chars: Annotated[int, Ge(1)] = 4096
    """Characters of a query."""
    max_results: Annotated[int, Ge(1), Le(1000)] = 50
    """Results of a search."""
    max_documents: Annotated[int, Ge(1), Le(1000)] = 50
    """Documents of a fetch or a rerank."""
    max_fetch_chars: Annotated[int, Ge(1000)] = 40_000
    """Characters of all documents that a fetch returns; what is left out is fetched next."""
    passage_chars: Annotated[int, Ge(20), Le(10_000)] = 300
    """Characters of a result's passage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """How many processes score, and what each needs."""

    primary: ClassVar[str] = "min"

    min: Annotated[int, Ge(1)] = 1
    """Replicas of each model."""
    max: Annotated[int, Ge(0)] = 0
    """Most replicas under load; 0 does not scale."""
    target_ongoing: Annotated[float, Gt(0)] = 4.0
    """Requests per replica that scaling aims at."""
    target_wait_s: Annotated[float, Gt(0), ADDED] = 1.0
    """Seconds that tokens may wait; scaling starts the replicas for that, if they are more."""
    upscale_delay_s: Annotated[float, Ge(0)] = 30.0
    """Seconds that more replicas must have been wanted before they are started."""
    downscale_delay_s: Annotated[float, Ge(0)] = 600.0
    """Seconds that fewer replicas must have sufficed before some are stopped."""
    look_back_s: Annotated[float, Gt(0)] = 30.0
    """Seconds over which the requests are averaged."""
    cpus: Annotated[float, Ge(0)] | None = None
    """CPUs of a replica, its threads; by default its share of this machine, one on a cluster."""
    gpus: Annotated[float, Ge(0)] = 0.0
    """GPUs of a replica of a model; BM25 and the index have none."""
    max_ongoing: Annotated[int, Ge(1)] = 64
    """Requests that a replica works on at once."""
    max_queued: Annotated[int, Ge(1)] = 128
    """Requests that wait for each replica; more is answered with 429."""
    ingresses: Annotated[int, Ge(1)] = 1
    """Processes that answer HTTP."""

    def __post_init__(self) -> None:
        if self.max and self.max < self.min:
            raise ValueError(f"replicas.max={self.max} is below replicas.min={self.min}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnReplicas:
    """What one model's replicas, or the index's, have of their own; the rest is `replicas`."""

    primary: ClassVar[str] = "min"

    min: Annotated[int, Ge(1)] | None = None
    """Its replicas."""
    max: Annotated[int, Ge(0)] | None = None
    """Most of them under load; 0 does not scale."""
    cpus: Annotated[float, Ge(0)] | None = None
    """CPUs of a replica, its threads."""
    gpus: Annotated[float, Ge(0)] | None = None
    """GPUs of a replica."""

    def of(self, replicas: Replicas) -> Replicas:
        """Returns `replicas` with what is set here."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(replicas, **{name: v for name, v in own.items() if v is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """The load that is put on a running service."""

    rate: Annotated[float, Ge(0), Le(10_000)] = 0.0
    """Requests per second, each sent when it is due; 0 sends with `clients`."""
    clients: Annotated[int, Ge(0), Le(1000)] = 0
    """Clients that send one request after the other; 4 if neither `rate` nor `clients` is set."""
    seconds: Annotated[float, Gt(0), Le(3600)] = 10.0
    """Seconds for which requests are sent."""
    documents: Annotated[int, Ge(1), Le(1000)] = 20
    """Documents in a rerank request."""
    words: Annotated[int, Ge(1), Le(2000)] = 60
    """Words in a generated document, on average."""
    long: Annotated[float, Ge(0), Le(1), ADDED] = 0.0
    """Share of the rerank requests of which one document has 900,000 characters."""
    corpus: CorpusSource | None = None
    """Draw documents from here (the first 10,000) instead of generating them."""
    queries: QueriesSource | None = None
    """Send these queries instead of generated ones."""
    timeout: Annotated[float, Gt(0), Le(600)] = 30.0
    """Seconds to wait for a response."""
    most_in_flight: Annotated[int, Ge(1), Le(4096)] = 512
    """Maximum of open requests; further ones that are due count as refused."""

    def __post_init__(self) -> None:
        if self.rate and self.clients:
            raise ValueError("give one of rate= and clients=")
