"""LlamaIndex's own calls on a retriever and a postprocessor of raydist."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core.schema import QueryBundle

import raydist as rd
from raydist.integrations.llamaindex import RaydistPostprocessor, RaydistRetriever

ENGLISH = {"kind": "bm25", "analyzer": "english"}
QUERY = "fish for herons"


def test_nodes_are_those_of_the_search_in_a_thread_too(index: rd.Index) -> None:
    retriever = RaydistRetriever(index.bm25(), k=2)
    nodes = retriever.retrieve(QUERY)
    hits = index.search(QUERY, k=2)
    assert [(n.node.node_id, n.node.text, n.score) for n in nodes] == [
        (hit.id, hit.text, hit.score) for hit in hits
    ]
    assert [n.node.metadata for n in nodes] == [{}, {"title": "Canals"}]
    assert asyncio.run(retriever.aretrieve(QueryBundle(QUERY))) == nodes


def test_a_postprocessor_orders_nodes_as_the_stage_does(index: rd.Index) -> None:
    nodes = RaydistRetriever(index).retrieve(QUERY)
    best = RaydistPostprocessor(reranker=ENGLISH).postprocess_nodes(nodes, query_str=QUERY)
    hits = (index.bm25() >> rd.rerank(ENGLISH)).search(QUERY)
    assert [n.node.node_id for n in best] == [hit.id for hit in hits]
    assert [n.score for n in best] == pytest.approx([hit.score for hit in hits])
    first = RaydistPostprocessor(reranker=rd.Reranker(ENGLISH), top_n=1)
    assert asyncio.run(first.apostprocess_nodes(nodes, QueryBundle(QUERY))) == best[:1]
    with pytest.raises(rd.ConfigError, match="give query_str="):
        first.postprocess_nodes(nodes)


def test_a_stage_without_texts_is_refused() -> None:
    class Fixed:
        def search(self, queries: object, k: int) -> rd.Run:
            raise AssertionError

    with pytest.raises(rd.ConfigError, match="Fixed: has no texts; give texts="):
        RaydistRetriever(Fixed())
