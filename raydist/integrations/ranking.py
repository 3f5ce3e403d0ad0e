"""What neighbours that show texts to people and language models have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raydist.api.hits import Hits
from raydist.api.inputs import texts_of
from raydist.api.stages import pipeline_of
from raydist.errors import ConfigError
from raydist.integrations import expect

if TYPE_CHECKING:
    from raydist.api.models import Reranker
    from raydist.api.stages import Pipeline
    from raydist.protocols import TextStore


class TextSearch:
    """A search whose results have texts.

    >>> import raydist as rd
    >>> index = rd.index({"1": "A heron eats fish.", "2": "A boat."}, "idx")
    >>> TextSearch(index).hits("herons", k=5)[0].text
    'A heron eats fish.'

    Attributes:
        pipeline: the stages.
        texts: the documents by id.
    """

    def __init__(self, stage: Any, texts: Any = None) -> None:
        """Prepares the search.

        Args:
            stage: a pipeline, an index, vectors, or an object with `search(queries, k)`.
            texts: an index or a corpus that has the documents' texts; those of the stage if None.

        Raises:
            ConfigError: it is no stage, or there are no texts.
        """
        self.pipeline: Pipeline = pipeline_of(stage)
        store = self.pipeline.texts if texts is None else texts_of(texts)[0]
        if store is None:
            raise ConfigError(f"{self.pipeline!r}: has no texts; give texts=, an index or a corpus")
        self.texts: TextStore = store

    def hits(self, query: str, k: int) -> Hits:
        """Returns the best `k` documents of a text, whatever it reads like.

        Raises:
            ConfigError: `k` is less than 1.
        """
        from raydist.records import Query

        if k < 1:
            raise ConfigError(f"k = {k}: expected 1 or more")
        run = self.pipeline.run([Query("query", query)], k).table
        return Hits.of(query, run["doc_id"].to_pylist(), run["score"].to_pylist(), self.texts)


def reranker_of(value: Any) -> Reranker:
    """Returns a reranker itself, or the loaded one of a name or mapping, as `rd.Reranker` takes it.

    >>> reranker_of("bm25")
    Reranker('bm25')

    Raises:
        ConfigError: it is none of them.
    """
    from raydist.api.models import Reranker

    kinds = (Reranker, str, os.PathLike, Mapping)
    expect(value, kinds, "an rd.Reranker, or what it is made of: a name, a folder or a mapping")
    return value if isinstance(value, Reranker) else Reranker(value)


def order(
    reranker: Reranker, query: str, documents: Sequence[tuple[str, str]], top: int | None
) -> list[tuple[int, float]]:
    """Returns the places and scores of `(title, text)` documents, best first; ties keep theirs.

    >>> documents = [("", "a boat"), ("", "a heron"), ("", "a canal")]
    >>> order(reranker_of("bm25"), "heron", documents, top=1)[0][0]
    1

    Raises:
        ConfigError: `top` is less than 1.
    """
    if top is not None and top < 1:
        raise ConfigError(f"top_n = {top}: expected 1 or more, or None for all")
    texts = [f"{title}\n{text}" if title else text for title, text in documents]
    ranked = [(int(hit.id), hit.score) for hit in reranker.rank(query, texts)]
    return ranked if top is None else ranked[:top]
