"""ranx measures what raydist measures, and gives runs and judgements back as they were."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import raydist as rd

JUDGEMENTS = "judgements, {query: {document: grade}}"
SCRIPT = Path(__file__).parent / "without_compiling.py"
MEASURES = {
    "ndcg@10": "nDCG@10",
    "map": "AP",
    "mrr": "RR",
    "recall@100": "R@100",
    "precision@5": "P@5",
    "r-precision": "Rprec",
}


@pytest.mark.collections
def test_ranx_measures_a_run_with_ties_as_raydist_does(
    cacm: rd.Collection, cacm_index: rd.Index, tmp_path: Path
) -> None:
    run = cacm_index.search(cacm.queries, k=200)
    tied = sum(len(scores) - len(np.unique(scores)) for _, _, scores in run)
    assert tied > 100
    run.write(tmp_path / "run.txt")
    (tmp_path / "qrels.json").write_text(json.dumps(cacm.qrels))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "run.txt", "qrels.json"],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    for ties in ("score", "rank"):
        ours = rd.evaluate(
            run, cacm.qrels, measures=list(MEASURES.values()), ties=ties, tracking="none"
        )
        expected = {name: ours["run", own] for name, own in MEASURES.items()}
        assert report[ties] == pytest.approx(expected, abs=1e-12)
    assert all(report["run"]) and len(report["run"]) == 53
    assert report["qrels"] and report["fused"] and report["empty"] == report["examples"] == 0
    assert report["name"] == "raydist"
    kinds = ("a Run or Qrels of ranx", "a run of raydist", JUDGEMENTS)
    assert (
        report["refused"][:-1]
        == [f"{kind}: expected {what}" for what in kinds for kind in ("int", "str", "dict")][:-1]
    )
    assert report["refused"][-1] == f"int: expected {JUDGEMENTS}"
