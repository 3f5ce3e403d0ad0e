"""What can be set of multi-vector indexes and their search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from raydist.spec import ADDED

Bits = Literal[1, 2, 4, 8]


@dataclass(frozen=True, slots=True, kw_only=True)
class LateSpec:
    """How a multi-vector index is built."""

    bits: Annotated[Bits | None, ADDED] = None
    """Multi-vector models: bits of a component of what a vector differs from its centroid; 4 if not
    given."""
    centroids: Annotated[int, Ge(0), ADDED] = 0
    """Multi-vector models: how many centroids; 0 chooses by the number of vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LateSearchSpec:
    """How a multi-vector index is searched."""

    probes: Annotated[int, Ge(1), ADDED] = 8
    """Multi-vector indexes: centroids that are looked into for each vector of a query."""
    candidates: Annotated[int, Ge(0), ADDED] = 0
    """Multi-vector indexes: documents whose scores are computed from all their vectors; 0 is four
    times `k`, 256 at least."""
    exact: Annotated[bool, ADDED] = False
    """Multi-vector indexes: score all documents, without candidates."""
