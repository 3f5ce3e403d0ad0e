"""Measures: ir-measures and scipy are the oracles."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
import pytrec_eval
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.errors import ConfigError, DataError
from raydist.evaluation.measures import better, direction, evaluate, parse
from raydist.evaluation.significance import interval
from raydist.evaluation.spec import Statistics
from raydist.records import DiversityQrels, Run

NAMES = ["nDCG@10", "AP", "R@1000", "P@30", "RR@10", "AP(rel=2)@100", "Judged@10", "NumRelRet"]


@st.composite
def tasks(draw):
    docs = [f"d{i}" for i in range(8)]
    queries = [f"q{i}" for i in range(draw(st.integers(1, 4)))]
    qrels = {
        q: {d: draw(st.integers(0, 3)) for d in draw(st.sets(st.sampled_from(docs), min_size=1))}
        for q in queries
    }
    rankings = []
    for q in [*queries, "unjudged"]:
        if draw(st.booleans()):
            ranking = draw(st.lists(st.sampled_from(docs), unique=True, min_size=1))
            scores = sorted((draw(st.integers(-3, 3)) / 2 for _ in ranking), reverse=True)
            rankings.append((q, ranking, scores))
    return Run.from_lists(rankings), qrels


def ranked(run):
    """Returns the run with scores that fall from rank to rank in trec_eval's order."""
    by_rule = {q: sorted(d, key=lambda doc: (d[doc], doc)) for q, d in run.as_dict().items()}
    return {q: {doc: float(i) for i, doc in enumerate(docs)} for q, docs in by_rule.items()}


@settings(max_examples=60, deadline=None)
@given(tasks())
def test_values_and_means_are_those_of_ir_measures_in_trec_evals_order(task):
    run, qrels = task
    measures = [ir_measures.parse_measure(name) for name in NAMES]
    expected = ir_measures.calc(measures, qrels, ranked(run))
    got = evaluate(run, qrels, NAMES)
    for name, measure in zip(NAMES, measures):
        assert got.means[name] == pytest.approx(expected.aggregated[measure], abs=1e-12)
    for metric in expected.per_query:
        if metric.query_id in qrels:
            column = got.query_ids.index(metric.query_id)
            assert got.of(NAMES[measures.index(metric.measure)])[column] == metric.value


@settings(max_examples=60, deadline=None)
@given(tasks())
def test_values_with_ties_are_trec_evals(task):
    run, qrels = task
    names = {
        "map": "AP",
        "recip_rank": "RR",
        "ndcg_cut_3": "nDCG@3",
        "P_2": "P@2",
        "Rprec": "Rprec",
    }
    theirs = pytrec_eval.RelevanceEvaluator(qrels, set(names)).evaluate(run.as_dict())
    got = evaluate(run, qrels, list(names.values()))
    for query, values in theirs.items():
        column = got.query_ids.index(query)
        for name, value in values.items():
            assert got.of(names[name])[column] == value


@settings(max_examples=60, deadline=None)
@given(tasks(), st.sampled_from(["score", "rank"]))
def test_a_cutoff_never_raises_a_measure(task, ties):
    run, qrels = task
    got = evaluate(run, qrels, ["RR", "RR@1", "RR@3", "RR@10", "AP", "AP@3", "P@1"], ties=ties)
    whole = got.of("RR")
    for k in (1, 3, 10):
        assert np.array_equal(got.of(f"RR@{k}"), np.where(whole >= 1 / k, whole, 0.0))
    assert (got.of("AP@3") <= got.of("AP")).all() and np.array_equal(got.of("RR@1"), got.of("P@1"))


def test_one_table_has_one_order_of_equal_scores_and_says_how_many_there_are():
    run = Run.from_lists([("q1", ["a", "b", "c"], [1, 1, 1]), ("q2", ["x", "y"], [2, 1])])
    got = evaluate(run, {"q1": {"a": 1}, "q2": {"x": 1}}, ["RR", "RR@10"])
    assert got.means == {"RR": (1 / 3 + 1) / 2, "RR@10": (1 / 3 + 1) / 2}  # trec_eval: c, b, a
    assert got.tied == 3 / 5


