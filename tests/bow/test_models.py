"""Lucene's and Anserini's models: recorded rankings, pruned as exhaustive, closed forms."""

from __future__ import annotations

import gzip
import math
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import (
    Bm25,
    BowSearchSpec,
    F2Exp,
    F2Log,
    Inl2,
    Qld,
    Qljm,
    QueryLikelihood,
    Scoring,
    Spl,
)
from raydist.cli import main
from raydist.data.readers import read_queries
from tests.bow.small_index import index_of
from tests.bow.test_search import collections, queries, random_index

MODELS: dict[str, Scoring] = {
    "bm25": Bm25(),
    "bm25.accurate": Bm25(lengths="byte"),  # recorded of an index that was not built for it
    "bm25.queryside": Bm25(query_side=True),
    "qld": Qld(),
    "qljm": Qljm(),
    "inl2": Inl2(),
    "spl": Spl(),
    "f2exp": F2Exp(),
    "f2log": F2Log(),
}
OTHERS: list[Scoring] = [
    Bm25(lengths="exact"),
    Bm25(k1=50.0, b=1.0, lengths="exact"),
    *(
        Bm25(variant=variant, lengths=lengths)
        for variant in ("robertson", "atire", "bm25+", "bm25l")
        for lengths in ("norm", "exact", "byte")
    ),
    QueryLikelihood(),
    QueryLikelihood(mu=5.0, lengths="exact"),
    QueryLikelihood(smoothing="jelinek-mercer"),
    QueryLikelihood(smoothing="jelinek-mercer", lengths="exact"),
]


@pytest.mark.collections
@pytest.mark.parametrize("name", ["cacm", "cranfield", "vaswani", "nfcorpus"])
def test_rankings_are_anserinis(collections: Path, oracle: Path, tmp_path: Path, name: str) -> None:
    words = [f"corpus={collections / name}/corpus.jsonl", f"out={tmp_path}/index", "store=false"]
    assert main(["index", *words, "duplicates=warn"]) == 0
    index = BowIndex.open(tmp_path / "index")
    queries = read_queries(collections / name / "queries.jsonl")
    wrong: dict[str, list[str]] = {}
    for model, scoring in MODELS.items():
        with gzip.open(oracle / f"anserini/{name}.{model}.run.gz", "rt") as lines:
            rows = [line.split() for line in lines]
        expected = {
            query: [(row[2], float(row[4])) for row in group]
            for query, group in groupby(rows, key=lambda row: row[0])
        }
        run = BowRetriever(index, BowSearchSpec(scoring=scoring, ties="anserini")).search(
            queries, 100
        )
        answers = {q: [(d, round(float(s), 6)) for d, s in zip(ds, ss)] for q, ds, ss in run}
        wrong[model] = [query for query in expected if answers.get(query) != expected[query]]
        assert answers.keys() == expected.keys()
    assert not any(wrong.values()), wrong


def test_documents_that_add_nothing_are_ranked_all_the_same(tmp_path: Path) -> None:
    """Dirichlet's parts are cut at 0; a term adds 0 to documents that have less of it than all."""
    documents = [["a"] * 30 + ["b"], ["a"] * 5 + ["b"] * 35, ["b"] * 40, ["c"]]
    index = index_of(documents, tmp_path)
    for pruned in (True, False):
        retriever = BowRetriever(index, BowSearchSpec(scoring=Qld(mu=2.0)), pruned=pruned)
        docs, scores = retriever.rank_terms({"a": 1}, 10)
        tokens = 31 + 40 + 40 + 1
        share = (35 + 1) / (tokens + 1)
        best = math.log(1 + 30 / (2 * share)) + math.log(2 / (31 + 2))
        assert docs.tolist() == [0, 1]
        assert scores.tolist() == [np.float32(best), 0.0]


def test_counts_of_the_collection_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_of([["a", "b"], ["a", "a"], ["c"]], tmp_path, cuts=[1])
    retriever = BowRetriever(index, BowSearchSpec(scoring=Qld()))
    first = retriever.rank_terms({"a": 1, "b": 1}, 5)
    asked: list[int] = []
    monkeypatch.setattr(
        "raydist.bow.search.retriever.occurrences",
        lambda segments, rows: asked.append(len(rows[0])) or [1],
    )
    again = retriever.rank_terms({"b": 1, "a": 1}, 5)
    assert np.array_equal(first[1], again[1]) and not asked
    retriever.rank_terms({"c": 1, "a": 1}, 5)
    assert asked == [1]


@settings(max_examples=60, deadline=None)
@given(collections(), queries, st.sampled_from([*MODELS.values(), *OTHERS]), st.data())
def test_pruned_is_exhaustive(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[list[str]],
    query: dict[str, int],
    scoring: Scoring,
    data: st.DataObject,
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(documents)), max_size=3)) - {len(documents)})
    compress, size = data.draw(st.booleans()), data.draw(st.sampled_from([8, 16, 128]))
    folder = tmp_path_factory.mktemp("index")
    index = index_of(documents, folder, cuts=cuts, compress=compress, block_size=size)
    search = BowSearchSpec(scoring=scoring, ties=data.draw(st.sampled_from(["docid", "external"])))
    k = data.draw(st.sampled_from([1, 2, 10, 1000]))
    expected = BowRetriever(index, search, pruned=False).rank_terms(query, k)
    actual = BowRetriever(index, search).rank_terms(query, k)
    assert np.array_equal(expected[0], actual[0])
    assert np.array_equal(expected[1], actual[1])


@pytest.mark.parametrize("scoring", [*MODELS.values(), *OTHERS], ids=repr)
def test_pruned_is_exhaustive_over_many_windows(
    tmp_path_factory: pytest.TempPathFactory, scoring: Scoring
) -> None:
    rng = np.random.default_rng(11)
    index = random_index(tmp_path_factory.mktemp("large"), rng, documents=30_000)
    search = BowSearchSpec(scoring=scoring)
    fast, slow = BowRetriever(index, search), BowRetriever(index, search, pruned=False)
    for terms, k in ((1, 10), (3, 1), (5, 10), (6, 1000), (30, 100)):
        words = rng.choice(60, terms, replace=False)
        query = {f"w{word}": int(rng.integers(1, 3)) for word in words}
        expected, actual = slow.rank_terms(query, k), fast.rank_terms(query, k)
        assert np.array_equal(expected[0], actual[0])
        assert np.array_equal(expected[1], actual[1])
