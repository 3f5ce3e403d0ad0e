"""Trials on a local Ray: the best is kept, the worse are stopped, and none is run twice."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from raydist.cli import main
from raydist.config.load import load
from raydist.config.training import DistillConfig, TrainConfig
from raydist.evaluation.measures import Evaluation
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.tuning.record import Record
from raydist.tuning.spec import Search
from raydist.tuning.trials import Report, _asha
from tests.commands.training.runs import VALIDATION, write
from tests.training.jobs import record
from tests.training.small import checkpoint, samples, texts

LR = "space.optim.lr=choice(1e-9, 3e-3)"
OF_SEARCH = ("space.optim.lr", "trials", "concurrent", "grace", "out")


def asha(record: Record) -> Any:
    return _asha(record, Search(space={"seed": "int(0, 9)"}, reduction=2.0), grace=1)


def test_a_search_that_continues_knows_what_ended_trials_reported(tmp_path: Path) -> None:
    first = Record(tmp_path, [{"seed": str(i)} for i in range(4)])
    for trial, value in enumerate((0.8, 0.6)):
        first.report(trial, 0, 0.1)
        first.report(trial, 1, value)
        first.report(trial, 1, value)  # the validation that a killed process does again
        first.ended(trial, "stopped")
    again = Record(tmp_path, [{"seed": str(i)} for i in range(4)])
    assert [trial.reports for trial in again.trials[:2]] == [
        [(0, 0.1), (1, 0.8)],
        [(0, 0.1), (1, 0.6)],
    ]
    assert [trial.end for trial in again.trials] == ["stopped", "stopped", None, None]
    scheduler = asha(again)
    decisions = []
    for name, value in (("a", 0.65), ("b", 0.75)):  # the median so far is .7, then .65
        trial = SimpleNamespace(trial_id=name)
        scheduler.on_trial_add(None, trial)
        decisions.append(scheduler.on_trial_result(None, trial, {"step": 1, "value": value}))
    assert decisions == ["STOP", "CONTINUE"]


def test_no_trial_is_stopped_at_its_last_step(tmp_path: Path) -> None:
    """It ends anyway, and would lose its final model."""
    reports: list[dict[str, float]] = []
    hook = Report("RR", reports.append, last=4)
    for step in (2, 4):
        hook(step, None, Evaluation(("RR",), (), np.empty((1, 0)), {"RR": 0.1}))
    assert reports == [{"step": 2, "value": 0.1}, {"last": 4, "value": 0.1}]
    scheduler = asha(Record(tmp_path, []))
    best, other = SimpleNamespace(trial_id="a"), SimpleNamespace(trial_id="b")
    for trial in (best, other):
        scheduler.on_trial_add(None, trial)
    scheduler.on_trial_result(None, best, {"step": 2, "value": 0.9})
    end = {"value": float("nan"), "end": "finished"}
    decisions = [scheduler.on_trial_result(None, other, each) for each in (reports[1], end)]
    assert decisions == ["CONTINUE", "CONTINUE"]
    assert scheduler.on_trial_result(None, other, reports[0]) == "STOP"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, samples, and a task to validate on."""
    folder = tmp_path_factory.mktemp("tune")
    checkpoint(folder / "model")
    return folder


@pytest.fixture
def files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    write("train.jsonl", [record(sample) for sample in samples(scores=True)])
    pool = texts()
    write("corpus.jsonl", [{"id": f"d{i}", "text": text} for i, text in enumerate(pool)])
    write("queries.jsonl", [{"id": f"q{i}", "text": pool[i * 5]} for i in range(8)])
    Path("qrels.txt").write_text("".join(f"q{i} 0 d{i * 5 + 1} 1\n" for i in range(8)))
    return folder


def line(out: str, *words: str) -> list[str]:
    sizes = ["steps=4", "batch_size=8", "train_group_size=2", "model.dropout=0", "distill=none"]
    dev = [*VALIDATION, "validation.dev.interval=1", "tracking=none"]
    return ["tune", "data=train.jsonl", "model=model", f"out={out}", *sizes, *dev, *words]


def ends(out: str) -> dict[str, str]:
    manifest = json.loads(Path(out, "manifest.json").read_text())
    return dict(manifest["ends"])


def changed(out: str, trial: str) -> int:
    history = Path(out, "trials", trial, "listeners/dev/history.jsonl")
    return history.stat().st_mtime_ns


def test_a_dry_run_shows_the_trials_and_starts_nothing(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*line("dry", LR, "trials=2"), "--dry-run"]) == 0
    shown = capsys.readouterr().err
    assert (
        "would train 2 trials into dry, compared by dev/map (a look at the first 100 samples)"
        in shown
    )
    assert "optim.lr" in shown and "biencoder: 4 steps" in shown
    assert not Path("dry").exists()
    assert main([*line("dry", LR, "trials=2", "data=none.jsonl"), "--dry-run"]) == 2
    assert "none.jsonl: no such file" in capsys.readouterr().err


