"""The models of retrieval by name: the parts of terms and of the document in a score.

Formulas are in formulas.py and impacts.py; here they are applied to the statistics of an index and
a query.

Legend: P postings of a term.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow import formulas
from raydist.bow.search import impacts
from raydist.bow.spec import Bm25
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


_IDFS = {
    "robertson": formulas.robertson_idf,
    "atire": formulas.atire_idf,
    "bm25+": formulas.plus_idf,
    "bm25l": formulas.bm25l_idf,
}


@dataclass(frozen=True, slots=True)
class Scoring:
    """A formula applied to a collection; `impact` sums products of weights.

    Attributes:
        model: its name.
        formula: its parameters.
        collection: the statistics.
        idf: without it a term's weight in Lucene's BM25 is its boost alone.
    """

    model: str
    formula: Formula
    collection: Collection
    idf: bool = True

    @classmethod
    def of(cls, formula: Formula, collection: Collection, *, weighted: bool) -> Scoring:
        """Returns the model of a formula; an index of weighted terms has only `impact`."""
        model: str = formula.kind
        if formula.kind == "bm25f":
            raise ConfigError("scoring.kind = bm25f: for an index built with fields=title,text")
        if formula.kind == "bm25":
            model = formula.variant
        elif formula.kind == "ql":
            model = formula.smoothing
        if weighted and model != "lucene":
            raise ConfigError(f"model = {model!r}: impact is for indexes of weighted terms, alone")
        return cls("impact" if weighted else model, formula, collection)

    @property
    def lengths(self) -> str:
        """Which lengths of documents it takes: norm, exact or byte."""
        return getattr(self.formula, "lengths", "norm")

    @property
    def is_lucenes(self) -> bool:
        """Whether it is Lucene's BM25, which has a table of its own."""
        return self.model == "lucene" and self.lengths == "norm"

    @property
    def is_pruned(self) -> bool:
        """Whether the kernel of pruned search takes it."""
        return self.model != "impact"

    @property
    def has_constant(self) -> bool:
        """Whether a document has a part of its own, beside those of its terms."""
        return self.model == "dirichlet"

    @property
    def needs_occurrences(self) -> bool:
        """Whether the model needs how often a term occurs in the collection."""
        return self.model in ("dirichlet", "jelinek-mercer", "qld", "qljm")

    def boosted(self, term: Term, query_tokens: float) -> Term:
        """Returns a term with its weight in a query of so many tokens."""
        if not (isinstance(self.formula, Bm25) and self.formula.query_side):
            return term
        if self.model == "impact" or not term.df:
            return term
        collection, k1, b = self.collection, self.formula.k1, self.formula.b
        boost = formulas.query_side_boost(
            term.boost, query_tokens, collection.documents, term.df, collection.tokens, k1, b
        )
        return replace(term, boost=boost)

    def weight_of(self, term: Term) -> float:
        """Returns the factor of a term's part: its boost and, in most models, its idf."""
        if self.model == "lucene":
            idf = formulas.lucene_idf(self.collection.documents, term.df) if self.idf else 1
            return float(np.float32(term.boost) * idf)
        if self.model in _IDFS:
            return term.boost * _IDFS[self.model](self.collection.documents, term.df)
        if self.model == "impact":
            return term.boost * self.collection.unit
        return term.boost if self.formula.kind == "ql" else float(np.float32(term.boost))

    def idf_of(self, term: Term) -> float | None:
        """Returns what the model makes of a term's df, None where no factor is an idf."""
        n, df = self.collection.documents, term.df
        if self.model == "lucene":
            return float(formulas.lucene_idf(n, df)) if self.idf else None
        if self.model in _IDFS:
            return float(_IDFS[self.model](n, df))
        return self.statistic_of(term) if self.model in ("f2exp", "f2log") else None

    def statistic_of(self, term: Term) -> float:
        """Returns what else the model takes of a term, see impacts.py."""
        n, tokens, df, occurrences = (
            self.collection.documents,
            self.collection.tokens,
            term.df,
            term.occurrences,
        )
        if self.formula.kind == "ql":
            prior = self.formula.mu if self.model == "dirichlet" else 1
            return prior * occurrences / tokens
        if self.model in ("qld", "qljm"):
            return formulas.collection_share(occurrences, tokens)
        if self.model == "inl2":
            return formulas.inverse_document_information(n, df)
        if self.model == "spl":
            return formulas.document_share(n, df)
        if self.model == "f2exp":
            return formulas.f2exp_idf(n, df)
        return formulas.plus_idf(n, df) if self.model == "f2log" else 0.0

    def model_array(self) -> Array:
        """Returns the model as impacts.py takes it."""
        kind, constants = self._constants()
        lengths = np.arange(256) if self.lengths == "byte" else formulas.NORM_LENGTHS
        array = np.zeros(impacts.LENGTHS + len(lengths) + 1, np.float64)
        array[0] = kind
        array[impacts.CONSTANTS : impacts.CONSTANTS + len(constants)] = constants
        array[impacts.LENGTHS : -1] = lengths
        array[-1] = 2.0**32
        return array

    def _constants(self) -> tuple[int, list[float]]:
        formula, mean = self.formula, self.collection.average_length
        exact_mean = self.collection.tokens / max(self.collection.documents, 1)
        if self.model == "impact":
            return impacts.IMPACT, []
        if formula.kind == "bm25":
            k1, b = np.float32(formula.k1), np.float32(formula.b)
            if self.is_lucenes:
                return impacts.LUCENE, []
            if self.model == "lucene":
                slope = k1 * b / max(np.float32(1e-10), np.float32(mean))
                return impacts.ACCURATE, [float(k1 * (np.float32(1) - b)), float(slope)]
            shift = formula.delta if self.model in ("bm25+", "bm25l") else 0.0
            kind = impacts.BM25L if self.model == "bm25l" else impacts.SATURATION
            return kind, [formula.k1, formula.b, mean, shift]
        if formula.kind == "ql":
            if self.model == "dirichlet":
                return impacts.DIRICHLET, [formula.mu]
            return impacts.JELINEK_MERCER, [(1 - formula.weight) / formula.weight]
        if formula.kind == "qld":
            return impacts.QLD, [float(np.float32(formula.mu))]
        if formula.kind == "qljm":
            share = np.float32(formula.weight)
            return impacts.QLJM, [float(np.float32(1) - share), float(share)]
        if formula.kind == "inl2" or formula.kind == "spl":
            kind = impacts.INL2 if formula.kind == "inl2" else impacts.SPL
            return kind, [float(np.float32(formula.c)), exact_mean]
        assert formula.kind != "bm25f"
        return impacts.F2, [float(np.float32(formula.s)), exact_mean]

    def parts(self, term: Term, tf_P: Array, length_P: Array) -> Array:
        """Returns a term's parts of the scores of its documents, float64 [P].

        Where Lucene rounds them these are float32 values, to be summed in double.
        """
        weight = self.weight_of(term)
        if self.is_lucenes:
            assert self.formula.kind == "bm25"
            k1, b, mean = self.formula.k1, self.formula.b, self.collection.average_length
            inverse_P = formulas.lucene_inverse(length_P, k1, b, mean)
            return formulas.lucene_term(np.float32(weight), tf_P, inverse_P).astype(np.float64)
        part_P = np.empty(len(tf_P), np.float64)
        tf_P, length_P = tf_P.astype(np.float64), length_P.astype(np.float64)
        statistic = self.statistic_of(term)
        impacts.parts_of(self.model_array(), weight, statistic, tf_P, length_P, part_P)
        return part_P

    def add_constants(self, query_tokens: float, length_N: Array, score_N: Array) -> None:
        """Adds to documents' scores what depends on their lengths alone."""
        if self.has_constant:
            length_N = length_N.astype(np.float64)
            impacts.constants_of(self.model_array(), float(query_tokens), length_N, score_N)
