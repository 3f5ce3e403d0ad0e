"""Evaluation in a few lines: measure a run, compare it with a baseline, record it in MLflow."""

from __future__ import annotations

from pathlib import Path

from raydist.evaluation.measures import evaluate
from raydist.evaluation.mirror import Mirror
from raydist.evaluation.report import render, report
from raydist.evaluation.spec import Tracking
from raydist.evaluation.tracking import Tracker
from raydist.records import Run

QRELS = {"q1": {"a": 1}, "q2": {"b": 2, "c": 1}}
BM25 = Run.from_lists([("q1", ["x", "a"], [2.0, 1.0]), ("q2", ["b", "c"], [2.0, 1.0])])
DENSE = Run.from_lists([("q1", ["a", "x"], [0.9, 0.1]), ("q2", ["b", "c"], [0.8, 0.7])])


def test_a_run_is_measured() -> None:
    evaluation = evaluate(BM25, QRELS, ["RR", "R@1"])
    assert evaluation.means == {"RR": 0.75, "R@1": 0.25}
    assert evaluation.of("RR").tolist() == [0.5, 1.0]  # q1, q2


def test_runs_are_compared_with_a_baseline() -> None:
    evaluations = {name: evaluate(run, QRELS, ["RR"]) for name, run in runs().items()}
    lines = render(report(evaluations, baseline="bm25"), "tsv").splitlines()
    assert lines[0].startswith("measure\trun\tmean") and len(lines) == 3
    (dense,) = [row for row in report(evaluations, baseline="bm25").rows if row.run == "dense"]
    assert dense.paired is not None and dense.paired.difference == 0.25
    assert (dense.paired.wins, dense.paired.ties, dense.paired.losses) == (1, 1, 0)


def runs() -> dict[str, Run]:
    return {"bm25": BM25, "dense": DENSE}


def test_what_is_logged_goes_to_a_local_record_that_mlflow_follows(
    database: str, tmp_path: Path
) -> None:
    with Tracker.start(tmp_path / "run", Tracking(uri=database)) as tracker:
        mirror = Mirror(tracker.folder)
        mirror.params({"optim": {"lr": 2e-5}})
        mirror.step(1, {"loss": 0.7})
        mirror.metrics(1, {"nDCG@10": 0.4})

    from mlflow import MlflowClient

    logged = MlflowClient(database).get_run(tracker.run_id).data
    assert logged.params == {"optim.lr": "2e-05"}
    assert logged.metrics == {"train/loss": 0.7, "nDCG_at_10": 0.4}
