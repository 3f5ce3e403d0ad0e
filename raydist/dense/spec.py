"""What can be set of embedding, search and fusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, MinLen

from raydist.models.spec import EncoderPlace
from raydist.spec import ADDED, EXECUTION, Bytes, Formerly


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnSpec:
    """An approximate FAISS index beside the vectors."""

    primary: ClassVar[str] = "kind"

    kind: Literal["none", "hnsw", "ivf_pq"] = "none"
    """`hnsw` is fast and keeps vectors in full, `ivf_pq` compresses them."""
    rows_per_part: Annotated[int, Ge(1)] = 1 << 18
    """Rows that one FAISS index covers; parts are built beside each other."""
    precision: Annotated[Literal["float32", "int8"], ADDED] = "float32"
    """What hnsw keeps of each vector; int8 takes a quarter of the memory, and is searched faster
    where memory is slow. Results are scored by the vectors themselves."""
    links: Annotated[int, Ge(2)] = 32
    """Neighbours of a node (hnsw)."""
    build_effort: Annotated[int, Ge(1)] = 200
    """Candidates weighed when a node is linked (hnsw)."""
    search_effort: Annotated[int, Ge(1)] = 128
    """Candidates weighed in a search (hnsw)."""
    lists: Annotated[int, Ge(0)] = 0
    """Cells (ivf_pq); 0 is about four times the square root of the rows."""
    probes: Annotated[int, Ge(1)] = 16
    """Cells looked into (ivf_pq)."""
    subvectors: Annotated[int, Ge(0)] = 0
    """Bytes per vector (ivf_pq); 0 is an eighth of the dimension."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSpec:
    """Long documents as passages, each with a vector of its own."""

    primary: ClassVar[str] = "tokens"

    tokens: Annotated[int, Ge(0)] = 0
    """Tokens of a passage at most, its document's title included; 0 embeds documents whole."""
    overlap: Annotated[int, Ge(0)] = 0
    """Tokens that a passage shares with the one before."""

    def __post_init__(self) -> None:
        if 0 < self.tokens < 16:
            raise ValueError(f"tokens = {self.tokens}: expected 16 or more, or 0")
        if self.overlap > self.tokens // 2:
            raise ValueError(f"overlap = {self.overlap}: expected at most half of tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingSpec:
    """How a corpus is embedded."""

    precision: Literal["float32", "float16", "bfloat16", "int8", "binary"] = "float32"
    """How vectors are stored."""
    rescore_precision: Annotated[
        Literal["none", "float32", "float16", "bfloat16", "int8"], ADDED
    ] = "none"
    """A finer form that is stored beside: searches take the best by `precision`, and score those
    by this."""
    dimension: Annotated[int, Ge(0)] = 0
    """Dimensions to keep of each vector (a Matryoshka prefix); 0 keeps all."""
    chunk: Annotated[ChunkSpec, ADDED] = ChunkSpec()
    """Passages of long documents, which get the ids `DOCUMENT#0`, `DOCUMENT#1`, and so on."""
    ann: AnnSpec = AnnSpec()
    """An approximate index to build beside the vectors."""
    duplicates: Annotated[Literal["error", "first", "last", "warn"], EXECUTION] = "error"
    """Documents of one id: an error, or the first or the last of them stays; warn is first with a
    warning. With --append, `last` replaces the documents that the folder has."""
    auto_merge: Annotated[bool, EXECUTION] = True
    """Merge the last segments after --append where there are more than ten of them."""
    unit: Annotated[float, Gt(0), ADDED] = 0.01
    """For models that weigh terms: the smallest weight that counts; others are rounded to multiples
    of it."""
    reorder: Annotated[bool, ADDED] = False
    """For models that weigh terms: put similar documents side by side in the postings, which get
    smaller, and searches faster; results stay the same."""
    split_bytes: Bytes = 0
    """Size of a split of the corpus, the unit of restart; 0 chooses by the size of the corpus."""
    workers: Annotated[int, Ge(0), EXECUTION] = 0
    """Ray actors; 0 works in this process, without Ray."""
    cpus_per_worker: Annotated[float, Gt(0), EXECUTION] = 1.0
    """CPUs of an actor."""
    gpus_per_worker: Annotated[float, Ge(0), EXECUTION] = 0.0
    """GPUs of an actor."""
    max_tokens: Annotated[int, Ge(0), EXECUTION] = 0
    """Tokens in a batch, padding included; 0 chooses by the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSearchSpec:
    """How vectors are searched."""

    model: EncoderPlace | None = None
    """The encoder of the vectors, if it was moved, or to load it in another way."""
    approximate: bool = False
    """Search the FAISS index beside the vectors."""
    rescore_depth: Annotated[int, Ge(1), ADDED] = 4
    """Candidates per result that are scored by the finer form, where vectors have one."""
    memory: Annotated[Bytes, EXECUTION] = 1 << 30
    """Memory for the results of queries that share one pass over the vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByDocument:
    """A ranking of documents by their passages."""

    primary: ClassVar[str] = "kind"

    kind: Literal["document"] = "document"
    """Documents have the scores of their best passages."""
    passages: Annotated[int, Ge(1)] = 1
    """How many: a score is the mean of the best so many that a document has; 1 is MaxP."""
    delimiter: Annotated[str, MinLen(1)] = "#"
    """What is between a document's id and a passage's number in the ids of an index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rrf:
    """Reciprocal rank fusion (Cormack et al., 2009)."""

    kind: Literal["rrf"] = "rrf"
    """By ranks alone."""
    constant: Annotated[int, Ge(0)] = 60
    """Added to each rank."""
    weights: tuple[float, ...] = ()
    """One per index; equal if empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpolate:
    """A weighted sum of normalized scores."""

    kind: Literal["interpolate"] = "interpolate"
    """By scores."""
    normalize: Annotated[Literal["minmax", "z", "none"], Formerly("normalise")] = "minmax"
    """How a query's scores are made comparable."""
    weights: tuple[float, ...] = ()
    """One per index; equal if empty."""


Fusion = Rrf | Interpolate
