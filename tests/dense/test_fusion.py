"""Fusion against dictionaries and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.dense.fusion import fuse, interpolate, reciprocal_rank
from raydist.dense.spec import Interpolate, Rrf
from raydist.errors import ConfigError
from raydist.records import Run

DOCS = ["d1", "d10", "d2", "é", "a"]


@st.composite
def some_runs(draw):
    runs = []
    for _ in range(draw(st.integers(1, 3))):
        rankings = []
        for query in draw(st.permutations(["q1", "q2", "q3"])):
            if draw(st.booleans()):
                ranking = draw(st.lists(st.sampled_from(DOCS), unique=True, min_size=1))
                scores = sorted((draw(st.integers(-4, 4)) / 4 for _ in ranking), reverse=True)
                rankings.append((query, ranking, scores))
        runs.append(Run.from_lists(rankings))
    weights = [draw(st.sampled_from([0.25, 1.0, 2.0])) for _ in runs]
    return runs, weights


def order_of(runs):
    seen = []
    for run in runs:
        seen += [query for query in run.query_ids if query not in seen]
    return seen


def ranking(totals, k):
    rounded = {doc: np.float32(total) for doc, total in totals.items()}
    best = sorted(rounded, key=lambda doc: (-rounded[doc], doc.encode()))[:k]
    return best, [rounded[doc] for doc in best]


def check(fused, runs, expected, k):
    assert fused.query_ids == order_of(runs)
    for query, docs, scores in fused:
        names, values = ranking(expected(query), k)
        assert scores.tolist() == pytest.approx(values, abs=1e-6)
        # Sums may differ in the last bit, and with them the order of almost equal documents.
        assert sorted(docs) == sorted(names) or len(docs) == k
        if len({round(float(v), 5) for v in values}) == len(values):
            assert docs == names


@settings(max_examples=200)
@given(some_runs(), st.sampled_from([0.0, 1.0, 60.0]), st.sampled_from([1, 2, 100]))
def test_reciprocal_ranks_are_summed(case, constant, k):
    runs, weights = case

    def expected(query):
        totals = {}
        for run, weight in zip(runs, weights):
            for q, docs, _ in run:
                for rank, doc in enumerate(docs if q == query else [], 1):
                    totals[doc] = totals.get(doc, 0.0) + weight / (constant + rank)
        return totals

    check(reciprocal_rank(runs, constant=constant, weights=weights, k=k), runs, expected, k)


def normalized(scores, how):
    values = [float(s) for s in scores]
    if how == "minmax":
        low, high = min(values), max(values)
        return [1.0 if high == low else (v - low) / (high - low) for v in values], 0.0
    if how == "z":
        mean = sum(values) / len(values)
        spread = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
        values = [0.0 if max(values) == min(values) else (v - mean) / spread for v in values]
    return values, min(values)


@settings(max_examples=200)
@given(some_runs(), st.sampled_from(["minmax", "z", "none"]), st.sampled_from([1, 3, 100]))
def test_normalised_scores_are_summed_and_a_missing_document_counts_as_the_runs_lowest(
    case, how, k
):
    runs, weights = case

    def expected(query):
        parts = []
        for run, weight in zip(runs, weights):
            for q, docs, scores in run:
                if q == query:
                    values, lowest = normalized(scores, how)
                    parts.append((weight, dict(zip(docs, values)), lowest))
        every = {doc for _, values, _ in parts for doc in values}
        return {doc: sum(w * values.get(doc, low) for w, values, low in parts) for doc in every}

    check(interpolate(runs, weights=weights, normalize=how, k=k), runs, expected, k)


def test_equal_scores_are_ordered_by_document_id_whatever_the_order_of_the_runs():
    a = Run.from_lists([("q", ["x", "b"], [2.0, 1.0])])
    b = Run.from_lists([("q", ["b", "x"], [2.0, 1.0])])
    for runs in ([a, b], [b, a]):
        for fusion in (Rrf(), *(Interpolate(normalize=how) for how in ("minmax", "z", "none"))):
            ((_, docs, _),) = fuse(runs, 10, fusion)
            assert docs == ["b", "x"]


def test_by_hand():
    a = Run.from_lists([("q", ["x", "y"], [10.0, 5.0]), ("only", ["z"], [3.0])])
    b = Run.from_lists([("q", ["y", "w", "x"], [0.9, 0.5, 0.1])])
    ((_, docs, scores), (query, other, _)) = reciprocal_rank([a, b])
    assert docs == ["y", "x", "w"] and (query, other) == ("only", ["z"])
    assert scores.tolist() == pytest.approx([1 / 62 + 1 / 61, 1 / 61 + 1 / 63, 1 / 62])
    ((_, docs, scores), _) = interpolate([a, b], weights=[1.0, 0.5])
    assert docs == ["x", "y", "w"] and scores.tolist() == pytest.approx([1.0, 0.5, 0.25])


def test_fusing_one_run_by_ranks_keeps_its_order_and_nothing_is_lost_with_empty_runs():
    run = Run.from_lists([("q", ["b", "a"], [1.0, 1.0])])
    ((_, docs, _),) = reciprocal_rank([run, Run.from_lists([])])
    assert docs == ["b", "a"]
    assert len(fuse([Run.from_lists([])], 10, Interpolate(normalize="z"))) == 0


def test_wrong_weights_are_refused():
    run = Run.from_lists([("q", ["a"], [1.0])])
    for runs, weights, text in (
        ([], None, "no run"),
        ([run], [1.0, 2.0], "2 weights for 1 runs"),
        ([run], [0.0], "not all 0"),
        ([run], [math.nan], "finite"),
    ):
        with pytest.raises(ConfigError, match=text):
            reciprocal_rank(runs, weights=weights)
    with pytest.raises(ConfigError, match="constant"):
        reciprocal_rank([run], constant=-1)
