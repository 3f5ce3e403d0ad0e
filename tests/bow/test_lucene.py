"""Whole chain against Lucene's recorded answers: lists, order and float32 scores."""

from __future__ import annotations

import gzip
import importlib.util
import subprocess
import sys
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest

from raydist.bow.build.create import build_index
from raydist.bow.build.splits import Options
from raydist.bow.format.segment import Segment
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.data.readers import read_qrels, read_queries, read_split
from raydist.data.splits import plan_splits
from raydist.records import Query
from raydist.text.analyzer import Analyzer

NAMES = ["cacm", "cranfield", "vaswani", "nfcorpus", "biomappings-mesh"]


def read(fields: dict[str, str] | None, split: dict[str, Any], rejects: Any) -> Any:
    return read_split(split, fields=fields, rejects=rejects)


def build(corpus: Path, folder: Path, *, split_bytes: int = 64 << 20, **options: Any) -> BowIndex:
    fields = {"id": "id", "text": "contents"} if "gen" in folder.name else None
    facts = build_index(
        plan_splits(str(corpus), split_bytes=split_bytes),
        partial(read, fields),
        folder,
        Options(store=False, **options),
        duplicates="warn",
    )
    segments = [Segment.open(folder / name) for name in facts["segments"]]
    return BowIndex(segments, Analyzer())


def recorded(path: Path) -> dict[str, list[tuple[str, np.float32]]]:
    with gzip.open(path, "rt") as lines:
        rows = [line.split() for line in lines]
    return {
        query: [(row[2], np.float32(row[4])) for row in group]
        for query, group in groupby(rows, key=lambda row: row[0])
    }


def check(index: BowIndex, queries: list[Query], expected: Any, **options: Any) -> None:
    run = BowRetriever(index, **options).search(queries, 100)
    found = {query: list(zip(docs, scores)) for query, docs, scores in run}
    assert found.keys() == expected.keys()
    wrong = [query for query in expected if found[query] != expected[query]]
    assert not wrong, f"{len(wrong)} of {len(expected)} lists differ, the first: {wrong[0]}"


@pytest.mark.collections
@pytest.mark.parametrize("name", NAMES)
def test_rankings_and_scores_are_lucenes(
    collections: Path, oracle: Path, tmp_path: Path, name: str
) -> None:
    queries = read_queries(collections / name / "queries.jsonl")
    expected = recorded(oracle / f"{name}.lucene.run.gz")
    corpus = collections / name / "corpus.jsonl"
    check(build(corpus, tmp_path / "merged"), queries, expected)
    many = build(
        corpus, tmp_path / "many", split_bytes=1 << 20, merge=False, compress=False, block_size=32
    )
    check(many, queries, expected, threads=2)
    if name != "biomappings-mesh":
        check(many, queries, expected, pruned=False)


@pytest.mark.collections
def test_cacm_by_anserinis_ties_has_the_published_figures(
    collections: Path, tmp_path: Path
) -> None:
    folder = collections / "cacm"
    queries = read_queries(folder / "queries.jsonl")
    qrels = read_qrels(folder / "qrels.anserini-unpadded.txt")
    index = build(folder / "corpus.jsonl", tmp_path / "index")
    run = BowRetriever(index, ties="anserini").search(queries, 1000)
    measures = [ir_measures.AP, ir_measures.P @ 30]
    found = ir_measures.calc_aggregate(measures, qrels, run.as_dict())
    assert round(found[ir_measures.AP], 4) == 0.3123
    assert round(found[ir_measures.P @ 30], 4) == 0.1942


@pytest.mark.slow
@pytest.mark.collections
def test_a_generated_corpus_of_100000_documents_is_lucenes(oracle: Path, tmp_path: Path) -> None:
    generator = oracle.parent / "tools" / "gen_corpus.py"
    assert importlib.util.find_spec("numba")
    subprocess.run(
        [sys.executable, str(generator), str(tmp_path / "corpus"), "100000", "42"], check=True
    )
    lines = (tmp_path / "corpus" / "queries.tsv").read_text().splitlines()
    queries = [Query(*line.split("\t", 1)) for line in lines]
    expected = recorded(oracle / "gen_corpus-100000-42.lucene.run.gz")
    index = build(tmp_path / "corpus" / "corpus.jsonl", tmp_path / "gen")
    check(index, queries, expected)
