"""Feedback: expanded queries, rankings and scores against Anserini's recorded ones, to the bit."""

from __future__ import annotations

import gzip
import json
import math
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raydist.bow.build.delete import delete_from_index
from raydist.bow.feedback.axiom import mutual_information
from raydist.bow.feedback.expansion import Features, bm25prf, rm3, rocchio
from raydist.bow.feedback.java import draws, hash_order
from raydist.bow.feedback.retriever import FeedbackRetriever
from raydist.bow.feedback.spec import Axiom, Bm25Prf, Feedback, Rm3, Rocchio
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import Bm25, BowSearchSpec, Qld
from raydist.cli import main
from raydist.data.readers import read_qrels, read_queries
from raydist.errors import ArtifactError, ConfigError
from raydist.evaluation.measures import evaluate, parse
from raydist.records import Query
from tests.bow import generated
from tests.bow.small_index import index_of

COLLECTIONS = ["cacm", "cranfield", "vaswani", "nfcorpus"]
TERMS = ["texts", "forward"]
"""Where the terms of documents come from."""
MODELS: dict[str, Feedback] = {
    "rm3": Rm3(),
    "rm3.nofilter": Rm3(filter=False, docs=5, terms=20, weight=0.7),
    "rocchio": Rocchio(),
    "rocchio.negative": Rocchio(negative=True),
    "bm25prf": Bm25Prf(),
    "axiom": Axiom(),
}
TEXTS = [
    "a heron eats fish in the canal",
    "herons of the canal eat frogs and fish",
    "the fish of a lake",
    "boats on a lake, boats on a canal",
    "a boat for a heron",
    "reeds grow on the canal's banks",
    "",
    "frogs and reeds",
]
OTHERS = [f"word{i}" for i in range(60)]  # no term of the texts is in a tenth of the documents


def retriever(folder: Path, feedback: Feedback, **search: Any) -> FeedbackRetriever:
    return FeedbackRetriever(
        BowRetriever(BowIndex.open(folder), BowSearchSpec(ties="anserini", **search)), feedback
    )


# --- Anserini -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def indexes(collections: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Indexes of the collections with texts alone, and with forward indexes alone."""
    folder = tmp_path_factory.mktemp("feedback")
    for name in COLLECTIONS:
        for terms in TERMS:
            words = ["index", f"corpus={collections / name / 'corpus.jsonl'}", "duplicates=warn"]
            words += ["store=false", "forward=true"] if terms == "forward" else []
            assert main([*words, f"out={folder / terms / name}"]) == 0
    return folder


@pytest.mark.collections
@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("model", [*(f"bm25+{model}" for model in MODELS), "qld+rm3"])
@pytest.mark.parametrize("name", COLLECTIONS)
def test_expanded_queries_rankings_and_scores_are_anserinis(
    indexes: Path, collections: Path, oracle: Path, name: str, model: str, terms: str
) -> None:
    recorded = oracle / "anserini"
    with gzip.open(recorded / f"{name}.expanded.jsonl.gz", "rt") as lines:
        rows = [row for row in map(json.loads, lines) if row["model"] == model]
    with gzip.open(recorded / f"{name}.{model}.run.gz", "rt") as lines:
        results = [line.split() for line in lines]
    queries = read_queries(collections / name / "queries.jsonl")
    scoring, _, feedback = model.partition("+")
    formula = Qld() if scoring == "qld" else Bm25()
    search = retriever(indexes / terms / name, MODELS[feedback], scoring=formula)
    for query, row in zip(sorted(queries, key=lambda query: query.query_id), rows, strict=True):
        expected = {term: np.float32(weight) for term, weight in row["expanded"].items()}
        if expected:  # an empty one is searched as it is
            assert search.expand(query.text) == expected, query.query_id
    answers = {query: (docs, scores) for query, docs, scores in search.search(queries, 100)}
    for query_id, group in groupby(results, key=lambda row: row[0]):
        docs, scores = answers.pop(query_id)
        rows = list(group)
        assert list(docs) == [row[2] for row in rows], query_id
        assert np.allclose(scores, [float(row[4]) for row in rows], rtol=0, atol=1.5e-6), query_id
    assert not answers


@pytest.mark.parametrize("terms", TERMS)
def test_rankings_and_scores_in_a_generated_corpus_are_anserinis(
    tmp_path: Path, terms: str
) -> None:
    with gzip.open(generated.GOLDEN / "feedback.tsv.gz", "rt", encoding="utf-8") as lines:
        rows = [line.split("\t") for line in lines]
    corpus, source = generated.write_terms(tmp_path)
    words = ["index", f"corpus={corpus}", f"out={tmp_path}/idx", "split_bytes=100KiB"]
    assert main([*words, *(["forward=true", "store=false"] if terms == "forward" else [])]) == 0
    queries = read_queries(source)
    for model, feedback in MODELS.items():
        run = retriever(tmp_path / "idx", feedback).search(queries, 100)
        answers = {query: list(zip(docs, scores)) for query, docs, scores in run}
        recorded = [row[1:] for row in rows if row[0] == model]
        assert len(recorded) > 600
        for query, group in groupby(recorded, key=lambda row: row[0]):
            expected = [(doc, pytest.approx(float(score), abs=1.5e-6)) for _, doc, score in group]
            assert answers[query][: len(expected)] == expected, (model, query)


