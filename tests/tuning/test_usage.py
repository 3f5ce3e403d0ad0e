"""A search in a few lines: what is drawn, what is reported, what decides."""

from __future__ import annotations

import json
from pathlib import Path

from raydist.data.spec import CorpusSource, QrelsSource, QueriesSource
from raydist.training.spec import Listener
from raydist.tuning.objective import choose_objective
from raydist.tuning.record import Record
from raydist.tuning.spec import draws, parse_distribution

SPACE = {"optim.lr": "log(1e-6, 1e-4)", "loss.temperature": "choice(0.02, 0.05)"}


def test_trials_are_drawn_reported_and_compared(tmp_path: Path) -> None:
    drawn = draws(SPACE, trials=3, seed=0)
    assert all(1e-6 <= float(each["optim.lr"]) <= 1e-4 for each in drawn)
    record = Record(tmp_path, drawn)
    for trial in record.trials:
        record.report(trial.index, step=10, value=0.3 + trial.index / 10)
        record.ended(trial.index, "finished")
    assert [trial.end for trial in Record(tmp_path, drawn).trials] == ["finished"] * 3
    listener = Listener(
        corpus=CorpusSource(path=("c",)),
        queries=QueriesSource(path=("q",)),
        qrels=QrelsSource(path=("r",)),
        metrics={"R@100": False, "nDCG@10": True},
    )
    objective = choose_objective({"dev": listener})
    assert str(objective) == "dev/nDCG@10"
    trial = record.trials[1].folder(tmp_path)
    (trial / "listeners/dev").mkdir(parents=True)
    best = {"nDCG@10": {"value": 0.4, "step": 10}}
    (trial / "listeners/dev/info.json").write_text(json.dumps(best))
    assert objective.best(trial) == (0.4, 10)
    assert objective.best(record.trials[0].folder(tmp_path)) is None


def test_a_distribution_is_written_as_text() -> None:
    assert parse_distribution("int(1, 8)").ends() == ["1", "8"]
