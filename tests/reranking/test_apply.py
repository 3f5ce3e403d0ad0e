from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.errors import ConfigError, DataError
from raydist.records import Document, Query, Run
from raydist.reranking.apply import Missing, rerank
from raydist.reranking.bm25 import BM25Reranker


class Lengths:
    """Scores a document by its length, whatever the query."""

    def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        return [[float(len(text)) for text in texts] for _, texts in batch]


@st.composite
def runs(draw: st.DrawFn) -> tuple[Run, dict[str, str]]:
    texts = {f"d{i}": "x" * draw(st.integers(0, 4)) for i in range(8)}
    lists = []
    for number in range(draw(st.integers(0, 5))):
        ids = draw(st.lists(st.sampled_from([*texts, "absent"]), unique=True, max_size=6))
        if ids:
            lists.append((f"q{number}", ids, np.linspace(5, 1, len(ids), dtype=np.float32)))
    return Run.from_lists(lists), texts


@settings(max_examples=200, deadline=None)
@given(case=runs(), missing=st.sampled_from(["drop", "keep"]), batch=st.integers(1, 3))
def test_reranking_is_a_stable_permutation_and_leaves_its_input_alone(
    case: tuple[Run, dict[str, str]], missing: Missing, batch: int
) -> None:
    run, texts = case
    before = run.table.to_pylist()
    queries = [Query(q, "?") for q in run.query_ids]
    after = rerank(run, Lengths(), texts, queries, missing=missing, batch_queries=batch)
    assert run.table.to_pylist() == before
    ranked = {query: docs for query, docs, _ in after}
    for query, docs, _ in run:
        known = [doc for doc in docs if doc in texts]
        wanted = sorted(known, key=lambda doc: -len(texts[doc]))
        if missing == "keep":
            wanted += [doc for doc in docs if doc not in texts]
        assert ranked.get(query, []) == wanted


def test_kept_documents_stay_below_the_scored_in_their_old_order() -> None:
    run = Run.from_lists([("q", ["n1", "a", "n2", "b"], [4, 3, 2, 1])])
    after = rerank(run, Lengths(), {"a": "x", "b": "xx"}, {"q": "?"}, missing="keep")
    (_, docs, scores) = next(iter(after))
    assert docs == ["b", "a", "n1", "n2"]
    assert (np.diff(scores) < 0).all()


def test_depth_reranks_and_keeps_the_first_documents() -> None:
    run = Run.from_lists([("q", ["a", "b", "c"], [3, 2, 1])])
    texts = {"a": "x", "b": "xx", "c": "xxx"}
    after = rerank(run, Lengths(), texts, {"q": "?"}, depth=2)
    assert [docs for _, docs, _ in after] == [["b", "a"]]


def test_a_missing_document_is_an_error_that_says_what_to_do() -> None:
    run = Run.from_lists([("q", ["a"], [1])])
    with pytest.raises(DataError, match=r"document 'a' has no text.*missing=drop"):
        rerank(run, Lengths(), {}, {"q": "?"})
    with pytest.raises(DataError, match="query 'q' is in the run"):
        rerank(run, Lengths(), {"a": ""}, {})


def test_titles_count_as_text() -> None:
    class Store:
        def get(self, doc_ids: Sequence[str]) -> list[Document | None]:
            return [Document(doc_id, "heart", title="A") for doc_id in doc_ids]

    seen: list[str] = []

    class Spy(Lengths):
        def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
            seen.extend(text for _, texts in batch for text in texts)
            return super().score(batch)

    rerank(Run.from_lists([("q", ["a"], [1])]), Spy(), Store(), {"q": "?"})
    assert seen == ["A\nheart"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run", {"q": {"d": 1.0}}),
        ("reranker", BM25Reranker),
        ("reranker", object()),
        ("store", ["text"]),
        ("queries", ["q"]),
        ("queries", "q"),
        ("depth", -1),
        ("depth", 2.5),
    ],
)
def test_a_wrong_type_is_a_type_error_that_says_which(name: str, value: Any) -> None:
    good: dict[str, Any] = {
        "run": Run.from_lists([("q", ["a"], [1])]),
        "reranker": Lengths(),
        "store": {"a": "x"},
        "queries": {"q": "?"},
        "depth": 0,
    }
    with pytest.raises(TypeError, match=f"^{name}: expected"):
        arguments = good | {name: value}
        rerank(
            arguments["run"],
            arguments["reranker"],
            arguments["store"],
            arguments["queries"],
            depth=arguments["depth"],
        )


@pytest.mark.parametrize("score", [float("nan"), float("-inf"), 1e39])
def test_a_score_that_is_no_float32_is_never_sorted_silently(score: float) -> None:
    class Broken(Lengths):
        def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
            return [[score] * len(texts) for _, texts in batch]

    with pytest.raises(DataError, match=re.escape(f"returned the score {score:g};")):
        rerank(Run.from_lists([("q", ["a"], [1])]), Broken(), {"a": "x"}, {"q": "?"})


def test_wrong_words_and_texts_are_named() -> None:
    run = Run.from_lists([("q", ["a", "b"], [2, 1])])
    with pytest.raises(ConfigError, match="missing='Drop': expected one of error, drop, keep"):
        rerank(run, Lengths(), {"a": "x"}, {"q": "?"}, missing="Drop")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="document 'b': expected its text, got int"):
        rerank(run, Lengths(), {"a": "x", "b": 3}, {"q": "?"})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="query 'q': expected its text, got NoneType"):
        rerank(run, Lengths(), {"a": "x", "b": "y"}, {"q": None})  # type: ignore[dict-item]


def test_bm25_over_the_candidates_end_to_end() -> None:
    run = Run.from_lists([("q", ["a", "b", "c"], [3, 2, 1]), ("r", ["b"], [1])])
    texts = {"a": "lung", "b": "heart disease", "c": "heart heart"}
    after = rerank(run, BM25Reranker(), texts, {"q": "disease", "r": "lung"})
    assert [docs for _, docs, _ in after] == [["b", "a", "c"], ["b"]]
