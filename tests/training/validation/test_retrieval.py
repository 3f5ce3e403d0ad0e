"""Retrieval for validation: one rank or several, dense or reranking, against plain NumPy."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa
import pytest
import torch

from raydist.errors import DataError
from raydist.records import Document, Query, Run
from raydist.training.validation import retrieval
from raydist.training.validation.retrieval import (
    DenseRetrieval,
    Ranks,
    RunReranking,
    Task,
    score_pairs,
    validate,
)


class Tables:
    """A model whose vectors stand in a table: exact small integers, so that sums are exact."""

    training = True

    def __init__(self, table):
        self.table = table
        self.modes = []

    def eval(self):
        self.training = False

    def train(self):
        self.training = True

    def encode_queries(self, texts):
        self.modes.append(self.training)
        return np.array([self.table[text] for text in texts], np.float32)

    encode_documents = encode_queries


def collection(documents=57, queries=5, dimensions=3, seed=0):
    rng = np.random.default_rng(seed)
    table = {f"text {i}": rng.integers(-2, 3, dimensions) for i in range(documents)}
    table |= {f"query {i}": rng.integers(-2, 3, dimensions) for i in range(queries)}
    corpus = [Document(f"d{i}", f"text {i}") for i in range(documents)]
    asked = [Query(f"q{i}", f"query {i}") for i in range(queries)]
    return Tables(table), corpus, asked


def together(world, work):
    """Runs `work(ranks)` on threads that stand for ranks; returns their results in order."""
    barrier = threading.Barrier(world)
    slots = [None] * world
    results = [None] * world

    def run(rank):
        def everywhere(value):
            slots[rank] = value
            barrier.wait(10)
            values = list(slots)
            barrier.wait(10)
            return values

        def gather(tensor):
            tensors = everywhere(tensor)
            assert len({(t.shape, t.dtype) for t in tensors}) == 1
            return [] if rank else tensors

        results[rank] = work(
            Ranks(rank, world, gather, lambda value: everywhere(value)[0], lambda: everywhere(None))
        )

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results


def dense(corpus, k, ranks=Ranks(), block=8192):  # noqa: B008  frozen
    share = ranks.share(len(corpus))
    ids = pa.array([document.doc_id for document in corpus], pa.large_string())
    return DenseRetrieval(ids, corpus[share.start : share.stop], k, ranks, block)


@pytest.mark.parametrize("scores", [retrieval._SCORES, 40])
@pytest.mark.parametrize("world", [1, 2, 3, 60])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_dense_retrieval_is_exact_and_the_same_for_any_number_of_ranks(
    world, k, scores, monkeypatch
):
    monkeypatch.setattr(retrieval, "_SCORES", scores)  # small: cut by queries, too
    model, corpus, queries = collection()
    run, *others = together(world, lambda ranks: dense(corpus, k, ranks, block=8)(model, queries))
    assert others == [None] * (world - 1)
    for (query_id, doc_ids, scores), query in zip(run, queries, strict=True):
        exact = np.array([model.table[d.text] @ model.table[query.text] for d in corpus])
        order = np.lexsort((np.arange(len(corpus)), -exact))[:k]
        assert query_id == query.query_id
        assert doc_ids == [corpus[i].doc_id for i in order]
        assert scores.tolist() == exact[order].tolist()


def test_dense_retrieval_gives_the_bits_of_one_product_a_block():
    rng = np.random.default_rng(1)
    names = [f"text {i}" for i in range(300)] + [f"query {i}" for i in range(9)]
    model = Tables({name: rng.standard_normal(48, np.float32) for name in names})
    corpus = [Document(f"d{i}", f"text {i}") for i in range(300)]
    queries = [Query(f"q{i}", f"query {i}") for i in range(9)]
    texts, queried = (torch.tensor(np.array([model.table[n] for n in names[a:b]])) for a, b in
                      ((0, 300), (300, 309)))  # fmt: skip
    products = torch.cat([queried @ block.T for block in texts.split(128)], 1)
    expected = products.sort(dim=1, descending=True, stable=True)
    run = dense(corpus, 50, block=128)(model, queries)
    for i, (_, doc_ids, scores) in enumerate(run):
        assert np.array_equal(scores, expected.values[i, :50].numpy())
        assert doc_ids == [f"d{row}" for row in expected.indices[i, :50].tolist()]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_reranking_reorders_a_fixed_run_and_keeps_its_order_where_scores_are_equal(world):
    run = Run.from_lists(
        [("q0", ["a", "b", "c", "d"], [4, 3, 2, 1]), ("q1", ["d", "a"], [2, 1]), ("no", ["a"], [1])]
    )
    texts = {name: name for name in "abcd"}
    values = {"a": 1.0, "b": 2.0, "c": 2.0, "d": 9.0}
    score = lambda model, batch: [[values[d] for d in docs] for _, docs in batch]  # noqa: E731
    queries = [Query("q0", "x"), Query("q1", "y")]
    reranked, *others = together(
        world, lambda ranks: RunReranking(run, texts, 3, ranks, score)(None, queries)
    )
    assert [(q, docs) for q, docs, _ in reranked] == [
        ("q0", ["b", "c", "a"]),
        ("q1", ["d", "a"]),
    ]
    assert others == [None] * (world - 1)


def test_a_candidate_without_text_is_named_before_training():
    run = Run.from_lists([("q0", ["a", "gone"], [2, 1])])
    with pytest.raises(DataError, match="no document 'gone'"):
        RunReranking(run, {"a": "a"})
    RunReranking(run, {"a": "a"}, depth=1)


@pytest.mark.parametrize(("missing", "expected"), [("drop", ["c", "a"]), ("keep", ["c", "a", "b"])])
def test_candidates_without_text_are_left_out_or_kept_below(missing, expected):
    run = Run.from_lists([("q0", ["a", "b", "c"], [3, 2, 1]), ("q1", ["b"], [1])])
    score = lambda model, batch: [[ord(d) for d in docs] for _, docs in batch]  # noqa: E731
    reranked, _ = together(
        2,
        lambda ranks: RunReranking(run, {"a": "a", "c": "c"}, 3, ranks, score, missing)(
            None, [Query("q0", "x"), Query("q1", "y")]
        ),
    )
    ranked = {query: docs for query, docs, _ in reranked}
    assert ranked["q0"] == expected
    assert ranked.get("q1", []) == (["b"] if missing == "keep" else [])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_give_nan_measures_on_every_rank_and_no_error(bad):
    model, corpus, queries = collection()
    model.table["text 40"] = np.array([bad, 0, 0])
    task = Task(queries, {"q0": {"d1": 1}})
    for evaluation in together(
        2,
        lambda ranks: validate(
            model, task, dense(corpus, 3, ranks, block=8), ["AP", "nDCG@10"], ranks
        ),
    ):
        assert np.isnan(evaluation.values_MQ).all() and np.isnan(evaluation.means["AP"])


def test_validation_measures_in_evaluation_mode_and_goes_back_to_training():
    model, corpus, queries = collection()
    evaluation = validate(model, Task(queries, {"q1": {"d1": 1}}), dense(corpus, 57), ["RR"])
    exact = [model.table[d.text] @ model.table["query 1"] for d in corpus]
    ties = sorted(range(57), key=lambda i: (exact[i], f"d{i}"), reverse=True)
    assert evaluation.means["RR"] == pytest.approx(1 / (1 + ties.index(1)))
    assert not any(model.modes) and model.training


def test_only_judged_queries_are_searched_and_there_must_be_one():
    queries = [Query("q0", "x"), Query("q1", "y")]
    task = Task(queries, {"q1": {"d": 1}, "q9": {"d": 1}})
    assert [q.query_id for q in task.queries] == ["q1"] and set(task.qrels) == {"q1"}
    with pytest.raises(DataError, match="other query ids"):
        Task(queries, {"7": {"d": 1}})


class Pairs(torch.nn.Module):
    """A cross-encoder whose score is the sum of its tokens."""

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(()))
        self.shapes = []

    def tokenize(self, queries, documents):
        return [[len(q), *map(ord, d)] for q, d in zip(queries, documents)]

    def pad(self, rows):
        width = max(map(len, rows))
        return {"input_ids": torch.tensor([r + [0] * (width - len(r)) for r in rows])}

    def forward(self, inputs):
        self.shapes.append(tuple(inputs["input_ids"].shape))
        return inputs["input_ids"].sum(1) * self.one


def test_pairs_are_scored_in_batches_of_a_token_budget_and_come_back_in_order():
    model = Pairs()
    batch = [("ab", ["x", "yyyy", ""]), ("c", []), ("d", ["zz" * 4])]
    scores = score_pairs(model, batch, max_tokens=10)
    assert scores == [[2.0 + 120, 2.0 + 4 * 121, 2.0], [], [1.0 + 8 * 122]]
    assert all(rows * width <= 10 for rows, width in model.shapes) and len(model.shapes) > 1
    assert score_pairs(model, []) == []


class Tokens(Tables):
    """A model of a list of vectors a text; some documents have none."""

    device = torch.device("cpu")

    def encode_queries(self, texts):
        return [np.array(self.table[text], np.float32).reshape(-1, 3) for text in texts]

    encode_documents = encode_queries


@pytest.mark.parametrize("scores", [retrieval._SCORES, 40])
@pytest.mark.parametrize("world", [1, 3])
def test_vectors_of_tokens_are_retrieved_by_their_max_sim(world, scores, monkeypatch):
    monkeypatch.setattr(retrieval, "_SCORES", scores)
    rng = np.random.default_rng(0)
    names = [(f"text {i}", i % 5) for i in range(57)] + [(f"query {i}", i + 1) for i in range(4)]
    model = Tokens({name: rng.integers(-2, 3, (size, 3)) for name, size in names})
    corpus = [Document(f"d{i}", f"text {i}") for i in range(57)]
    queries = [Query(f"q{i}", f"query {i}") for i in range(4)]
    run, *_ = together(world, lambda ranks: dense(corpus, 60, ranks, block=8)(model, queries))
    for (_, doc_ids, found), query in zip(run, queries, strict=True):
        own = model.table[query.text]
        exact = np.full(57, -4.0)  # of documents without vectors: 4 is the longest query's width
        for i in range(57):
            if len(document := model.table[f"text {i}"]):
                exact[i] = (own @ document.T).max(axis=1).sum()
        order = np.lexsort((np.arange(57), -exact))
        assert doc_ids == [f"d{i}" for i in order]
        assert found.tolist() == exact[order].tolist()
