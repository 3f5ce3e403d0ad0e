"""The whole chain against Lucene's recorded answers: order, ties, float32 scores."""

from __future__ import annotations

import gzip
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import BowSearchSpec
from raydist.cli import main
from raydist.data.readers import read_qrels, read_queries
from raydist.evaluation.measures import evaluate, parse
from raydist.records import Query

COLLECTIONS = ["cacm", "cranfield", "vaswani", "nfcorpus", "biomappings-mesh"]
DEPTH = 100  # of the recorded rankings
Rankings = dict[str, list[tuple[str, np.float32]]]

pytestmark = pytest.mark.collections


def build(corpus: Path, folder: Path, *options: str) -> BowIndex:
    words = [f"corpus={corpus}", f"out={folder}", "store=false", "duplicates=warn", *options]
    assert main(["index", *words]) == 0
    return BowIndex.open(folder)


def recorded(path: Path) -> Rankings:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [line.split() for line in lines]
    return {
        query: [(row[2], np.float32(row[4])) for row in group]
        for query, group in groupby(rows, key=lambda row: row[0])
    }


def check(retriever: BowRetriever, queries: list[Query], expected: Rankings) -> None:
    for k in (DEPTH, 10, 1000):
        run = retriever.search(queries, k)
        answers = {query: list(zip(docs, scores))[:DEPTH] for query, docs, scores in run}
        wrong = [query for query in expected if answers.get(query) != expected[query][:k]]
        assert answers.keys() == expected.keys() and not wrong, wrong[:1]


@pytest.mark.parametrize("name", COLLECTIONS)
def test_rankings_and_scores_are_lucenes(
    collections: Path, oracle: Path, tmp_path: Path, name: str
) -> None:
    queries = read_queries(collections / name / "queries.jsonl")
    expected = recorded(oracle / f"{name}.lucene.run.gz")
    corpus = collections / name / "corpus.jsonl"
    check(BowRetriever(build(corpus, tmp_path / "merged")), queries, expected)
    layout = ["split_bytes=1MB", "merge=false", "compress=false", "block_size=32"]
    segments = build(corpus, tmp_path / "segments", *layout)
    check(BowRetriever(segments, BowSearchSpec(threads=2)), queries, expected)
    if name != "biomappings-mesh":
        check(BowRetriever(segments, pruned=False), queries, expected)


def test_cacm_has_the_published_figures_under_anserinis_ties(
    collections: Path, tmp_path: Path
) -> None:
    """MAP .3123 and P30 .1942: Anserini's own regression for this collection and these qrels."""
    index = build(collections / "cacm/corpus.jsonl", tmp_path / "index")
    qrels = read_qrels(collections / "cacm/qrels.anserini-unpadded.txt")
    queries = read_queries(collections / "cacm/queries.jsonl")
    run = BowRetriever(index, BowSearchSpec(ties="anserini")).search(queries, 1000)
    means = evaluate(run, qrels, parse(["AP", "P@30"])).means
    assert [round(float(mean), 4) for mean in means.values()] == [0.3123, 0.1942]


@pytest.mark.slow
def test_rankings_of_100_000_generated_documents_are_lucenes(oracle: Path, tmp_path: Path) -> None:
    tool = oracle.parent / "tools" / "gen_corpus.py"
    subprocess.run([sys.executable, str(tool), str(tmp_path), "100000", "42"], check=True)
    expected = recorded(oracle / "gen_corpus-100000-42.lucene.run.gz")
    index = build(tmp_path / "corpus.jsonl", tmp_path / "index")
    check(BowRetriever(index), read_queries(tmp_path / "queries.tsv"), expected)