def err(grades, highest=4):
    """Returns expected reciprocal rank (Chapelle et al., 2009)."""
    value, going_on = 0.0, 1.0
    for rank, grade in enumerate(grades, 1):
        stops = (2**grade - 1) / 2**highest
        value += going_on * stops / rank
        going_on *= 1 - stops
    return value


def test_err_and_its_like_take_any_id():
    run = Run.from_lists([("q 0", ["a b", "c", "d"], [3, 2, 1]), ("x-7", ["e"], [1])])
    qrels = {"q 0": {"d": 3, "a b": 1, "z": 2}, "x-7": {"e": 0}, "none": {"e": 4}}
    got = evaluate(run, qrels, ["ERR@20", "nDCG(dcg='exp-log2')@10"])
    assert got.of("ERR@20").tolist() == [pytest.approx(err([1, 0, 3]), abs=1e-5), 0, 0]
    gain = 1 / np.log2(2) + 7 / np.log2(4)
    ideal = 7 / np.log2(2) + 3 / np.log2(3) + 1 / np.log2(4)
    assert got.of("nDCG(dcg='exp-log2')@10")[0] == pytest.approx(gain / ideal, abs=1e-5)
    with pytest.raises(ConfigError, match=r"ERR@20 is for grades of 0 to 4, and the qrels have 5"):
        evaluate(run, {"q 0": {"d": 5}}, ["ERR@20"])


def test_measures_by_subtopic_see_the_subtopics():
    pyndeval = pytest.importorskip("pyndeval")
    subtopics = {("a", "1"): 1, ("b", "1"): 1, ("c", "2"): 1, ("c", "1"): 0, ("d", "2"): 1}
    qrels = DiversityQrels({"q": {"a": 1, "b": 1, "c": 1, "d": 1}}, {"q": subtopics})
    run = Run.from_lists([("q", ["a", "b", "x", "c"], [4, 3, 2, 1])])
    got = evaluate(run, qrels, ["alpha_nDCG@10", "StRecall@2", "P@2"]).means
    discount = 1 / np.log2(np.arange(2, 6))
    gain = discount @ [1, 0.5, 0, 1]  # a document of a subtopic seen once before counts half
    ideal = discount @ [1, 1, 0.5, 0.5]
    assert got["alpha_nDCG@10"] == pytest.approx(gain / ideal, abs=1e-6)
    assert (got["StRecall@2"], got["P@2"]) == (0.5, 1.0)
    judged = [pyndeval.SubtopicQrel("q", s, d, g) for (d, s), g in subtopics.items()]
    scored = [pyndeval.ScoredDoc("q", d, s) for d, s in run.as_dict()["q"].items()]
    theirs = pyndeval.ndeval(judged, scored, measures=["alpha-nDCG@10"])
    assert got["alpha_nDCG@10"] == pytest.approx(theirs["q"]["alpha-nDCG@10"], abs=1e-9)


def test_measures_by_subtopic_refuse_qrels_without():
    pytest.importorskip("pyndeval")
    run = Run.from_lists([("q", ["a"], [1])])
    with pytest.raises(ConfigError, match=r"alpha_nDCG@10 needs judgements by subtopic"):
        evaluate(run, {"q": {"a": 1}}, ["alpha_nDCG@10"])
    with pytest.raises(ConfigError, match=r"does not compute judged_only"):
        evaluate(run, {"q": {"a": 1}}, ["alpha_nDCG(judged_only=True)@10"])


def test_a_measure_whose_tool_is_missing_says_what_to_install():
    with pytest.raises(ConfigError, match=r"cwl_eval, is not installed: pip install"):
        parse(["SDCG(max_rel=3)@10"])


def test_a_judged_query_without_results_counts_zero_and_an_unjudged_one_not_at_all():
    run = Run.from_lists([("q1", ["d1"], [1.0]), ("other", ["d1"], [1.0])])
    got = evaluate(run, {"q1": {"d1": 1}, "q2": {"d1": 1}}, ["AP"])
    assert got.means == {"AP": 0.5}
    assert dict(zip(got.query_ids, got.of("AP"))) == {"q1": 1.0, "q2": 0.0}
    assert evaluate(Run.from_lists([]), {"q1": {"d1": 1}}, ["AP"]).means == {"AP": 0.0}


