"""What ranx makes of runs: `python without_compiling.py RUN QRELS` prints JSON.

A process of its own, in which numba compiles nothing: ranx takes a minute to compile, and on one
collection nothing to compute.
"""

from __future__ import annotations

import doctest
import json
import sys
from typing import Any

import ranx

import raydist as rd
from raydist.integrations import ranx as room
from raydist.integrations.ranx import from_ranx, ranx_qrels, ranx_run

MEASURES = ["ndcg@10", "map", "mrr", "recall@100", "precision@5", "r-precision"]


def main(run_path: str, qrels_path: str) -> None:
    with open(qrels_path, encoding="utf-8") as file:
        qrels = json.load(file)
    run = rd.read_run(run_path)
    report: dict[str, Any] = {"examples": doctest.testmod(room).failed, "name": ranx_run(run).name}
    for ties in ("score", "rank"):
        theirs = ranx_run(run, ties=ties)  # type: ignore[arg-type]
        judged = ranx_qrels(qrels, "cacm")
        report[ties] = ranx.evaluate(judged, theirs, MEASURES, make_comparable=True)
    back = from_ranx(ranx_run(run, ties="rank"))
    report["run"] = [sorted(run.query_ids) == sorted(back.query_ids)]
    rows = {query: (docs, scores.tolist()) for query, docs, scores in run}
    report["run"] += [rows[query] == (docs, scores.tolist()) for query, docs, scores in back]
    report["qrels"] = from_ranx(ranx_qrels(qrels)) == qrels
    fused = from_ranx(ranx.fuse([ranx_run(run), ranx_run(run.top(5))], norm=None, method="rrf"))
    report["fused"] = len(fused) == len(run)
    report["empty"] = len(from_ranx(ranx_run(rd.Run.from_lists([]))))
    report["refused"] = [
        _refusal(call, value)
        for call in (from_ranx, ranx_run, ranx_qrels)
        for value in (3, "text", {"q1": 2})
    ]
    print(json.dumps(report))


def _refusal(call: Any, value: Any) -> str:
    try:
        call(value)
    except rd.ConfigError as error:
        return str(error)
    return "taken"


if __name__ == "__main__":
    main(*sys.argv[1:])
