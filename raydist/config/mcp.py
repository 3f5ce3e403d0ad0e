"""Configuration of `raydist mcp`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from raydist.bow.spec import Bm25, FieldWeights, Scoring
from raydist.config.base import Block
from raydist.data.spec import Paths
from raydist.dense.spec import Fusion, Rrf
from raydist.reranking.spec import RerankerSpec
from raydist.serving.spec import ToolLimits
from raydist.spec import ADDED, Reads


class McpConfig(Block):
    """Gives language models tools that search an index."""

    primary: ClassVar[str | None] = "index"

    index: Annotated[Paths, Reads("output")] = Field(min_length=1)
    """Folders that `index` or `embed` wrote; their rankings are fused."""
    about: str = Field("", max_length=2000)
    """What the documents are, such as "the handbook of ACME"; by it a model decides to search."""
    reranker: RerankerSpec | None = None
    """bm25, Qwen/Qwen3-Reranker-0.6B (or -4B, -8B), or a model's folder: adds the tool `rerank`."""
    scoring: Scoring = Bm25()
    """Formula for bag-of-words indexes."""
    fields: Annotated[FieldWeights | None, ADDED] = None
    """Weights of the fields of an index with fields; all fields with weight 1 if not given."""
    fusion: Fusion = Rrf()
    """How the rankings of several indexes become one."""
    port: int | None = Field(None, ge=1, le=65535)
    """Answer over HTTP at http://127.0.0.1:PORT/mcp; standard input and output if not given."""
    keys_file: str | None = None
    """File of bearer keys for HTTP, one per line; RAYDIST_API_KEYS adds to them."""
    limits: ToolLimits = ToolLimits()
    """Limits of arguments and answers."""
