"""/v1/search over folders that `index` and `embed` wrote, opened as a replica opens them."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from raydist.bow.spec import BowSearchSpec
from raydist.build import open_retriever
from raydist.cli import main
from raydist.config.load import load
from raydist.config.serve import ServeConfig
from raydist.dense.fusion import fuse
from raydist.records import Query
from raydist.reranking.bm25 import BM25Reranker
from raydist.serving.backend import SearchAnswer, SearchCall
from raydist.serving.replicas import Index
from tests.serving.local import assert_envelope, client

CORPUS = {
    "a": "the index of a query",
    "b": "the vector of a document",
    "c": "a passage, a query, a query",
}
OTHER = {"x": "a query and its answer", "y": "retrieval"}


@pytest.fixture(scope="module")
def config(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> ServeConfig:
    folder = tmp_path_factory.mktemp("served")
    for name, texts in (("corpus", CORPUS), ("other", OTHER)):
        rows = [{"id": each, "title": "", "text": text} for each, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert main(["index", f"corpus={folder / name}.jsonl", f"out={folder / name}"]) == 0
    words = [f"model={tiny_bert}", f"corpus={folder / 'corpus.jsonl'}", f"out={folder / 'vec'}"]
    assert main(["embed", *words]) == 0
    served = ",".join(str(folder / name) for name in ("vec", "corpus", "other"))
    return load(ServeConfig, (), [f"index={served}", "reranker=bm25", "name=bm25"])


def test_search_is_the_librarys_at_every_stage(config: ServeConfig) -> None:
    index = Index(config)
    asyncio.run(index.check())
    queries = [Query("q", "a query")]
    retrievers = [
        open_retriever(each, BowSearchSpec(scoring=config.scoring)) for each in config.index
    ]
    runs = [each.search(queries, 100) for each in retrievers]
    names = ("vec", "corpus", "other")
    stages = dict(zip(names, runs)) | {"fusion": fuse(runs, 100, config.fusion)}
    expected: dict[str, dict[str, float]] = {}
    for name, run in stages.items():
        for _, doc_ids, values in run:
            for doc_id, value in zip(doc_ids, values.tolist()):
                expected.setdefault(doc_id, {})[name] = value
    order = [doc_id for _, doc_ids, _ in stages["fusion"] for doc_id in doc_ids]
    assert {"a", "b", "c", "x"} <= {*order}
    texts = CORPUS | OTHER
    again = BM25Reranker().score([("a query", [texts[each] for each in order])])[0]
    for doc_id, value in zip(order, again):
        expected[doc_id]["rerank"] = value

    serving = client(searcher=index.searcher)
    answer = serving.post("/v1/search", json={"query": "a query", "k": 100}).json()
    assert {r["id"]: r["scores"] for r in answer["results"]} == {
        doc_id: pytest.approx(scores, abs=1e-6) for doc_id, scores in expected.items()
    }
    best = sorted(order, key=lambda doc_id: -expected[doc_id]["rerank"])
    assert [r["id"] for r in answer["results"]] == best
    assert {r["id"]: r["text"] for r in answer["results"]} == {each: texts[each] for each in order}
    assert set(answer["timings_ms"]) == {*names, "fusion", "texts", "rerank"}
    assert answer["warnings"] == []


def test_a_filter_reaches_every_index(config: ServeConfig) -> None:
    serving = client(searcher=Index(config).searcher)
    body = {"query": "a query", "ids": ["b", "x", "nowhere"]}
    answer = serving.post("/v1/search", json=body).json()["results"]
    assert {r["id"] for r in answer} == {"b", "x"}


def test_a_filter_by_columns_is_part_of_a_request(config: ServeConfig, tmp_path: Path) -> None:
    rows = [{"id": f"d{i}", "text": "a query", "year": 2018 + i} for i in range(4)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [f"corpus={tmp_path / 'c.jsonl'}", "corpus.columns=year", f"out={tmp_path / 'idx'}"]
    assert main(["index", *words]) == 0
    alone = config.model_copy(update={"index": (str(tmp_path / "idx"),)})
    serving = client(searcher=Index(alone).searcher)
    body = {"query": "query", "filter": "year >= 2020"}
    for _ in range(2):
        found = serving.post("/v1/search", json=body).json()["results"]
        assert {each["id"] for each in found} == {"d2", "d3"}
    found = serving.post("/v1/search", json=body | {"ids": ["d1", "d2"]}).json()["results"]
    assert [each["id"] for each in found] == ["d2"]
    for wrong in ("yeer > 1", "", "year > 1 " * 2000):
        assert_envelope(serving.post("/v1/search", json=body | {"filter": wrong}), 422)
    vectors = client(searcher=Index(config).searcher)
    refused = vectors.post("/v1/search", json=body)
    assert_envelope(refused, 422)
    assert "the index has no columns" in refused.text


def test_vectors_alone_have_no_texts_so_nothing_is_reranked(config: ServeConfig) -> None:
    alone = config.model_copy(update={"index": config.index[:1]})
    serving = client(searcher=Index(alone).searcher)
    answer = serving.post("/v1/search", json={"query": "a query"}).json()
    assert len(answer["results"]) == 3
    assert all(list(r["scores"]) == ["vec"] and "text" not in r for r in answer["results"])
    assert answer["warnings"] == ["3 of 3 hits were not reranked: no served index has their texts"]
    assert_envelope(serving.post("/v1/search", json={"query": ""} | {"k": 0}), 422)


def test_health_does_not_wait_behind_searches(config: ServeConfig) -> None:
    index = Index(config)
    started, ends = threading.Event(), threading.Event()
    search = index.searcher.search

    def slow(call: SearchCall) -> SearchAnswer:
        if call.depth > 1:  # not the health check's
            started.set()
            assert ends.wait(30)
        return search(call)

    index.searcher.search = slow  # type: ignore[method-assign]

    async def ask() -> list[SearchAnswer]:
        call = SearchCall("a query", 3)
        searches = [asyncio.create_task(index.search(call)) for _ in range(50)]
        assert await asyncio.to_thread(started.wait, 30)
        async with asyncio.timeout(30):
            await index.check_health()
        ends.set()
        return await asyncio.gather(*searches)

    assert all(answer.hits for answer in asyncio.run(ask()))
