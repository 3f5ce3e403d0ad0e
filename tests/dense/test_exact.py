from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.dense.exact import exact_search, top_of_block
from raydist.dense.vectors import VectorShards

from .test_vectors import written


def by_definition(vectors, queries, k):
    """All scores in float64; best first, equal ones in input order."""
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


cases = st.fixed_dictionaries(
    {
        "rows": st.integers(0, 60),
        "k": st.integers(1, 70),
        "block": st.integers(1, 25),
        "seed": st.integers(0, 2**16),
        "ties": st.booleans(),
    }
)


def example(rows, seed, ties):
    rng = np.random.default_rng(seed)
    if ties:  # small whole numbers: many equal scores, and exact in float32
        draw = rng.integers(-2, 3, size=(rows + 3, 4)).astype(np.float32)
    else:
        draw = rng.normal(size=(rows + 3, 4)).astype(np.float32)
    return draw[:rows], draw[rows:]


@given(case=cases)
def test_exact_search_is_the_definition_with_ties_in_input_order(case):
    vectors, queries = example(case["rows"], case["seed"], case["ties"])
    shards = VectorShards.in_memory([f"d{i}" for i in range(len(vectors))], vectors)
    scores, rows = exact_search(shards, queries, case["k"], block=case["block"])
    truth, order = by_definition(vectors, queries, case["k"])
    np.testing.assert_allclose(scores, truth, atol=1e-5)
    if case["ties"]:
        np.testing.assert_array_equal(rows, order)


@settings(deadline=None)
@given(case=cases, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_sharded_equals_single_to_the_bit(case, cuts):
    vectors, queries = example(case["rows"], case["seed"], case["ties"])
    cuts = sorted(min(cut, len(vectors)) for cut in cuts)
    single = VectorShards.in_memory([f"d{i}" for i in range(len(vectors))], vectors)
    with tempfile.TemporaryDirectory() as folder:
        sharded = written(Path(folder), vectors, cuts)
        for a, b in zip(
            exact_search(single, queries, case["k"], block=case["block"]),
            exact_search(sharded, queries, case["k"], block=case["block"]),
        ):
            np.testing.assert_array_equal(a, b)


@given(case=cases)
def test_rows_that_are_not_allowed_are_as_if_they_were_not_there(case):
    vectors, queries = example(case["rows"], case["seed"], True)
    allowed = np.random.default_rng(case["seed"]).random(len(vectors)) < 0.4
    shards = VectorShards.in_memory([str(i) for i in range(len(vectors))], vectors)
    scores, rows = exact_search(shards, queries, case["k"], block=case["block"], allowed_N=allowed)
    allowed_rows = np.flatnonzero(allowed)
    truth, order = by_definition(vectors[allowed_rows], queries, case["k"])
    np.testing.assert_array_equal(scores, truth)
    np.testing.assert_array_equal(rows, allowed_rows[order])


def test_equal_scores_at_the_border_go_by_place():
    scores, positions = top_of_block(torch.tensor([[1.0, 2.0, 1.0, 2.0, 1.0, 1.0]]), 4)
    assert scores.tolist() == [[2.0, 2.0, 1.0, 1.0]]
    assert positions.tolist() == [[1, 3, 0, 2]]


def test_each_block_is_read_once_for_all_queries(monkeypatch):
    rng = np.random.default_rng(3)
    vectors, queries = (rng.normal(size=(n, 8)).astype(np.float32) for n in (50, 23))
    shards = VectorShards.in_memory([str(i) for i in range(50)], vectors)
    reads, read = [], VectorShards.read
    monkeypatch.setattr(
        VectorShards, "read", lambda self, *rows: (reads.append(rows), read(self, *rows))[1]
    )
    scores, rows = exact_search(shards, queries, 6, block=20, batch=5)
    assert reads == [(0, 20), (20, 40), (40, 60)]
    truth, order = by_definition(vectors, queries, 6)
    np.testing.assert_allclose(scores, truth, atol=1e-5)
    np.testing.assert_array_equal(rows, order)
    apart = [exact_search(shards, queries[i : i + 5], 6, block=20) for i in range(0, 23, 5)]
    np.testing.assert_array_equal(scores, np.concatenate([each[0] for each in apart]))
