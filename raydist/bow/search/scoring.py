"""The models of retrieval by name: the parts of terms and of the document in a score.

Formulas are in formulas.py; here they are applied to the statistics of an index and a query.

Legend: P postings of a term.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow import formulas
from raydist.bow.spec import Scoring as Formula
from raydist.errors import ConfigError

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Collection:
    """Statistics of all documents.

    Attributes:
        documents: how many have tokens.
        tokens: of all documents.
        average_length: as Lucene rounds it.
        unit: the weight that a frequency of 1 stands for, in an index of weighted terms.
    """

    documents: int
    tokens: int
    average_length: float
    unit: float = 1.0


@dataclass(frozen=True, slots=True)
class Term:
    """Statistics of a term: its weight in the query, df, and occurrences in the collection."""

    boost: float
    df: int
    occurrences: int = 0


@dataclass(frozen=True, slots=True)
class Scoring:
    """A model with its parameters; `impact` sums products of weights."""

    model: str
    k1: float = 0.9
    b: float = 0.4
    delta: float = 1.0
    mu: float = 1000.0
    weight: float = 0.1
    lengths: str = "norm"

    @classmethod
    def of(cls, formula: Formula, *, weighted: bool) -> Scoring:
        """Returns the model of a formula; an index of weighted terms has only `impact`."""
        model = formula.variant if formula.kind == "bm25" else formula.smoothing
        if weighted and model != "lucene":
            raise ConfigError(f"model = {model!r}: impact is for indexes of weighted terms, alone")
        values = asdict(formula)
        for name in ("kind", "variant", "smoothing"):
            values.pop(name, None)
        return cls("impact" if weighted else model, **values)

    @property
    def needs_occurrences(self) -> bool:
        """Whether the model needs how often a term occurs in the collection."""
        return self.model in ("dirichlet", "jelinek-mercer")

    def weight_of(self, term: Term, collection: Collection) -> float:
        """Returns the factor of a term's part: its boost and, in most models, its idf."""
        n, df = collection.documents, term.df
        if self.model == "lucene":
            return float(np.float32(term.boost) * formulas.lucene_idf(n, df))
        if self.model == "robertson":
            return term.boost * formulas.robertson_idf(n, df)
        if self.model in ("atire", "bm25l"):
            idf = formulas.atire_idf if self.model == "atire" else formulas.bm25l_idf
            return term.boost * idf(n, df)
        if self.model == "bm25+":
            return term.boost * formulas.plus_idf(n, df)
        return term.boost * collection.unit if self.model == "impact" else term.boost

    def parts(self, term: Term, collection: Collection, tf_P: Array, length_P: Array) -> Array:
        """Returns a term's parts of the scores of its documents, float64 [P].

        For `lucene` these are float32 values, to be summed in double.
        """
        weight, mean = self.weight_of(term, collection), collection.average_length
        tf_P = tf_P.astype(np.float64)
        if self.model == "lucene":
            inverse_P = formulas.lucene_inverse(length_P, self.k1, self.b, mean)
            return formulas.lucene_term(np.float32(weight), tf_P, inverse_P).astype(np.float64)
        if self.model in ("robertson", "atire", "bm25+"):
            part = formulas.bm25_saturation(tf_P, length_P, self.k1, self.b, mean)
            return weight * (part + self.delta if self.model == "bm25+" else part)
        if self.model == "bm25l":
            part = formulas.bm25l_saturation(tf_P, length_P, self.k1, self.b, mean, self.delta)
            return weight * part
        if self.model == "dirichlet":
            return weight * formulas.dirichlet_term(
                tf_P, term.occurrences, collection.tokens, self.mu
            )
        if self.model == "jelinek-mercer":
            return weight * formulas.jelinek_mercer_term(
                tf_P, length_P, term.occurrences, collection.tokens, self.weight
            )
        return weight * tf_P

    def constant(self, query_tokens: float, lengths: Array) -> Array | None:
        """Returns the part of matching documents' lengths alone, None if the model has none."""
        if self.model != "dirichlet":
            return None
        return query_tokens * formulas.dirichlet_length(lengths, self.mu)
