"""Approximate search: deep rankings are whole and nearly the exact ones."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from raydist.dense.ann import AnnIndex, build_ann
from raydist.dense.exact import exact_search
from raydist.dense.files import VectorWriter
from raydist.dense.spec import AnnSpec
from raydist.dense.vectors import VectorShards


@pytest.mark.parametrize("kind", ["hnsw", "hnsw int8", "ivf_pq"])
def test_deep_rankings_are_whole(tmp_path, kind):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 16))
    vectors = (centres[rng.integers(0, 40, 4000)] + rng.normal(size=(4000, 16)) / 4).astype("f4")
    with VectorWriter(tmp_path / "shards" / "00000", 16) as writer:
        writer.append([f"d{i}" for i in range(4000)], vectors)
    facts = {"dimension": 16, "precision": "float32", "shards": 1, "documents": 4000}
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)  # of the whole process, torch's included
    kind, *form = kind.split()
    keys = {"precision": form[0]} if form else {}
    build_ann(tmp_path, facts, AnnSpec(kind=kind, rows_per_part=3000, **keys))
    assert faiss.omp_get_max_threads() == 3
    faiss.omp_set_num_threads(threads)
    shards = VectorShards.map(tmp_path, facts)
    queries = (centres[:5] + rng.normal(size=(5, 16)) / 4).astype(np.float32)
    for k in (10, 1000):
        scores, rows = AnnIndex.open(tmp_path).search(shards, queries, k)
        assert (rows >= 0).all() and (np.diff(scores) <= 0).all()
        truth = exact_search(shards, queries, k)[1]
        recall = np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(truth, rows)])
        assert recall > 0.95, (k, recall)
    for share in (0.5, 0.1, 0.02):  # fewer pass, and as many are found
        allowed = rng.random(4000) < share
        rows = AnnIndex.open(tmp_path).search(shards, queries, 10, allowed)[1]
        assert allowed[rows].all()
        truth = exact_search(shards, queries, 10, allowed_N=allowed)[1]
        recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(truth, rows)])
        assert recall >= 0.95, (share, recall)


def test_parts_are_merged_before_results_are_scored(tmp_path, monkeypatch):
    vectors = np.random.default_rng(2).normal(size=(600, 8)).astype(np.float32)
    with VectorWriter(tmp_path / "shards" / "00000", 8) as writer:
        writer.append([f"d{i}" for i in range(600)], vectors)
    facts = {"dimension": 8, "precision": "float32", "shards": 1, "documents": 600}
    build_ann(tmp_path, facts, AnnSpec(kind="hnsw", rows_per_part=50))
    shards, scored = VectorShards.map(tmp_path, facts), []
    take = shards.take
    object.__setattr__(shards, "take", lambda rows: scored.append(len(rows)) or take(rows))
    rows = AnnIndex.open(tmp_path).search(shards, vectors[:3], 10)[1]
    assert scored == [30]  # of twelve parts
    np.testing.assert_array_equal(rows, exact_search(shards, vectors[:3], 10)[1])


def test_a_document_that_is_a_query_is_no_result_of_its_own(tmp_path, monkeypatch):
    # On a circle each document's nearest are the ones beside it: 5 on either side.
    angles = np.arange(60) * 2 * np.pi / 60
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype("f4")
    with VectorWriter(tmp_path / "shards" / "00000", 2) as writer:
        writer.append([f"d{i}" for i in range(60)], vectors)
    facts = {"dimension": 2, "precision": "float32", "shards": 1, "documents": 60}
    about = build_ann(tmp_path, facts, AnnSpec(kind="hnsw"))
    assert about["recall@10"] == 1.0 and about["recall_queries"] == "60 documents"
    shards, rows = VectorShards.map(tmp_path, facts), np.arange(60)

    def itself_and_one_side(self, shards, queries, k):
        return np.zeros((60, 11)), (rows[:, None] + np.arange(11)) % 60

    monkeypatch.setattr(AnnIndex, "search", itself_and_one_side)
    index = AnnIndex.open(tmp_path)
    assert index.recall(shards, vectors, own_Q=rows) == 0.5
