"""Configuration of `raydist benchmark`: collections, systems, and how they are measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from raydist.bow.spec import BowSearchSpec, IndexSpec
from raydist.config.base import Block, Flat, Verb, execution, resolved
from raydist.config.embed import EmbedConfig
from raydist.config.index import IndexConfig
from raydist.config.load import load
from raydist.config.rerank import RerankConfig
from raydist.config.search import SearchConfig
from raydist.data.collection import SPLIT, find_collection
from raydist.data.files import is_uri
from raydist.data.spec import CorpusSource, QrelsSource, QueriesSource
from raydist.dense.spec import DenseSearchSpec, EmbeddingSpec, Fusion
from raydist.errors import ConfigError
from raydist.evaluation.spec import Statistics, Tracking
from raydist.evaluation.suite import AVERAGE
from raydist.models.spec import EncoderSource
from raydist.reranking.spec import RerankerSpec, Reranking
from raydist.spec import Reads

_NAME = re.compile(r"\w[\w+-]*")


class Collection(Block):
    """Documents, queries and judgements."""

    primary: ClassVar[str | None] = "path"

    path: Annotated[str | None, Reads()] = Field(None, min_length=1)
    """A folder with all three, as BEIR's, `irds:ID` or `docstrings:`; the parts below take the
    place of its own."""
    split: str = Field(SPLIT, min_length=1)
    """Split of `path` whose judgements count."""
    corpus: CorpusSource | None = None
    """The documents; those of systems that are runs are not read."""
    queries: QueriesSource | None = None
    """The queries; those that are judged are searched."""
    qrels: QrelsSource | None = None
    """The judgements."""
    exclude_own: bool = False
    """A query is no document for itself: leaves out the document with the query's id (ArguAna)."""

    @model_validator(mode="after")
    def _complete(self) -> Collection:
        parts = {"queries": self.queries, "qrels": self.qrels}
        missing = [name for name, source in parts.items() if source is None]
        if missing and self.path is None:
            raise ValueError(f"{', '.join(missing)}: required, or path=, a folder that has them")
        return self

    def sources(self) -> tuple[CorpusSource | None, QueriesSource, QrelsSource]:
        """Returns where documents, queries and judgements are.

        Raises:
            DataError: the folder has not all of them.
        """
        if self.path is None:
            assert self.queries is not None and self.qrels is not None
            return self.corpus, self.queries, self.qrels
        parts = find_collection(self.path, self.split)
        return (
            self.corpus or parts.corpus,
            self.queries or parts.queries,
            self.qrels or parts.qrels,
        )


class IndexStep(Block):
    """A bag-of-words index of the documents: the keys of `raydist index`."""

    indexing: Flat[IndexSpec]


class EmbedStep(Block):
    """Vectors of the documents: the keys of `raydist embed`."""

    model: EncoderSource
    """The bi-encoder."""
    embedding: Flat[EmbeddingSpec]


class SearchStep(Block):
    """How index and vectors are searched: the keys of `raydist search`."""

    k: int = Field(1000, ge=1)
    """Documents per query."""
    bow: Flat[BowSearchSpec]
    fusion: Fusion | None = None
    """How index and vectors become one ranking."""
    depth: int = Field(0, ge=0)
    """Documents per query, of the index and of the vectors, before fusion; 0 is `k`."""
    dense: Flat[DenseSearchSpec]
    workers: int = execution(0, ge=0)
    """Ray actors that share the queries; 0 searches in this process."""


class RerankStep(Block):
    """What reorders the ranking: the keys of `raydist rerank`."""

    primary: ClassVar[str | None] = "reranker"

    reranker: RerankerSpec
    """bm25, Qwen/Qwen3-Reranker-0.6B (or -4B, -8B), or a model's folder."""
    reranking: Flat[Reranking]


class System(Block):
    """What turns queries into rankings: an index, vectors or both, a search, a reranker."""

    index: IndexStep | None = None
    """A bag-of-words index; every system has one that has neither vectors nor a run."""
    embed: EmbedStep | None = None
    """Vectors; beside an index, `search.fusion` says how both are fused."""
    search: SearchStep = SearchStep.model_validate({})
    """How they are searched."""
    rerank: RerankStep | None = None
    """What reorders the ranking."""
    run: str | None = Field(None, min_length=1)
    """Instead of all that: the file of a run that another program made; `{collection}` in it is the
    collection's name."""

    @model_validator(mode="after")
    def _run_or_steps(self) -> System:
        steps = {"index": self.index, "embed": self.embed, "rerank": self.rerank}
        names = [name for name, step in steps.items() if step is not None]
        names += ["search"] if self.search != SearchStep.model_validate({}) else []
        if self.run is not None and names:
            raise ValueError(f"run: a run has no {', '.join(names)}; leave one of them out")
        if self.run is None:
            places = ["index"] * len(self.builds())
            search_config(self, places, "queries", "run.parquet")
        return self

    def builds(self) -> dict[str, IndexStep | EmbedStep]:
        """Returns what is searched, by the verb that builds it."""
        if self.run is not None:
            return {}
        steps: dict[str, IndexStep | EmbedStep | None] = {"index": self.index, "embed": self.embed}
        if self.index is None and self.embed is None:
            return {"index": IndexStep.model_validate({})}
        return {verb: step for verb, step in steps.items() if step is not None}


