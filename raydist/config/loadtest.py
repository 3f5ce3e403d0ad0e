"""Configuration of `raydist load`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from raydist.config.base import Block
from raydist.config.tracking import Tracking
from raydist.data.spec import CorpusSource, QueriesSource


class LoadConfig(Block):
    """Measures a running service under a bounded load."""

    primary: ClassVar[str | None] = "url"

    url: str = Field("http://127.0.0.1:8000", pattern=r"^https?://")
    """Root of the service."""
    route: str = Field("/v1/rerank", pattern=r"^/")
    """Endpoint: /v1/rerank, or /v1/search."""
    rate: float = Field(0.0, ge=0, le=10_000)
    """Requests per second, sent when due; 0 sends with `clients`."""
    clients: int = Field(0, ge=0, le=1000)
    """Clients that send one request after the other; 4 if neither `rate` nor `clients` is set."""
    seconds: float = Field(10.0, gt=0, le=3600)
    """Seconds for which requests are sent."""
    documents: int = Field(20, ge=1, le=1000)
    """Documents of a rerank request."""
    words: int = Field(60, ge=1, le=2000)
    """Words of a generated document, on average."""
    corpus: CorpusSource | None = None
    """Draw documents from here (the first 10,000) instead of generating them."""
    queries: QueriesSource | None = None
    """Send these queries instead of generated ones."""
    timeout: float = Field(30.0, gt=0, le=600)
    """Seconds to wait for an answer."""
    most_in_flight: int = Field(512, ge=1, le=4096)
    """Most open requests; those that are due beyond count as refused."""
    key_env: str = "RAYDIST_API_KEY"
    """Environment variable that has the bearer key, if the service needs one."""
    seed: int = 0
    """Seed of the random documents."""
    tracking: Tracking = Tracking(uri="none")
    """Where to log the figures."""

    @model_validator(mode="after")
    def _one_way(self) -> LoadConfig:
        if self.rate and self.clients:
            raise ValueError("rate and clients exclude each other; give one")
        return self
