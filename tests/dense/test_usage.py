"""Dense retrieval in a few lines: embed a corpus, open the folder, search it, fuse two rankings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raydist.cli import main
from raydist.dense.exact import exact_search
from raydist.dense.fusion import reciprocal_rank
from raydist.dense.retriever import DenseRetriever
from raydist.dense.spec import DenseSearchSpec
from raydist.dense.vectors import VectorShards
from raydist.records import Query, Run


def test_a_corpus_is_embedded_and_searched(
    small_corpus: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "vectors"
    words = [f"corpus={small_corpus}", f"model={tiny_bert}", "ann=hnsw", f"out={folder}"]
    assert main(["embed", *words]) == 0

    queries = [Query("q1", "the model of a query")]
    exact = DenseRetriever.open(folder).search(queries, k=10)
    approximate = DenseRetriever.open(folder, DenseSearchSpec(approximate=True)).search(
        queries, k=10
    )
    assert len(exact) == 10
    common = set(exact.table["doc_id"].to_pylist()) & set(approximate.table["doc_id"].to_pylist())
    assert len(common) >= 9


def test_vectors_in_memory_are_searched_by_inner_product() -> None:
    shards = VectorShards.in_memory(["a", "b"], np.array([[1.0, 0.0], [0.0, 1.0]]))
    scores, rows = exact_search(shards, np.array([[0.25, 0.75]]), k=2)
    assert rows.tolist() == [[1, 0]] and scores.tolist() == [[0.75, 0.25]]


def test_two_rankings_become_one() -> None:
    sparse = Run.from_lists([("q1", ["a", "b"], [12.0, 7.0])])
    dense = Run.from_lists([("q1", ["b", "c"], [0.9, 0.8])])
    ((_, documents, scores),) = reciprocal_rank([sparse, dense], constant=60)
    assert documents == ["b", "a", "c"]
    assert scores.tolist() == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])
