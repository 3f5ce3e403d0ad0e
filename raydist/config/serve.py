"""Configuration of `raydist serve`, of a Ray Serve application (its `args`), and `raydist load`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePath
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from raydist.bow.spec import Bm25, FieldWeights, Scoring
from raydist.config.base import Block, Flat, execution
from raydist.data.spec import Paths
from raydist.dense.spec import Fusion, Rrf
from raydist.evaluation.spec import Tracking
from raydist.models.spec import EncoderSource
from raydist.reranking.spec import Bm25Spec, ServedRerankerSpec
from raydist.serving.spec import LoadSpec, OwnReplicas, Replicas, RequestLimits
from raydist.spec import ADDED, Reads


class ServeConfig(Block):
    """Serves reranking, scoring, embeddings and search over HTTP."""

    reranker: ServedRerankerSpec | None = None
    """bm25, Qwen/Qwen3-Reranker-0.6B (or -4B, -8B), a model's folder, or models:/NAME@champion."""
    rerankers: dict[str, ServedRerankerSpec] = {}
    """Further rerankers, by the name that requests give as `model`."""
    embedder: EncoderSource | None = None
    """A bi-encoder for /v1/embeddings: a folder, a hub name, or models:/NAME@champion."""
    index: Annotated[Paths, Reads("output")] = ()
    """Folders that `index` or `embed` wrote, for /v1/search; their rankings are fused."""
    shards: int = execution(0, ge=0)
    """Groups of processes that share the segments and vectors of each index, so that none opens it
    whole; answers are the same. 0 opens it whole. For indexes of one text, and vectors."""
    scoring: Scoring = Bm25()
    """Formula for bag-of-words indexes."""
    fields: Annotated[FieldWeights | None, ADDED] = None
    """Weights of the fields of an index with fields; all fields with weight 1 if not given."""
    fusion: Fusion = Rrf()
    """How the rankings of several indexes become one."""
    name: str | None = Field(None, min_length=1)
    """The reranker's name in requests; default: `bm25`, or its folder's name."""
    host: str = Field("127.0.0.1", min_length=1)
    """Address to listen on; any but loopback needs keys."""
    port: int = Field(8000, ge=1, le=65535)
    """Port to listen on."""
    keys_file: str | None = None
    """File of bearer keys, one per line; RAYDIST_API_KEYS (comma-separated) adds to them."""
    anonymous: bool = False
    """Accept requests without keys although the address is not loopback."""
    cors: tuple[str, ...] = ()
    """Origins whose web pages may read answers, such as https://app.example.com; `*` for all."""
    access_log: str | None = None
    """File for one JSON line per request, without texts; default: Ray's log folder."""
    limits: RequestLimits = RequestLimits()
    """RequestLimits of requests."""
    replicas: Replicas = Replicas()
    """Processes that score, and their resources."""
    deployments: Annotated[dict[str, OwnReplicas], ADDED] = {}
    """Replicas and resources of single models by their names in requests, of the `index`, and of
    its `shards`."""
    reload_s: float = Field(60.0, ge=0)
    """Seconds between checks for a newer model in the folder or registry, and for a newer
    generation of the index; 0 never checks."""
    registry: str = "auto"
    """MLflow's URI, for models:/NAME@ALIAS; auto is MLFLOW_TRACKING_URI, else ./mlflow.db."""

    @model_validator(mode="after")
    def _consistent(self) -> ServeConfig:
        if not (self.reranker or self.rerankers or self.embedder or self.index):
            raise ValueError("nothing to serve: give reranker=, embedder= or index=")
        if self.shards and not self.index:
            raise ValueError("shards: an index is shared; give index=")
        names = [*self.models(), *self._of_index()]
        if len({*names}) < len(names):
            raise ValueError(f"a name occurs twice in {', '.join(names)}; set name=")
        for name in self.deployments:
            if name not in names:
                raise ValueError(f"deployments.{name}: expected one of {', '.join(names)}")
            self.replicas_of(name)
        if "shards" in self.deployments and self.deployments["shards"].max:
            raise ValueError("deployments.shards.max: their number is fixed; set min")
        return self

    @property
    def public_host(self) -> str | None:
        """The address, None where only this machine can connect."""
        local = self.host in ("localhost", "::1") or self.host.startswith("127.")
        return None if local else self.host

    def models(self) -> list[str]:
        """Returns the served models' names: rerankers first, the embedder last."""
        names = []
        if self.reranker is not None:
            names.append(self.name or _name(self.reranker))
        names += list(self.rerankers)
        if self.embedder is not None:
            names.append(_last(self.embedder.path))
        return names

    def all_replicas(self) -> dict[str, Replicas]:
        """Returns the replicas of each model, of the index, and of all its shards together."""
        names = [*self.models(), *self._of_index()]
        replicas = {name: self.replicas_of(name) for name in names}
        if self.shards:
            each = replicas["shards"]
            replicas["shards"] = replace(each, min=each.min * self.shards)
        return replicas

    def _of_index(self) -> list[str]:
        """Returns the names of what serves the index beside the models."""
        return ["index", *(["shards"] if self.shards else [])] if self.index else []

    def replicas_of(self, name: str) -> Replicas:
        """Returns the number and the resources of a model's replicas, the index's, or a shard's."""
        shared = self.replicas
        if name == "shards":
            shared = replace(shared, max=0)  # their number is fixed
        if name in self._of_index() or isinstance(self.scorers().get(name), Bm25Spec):
            shared = replace(shared, gpus=0.0)
        return self.deployments[name].of(shared) if name in self.deployments else shared

    def aliases(self) -> dict[str, str]:
        """Returns the names that models are served by, by their full names (such as the hub's)."""
        names: dict[str, str] = {}
        for name, each in self.scorers().items():
            if not isinstance(each, Bm25Spec):
                names[each.model] = name
        if self.embedder is not None:
            names[self.embedder.path] = self.models()[-1]
        return names

    def scorers(self) -> dict[str, ServedRerankerSpec]:
        """Returns the rerankers by name, the default first."""
        default = {} if self.reranker is None else {self.models()[0]: self.reranker}
        return {**default, **self.rerankers}


class LoadConfig(Block):
    """Measures a running service under a bounded load."""

    primary: ClassVar[str | None] = "url"

    url: str = Field("http://127.0.0.1:8000", pattern=r"^https?://")
    """Root of the service."""
    route: str = Field("/v1/rerank", pattern=r"^/")
    """Endpoint: /v1/rerank, or /v1/search."""
    load: Flat[LoadSpec]
    key_env: str = "RAYDIST_API_KEY"
    """Environment variable with the bearer key, if the service needs one."""
    seed: int = 0
    """Seed of the random documents."""
    tracking: Tracking = Tracking(uri="none")
    """Where the figures are logged."""


def _name(reranker: ServedRerankerSpec) -> str:
    return "bm25" if isinstance(reranker, Bm25Spec) else _last(reranker.model)


def _last(model: str) -> str:
    """Returns a model's name in requests: its folder's, or its name in the registry."""
    if model.startswith("models:/"):
        return model.removeprefix("models:/").partition("@")[0].partition("/")[0]
    name = PurePath(model).name
    return name if name not in ("", "..") else Path(model).resolve().name
