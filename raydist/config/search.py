"""Configuration of `raydist search`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from raydist.bow.spec import BowSearchSpec
from raydist.config.base import Flat, Verb, execution
from raydist.data.spec import Paths, SearchQueries
from raydist.dense.spec import ByDocument, DenseSearchSpec, Fusion
from raydist.late.spec import LateSearchSpec
from raydist.spec import ADDED, Reads


class SearchConfig(Verb):
    """Searches one index or several, fused, and writes a run."""

    primary: ClassVar[str | None] = None

    index: Annotated[Paths, Reads("output")] = Field(min_length=1)
    """Folders that `index` or `embed` wrote; several are fused."""
    queries: SearchQueries | None = None
    """The queries; without them and `query`, a prompt asks for one after the other."""
    query: Annotated[str | None, ADDED] = Field(None, min_length=1)
    """One query's text, whose documents are shown; with `out`, its run is written."""
    explain: bool = execution(False)
    """With `query`: show what each term adds to a document's score."""
    out: str | None = None
    """File of the run: `.parquet`, `.csv`, `.tsv`, `.jsonl` (with texts), else TREC lines; standard
    output if not given."""
    k: int = Field(1000, ge=1)
    """Documents per query; 10 if not given where they are shown."""
    ids: Annotated[str | None, Reads()] = None
    """Search only the documents in this file (an id per line, `#` for comments)."""
    exclude_ids: Annotated[str | None, Reads()] = None
    """Leave out the documents in this file."""
    by: Annotated[ByDocument | None, ADDED] = None
    """`document` ranks the documents of passages: of vectors that were embedded with `chunk`, or,
    where no index is of those, of all that have ids such as `DOC#3`."""
    bow: Flat[BowSearchSpec]
    fusion: Fusion | None = None
    """How several indexes become one ranking."""
    depth: int = Field(0, ge=0)
    """Documents per query and index before fusion; 0 is `k`."""
    dense: Flat[DenseSearchSpec]
    late: Flat[LateSearchSpec]
    tag: str | None = Field(None, min_length=1, pattern=r"^\S+$")
    """Name of the run, its last column."""
    workers: int = execution(0, ge=0)
    """Ray actors that share the queries; 0 searches in this process."""
    shards: int = execution(0, ge=0)
    """Ray actors that share the segments of each index, so that none opens it whole; the run is the
    same. 0 opens it whole. For indexes of one text, and vectors."""

    @model_validator(mode="after")
    def _one_or_many(self) -> SearchConfig:
        if self.query is not None and self.queries is not None:
            raise ValueError("query is one text, and queries names files of many: give one of them")
        if self.explain and (self.query is None or self.out is not None):
            remedy = "leave out= away" if self.query is not None else "give query="
            raise ValueError(f"explain shows why one query's documents are ranked: {remedy}")
        return self

    @model_validator(mode="after")
    def _queries_or_documents_are_shared(self) -> SearchConfig:
        if self.shards and self.workers:
            raise ValueError("workers share the queries and shards the documents: give one of them")
        return self

    @model_validator(mode="after")
    def _several_are_fused(self) -> SearchConfig:
        if len(self.index) > 1 and self.fusion is None:
            raise ValueError("index names several folders: give fusion=rrf or fusion=interpolate")
        weights = self.fusion.weights if self.fusion is not None else ()
        if weights and len(weights) != len(self.index):
            raise ValueError(
                f"fusion.weights has {len(weights)} numbers for {len(self.index)} indexes"
            )
        if len(self.index) > 1 and self.bow.sort is not None:
            raise ValueError("sort: orders the documents of one index; index names several")
        return self