class BenchmarkConfig(Verb):
    """Runs systems on collections and compares them."""

    collections: dict[str, Collection] = Field(min_length=1)
    """Name -> a collection."""
    systems: dict[str, System] = Field(min_length=1)
    """Name -> a system."""
    measures: list[str] = Field(["nDCG@10", "AP", "R@1000"], min_length=1)
    """Measures, by their names in ir-measures or trec_eval (`map`)."""
    baseline: str | None = None
    """The system that the others are tested against; the first one if not given."""
    ties: Literal["score", "rank"] = "score"
    """Order of equal scores: by document id, descending, as in trec_eval; or the run's."""
    statistics: Flat[Statistics]
    workers: int = execution(0, ge=0)
    """Ray actors of each step that does not say its own; 0 works in this process."""
    out: str = Field(min_length=1)
    """The folder to write."""
    tracking: Tracking = Tracking()
    """MLflow: a run for the whole, and one below it for each system on each collection."""

    @model_validator(mode="after")
    def _consistent(self) -> BenchmarkConfig:
        from raydist.evaluation.measures import parse

        parse(self.measures)
        for key in ("collections", "systems"):
            for name in getattr(self, key):
                if not _NAME.fullmatch(name):
                    raise ValueError(
                        f"{key}.{name}: expected letters and digits, with `_`, `+` or `-` between "
                        "them: it names a folder, and is part of a key"
                    )
        if any(is_uri(place) for place in (self.out, self.storage or "")):
            raise ValueError(
                f"out = {self.out}: cells read what others have built; give a path that every node "
                "sees, and copy the folder afterwards"
            )
        builds = [name for name, system in self.systems.items() if system.run is None]
        for name, each in self.collections.items():
            if builds and each.corpus is None and each.path is None:
                raise ValueError(f"collections.{name}.corpus: required by systems.{builds[0]}")
        if AVERAGE in self.collections:
            raise ValueError(f"collections.{AVERAGE}: the table's own word; give another name")
        if self.baseline is not None and self.baseline not in self.systems:
            raise ValueError(
                f"baseline = {self.baseline!r}: no such system; there are {', '.join(self.systems)}"
            )
        return self


def build_config(
    verb: str, step: IndexStep | EmbedStep, corpus: CorpusSource, out: str, workers: int
) -> IndexConfig | EmbedConfig:
    """Returns the configuration that builds what a system searches."""
    model: type[IndexConfig | EmbedConfig] = IndexConfig if verb == "index" else EmbedConfig
    fixed = {"corpus": resolved(corpus), "out": out}
    return load(model, [{"workers": workers, **_set(step), **fixed}])


def search_config(
    system: System, index: list[str], queries: Any, out: str, workers: int = 0
) -> SearchConfig:
    """Returns the configuration of a system's search.

    Raises:
        ConfigError: several indexes and no fusion, or the other way round.
    """
    if len(index) < 2 and system.search.fusion is not None:
        raise ConfigError("search.fusion: needs two rankings; give both index and embed")
    if len(index) > 1 and system.search.fusion is None:
        raise ConfigError("search.fusion: required, rrf or interpolate: index and vectors are two")
    fixed = {"index": index, "queries": queries, "out": out}
    return load(SearchConfig, [{"workers": workers, **_set(system.search), **fixed}])


def rerank_config(
    step: RerankStep, run: str, queries: Any, corpus: CorpusSource, out: str, workers: int
) -> RerankConfig:
    """Returns the configuration of a system's reranking."""
    fixed = {"run": run, "queries": queries, "corpus": resolved(corpus), "out": out}
    return load(RerankConfig, [{"workers": workers, **_set(step), **fixed}])


def _set(step: Block) -> Mapping[str, Any]:
    """Returns what was set of a step, as a file holds it."""
    fields = type(step).model_fields.items()
    return {
        f.alias or n: resolved(getattr(step, n)) for n, f in fields if n in step.model_fields_set
    }