def test_equal_scores_go_by_document_id_as_in_trec_eval_or_by_the_rows():
    run = Run.from_lists([("q", ["a", "b"], [1.0, 1.0])])
    qrels = {"q": {"a": 1}}
    assert evaluate(run, qrels, ["RR"]).means["RR"] == 0.5  # trec_eval puts b first
    assert evaluate(run, qrels, ["RR"], ties="rank").means["RR"] == 1.0


def test_names_of_trec_eval_and_short_forms_are_read():
    got = {name: str(measure) for name, measure in parse(["map", "P_30", "P100", "Rprec"]).items()}
    assert got == {"map": "AP", "P_30": "P@30", "P100": "P@100", "Rprec": "Rprec"}
    measures = parse(["success"])
    assert list(measures) == ["Success@1", "Success@5", "Success@10"]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["ndcg@10"], "did you mean nDCG@10"),
        (["gm_map"], "trec_eval has it"),
        (["nDCG@10", "nDCG@10"], "occurs twice"),
        ([], "expected at least one"),
        (["nDCG@ten"], "nDCG@ten"),
        (["quality"], "not a measure"),
        (["nDCG(depth=3)"], "depth"),
        (["SDCG@10"], "'SDCG@10' needs max_rel="),
    ],
)
def test_a_wrong_name_says_what_is_allowed(names, text):
    with pytest.raises(ConfigError, match=text.replace("(", r"\(").replace(")", r"\)")):
        parse(names)


def test_empty_qrels_are_refused():
    with pytest.raises(DataError, match="no judged query"):
        evaluate(Run.from_lists([]), {}, ["AP"])


def test_counts_of_the_qrels_have_no_direction():
    assert [direction(n) for n in ("nDCG@10", "map", "NumRelRet")] == [1, 1, 1]
    assert [direction(n) for n in ("NumQ", "NumRel", "NumRet")] == [0, 0, 0]


def test_better_is_strict_and_never_true_of_nan():
    assert better(0.5, 0.4) and not better(0.5, 0.5) and better(0.4, 0.5, -1)
    assert not better(0.5, 0.45, min_delta=0.05 + 1e-9)
    assert not better(float("nan"), 0.1) and not better(float("nan"), 0.1, -1)


def test_the_t_interval_is_scipys():
    values = np.random.default_rng(1).random(37)
    got = interval(values, Statistics(interval="t", level=0.9))
    low, high = scipy.stats.t.interval(0.9, 36, values.mean(), scipy.stats.sem(values))
    assert (got.low, got.high) == pytest.approx((low, high), abs=1e-12)


def test_the_bootstrap_interval_is_scipys_up_to_its_randomness_and_repeats():
    values = np.random.default_rng(2).random(50)
    got = interval(values)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=3
    ).confidence_interval
    assert (got.low, got.high) == pytest.approx((theirs.low, theirs.high), abs=4e-3)
    assert got == interval(values)
    assert np.isnan(interval(values[:1]).low)


@pytest.mark.collections
def test_the_published_anserini_figures_of_cacm_come_out(collections):
    qrels: dict[str, dict[str, int]] = {}
    for line in (collections / "cacm/qrels.anserini-unpadded.txt").read_text().splitlines():
        query, _, doc, relevance = line.split()
        qrels.setdefault(query, {})[doc] = int(relevance)
    rows: dict[str, list[tuple[str, float]]] = {}
    for line in (collections / "cacm/runs/anserini-bm25-fixture.run").read_text().splitlines():
        query, _, doc, _, score, _ = line.split()
        rows.setdefault(query, []).append((doc, float(score)))
    run = Run.from_lists([(q, [d for d, _ in r], [s for _, s in r]) for q, r in rows.items()])
    got = evaluate(run, qrels, ["P30", "nDCG@10"]).means
    assert round(got["P30"], 4) == 0.1942
    assert round(got["nDCG@10"], 4) == 0.4543