@pytest.mark.collections
def test_rm3_has_the_published_figures_of_cacm(indexes: Path, collections: Path) -> None:
    """MAP .3648 and P30 .2224: Anserini's own regression for this collection and these qrels."""
    qrels = read_qrels(collections / "cacm/qrels.anserini-unpadded.txt")
    queries = read_queries(collections / "cacm/queries.jsonl")
    run = retriever(indexes / "texts/cacm", Rm3()).search(queries, 1000)
    means = evaluate(run, qrels, parse(["AP", "P@30"])).means
    assert [round(float(mean), 4) for mean in means.values()] == [0.3648, 0.2224]


def test_ties_and_draws_are_javas() -> None:
    """Recorded from HashSet and Random of Java 17."""
    words = ["heron", "fish", "canal", "boat", "water", "reed", "Aa", "BB", "éclair", "😀", "日本"]
    words += ["stone", "bridge", "lock", "weir", "mill", "otter", "pike", "perch", "eel"]
    few = ["Aa", "BB", "éclair", "fish", "reed", "😀", "canal", "日本", "heron", "water", "boat"]
    assert hash_order(words[:12]) == [*few, "stone"]
    many = ["Aa", "BB", "weir", "éclair", "reed", "pike", "日本", "water", "eel", "boat", "otter"]
    many += ["stone", "mill", "fish", "😀", "lock", "canal", "bridge", "perch", "heron"]
    assert hash_order(words) == many
    for bound, numbers in (
        (10, [0, 3, 8, 4, 0, 5, 5, 8]),
        (16, [11, 0, 10, 0, 4, 15, 4, 11]),
        (1398, [1166, 1305, 462, 164, 624, 1183, 551, 362]),
    ):
        assert list(islice(draws(42, bound), 8)) == numbers
    large = [577934662, 1445645590, 1119890478, 314447087, 677675436, 184135245]
    assert list(islice(draws(-7, 1_500_000_000), 6)) == large


# --- Closed forms ---------------------------------------------------------------------------------


def features(**values: float) -> Features:
    return Features(list(values), np.array(list(values.values()), np.float32))


def test_rm3_is_the_query_and_the_documents_shares_by_their_scores() -> None:
    documents = [features(canal=3, fish=1), features(fish=1), features()]
    scores = np.array([2, 1, 9], np.float32)
    weights = rm3(["heron", "heron", "fish"], documents, scores, Rm3(weight=0.25))
    model = {"canal": 3 / 4 * 2, "fish": 1 / 4 * 2 + 1 * 1}  # 1.5 each
    expected = {"heron": 0.25 * 2 / 3, "fish": 0.25 / 3 + 0.75 * 0.5, "canal": 0.75 * 0.5}
    assert model["canal"] == model["fish"]
    assert weights == pytest.approx(expected, abs=1e-7)
    first = rm3(["heron"], documents, scores, Rm3(terms=1))  # of equals, the first by name
    assert first == pytest.approx({"heron": 0.5, "canal": 0.5})
    assert rm3(["heron"], [], scores[:0], Rm3()) == {"heron": 0.5}


def test_rocchio_adds_the_mean_of_unit_vectors_and_subtracts_the_others() -> None:
    near, far = [features(canal=3, fish=4), features(fish=2)], [features(heron=1), features()]
    weights = rocchio(["heron", "fish"], near, far, Rocchio(alpha=1, beta=0.5, gamma=0.25))
    mean = np.array([0.3, 0.9])  # canal .6, fish .8 and 1
    canal, fish = mean / np.sqrt(mean @ mean)
    one = math.sqrt(0.5)
    expected = {"heron": one - 0.25, "fish": one + 0.5 * fish, "canal": 0.5 * canal}
    assert weights == pytest.approx(expected, abs=1e-6)
    strict = rocchio(["heron"], [], far, Rocchio(gamma=1))
    assert strict == {}  # no weight is left above 0


def test_bm25_feedback_takes_terms_of_two_documents_by_their_relevance_weights() -> None:
    relevant = [["canal", "fish", "heron"], ["canal", "fish", "x", "12"], ["12", "boat", "x"]]
    df = {"canal": 5, "fish": 2, "heron": 9, "boat": 1, "x": 2, "12": 2}
    weights = bm25prf(["heron"], relevant, df, 20, Bm25Prf(weight=0.5))

    def relevance(hits: int, n: int) -> float:
        return math.log((hits + 0.5) * (20 - n - 3 + hits + 0.5) / (n - hits + 0.5) / (3.5 - hits))

    expected = {"heron": 1e-6, "canal": relevance(2, 5) / 2, "fish": relevance(2, 2) / 2}
    assert weights == pytest.approx(expected, abs=1e-6)
    assert relevance(1, 9) < 0  # what speaks against relevance has the least weight
    assert set(bm25prf(["heron"], relevant, df, 20, Bm25Prf(terms=1))) == {"heron", "fish"}


