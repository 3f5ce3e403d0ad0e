"""What can be set of pseudo-relevance feedback; the defaults are Anserini's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le


@dataclass(frozen=True, slots=True, kw_only=True)
class Rm3:
    """The relevance model RM3 (Abdul-Jaleel et al., TREC 2004)."""

    kind: Literal["rm3"] = "rm3"
    docs: Annotated[int, Ge(1)] = 10
    """Documents of the first ranking that are taken for relevant."""
    terms: Annotated[int, Ge(1)] = 10
    """Terms that are taken of each of them, and of all together."""
    weight: Annotated[float, Ge(0), Le(1)] = 0.5
    """Weight of the query itself; the rest is the new terms'."""
    filter: bool = True
    """Take only terms of the letters a to z and digits; false takes those of other scripts, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rocchio:
    """Rocchio's mean of documents' vectors (in: The SMART Retrieval System, 1971)."""

    kind: Literal["rocchio"] = "rocchio"
    docs: Annotated[int, Ge(1)] = 10
    """Documents of the first ranking that are taken for relevant."""
    terms: Annotated[int, Ge(1)] = 10
    """Terms that are taken of their mean."""
    alpha: Annotated[float, Ge(0)] = 1.0
    """Weight of the query itself."""
    beta: Annotated[float, Ge(0)] = 0.75
    """Weight of the relevant documents."""
    negative: bool = False
    """Take the last documents of the first ranking for not relevant."""
    gamma: Annotated[float, Ge(0)] = 0.15
    """Weight of those that are not relevant, which is subtracted."""
    negative_docs: Annotated[int, Ge(1)] = 10
    """How many documents are not relevant."""
    negative_terms: Annotated[int, Ge(1)] = 10
    """Terms that are taken of their mean."""
    depth: Annotated[int, Ge(1)] = 50
    """Documents of the first ranking whose last ones are not relevant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bm25Prf:
    """Terms by their offer weight, ranked without idf (Robertson and Sparck Jones, 1994)."""

    kind: Literal["bm25prf"] = "bm25prf"
    docs: Annotated[int, Ge(1)] = 10
    """Documents of the first ranking that are taken for relevant."""
    terms: Annotated[int, Ge(1)] = 20
    """Terms that are added to the query."""
    weight: Annotated[float, Gt(0)] = 0.2
    """Weight of a new term, compared with one of the query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axiom:
    """Axiomatic expansion by mutual information (Fang and Zhai, SIGIR 2006)."""

    kind: Literal["axiom"] = "axiom"
    docs: Annotated[int, Ge(1)] = 20
    """Documents of the first ranking that are taken."""
    pool: Annotated[int, Ge(1)] = 30
    """So many times as many documents are looked at, the others drawn from the index."""
    terms: Annotated[int, Ge(1)] = 20
    """Terms of the new query, the query's own ones among them."""
    beta: Annotated[float, Gt(0)] = 0.4
    """Weight of a new term, compared with one of the query."""
    seed: int = 42
    """Of the documents that are drawn."""


Feedback = Rm3 | Rocchio | Bm25Prf | Axiom