@pytest.mark.ray
def test_the_best_trial_is_kept_and_a_search_continues_with_one_that_fails(
    files: Path, ray_cluster: None, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    space = "space.optim.lr=choice(1e-9, 3e-3, 1e30)"  # drawn: 3e-3, 1e-9, 1e30
    sizes = ["trials=2", "seed=15", "concurrent=2", "grace=2", "optim.clip=0"]
    words = line("T", space, *sizes, f"tracking={database}")
    assert main(words) == 0
    shown = capsys.readouterr().err
    manifest = json.loads(Path("T/manifest.json").read_text())
    best = manifest["best"]
    values = {
        name: json.loads(Path(f"T/trials/{name}/listeners/dev/info.json").read_text())["map"]
        for name in ends("T")
    }
    ours = values[f"trial-{best['trial']:03}"]
    assert ours["value"] == best["value"] == max(each["value"] for each in values.values())
    assert "2 trials, 2 at a time" in shown and "tune: 2 of 2 trials, " in shown
    assert "raydist train T/best.yaml" in shown and "trial-001 " in shown
    lr = best["values"]["optim.lr"]
    short = yaml.safe_load(Path("T/best.yaml").read_text())
    assert short["optim"] == {"lr": float(lr), "clip": 0.0}
    chosen = [word for word in words[1:] if word.split("=")[0] not in OF_SEARCH]
    train = load(TrainConfig, (), [*chosen, f"optim.lr={lr}", "out=T-best"])
    assert load(TrainConfig, ["T/best.yaml"]).resolved() == train.resolved()
    BiEncoder.load("T", device="cpu")  # the best model of the best trial
    marks = {name: changed("T", name) for name in ends("T")}
    assert main(words) == 0
    assert "already built" in capsys.readouterr().err
    more = [word.replace("trials=2", "trials=3") for word in words]
    assert main([*more, "--resume"]) == 0
    assert "trial-002 failed" in capsys.readouterr().err
    assert ends("T")["trial-002"] == "failed" and len(ends("T")) == 3
    assert json.loads(Path("T/manifest.json").read_text())["best"] == best
    after = {name: changed("T", name) for name in marks}
    assert after == marks, "trials that had ended were run again"
    from mlflow import MlflowClient

    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("raydist")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run not in parents]
    assert [run.info.status for run in parents] == ["FINISHED"]
    assert sorted(run.info.status for run in children) == ["FAILED", "FINISHED", "FINISHED"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    assert all("dev/map" in run.data.metrics for run in children)
    assert all(re.match(r"trial-00\d optim.lr=", run.info.run_name) for run in children)
    assert parents[0].data.tags["mlflow.note.content"].startswith("| trial | optim.lr | dev/map |")
    table = client.download_artifacts(parents[0].info.run_id, "trials.json")
    assert len(json.loads(Path(table).read_text())["data"]) == 3


def distillation(out: str) -> list[str]:
    lines = (f"q{i} Q0 d{i + j} {j + 1} {20 - j} r\n" for i in range(8) for j in range(12))
    Path("run.txt").write_text("".join(lines))
    words = ["tune", "verb=distill", "data=run.txt", "corpus=corpus.jsonl", "queries=queries.jsonl"]
    words += [
        "model=model",
        "model.dropout=0",
        f"out={out}",
        "steps=2",
        "batch_size=4",
        *VALIDATION,
    ]
    words += ["validation.dev.retriever.kind=rerank", "validation.dev.retriever.run=run.txt"]
    words += ["validation.dev.interval=1", "tracking=none", "trials=2", "seed=1"]
    return [*words, "space.sampler.size=choice(4, 8)"]


def test_a_search_over_a_distillation_is_planned_as_the_distillation(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*distillation("D"), "--dry-run"]) == 0
    shown = capsys.readouterr().err
    assert "would train 2 trials into D" in shown and "crossencoder: 2 steps" in shown


@pytest.mark.ray
@pytest.mark.slow
def test_the_best_distillation_is_kept(files: Path, ray_cluster: None) -> None:
    assert main(distillation("D")) == 0
    assert load(DistillConfig, ["D/best.yaml"]).sampler.size in (4, 8)  # type: ignore[union-attr]
    assert json.loads(Path("D/manifest.json").read_text())["trained"] == "crossencoder"
    CrossEncoderModel.load("D", device="cpu")  # the best model of the best trial


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_trains_on_workers(files: Path, ray_cluster: None) -> None:
    words = line("W", LR, "trials=2", "seed=1", "steps=2", "workers=2", "concurrent=1")
    assert main(words) == 0  # by relative paths, though Ray was started elsewhere
    reports = [json.loads(line) for line in Path("W/trials.jsonl").read_text().splitlines()]
    steps = [each["step"] for each in reports if each["trial"] == 0 and "step" in each]
    assert steps == [0, 1, 2] and set(ends("W")) == {"trial-000", "trial-001"}


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_whose_driver_is_killed_continues_where_it_was(
    files: Path, tmp_path: Path
) -> None:
    words = line(
        "K",
        "space.optim.lr=log(1e-9, 3e-3)",
        "trials=3",
        "seed=1",
        "concurrent=1",
        "scheduler=none",
        "steps=6",
    )
    words += ["checkpoint.every=1"]
    command = [sys.executable, "-m", "raydist", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    path = Path("K/trials.jsonl")
    with subprocess.Popen(command, env=environment) as program:
        while not path.exists() or '"trial": 1' not in path.read_text():
            assert program.poll() is None, "it ended too soon"
            time.sleep(0.02)
        program.kill()
    before = changed("K", "trial-000")
    assert subprocess.run(command, env=environment).returncode == 2, "it needs --resume"
    resumed = subprocess.run(
        [*command, "--resume"], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "trial-001, step 6: " in resumed.stderr
    assert "trial-001, step 0: " not in resumed.stderr, "it was shown before"
    assert changed("K", "trial-000") == before
    assert set(ends("K").values()) == {"finished"}
    reports = [json.loads(line) for line in path.read_text().splitlines()]
    for trial in range(3):
        steps = [each["step"] for each in reports if each["trial"] == trial and "step" in each]
        assert steps == list(range(7))