def test_mutual_information_is_that_of_two_events() -> None:
    rng = np.random.default_rng(3)
    x, ys = rng.random(40) < 0.4, rng.random((6, 40)) < 0.5
    ys[5] = True
    both = (ys & x).sum(1)
    got = mutual_information(int(x.sum()), ys.sum(1), both, 40)
    for value, y in zip(got, ys):
        expected = 0.0
        for a in (False, True):
            for b in (False, True):
                p = float(np.mean((x == a) & (y == b)))
                if p:
                    expected += p * math.log(p / (np.mean(x == a) * np.mean(y == b)))
        assert value == pytest.approx(expected, abs=1e-6)


# --- Indexes --------------------------------------------------------------------------------------


def build(folder: Path, texts: dict[str, str], *options: str) -> Path:
    corpus = folder.with_suffix(".jsonl")
    corpus.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in texts.items()))
    assert main(["index", f"corpus={corpus}", f"out={folder}", *options]) == 0
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    return build(folder / "idx", {f"d{i}": text for i, text in enumerate(TEXTS + OTHERS)})


@pytest.mark.parametrize("model", MODELS)
def test_deletions_segments_and_forward_indexes_change_no_expansion(
    tmp_path: Path, model: str
) -> None:
    texts = {f"d{i}": f"{text} w{i % 3}" for i, text in enumerate(TEXTS * 6 + OTHERS * 8)}
    gone = [f"d{i}" for i in range(0, 500, 7)]
    whole = build(tmp_path / "whole", texts, "merge=false", "split_bytes=1KB")
    delete_from_index(whole, gone)
    rest = build(tmp_path / "rest", {i: text for i, text in texts.items() if i not in gone})
    options = ["merge=false", "split_bytes=1KB", "store=false", "forward=true"]
    forward = build(tmp_path / "forward", texts, *options)
    delete_from_index(forward, gone)
    folders = (whole, rest, forward)
    one, two, three = (retriever(each, MODELS[model], threads=2) for each in folders)
    assert len(one.index.segments) == len(three.index.segments) > 2
    queries = [
        Query("1", "heron canal"),
        Query("2", "w1 fish"),
        Query("3", "nowhere"),
        Query("4", ""),
    ]
    for query in queries:
        assert one.expand(query.text) == two.expand(query.text) == three.expand(query.text)
    assert one.search(queries, 20).table.equals(two.search(queries, 20).table)
    assert one.search(queries, 20).table.equals(three.search(queries, 20).table)


def test_a_restricted_search_learns_from_its_documents_alone(small: Path) -> None:
    search = retriever(small, Rm3(docs=3))
    assert "frog" in search.expand("heron")
    among = search.only(["d0", "d4", "nowhere"])
    assert "frog" not in among.expand("heron")
    without = search.without(["d1"])
    assert "frog" not in without.expand("heron")
    run = among.search([Query("1", "heron")], 9)
    assert set(run.table["doc_id"].to_pylist()) == {"d0", "d4"}
    assert "frog" in search.expand("heron")


def test_an_explanation_is_that_of_the_expanded_query(small: Path) -> None:
    search = retriever(small, Bm25Prf(docs=3))
    docs, scores = search.rank("heron", 1)
    explanation = search.explain("heron", search.index.pick_ids(docs)[0].as_py())
    assert {part.term for part in explanation.parts} <= set(search.expand("heron"))
    assert explanation.score == pytest.approx(float(scores[0]), abs=1e-4)
    assert all(part.weight == search.expand("heron")[part.term] for part in explanation.parts)


def test_what_feedback_needs_is_said(small: Path, tmp_path: Path) -> None:
    bare = build(tmp_path / "bare", {"1": "heron"}, "store=false")
    with pytest.raises(
        ConfigError, match=r"bare lacks the documents' terms and texts; .*store=true"
    ):
        retriever(bare, Rm3())
    with pytest.raises(ConfigError, match="the index lacks an analyzer"):
        FeedbackRetriever(BowRetriever(index_of([["a"]], tmp_path / "loose")), Rm3())
    with pytest.raises(ConfigError, match=r"'bm25prf': expected scoring\.kind=bm25"):
        retriever(small, Bm25Prf(), scoring=Bm25(variant="atire"))
    other = build(
        tmp_path / "other", {f"d{i}": "heron of a lake" for i in range(len(TEXTS + OTHERS))}
    )
    mixed = BowIndex.open(small)
    mixed.store = BowIndex.open(other).store
    with pytest.raises(ArtifactError, match="not those that were indexed"):
        FeedbackRetriever(BowRetriever(mixed), Rm3()).expand("boat")
