"""LangChain's own calls on a retriever and a compressor of raydist."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField

import raydist as rd
from raydist.integrations.langchain import RaydistCompressor, RaydistRetriever

ENGLISH = {"kind": "bm25", "analyzer": "english"}


def test_documents_are_those_of_the_search(index: rd.Index) -> None:
    retriever = RaydistRetriever(stage=index.bm25(), k=2)
    hits = index.search("fish for herons", k=2)
    documents = retriever.invoke("fish for herons")
    assert [d.id for d in documents] == [hit.id for hit in hits] == ["d1", "d2"]
    assert [d.page_content for d in documents] == [hit.text for hit in hits]
    assert documents[0].metadata == {"rank": 1, "score": hits[0].score}
    assert documents[1].metadata["title"] == "Canals"
    assert retriever.invoke("nothing of it") == []


@pytest.mark.parametrize("number", [0, -1])
def test_numbers_below_one_are_refused(index: rd.Index, number: int) -> None:
    with pytest.raises(rd.ConfigError, match=f"k = {number}: expected 1 or more"):
        RaydistRetriever(stage=index, k=number).invoke("fish")
    documents = [Document("a boat"), Document("a heron")]
    with pytest.raises(rd.ConfigError, match=f"top_n = {number}: expected 1 or more"):
        RaydistCompressor(reranker=ENGLISH, top_n=number).compress_documents(documents, "fish")


def test_searches_run_beside_other_tasks(index: rd.Index) -> None:
    retriever = RaydistRetriever(stage=index, k=3)
    queries = ["fish", "boats", "kingfisher"]
    expected = [retriever.invoke(query) for query in queries]
    assert asyncio.run(retriever.abatch(queries)) == expected == retriever.batch(queries)
    assert asyncio.run(retriever.ainvoke("fish")) == expected[0]


def test_a_retriever_is_part_of_a_chain_and_its_k_can_be_configured(index: rd.Index) -> None:
    chain = RaydistRetriever(stage=index) | (lambda documents: [d.id for d in documents])
    assert chain.invoke("boats") == ["d2"]
    free = RaydistRetriever(stage=index).configurable_fields(k=ConfigurableField(id="k"))
    assert len(free.invoke("fish", config={"configurable": {"k": 1}})) == 1
    assert len(free.invoke("fish")) == 3


def test_a_query_is_a_text_even_if_a_file_has_its_name(
    index: rd.Index, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("folder"))
    with open("boats", "w", encoding="utf-8"):
        pass
    assert [d.id for d in RaydistRetriever(stage=index).invoke("boats")] == ["d2"]


def test_a_stage_without_texts_takes_those_of_another(index: rd.Index) -> None:
    class Fixed:
        def search(self, queries: object, k: int) -> rd.Run:
            return rd.Run.from_lists([("query", ["d3"], [1.0])])

    [document] = RaydistRetriever(stage=Fixed(), texts=index).invoke("any")
    assert document.page_content == "It dives for fish."
    with pytest.raises(ValueError, match="Fixed: has no texts; give texts="):
        RaydistRetriever(stage=Fixed())
    with pytest.raises(ValueError, match="expected an index, vectors, a pipeline"):
        RaydistRetriever(stage=3)


def test_a_compressor_orders_documents_as_the_stage_does(index: rd.Index) -> None:
    query = "fish for herons"
    documents = RaydistRetriever(stage=index).invoke(query)
    best = RaydistCompressor(reranker=ENGLISH).compress_documents(documents, query)
    hits = (index.bm25() >> rd.rerank(ENGLISH)).search(query)
    assert [d.id for d in best] == [hit.id for hit in hits]
    scores = [d.metadata["relevance_score"] for d in best]
    assert scores == pytest.approx([hit.score for hit in hits])
    assert all("relevance_score" not in d.metadata for d in documents)
    first = RaydistCompressor(reranker=rd.Reranker(ENGLISH), top_n=1)
    assert asyncio.run(first.acompress_documents(documents, query)) == best[:1]
    assert first.compress_documents([], query) == []
    assert first.compress_documents([Document("alone")], query)[0].id is None
