"""LlamaIndex: a pipeline as a retriever, a reranker as a node postprocessor.

from raydist.integrations.llamaindex import RaydistPostprocessor, RaydistRetriever

retriever = RaydistRetriever(index.bm25(), k=20)
nodes = retriever.retrieve("what causes rain?")
postprocessor = RaydistPostprocessor(reranker="Qwen/Qwen3-Reranker-0.6B", top_n=5)
best = postprocessor.postprocess_nodes(nodes, query_str="what causes rain?")
"""

from __future__ import annotations

import asyncio
from typing import Any

from raydist.errors import ConfigError
from raydist.integrations import needed
from raydist.integrations.ranking import TextSearch, order, reranker_of

with needed("llama-index-core"):
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode


class RaydistRetriever(BaseRetriever):  # type: ignore[misc]
    """The stages of a pipeline as a retriever; `aretrieve` searches in a thread.

    Its nodes have the document's id and text, and as metadata the title where there is one; scores
    are the stages' own, larger is better.

    >>> import raydist as rd
    >>> index = rd.index({"1": "A heron eats fish.", "2": "A boat."}, "idx")
    >>> [best] = RaydistRetriever(index, k=5).retrieve("herons")
    >>> best.node.node_id, best.node.text
    ('1', 'A heron eats fish.')

    Attributes:
        search: the stages and the texts.
        k: documents of a query.
    """

    def __init__(self, stage: Any, k: int = 10, *, texts: Any = None, **settings: Any) -> None:
        """Prepares the retriever.

        Args:
            stage: a pipeline, an index, vectors, or an object with `search(queries, k)`.
            k: documents of a query.
            texts: an index or a corpus, where the stage has no texts.
            settings: those of LlamaIndex: `callback_manager`, `verbose`.

        Raises:
            ConfigError: it is no stage, or there are no texts.
        """
        self.search = TextSearch(stage, texts)
        self.k = k
        super().__init__(**settings)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        nodes = []
        for hit in self.search.hits(query_bundle.query_str, self.k):
            metadata = {"title": hit.title} if hit.title else {}
            node = TextNode(id_=hit.id, text=hit.text, metadata=metadata)
            nodes.append(NodeWithScore(node=node, score=hit.score))
        return nodes

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


class RaydistPostprocessor(BaseNodePostprocessor):  # type: ignore[misc]
    """A reranker as a node postprocessor: orders nodes by its scores, and keeps the first.

    A title in a node's metadata comes before its text, as in an index.

    >>> from llama_index.core.schema import NodeWithScore, TextNode
    >>> texts = ["a boat", "a heron eats", "a canal"]
    >>> nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
    >>> postprocessor = RaydistPostprocessor(reranker="bm25", top_n=1)
    >>> [best] = postprocessor.postprocess_nodes(nodes, query_str="heron")
    >>> best.node.text
    'a heron eats'

    Attributes:
        reranker: an `rd.Reranker`, or what it is made of: `bm25`, a model's folder or hub name.
        top_n: nodes to keep; all if None.

    Raises:
        ValueError: there is no such reranker.
    """

    reranker: Any
    top_n: int | None = None

    def model_post_init(self, context: Any) -> None:
        """Loads the reranker."""
        super().model_post_init(context)
        self.reranker = reranker_of(self.reranker)

    @classmethod
    def class_name(cls) -> str:
        """Returns the name that LlamaIndex shows."""
        return "RaydistPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ConfigError("postprocess_nodes: give query_str=, the text that nodes are for")
        texts = [(str(n.node.metadata.get("title") or ""), n.node.get_content()) for n in nodes]
        ranked = order(self.reranker, query_bundle.query_str, texts, self.top_n)
        return [NodeWithScore(node=nodes[place].node, score=score) for place, score in ranked]
