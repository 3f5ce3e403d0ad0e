"""Indexes of other languages than English: terms in batches and in queries are the same."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from raydist.artefact import Output
from raydist.bow.build.create import build_index
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import IndexSpec
from raydist.manifest import read_manifest
from raydist.records import Query
from raydist.text.analyzer import Analyzer
from raydist.text.spec import AnalyzerSpec
from tests.bow.documents import expected, postings_of, read, splits_of

GOLDEN = Path(__file__).parents[1] / "golden/lucene/languages.jsonl.gz"


@pytest.mark.parametrize("code", ["ko", "tr", "fa"])
def test_an_index_of_a_language_holds_and_finds_its_terms(tmp_path, code):
    with gzip.open(GOLDEN, "rt", encoding="utf-8") as lines:
        recorded = [row for row in map(json.loads, lines) if row["language"] == code]
    rows = [(f"d{i}", "", row["text"]) for i, row in enumerate(recorded)]
    spec = IndexSpec(analyzer=AnalyzerSpec(language=code))
    output = Output.open(tmp_path, kind="bow-index", config={}, inputs={"corpus": "x"})
    output.finish(**build_index(splits_of(rows, (9,)), read, tmp_path, spec))
    analyzer = Analyzer(code)
    segments = [tmp_path / each for each in read_manifest(tmp_path)["segments"]]
    assert postings_of(segments) == expected(rows, analyzer)
    index = BowIndex.open(tmp_path, verify=True)
    assert index.analyzer == analyzer
    run = BowRetriever(index).search([Query(each, text) for each, _, text in rows], 1)
    best = dict(zip(run.table["query_id"].to_pylist(), run.table["doc_id"].to_pylist()))
    assert best == {each: each for each, _, _ in rows}
