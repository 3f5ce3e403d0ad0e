"""The sequential dependence model: rankings and scores are Anserini's."""

from __future__ import annotations

import gzip
import json
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

import raydist as rd
from raydist.bow.feedback.spec import Rm3
from raydist.bow.spec import Bm25, BowSearchSpec, Sdm
from raydist.build import open_retriever
from raydist.cli import main
from raydist.config.load import load
from raydist.config.search import SearchConfig
from raydist.data.readers import read_queries
from raydist.errors import ConfigError
from tests.bow.answers import make_index
from tests.bow.test_structured import ROWS, over

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden/lucene/dependence.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_index(ROWS, tmp_path_factory.mktemp("dependence") / "index", positions=True)


@pytest.mark.parametrize("cuts", [(), (9, 10, 40)])
def test_rankings_and_scores_of_terms_and_pairs_are_anserinis(tmp_path, cuts) -> None:
    options = {"positions": True, "merge": not cuts, "block_size": 8 if cuts else 128}
    index = make_index(ROWS, tmp_path / "index", cuts, **options)
    for row in GOLDEN:
        tw, ow, uw = row["weights"]
        retriever = over(index, BowSearchSpec(scoring=Bm25(sdm=Sdm(tw=tw, ow=ow, uw=uw))))
        docs, scores = retriever.rank(row["query"], 100)
        answer = list(zip(retriever.index.pick_ids(docs).to_pylist(), scores.tolist()))
        wanted = [(doc, float(np.float32(score))) for doc, score in row["ranking"]]
        assert (answer[:12], len(answer)) == (wanted, row["matches"]), row


@pytest.mark.collections
@pytest.mark.parametrize("name", ["cacm", "cranfield", "vaswani", "nfcorpus"])
def test_recorded_runs_are_anserinis(
    collections: Path, oracle: Path, tmp_path: Path, name: str
) -> None:
    corpus, out = collections / name / "corpus.jsonl", tmp_path / "index"
    words = [f"corpus={corpus}", f"out={out}", "positions=true", "store=false", "duplicates=warn"]
    assert main(["index", *words]) == 0
    with gzip.open(oracle / f"anserini/{name}.sdm.run.gz", "rt") as lines:
        rows = [line.split() for line in lines]
    expected = {
        query: [(row[2], float(row[4])) for row in group]
        for query, group in groupby(rows, key=lambda row: row[0])
    }
    search = BowSearchSpec(scoring=Bm25(sdm=Sdm()), ties="anserini", threads=2)
    run = over(out, search).search(read_queries(collections / name / "queries.jsonl"), 100)
    answers = {q: [(d, round(float(s), 6)) for d, s in zip(ds, ss)] for q, ds, ss in run}
    assert answers == expected


def test_the_command_takes_it_by_a_key_and_its_weights_by_others(folder, tmp_path) -> None:
    queries = tmp_path / "queries.tsv"
    queries.write_text("q1\theron fish\nq2\tthe\n")
    words = [f"index={folder}", f"queries={queries}", "k=12", f"out={tmp_path / 'run.txt'}"]
    ones = [f"scoring.sdm.{name}=1" for name in ("tw", "ow", "uw")]
    ways = {
        (0.85, 0.1, 0.05): ["scoring.sdm=true"],
        (1.0, 1.0, 1.0): [ones[0], "scoring.sdm=true", *ones[1:]],
    }
    for weights, keys in ways.items():
        assert main(["search", *words, *keys]) == 0
        lines = [line.split() for line in (tmp_path / "run.txt").read_text().splitlines()]
        row = next(r for r in GOLDEN if (*r["weights"],) == weights and r["query"] == "heron fish")
        assert [(line[0], line[2], float(line[4])) for line in lines] == [
            ("q1", doc, pytest.approx(score, abs=1e-4)) for doc, score in row["ranking"]
        ]


def test_pairs_are_explained(folder: Path, capsys) -> None:
    retriever = over(folder, BowSearchSpec(scoring=Bm25(sdm=Sdm())))
    for row in GOLDEN[:22]:
        for doc, score in row["ranking"][:3]:
            why = retriever.explain(row["query"], doc)
            assert why.score == np.float32(score)
            assert sum(part.score for part in why.parts) == pytest.approx(score, rel=1e-6)
    keys = [f"index={folder}", "query=heron fish", "scoring.sdm=true", "k=1", "explain=true"]
    assert main(["search", *keys]) == 0
    printed = capsys.readouterr().out
    for term in ("heron ", "fish ", "heron fish, in order ", "heron fish, near "):
        assert f"\n{'':15}{term}" in printed


def test_python_takes_true_and_weights(folder: Path) -> None:
    index = rd.open(folder)
    row = next(row for row in GOLDEN if row["query"] == "fish heron")
    for sdm in (True, {"ow": 0.1}):
        hits = index.bm25(sdm=sdm).search("fish heron", 12)
        wanted = [(doc, float(np.float32(score))) for doc, score in row["ranking"]]
        assert [(hit.id, hit.score) for hit in hits] == wanted
    assert load(SearchConfig, [{"index": ["i"], "scoring": {"sdm": False}}]) == load(
        SearchConfig, [{"index": ["i"]}]
    )


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (BowSearchSpec(scoring=Bm25(sdm=Sdm(), lengths="exact")), "scores are those of Lucene's"),
        (BowSearchSpec(scoring=Bm25(sdm=Sdm(), query_side=True)), "scores are those of Lucene's"),
        (BowSearchSpec(scoring=Bm25(sdm=Sdm()), syntax="lucene"), "leave one of them out"),
        (BowSearchSpec(scoring=Bm25(sdm=Sdm()), feedback=Rm3()), "leave one of them out"),
    ],
)
def test_what_does_not_go_with_it_is_refused(folder: Path, search, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^scoring\.sdm: .*{message}"):
        open_retriever(str(folder), search)


def test_an_index_without_positions_is_refused_with_the_remedy(tmp_path, capsys) -> None:
    index = make_index(ROWS[:20], tmp_path / "index")
    assert main(["search", f"index={index}", "query=heron", "scoring.sdm=true"]) == 2
    assert "has no positions, which neighbouring words need; build it with positions=true" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "keys", [["scoring.sdm=often"], ["scoring.sdm.tw=-1"], ["scoring.kind=qld", "scoring.sdm=true"]]
)
def test_wrong_values_are_mistakes_of_the_user(folder: Path, keys, capsys) -> None:
    assert main(["search", f"index={folder}", "query=heron", *keys]) == 2
    error = capsys.readouterr().err
    assert keys[-1].partition("=")[0] in error
    assert "often" not in keys[-1] or "expected true, false or weights" in error


def test_python_says_what_sdm_takes(folder: Path) -> None:
    index = rd.open(folder)
    for wrong in ("often", 5):
        with pytest.raises(ConfigError, match=rf"scoring\.sdm = '?{wrong}"):
            index.bm25(sdm=wrong)
