"""What can be set of approximate search and of fusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnSpec:
    """An approximate FAISS index beside the vectors."""

    primary: ClassVar[str] = "kind"

    kind: Literal["none", "hnsw", "ivf_pq"] = "none"
    """`hnsw` is fast and keeps vectors in full, `ivf_pq` compresses them."""
    rows_per_part: Annotated[int, Ge(1)] = 1 << 18
    """Rows that one FAISS index covers; parts are built beside each other."""
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
    """A weighted sum of normalised scores."""

    kind: Literal["interpolate"] = "interpolate"
    """By scores."""
    normalise: Literal["minmax", "z", "none"] = "minmax"
    """How a query's scores are made comparable."""
    weights: tuple[float, ...] = ()
    """One per index; equal if empty."""


Fusion = Rrf | Interpolate
