"""Distillation on TREC DL 2019's judged pool: `python -m benchmarks.reranking parts=dl19`.

MiniLM with a fresh head learns a language model's grades (0 to 12) of the judged passages, in
5-fold cross-validation over the 43 queries, with each of three losses; then it reranks the passages
of BM25's top 100 that have a text. Baselines: the same filtered run in BM25's order, and the model
before training. Folds are kept in `benchmarks/.work/dl19` and not trained again.

    python -m benchmarks.distillation folds=1 losses=adr_mse epochs=1      (a trial)
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import WORK, arguments, print_table
from benchmarks.reranking import minilm_with_head
from raydist.data.readers import read_documents, read_qrels, read_queries, read_run
from raydist.evaluation.measures import evaluate
from raydist.evaluation.significance import compare
from raydist.records import Run
from raydist.rerank.apply import rerank
from raydist.rerank.cross_encoder import CrossEncoder

DATA = Path(__file__).parents[2] / "shared" / "data" / "msmarco-dl19-judged"
LOSSES = {"adr_mse": "rank", "distill_ranknet": "rank", "listwise_softmax_ce": "minmax"}
FOLDS = 5
DEFAULTS = {"folds": FOLDS, "losses": ",".join(LOSSES), "epochs": 8.0, "lr": 1e-4}
MEASURE = "nDCG@10"


def dl19(
    *,
    folds: int = FOLDS,
    losses: str = DEFAULTS["losses"],
    epochs: float = DEFAULTS["epochs"],
    lr: float = DEFAULTS["lr"],
) -> tuple[dict[str, float], dict[str, Any]]:
    """Returns nDCG@10 of every system, and the paired tests against the baselines."""
    texts = {
        doc_id: text
        for table in read_documents(DATA / "corpus.jsonl")
        for doc_id, text in zip(table["doc_id"].to_pylist(), table["text"].to_pylist())
    }
    queries = read_queries(DATA / "queries.jsonl")
    original = read_run(DATA / "runs" / "bm25.top100.run")
    kept = [
        (query, [docs[i] for i in places], scores[places])
        for query, docs, scores in original
        if (places := [i for i, doc in enumerate(docs) if doc in texts])
    ]
    baseline = Run.from_lists(kept)
    names = baseline.query_ids
    parts = [names[fold::FOLDS] for fold in range(folds)]
    held_out = [name for part in parts for name in part]
    start = minilm_with_head(WORK / "dl19" / "start")
    systems = {"bm25": _only(baseline, held_out)}
    systems["start"] = rerank(systems["bm25"], CrossEncoder(start), texts, queries)
    for loss in losses.split(","):
        runs = []
        for fold, part in enumerate(parts):
            model = _distil(loss, fold, set(part), start, epochs, lr)
            runs.append(rerank(_only(baseline, part), CrossEncoder(model), texts, queries))
        systems[loss] = Run.from_lists(each for run in runs for each in run)
    qrels = {q: d for q, d in read_qrels(DATA / "qrels.txt").items() if q in set(held_out)}
    values = {name: evaluate(run, qrels, [MEASURE]).of(MEASURE) for name, run in systems.items()}
    rows, tests = [], {}
    for name, found in values.items():
        row: list[Any] = [name, float(np.mean(found))]
        for other in ("bm25", "start"):
            if name == other:
                row += [None, None]
                continue
            paired = compare(found, values[other])
            row += [paired.difference, paired.p]
            tests[f"{name} - {other}"] = {
                "difference": round(paired.difference, 4),
                "p": round(paired.p, 5),
            }
        rows.append(row)
    columns = ["system", MEASURE, "- bm25", "p", "- start", "p"]
    print_table(f"DL19 pool, {len(held_out)} queries, {folds} of {FOLDS} folds", columns, rows)
    figures = {f"dl19_ndcg10_{name}": float(np.mean(found)) for name, found in values.items()}
    return figures, {"dl19_paired_t": tests, "dl19_epochs": epochs, "dl19_lr": lr}


def _only(run: Run, queries: list[str]) -> Run:
    wanted = set(queries)
    return Run.from_lists(each for each in run if each[0] in wanted)


def _distil(
    loss: str, fold: int, held_out: set[str], start: Path, epochs: float, lr: float
) -> Path:
    """Trains on the queries that are not held out, unless that was done; returns the model."""
    out = WORK / "dl19" / f"{loss}-{fold}-{epochs:g}-{lr:g}"
    if (out / "manifest.json").is_file():
        return out
    lines = (DATA / "distill.jsonl").read_text().splitlines()
    rest = [line for line in lines if json.loads(line)["query_id"] not in held_out]
    data = WORK / "dl19" / f"fold-{fold}.jsonl"
    data.write_text("\n".join(rest) + "\n")
    words = [
        f"data={data}",
        f"corpus={DATA / 'corpus.jsonl'}",
        f"queries={DATA / 'queries.jsonl'}",
        f"model={start}",
        "model.max_length=128",
        "model.dropout=0.0",
        "model.replace_contract=true",
        "sampler.size=12",
        "batch_size=4",
        f"epochs={epochs}",
        f"optim.lr={lr}",
        f"loss.kind={loss}",
        f"target={LOSSES[loss]}",
        f"out={out}",
    ]
    subprocess.run([sys.executable, "-m", "raydist", "distill", *words], check=True)
    return out


if __name__ == "__main__":
    dl19(**arguments(DEFAULTS))
