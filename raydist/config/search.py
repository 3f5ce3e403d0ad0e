"""Configuration of `raydist search`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from raydist.config.base import Block, Verb, execution
from raydist.data.spec import Paths, QueriesSource


class Bm25(Block):
    """BM25 and its variants; the default is Lucene's, to the last bit."""

    kind: Literal["bm25"] = "bm25"
    """The family of the formula."""
    variant: Literal["lucene", "robertson", "atire", "bm25+", "bm25l"] = "lucene"
    """Which formula; the names of Kamphuis et al. (2020)."""
    k1: float = Field(0.9, ge=0)
    """Saturation of the term frequency."""
    b: float = Field(0.4, ge=0, le=1)
    """Weight of the document's length."""
    delta: float = Field(1.0, ge=0)
    """Lower bound's shift (bm25+, bm25l)."""
    lengths: Literal["norm", "exact"] = "norm"
    """Document lengths as Lucene rounds them into a byte, or exact."""


class QueryLikelihood(Block):
    """Query likelihood with smoothing (Zhai and Lafferty, 2004)."""

    kind: Literal["ql"] = "ql"
    """The family of the formula."""
    smoothing: Literal["dirichlet", "jelinek-mercer"] = "dirichlet"
    """How unseen terms get probability."""
    mu: float = Field(1000.0, gt=0)
    """Dirichlet prior."""
    weight: float = Field(0.1, gt=0, lt=1)
    """Share of the collection (jelinek-mercer)."""
    lengths: Literal["norm", "exact"] = "norm"
    """Document lengths as Lucene rounds them into a byte, or exact."""


class Rrf(Block):
    """Reciprocal rank fusion (Cormack et al., 2009)."""

    kind: Literal["rrf"] = "rrf"
    """By ranks alone."""
    constant: int = Field(60, ge=0)
    """Added to each rank."""
    weights: tuple[float, ...] = ()
    """One per index; equal if empty."""


class Interpolate(Block):
    """A weighted sum of normalised scores."""

    kind: Literal["interpolate"] = "interpolate"
    """By scores."""
    normalise: Literal["minmax", "z", "none"] = "minmax"
    """How a query's scores are made comparable."""
    weights: tuple[float, ...] = ()
    """One per index; equal if empty."""


Scoring = Annotated[Bm25 | QueryLikelihood, Field(discriminator="kind")]
Fusion = Annotated[Rrf | Interpolate, Field(discriminator="kind")]


class SearchConfig(Verb):
    """Searches one index or several, fused, and writes a run."""

    primary: ClassVar[str | None] = None

    index: Paths = Field(min_length=1)
    """Folders that `index` or `embed` wrote; several are fused."""
    queries: QueriesSource | None = None
    """The queries; without them, a prompt asks for one after the other."""
    out: str | None = None
    """File of the run, TREC or `.parquet`; standard output if not given."""
    k: int = Field(1000, ge=1)
    """Documents per query; at the prompt, 10 if not given."""
    ids: str | None = None
    """Search only among the documents in this file (an id per line, `#` for comments)."""
    exclude_ids: str | None = None
    """Leave out the documents in this file."""
    scoring: Scoring = Bm25()
    """Formula of a bag-of-words index."""
    ties: Literal["docid", "external", "anserini"] = "docid"
    """Order of equal scores: input order, document id as text, or Anserini's rounded scores."""
    fusion: Fusion | None = None
    """How several indexes become one ranking."""
    depth: int = Field(0, ge=0)
    """Documents per query and index before fusion; 0 is `k`."""
    model: str | None = None
    """Where the encoder of the vectors lies now, if not where it was."""
    approximate: bool = False
    """Search the FAISS index that was built beside the vectors."""
    tag: str | None = Field(None, min_length=1, pattern=r"^\S+$")
    """Name of the run, its last column."""
    in_memory: bool = execution(False)
    """Read the index into memory instead of mapping it."""
    threads: int = execution(1, ge=1)
    """Threads that search queries beside each other."""
    workers: int = execution(0, ge=0)
    """Ray actors that share the queries; 0 searches in this process."""

    @model_validator(mode="after")
    def _several_are_fused(self) -> SearchConfig:
        if len(self.index) > 1 and self.fusion is None:
            raise ValueError("index names several folders: say fusion=rrf or fusion=interpolate")
        weights = self.fusion.weights if self.fusion is not None else ()
        if weights and len(weights) != len(self.index):
            raise ValueError(
                f"fusion.weights has {len(weights)} numbers for {len(self.index)} indexes"
            )
        return self
