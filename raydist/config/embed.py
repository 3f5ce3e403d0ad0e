"""Configuration of `raydist embed`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from raydist.config.base import Block, Verb, execution
from raydist.data.spec import CorpusSource
from raydist.models.spec import EncoderSource
from raydist.spec import Bytes


class AnnConfig(Block):
    """An approximate FAISS index beside the vectors."""

    primary: ClassVar[str | None] = "kind"

    kind: Literal["none", "hnsw", "ivf_pq"] = "none"
    """`hnsw` is fast and keeps vectors in full, `ivf_pq` compresses them."""
    rows_per_part: int = Field(1 << 18, ge=1)
    """Rows that one FAISS index covers; parts are built beside each other."""
    links: int = Field(32, ge=2)
    """Neighbours of a node (hnsw)."""
    build_effort: int = Field(200, ge=1)
    """Candidates weighed when a node is linked (hnsw)."""
    search_effort: int = Field(128, ge=1)
    """Candidates weighed in a search (hnsw)."""
    lists: int = Field(0, ge=0)
    """Cells (ivf_pq); 0 is about four times the square root of the rows."""
    probes: int = Field(16, ge=1)
    """Cells looked into (ivf_pq)."""
    subvectors: int = Field(0, ge=0)
    """Bytes per vector (ivf_pq); 0 is an eighth of the dimension."""


class EmbedConfig(Verb):
    """Turns a corpus into vector shards."""

    corpus: CorpusSource
    """The documents."""
    model: EncoderSource
    """The bi-encoder."""
    out: str = Field(min_length=1)
    """The folder to write."""
    precision: Literal["float32", "float16", "int8", "binary"] = "float32"
    """How vectors are stored."""
    dimension: int = Field(0, ge=0)
    """Dimensions kept of each vector (a Matryoshka prefix); 0 keeps all."""
    ann: AnnConfig = AnnConfig()
    """An approximate index to build as well."""
    split_bytes: Bytes = 0
    """Size of a split of the corpus, the unit of restart; 0 goes by the corpus's size."""
    workers: int = execution(0, ge=0)
    """Ray actors; 0 works in this process, without Ray."""
    cpus_per_worker: float = execution(1.0, gt=0)
    """CPUs of an actor."""
    gpus_per_worker: float = execution(0.0, ge=0)
    """GPUs of an actor."""
    max_tokens: int = execution(0, ge=0)
    """Tokens of a batch, padding included; 0 goes by the device."""
