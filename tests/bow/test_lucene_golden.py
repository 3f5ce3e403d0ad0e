"""Lucene's recorded answers that a plain clone carries: stems, tokens, rankings, float32 scores."""

from __future__ import annotations

import gzip
import json
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import Bm25, BowSearchSpec, F2Exp, F2Log, Inl2, Qld, Qljm, Scoring, Spl
from raydist.cli import main
from raydist.data.readers import read_queries
from raydist.records import Query
from raydist.text.analyzer import Analyzer
from tests.bow import generated

SCORINGS: dict[str, Scoring] = {
    "accurate": Bm25(lengths="exact"),
    "queryside": Bm25(query_side=True),
    "qld": Qld(),
    "qljm": Qljm(),
    "inl2": Inl2(),
    "spl": Spl(),
    "f2exp": F2Exp(),
    "f2log": F2Log(),
}
Ranking = dict[str, list[tuple[str, np.float32]]]


def lines(name: str) -> list[str]:
    with gzip.open(generated.GOLDEN / name, "rt", encoding="utf-8", newline="\n") as file:
        return [line.removesuffix("\n") for line in file]


@pytest.fixture(scope="module")
def recorded() -> Ranking:
    rows = [line.split("\t") for line in lines("run.tsv.gz")]
    return {
        query: [(doc, np.float32(score)) for _, doc, score in group]
        for query, group in groupby(rows, key=lambda row: row[0])
    }


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Query]]:
    corpus, queries = generated.write(tmp_path_factory.mktemp("generated"))
    return corpus, read_queries(queries)


def test_stems_are_lucenes() -> None:
    rows = [line.split("\t") for line in lines("stems.tsv.gz")]
    analyzer = Analyzer(stop_words="none")
    assert len(rows) == 12_000
    assert [analyzer.tokens(word) for word, _ in rows] == [[stem] for _, stem in rows]


def test_tokens_are_lucenes() -> None:
    rows = [json.loads(line) for line in lines("tokens.jsonl.gz")]
    assert len(rows) == 4047
    analyzer = Analyzer()
    wrong = [row["text"] for row in rows if analyzer.tokens(row["text"]) != row["tokens"]]
    assert not wrong


def test_other_models_have_lucenes_rankings_and_scores(
    collection: tuple[Path, list[Query]], tmp_path: Path
) -> None:
    corpus, queries = collection
    models: dict[str, dict[str, list[tuple[str, np.float32]]]] = {}
    for line in lines("models.tsv.gz"):
        model, query, doc, score = line.split("\t")
        models.setdefault(model, {}).setdefault(query, []).append((doc, np.float32(score)))
    assert len(models) == 8
    words = [f"corpus={corpus}", f"out={tmp_path}/index", "store=false"]
    assert main(["index", *words, "merge=false", "split_bytes=2MB"]) == 0
    index = BowIndex.open(tmp_path / "index")
    for model, expected in models.items():
        search = BowSearchSpec(scoring=SCORINGS[model])
        for pruned in (True, False):
            run = BowRetriever(index, search, pruned=pruned).search(queries[:40], 20)
            assert {query: list(zip(docs, scores)) for query, docs, scores in run} == expected


@pytest.mark.parametrize(
    "layout",
    [
        [],
        ["merge=false", "split_bytes=1MB", "compress=false", "block_size=32"],
    ],
    ids=["one segment", "segments of plain postings"],
)
@pytest.mark.parametrize("pruned", [True, False])
def test_rankings_and_scores_are_lucenes(
    layout: list[str],
    pruned: bool,
    collection: tuple[Path, list[Query]],
    recorded: Ranking,
    tmp_path: Path,
) -> None:
    corpus, queries = collection
    assert main(["index", f"corpus={corpus}", f"out={tmp_path}/index", *layout]) == 0
    index = BowIndex.open(tmp_path / "index")
    for k in (100, 10):
        run = BowRetriever(index, pruned=pruned).search(queries, k)
        answers = {query: list(zip(docs, scores)) for query, docs, scores in run}
        assert answers == {query: hits[:k] for query, hits in recorded.items()}
