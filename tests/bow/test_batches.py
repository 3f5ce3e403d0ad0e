"""Batches of queries in one call of machine code: the same bits as the oracle's, query by query."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from raydist.bow.ahead import INDEX, SEARCH
from raydist.bow.index import BowIndex
from raydist.bow.search import threads as pools
from raydist.bow.search import workspace
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.search.ties import anserini_scores
from raydist.bow.spec import BowSearchSpec
from raydist.errors import DataError
from raydist.kernels.ahead import argument_types
from raydist.records import Query, Run
from raydist.text.analyzer import Analyzer
from tests.bow.small_index import index_of, lucene_scores

WORDS = [f"w{i}" for i in range(1500)]


@pytest.fixture(scope="module")
def documents() -> list[list[str]]:
    rng = np.random.default_rng(5)
    weights = 1 / np.arange(1, 61) ** 1.1
    common = [
        list(rng.choice(WORDS[:60], rng.integers(1, 9), p=weights / weights.sum()))
        for _ in range(700)
    ]
    return [*common, WORDS]


@pytest.fixture(scope="module", params=[True, False], ids=["packed", "raw"])
def index(
    request: pytest.FixtureRequest,
    documents: list[list[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> BowIndex:
    folder = tmp_path_factory.mktemp("index")
    cuts = [200, 201, 500]
    return index_of(documents, folder, cuts=cuts, compress=request.param, analyzer=Analyzer())


def queries(documents: list[list[str]]) -> list[Query]:
    texts = [" ".join(words[:4]) for words in documents[::20]]
    texts += ["", "unknown", "w0 w0 w1", " ".join(WORDS[:1000]), " ".join(WORDS), "w3"]
    return [Query(f"q{number}", text) for number, text in enumerate(texts)]


@pytest.fixture(scope="module")
def scores(documents: list[list[str]]) -> dict[str, dict[int, np.float32]]:
    """Lucene's scores of all documents by the queries' texts."""
    return {
        query.text: lucene_scores(documents, Counter(query.text.split()))
        for query in queries(documents)
    }


def expected(scores: dict[int, np.float32], k: int, ties: str) -> list[tuple[str, float]]:
    order = sorted(scores, key=lambda doc: (-scores[doc], doc if ties == "docid" else f"d{doc}"))
    best = np.array([scores[doc] for doc in order[:k]], np.float32)
    values = anserini_scores(best) if ties == "anserini" else best
    return list(zip([f"d{doc}" for doc in order[:k]], values.tolist()))


def answers(run: Run) -> dict[str, list[tuple[str, float]]]:
    return {query: list(zip(docs, scores.tolist())) for query, docs, scores in run}


@pytest.mark.parametrize("ties", ["docid", "external", "anserini"])
def test_batches_rank_as_lucene_does_whatever_the_ties_and_threads(
    documents: list[list[str]],
    scores: dict[str, dict[int, np.float32]],
    index: BowIndex,
    ties: str,
) -> None:
    batch = queries(documents)
    for threads, k in ((1, 7), (3, 7), (1, 2000)):
        search = BowSearchSpec(ties=ties, threads=threads)  # type: ignore[arg-type]
        found = answers(BowRetriever(index, search).search(batch, k))
        for query in batch:
            assert found.get(query.query_id, []) == expected(scores[query.text], k, ties)


def test_results_that_do_not_fit_continue_in_the_next_call(
    documents: list[list[str]], index: BowIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = queries(documents)
    for ties in ("docid", "external"):
        whole = answers(BowRetriever(index, BowSearchSpec(ties=ties)).search(batch, 3))  # type: ignore[arg-type]
        monkeypatch.setattr(pools, "_ROWS", 20)
        parts = answers(BowRetriever(index, BowSearchSpec(ties=ties)).search(batch, 3))  # type: ignore[arg-type]
        monkeypatch.undo()
        assert parts == whole


def test_memory_of_a_large_search_is_given_back(
    index: BowIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "_ROOM", 100)
    monkeypatch.setattr(workspace, "_KEPT", 0)
    retriever = BowRetriever(index)
    retriever.rank("w0", 700)
    large = retriever._thread.workspace
    retriever.rank("w0", 600)
    assert retriever._thread.workspace is large
    retriever.rank("w0", 3)
    assert retriever._thread.workspace is not large


def test_queries_of_one_id_are_refused(index: BowIndex) -> None:
    with pytest.raises(DataError, match="'q'"):
        BowRetriever(index).search([Query("q", "w0"), Query("r", "w1"), Query("q", "w2")], 3)


def test_kernels_that_are_compiled_ahead_are_those_that_are_called(tmp_path: Path) -> None:
    """A signature that nobody calls would be compiled for nothing."""
    import importlib

    import raydist as rd

    texts = tmp_path / "c.jsonl"
    texts.write_text('{"id": "a", "text": "cats running"}\n{"id": "b", "text": "dogs"}\n')
    rd.index(corpus=texts, out=tmp_path / "i")
    BowRetriever(BowIndex.open(tmp_path / "i")).search([Query("q", "cat"), Query("r", "dog")], 3)
    for name, signature in {**INDEX, **SEARCH}.items():
        file, function = name.split(":")
        called = getattr(importlib.import_module(file), function).signatures
        assert argument_types(signature) in called, name
