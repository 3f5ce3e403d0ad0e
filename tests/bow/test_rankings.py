"""Rankings and float32 scores against Lucene's recorded ones, ties included."""

from __future__ import annotations

import gzip
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.cli import main
from raydist.data.readers import read_qrels, read_queries
from raydist.evaluation.measures import evaluate, parse
from raydist.records import Query

COLLECTIONS = ["cacm", "cranfield", "nfcorpus", "vaswani", "biomappings-mesh"]
Ranking = dict[str, tuple[list[str], list[np.float32]]]


def recorded(path: Path) -> Ranking:
    found: Ranking = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            query_id, _, doc_id, _, score, *_ = line.split()
            docs, scores = found.setdefault(query_id, ([], []))
            docs.append(doc_id)
            scores.append(np.float32(score))
    return found


def check(index: BowIndex, queries: list[Query], expected: Ranking) -> None:
    """The recorded queries have the recorded documents and scores at k = 100, 10 and 1000."""
    asked = [query for query in queries if query.query_id in expected]
    assert len(asked) == len(expected)
    for k in (100, 10, 1000):
        run = BowRetriever(index).search(asked, k)
        found = {query_id: (docs, scores) for query_id, docs, scores in run}
        for query_id, (docs, scores) in expected.items():
            most = min(k, 100)
            assert found[query_id][0][:most] == docs[:most], query_id
            assert np.array_equal(found[query_id][1][:most], np.array(scores[:most])), query_id


@pytest.mark.collections
@pytest.mark.parametrize("name", COLLECTIONS)
def test_a_collection_is_ranked_as_lucene_ranks_it(
    name: str, collections: Path, oracle: Path, tmp_path: Path
) -> None:
    assert main(["index", f"corpus={collections}/{name}/corpus.jsonl", f"out={tmp_path}/i"]) == 0
    queries = read_queries(collections / name / "queries.jsonl")
    check(BowIndex.open(tmp_path / "i"), queries, recorded(oracle / f"{name}.lucene.run.gz"))


@pytest.mark.collections
def test_cacm_has_the_published_figures_under_anserinis_ties(
    collections: Path, tmp_path: Path
) -> None:
    """MAP .3123 and P30 .1942: Anserini's own regression for this collection and these qrels."""
    main(["index", f"corpus={collections}/cacm/corpus.jsonl", f"out={tmp_path}/i"])
    qrels = read_qrels(collections / "cacm/qrels.anserini-unpadded.txt")
    queries = read_queries(collections / "cacm/queries.jsonl")
    search = partial(BowRetriever, BowIndex.open(tmp_path / "i"))
    found = evaluate(search(ties="anserini").search(queries, 1000), qrels, parse(["AP", "P@30"]))
    assert [round(float(mean), 4) for mean in found.means.values()] == [0.3123, 0.1942]


@pytest.mark.slow
@pytest.mark.collections
def test_a_corpus_of_100_000_documents_is_ranked_as_lucene_ranks_it(
    oracle: Path, tmp_path: Path
) -> None:
    tool = oracle.parent / "tools" / "gen_corpus.py"
    subprocess.run([sys.executable, str(tool), str(tmp_path), "100000", "42"], check=True)
    assert main(["index", f"corpus={tmp_path}/corpus.jsonl", f"out={tmp_path}/i"]) == 0
    expected = recorded(oracle / "gen_corpus-100000-42.lucene.run.gz")
    check(BowIndex.open(tmp_path / "i"), read_queries(tmp_path / "queries.tsv"), expected)
