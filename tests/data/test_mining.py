"""Mining against a slow reference that looks at one query and one candidate at a time."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.data.samples.mining import limit_of, mine, record, wanted_ids
from raydist.data.spec import MiningSpec
from raydist.records import Run

DOCS = [f"d{i}" for i in range(12)]


@st.composite
def cases(draw):
    # Some documents share their text, one has the text of a query, some are not in the corpus.
    corpus = {
        doc: draw(st.sampled_from([f"text {i}", f"text  {i} ", "shared", "query q1"]))
        for i, doc in enumerate(DOCS)
        if draw(st.integers(0, 9))
    }
    rankings, qrels = [], {}
    for i in range(draw(st.integers(1, 4))):
        ranking = draw(st.lists(st.sampled_from(DOCS), unique=True, min_size=1))
        scores = sorted((draw(st.integers(-6, 12)) / 2 for _ in ranking), reverse=True)
        rankings.append((f"q{i}", ranking, scores))
        judged = draw(st.sets(st.sampled_from(DOCS), max_size=4))
        qrels[f"q{i}"] = {doc: draw(st.integers(0, 2)) for doc in sorted(judged)}
    first = draw(st.integers(1, 4))
    rules = MiningSpec(
        negatives=draw(st.integers(1, 5)),
        first=first,
        last=draw(st.sampled_from([0, first, first + 2, 100])),
        relevance=draw(st.integers(1, 2)),
        margin=draw(st.sampled_from([None, 0.0, 1.5])),
        share=draw(st.sampled_from([None, 0.5, 0.95])),
        reference=draw(st.sampled_from(["max", "min", "mean"])),
        pick=draw(st.sampled_from(["random", "top"])),
        positives=draw(st.sampled_from([0, 1])),
        seed=draw(st.integers(0, 3)),
    )
    return corpus, Run.from_lists(rankings), qrels, rules


def allowed(doc_ids, scores, judged, corpus, rules):
    """The candidates of one query that may be negatives, by rank."""
    positives = [d for d, grade in judged.items() if grade >= rules.relevance and d in corpus]
    score = dict(zip(doc_ids, map(float, scores)))
    lowest = float(scores[-1])
    known = [score.get(d, lowest) for d in positives]
    negatives = []
    for rank, doc in enumerate(doc_ids, 1):
        if rank < rules.first or (rules.last and rank > rules.last):
            continue
        if judged.get(doc, 0) >= rules.relevance or doc not in corpus:
            continue
        if known:
            anchor = {"max": max(known), "min": min(known), "mean": np.mean(known)}[rules.reference]
            if rules.margin is not None and not score[doc] <= anchor - rules.margin:
                continue
            if rules.share is not None and not score[doc] <= anchor - (1 - rules.share) * abs(
                anchor
            ):
                continue
        negatives.append(doc)
    return positives, negatives


@settings(max_examples=300, deadline=None)
@given(cases(), st.integers(1, 3))
def test_negatives_are_allowed_candidates_with_texts_of_their_own_and_as_many_as_there_are(
    case, batch
):
    corpus, run, qrels, rules = case
    queries = {f"q{i}": f"query q{i}" for i in range(9)}
    texts = lambda docs: [corpus.get(doc) for doc in docs]  # noqa: E731
    mined = {m.query_id: m for m in mine(run, queries, qrels, texts, rules, batch=batch)}
    plain = lambda text: " ".join(text.split())  # noqa: E731
    for query_id, doc_ids, scores in run:
        positives, candidates = allowed(doc_ids, scores, qrels[query_id], corpus, rules)
        taken = {plain(queries[query_id]), *(plain(corpus[d]) for d in positives)}
        distinct = {plain(corpus[d]) for d in candidates} - taken
        if not positives or not distinct:
            assert query_id not in mined
            continue
        got = mined[query_id]
        assert len(got.negatives) == min(rules.negatives, len(distinct))
        assert set(got.negative_ids) <= set(candidates)
        assert got.negatives == [corpus[d] for d in got.negative_ids]
        assert len({plain(t) for t in got.negatives}) == len(got.negatives)
        assert not {plain(t) for t in got.negatives} & taken
        score = dict(zip(doc_ids, map(float, scores)))
        assert got.negative_scores == [score[d] for d in got.negative_ids]
        assert got.negative_ids == sorted(got.negative_ids, key=doc_ids.index)
        assert set(got.positive_ids) <= set(positives)
        assert len(got.positive_ids) == (min(rules.positives, len(positives)) or len(positives))
        assert got.positive_scores == [score.get(d, float(scores[-1])) for d in got.positive_ids]
        if rules.pick == "top":
            best, seen = [], set(taken)
            for doc in candidates:
                if plain(corpus[doc]) not in seen:
                    seen.add(plain(corpus[doc]))
                    best.append(doc)
            assert got.negative_ids == best[: rules.negatives]
    wanted = wanted_ids(run, queries, qrels, rules)
    for got in mined.values():
        assert {*got.negative_ids, *got.positive_ids} <= wanted


def example(queries=200, depth=50):
    rng = np.random.default_rng(0)
    rankings = [
        (f"q{i}", [f"d{j}" for j in rng.permutation(500)[:depth]], np.arange(depth, 0, -1.0))
        for i in range(queries)
    ]
    return Run.from_lists(rankings), {f"q{i}": {f"d{i}": 1} for i in range(queries)}


def all_texts(docs):
    return [f"text of {doc}" for doc in docs]


def test_what_a_query_gets_depends_on_itself_and_the_seed_alone():
    run, qrels = example()
    queries = {f"q{i}": str(i) for i in range(200)}
    first = {m.query_id: m for m in mine(run, queries, qrels, all_texts, MiningSpec())}
    few = Run.from_lists(list(run)[150:170][::-1])
    for got in mine(few, queries, qrels, all_texts, MiningSpec(), batch=7):
        assert got == first[got.query_id]
    other = {m.query_id: m for m in mine(run, queries, qrels, all_texts, MiningSpec(seed=1))}
    assert sum(other[q].negative_ids != first[q].negative_ids for q in first) > 190


def test_random_negatives_are_drawn_evenly_from_the_window():
    run, qrels = example(queries=400)
    queries = {f"q{i}": str(i) for i in range(400)}
    places = Counter()
    rankings = {query: docs for query, docs, _ in run}
    for got in mine(run, queries, qrels, all_texts, MiningSpec(negatives=5, first=11, last=30)):
        places.update(rankings[got.query_id].index(doc) + 1 for doc in got.negative_ids)
    assert set(places) == set(range(11, 31))
    expected = 400 * 5 / 20
    chi = sum((n - expected) ** 2 / expected for n in places.values())
    assert chi < 50  # 19 degrees of freedom: p about 1e-4


def test_the_margin_is_below_the_positive_whatever_the_sign_of_its_score():
    assert limit_of(MiningSpec(), [1.0]) == math.inf
    assert limit_of(MiningSpec(margin=0.5), [2.0, 1.0]) == 1.5
    assert limit_of(MiningSpec(share=0.95), [2.0]) == pytest.approx(1.9)
    assert limit_of(MiningSpec(share=0.95), [-2.0]) == pytest.approx(-2.1)
    assert limit_of(MiningSpec(margin=0.5, share=0.5, reference="min"), [2.0, 1.0]) == 0.5
    assert limit_of(MiningSpec(margin=0.0, reference="mean"), [2.0, 1.0]) == 1.5


def test_a_teacher_scores_every_text_of_the_result():
    run, qrels = example(queries=5)
    queries = {f"q{i}": str(i) for i in range(5)}
    requests = []

    def teacher(batch):
        requests.extend(batch)
        return [[float(len(text)) + i for i, text in enumerate(docs)] for _, docs in batch]

    for got in mine(
        run, queries, qrels, all_texts, MiningSpec(negatives=3), teacher=teacher, batch=2
    ):
        texts = [*got.positives, *got.negatives]
        assert (got.query, texts) in requests
        assert [*got.positive_scores, *got.negative_scores] == [
            len(text) + i for i, text in enumerate(texts)
        ]


def test_a_teachers_run_scores_no_positive_that_it_does_not_have():
    run = Run.from_lists([("a", ["n", "p", "m"], [5, 4, 3]), ("b", ["n", "m"], [2, 1])])
    qrels = {"a": {"p": 1, "missed": 2}, "b": {"missed": 1}}
    counts = Counter()
    mined = mine(run, {"a": "?", "b": "!"}, qrels, all_texts, by_teacher=True, counts=counts)
    (got,) = mined
    assert (got.positive_ids, got.positive_scores) == (["p"], [4.0])
    assert counts["positives that the run has not"] == 2 and counts["queries without positive"] == 1
    both = list(mine(run, {"a": "?", "b": "!"}, qrels, all_texts))
    assert [each.positive_scores for each in both] == [[3.0, 4.0], [1.0]]


def test_what_was_left_out_is_counted():
    run = Run.from_lists(
        [
            ("a", ["p", "same", "gone", "n", "n2"], [5, 4, 3, 2, 1]),
            ("b", ["p"], [1]),
            ("c", ["n"], [1]),
            ("unjudged", ["n"], [1]),
        ]
    )
    corpus = {"p": "positive", "same": "positive", "n": "one", "n2": "two", "far": "far"}
    qrels = {"a": {"p": 1, "far": 1, "lost": 1}, "b": {"p": 1}, "c": {"n": 0}}
    counts = Counter()
    texts = lambda docs: [corpus.get(doc) for doc in docs]  # noqa: E731
    (got,) = mine(run, dict.fromkeys("abc", "?"), qrels, texts, MiningSpec(), counts=counts)
    assert got.negative_ids == ["n", "n2"] and got.positive_ids == ["p", "far"]
    assert got.positive_scores == [5.0, 1.0]
    assert +counts == Counter(
        {
            "samples": 1,
            "negatives": 2,
            "samples with fewer negatives": 1,
            "queries without positive": 2,
            "queries without negative": 1,
            "positives without text": 1,
            "positives that the run has not": 1,
            "candidates that are positive": 2,
            "candidates without text": 1,
            "candidates whose text is there already": 1,
        }
    )


def test_a_record_is_a_line_of_flagembeddings_training_data():
    run = Run.from_lists([("a", ["p", "n"], [5, 2])])
    (got,) = mine(run, {"a": "what?"}, {"a": {"p": 1}}, lambda docs: [d * 2 for d in docs])
    assert record(got, prompt="find: ") == {
        "query_id": "a",
        "query": "what?",
        "pos": ["pp"],
        "neg": ["nn"],
        "pos_scores": [5.0],
        "neg_scores": [2.0],
        "prompt": "find: ",
        "pos_id": ["p"],
        "neg_id": ["n"],
    }
    assert "pos_scores" not in record(got, scores=False)
    assert record(got, teacher=False)["score_source"] == "run"


def test_a_positive_of_the_same_question_under_another_id_or_in_another_case_is_no_negative():
    run = Run.from_lists(
        [
            ("q1", ["d1", "d2", "d3", "d4", "d5"], [5, 4, 3, 2, 1]),
            ("q2", ["d1", "d2", "d3"], [5, 4, 3]),
        ]
    )
    queries = {"q1": "What is  BM25?", "q2": "what is bm25?"}
    qrels = {"q1": {"d1": 1}, "q2": {"d2": 1}}
    corpus = {
        "d1": "A ranking function.",
        "d2": "Best Match 25",
        "d3": "best match 25",
        "d4": "a RANKING  function.",
        "d5": "Bread.",
    }
    texts = lambda docs: [corpus[doc] for doc in docs]  # noqa: E731
    mined = list(mine(run, queries, qrels, texts))
    assert [(m.query_id, m.positive_ids, m.negative_ids) for m in mined] == [("q1", ["d1"], ["d5"])]
    few = Run.from_lists([("q1", ["d5"], [1.0])])
    assert wanted_ids(few, queries, qrels, MiningSpec()) == {"d1", "d2", "d5"}
