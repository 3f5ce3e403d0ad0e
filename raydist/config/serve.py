"""Configuration of `raydist serve`, and the `args` of a Ray Serve application."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import ClassVar

from pydantic import Field, model_validator

from raydist.config.base import Block, Bytes
from raydist.config.model import EncoderSource
from raydist.config.reranker import Bm25Reranking, ServedRerankerConfig
from raydist.config.search import Bm25, Fusion, Rrf, Scoring
from raydist.data.spec import Paths
from raydist.serving.limits import MOST_ENTRIES


class LimitsConfig(Block):
    """What one request, and all together, may ask for."""

    max_body_bytes: Bytes = 16 << 20
    """Bytes of a request's body."""
    max_documents: int = Field(2048, ge=1, le=MOST_ENTRIES)
    """Documents of a request."""
    max_query_chars: int = Field(32_768, ge=1)
    """Characters of a query."""
    max_text_chars: int = Field(1_000_000, ge=1)
    """Characters of a document."""
    max_tokens: int = Field(2_000_000, ge=1)
    """Estimated tokens of a request."""
    queue_tokens: int = Field(500_000, ge=1)
    """Estimated tokens under way in one ingress; more is answered with 429."""
    max_requests: int = Field(256, ge=1)
    """Requests under way in one ingress; more is answered with 429."""
    max_wait_s: float = Field(10.0, gt=0)
    """Seconds that the work under way may take at the measured speed; more is answered with 429."""
    deadline_s: float = Field(60.0, gt=0)
    """Seconds after which a request is given up with 504."""


class ReplicasConfig(Block):
    """How many processes score, and what each needs."""

    primary: ClassVar[str | None] = "min"

    min: int = Field(1, ge=1)
    """Replicas of each model."""
    max: int = Field(0, ge=0)
    """Most replicas under load; 0 does not scale."""
    target_ongoing: float = Field(4.0, gt=0)
    """Requests per replica that scaling aims at."""
    upscale_delay_s: float = Field(30.0, ge=0)
    """Seconds that more replicas must have been wanted before they are started."""
    downscale_delay_s: float = Field(600.0, ge=0)
    """Seconds that fewer replicas must have sufficed before some are stopped."""
    look_back_s: float = Field(30.0, gt=0)
    """Seconds over which the requests are averaged."""
    cpus: float = Field(1.0, ge=0)
    """CPUs of a replica; its threads."""
    gpus: float = Field(0.0, ge=0)
    """GPUs of a replica."""
    max_ongoing: int = Field(64, ge=1)
    """Requests that a replica works on at once."""
    max_queued: int = Field(128, ge=1)
    """Requests that wait for a replica; more is answered with 429."""
    ingresses: int = Field(1, ge=1)
    """Processes that answer HTTP."""

    @model_validator(mode="after")
    def _order(self) -> ReplicasConfig:
        if self.max and self.max < self.min:
            raise ValueError(f"replicas.max={self.max} is below replicas.min={self.min}")
        return self


class ServeConfig(Block):
    """Serves reranking, scoring, embeddings and search over HTTP."""

    reranker: ServedRerankerConfig | None = None
    """bm25, Qwen/Qwen3-Reranker-0.6B (or -4B, -8B), a model's folder, or models:/NAME@champion."""
    rerankers: dict[str, ServedRerankerConfig] = {}
    """Further rerankers by the name that requests give as `model`."""
    embedder: EncoderSource | None = None
    """A bi-encoder for /v1/embeddings: a folder, a hub name, or models:/NAME@champion."""
    index: Paths = ()
    """Folders that `index` or `embed` wrote, for /v1/search; several are fused."""
    scoring: Scoring = Bm25()
    """Formula of a bag-of-words index."""
    fusion: Fusion = Rrf()
    """How several indexes become one ranking."""
    name: str | None = Field(None, min_length=1)
    """The reranker's name in requests; `bm25` or its folder's name if not given."""
    host: str = Field("127.0.0.1", min_length=1)
    """Address to listen on; anything but loopback needs keys."""
    port: int = Field(8000, ge=1, le=65535)
    """Port to listen on."""
    keys_file: str | None = None
    """File of bearer keys, one per line; RAYDIST_API_KEYS (comma-separated) counts as well."""
    anonymous: bool = False
    """Let requests in without keys although the address is not loopback."""
    access_log: str | None = None
    """File for one JSON line per request, without texts; Ray's log folder if not given."""
    limits: LimitsConfig = LimitsConfig()
    """What requests may ask for."""
    replicas: ReplicasConfig = ReplicasConfig()
    """How many processes score."""
    reload_s: float = Field(60.0, ge=0)
    """Seconds between looks for a newer model in the same folder or registry; 0 never looks."""
    registry: str = "auto"
    """MLflow's URI, for models:/NAME@ALIAS; auto is MLFLOW_TRACKING_URI, else ./mlflow.db."""

    @model_validator(mode="after")
    def _something(self) -> ServeConfig:
        if not (self.reranker or self.rerankers or self.embedder or self.index):
            raise ValueError("nothing to serve: give reranker=, embedder= or index=")
        names = [*self.models(), *(["index"] if self.index else [])]
        if len({*names}) < len(names):
            raise ValueError(f"two of the same name in {', '.join(names)}; set name=")
        return self

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def models(self) -> list[str]:
        """Returns the served models' names: rerankers first, the embedder last."""
        names = []
        if self.reranker is not None:
            names.append(self.name or _name(self.reranker))
        names += list(self.rerankers)
        if self.embedder is not None:
            names.append(_last(self.embedder.path))
        return names

    def aliases(self) -> dict[str, str]:
        """Returns the models' full names, such as the hub's, with the names they are served by."""
        placed: dict[str, str] = {}
        for name, each in self.scorers().items():
            if not isinstance(each, Bm25Reranking):
                placed[each.model] = name
        if self.embedder is not None:
            placed[self.embedder.path] = self.models()[-1]
        return placed

    def scorers(self) -> dict[str, ServedRerankerConfig]:
        """Returns the rerankers by name, the default first."""
        first = {} if self.reranker is None else {self.models()[0]: self.reranker}
        return {**first, **self.rerankers}


def _name(reranker: ServedRerankerConfig) -> str:
    return "bm25" if isinstance(reranker, Bm25Reranking) else _last(reranker.model)


def _last(model: str) -> str:
    """Returns how requests call a model: its folder's name, or its name in the registry."""
    if model.startswith("models:/"):
        return model.removeprefix("models:/").partition("@")[0].partition("/")[0]
    name = PurePath(model).name
    return name if name not in ("", "..") else Path(model).resolve().name
