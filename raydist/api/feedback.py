"""Feedback behind a search: queries that are expanded by the documents that they find first.

index.bm25() >> rd.rm3() >> rd.rerank("cross-encoder/ms-marco-MiniLM-L6-v2", depth=50)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raydist.api.stages import Pipeline, pipeline_of
from raydist.errors import ConfigError

if TYPE_CHECKING:
    from raydist.bow.feedback.spec import Feedback


class Expansion:
    """A feedback model; `pipeline >> expansion` searches again with the expanded queries."""

    def __init__(self, kind: str, **keys: Any) -> None:
        from raydist.config.load import load
        from raydist.config.search import SearchConfig

        config = load(SearchConfig, [{"index": ["-"], "feedback": {"kind": kind, **keys}}])
        feedback = config.bow.feedback
        assert feedback is not None
        self.feedback: Feedback = feedback

    def __rrshift__(self, retriever: Any) -> Pipeline:
        pipeline = pipeline_of(retriever)
        expanded = getattr(pipeline.source, "expanded", None)
        source = None if pipeline.steps or expanded is None else expanded(self)
        if source is None:
            raise ConfigError(
                f"{self!r}: expected the search of an index before it: index.bm25() >> {self!r}"
            )
        return Pipeline(source)

    def __repr__(self) -> str:
        from raydist.config.base import short

        keys: dict[str, Any] = short(self.feedback)
        return f"{keys.pop('kind')}({', '.join(f'{key}={value!r}' for key, value in keys.items())})"


def rm3(docs: int = 10, terms: int = 10, *, weight: float = 0.5, filter: bool = True) -> Expansion:
    """Returns RM3, a relevance model interpolated with the query, as Anserini computes it.

    >>> import raydist as rd
    >>> corpus = {"a": "a heron eats fish", "b": "herons hunt fish", "c": "fish in a canal"}
    >>> corpus |= {str(i): f"word{i}" for i in range(30)}
    >>> pipe = rd.index(corpus, "idx").bm25() >> rd.rm3(docs=2)
    >>> pipe
    bm25('idx') >> rm3(docs=2)
    >>> [hit.id for hit in pipe.search("heron")]
    ['a', 'b', 'c']

    Args:
        docs: documents of the first ranking that are taken for relevant.
        terms: terms that are taken of each of them, and of all together.
        weight: of the query itself, 0 to 1; the rest is the new terms'.
        filter: take only terms of the letters a to z and digits.

    Raises:
        ConfigError: a value is out of bounds.
    """
    return Expansion("rm3", docs=docs, terms=terms, weight=weight, filter=filter)


def rocchio(
    docs: int = 10,
    terms: int = 10,
    *,
    alpha: float = 1.0,
    beta: float = 0.75,
    negative: bool = False,
    **keys: Any,
) -> Expansion:
    """Returns Rocchio's feedback as Anserini computes it.

    >>> import raydist as rd
    >>> index = rd.index({"a": "a heron eats fish", "b": "a boat"}, "idx")
    >>> index.bm25() >> rd.rocchio(docs=5, negative=True)
    bm25('idx') >> rocchio(docs=5, negative=True)

    Args:
        docs: documents of the first ranking that are taken for relevant.
        terms: terms that are taken of their mean.
        alpha: weight of the query itself.
        beta: weight of the relevant documents.
        negative: take the last documents of the first ranking for not relevant.
        keys: the other keys of `search feedback.…`: `gamma`, `negative_docs`, `negative_terms`,
            `depth`.

    Raises:
        ConfigError: a value is out of bounds.
    """
    options = {"alpha": alpha, "beta": beta, "negative": negative, **keys}
    return Expansion("rocchio", docs=docs, terms=terms, **options)


def bm25prf(docs: int = 10, terms: int = 20, *, weight: float = 0.2) -> Expansion:
    """Returns BM25's feedback, by offer weights, as Anserini computes it.

    >>> import raydist as rd
    >>> index = rd.index({"a": "a heron eats fish", "b": "a boat"}, "idx")
    >>> index.bm25() >> rd.bm25prf(terms=10, weight=0.5)
    bm25('idx') >> bm25prf(terms=10, weight=0.5)

    Args:
        docs: documents of the first ranking that are taken for relevant.
        terms: terms that are added to the query.
        weight: of a new term, compared with one of the query.

    Raises:
        ConfigError: a value is out of bounds.
    """
    return Expansion("bm25prf", docs=docs, terms=terms, weight=weight)


def axiom(
    docs: int = 20, terms: int = 20, *, pool: int = 30, beta: float = 0.4, seed: int = 42
) -> Expansion:
    """Returns axiomatic expansion, by mutual information, as Anserini computes it.

    >>> import raydist as rd
    >>> index = rd.index({"a": "a heron eats fish", "b": "a boat"}, "idx")
    >>> index.bm25() >> rd.axiom(docs=10, seed=7)
    bm25('idx') >> axiom(docs=10, seed=7)

    Args:
        docs: documents of the first ranking that are taken.
        terms: terms of the new query, the query's own ones among them.
        pool: so many times as many documents are looked at, the others drawn from the index.
        beta: weight of a new term, compared with one of the query.
        seed: of the documents that are drawn.

    Raises:
        ConfigError: a value is out of bounds.
    """
    return Expansion("axiom", docs=docs, terms=terms, pool=pool, beta=beta, seed=seed)
