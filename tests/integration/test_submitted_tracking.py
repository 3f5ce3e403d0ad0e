"""Submitted training that an MLflow server follows, whose artifacts lie in S3, through outages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest

from raydist.cli import main
from tests.evaluation.server import Way, mlflow_server
from tests.serving import test_deploy
from tests.serving.test_deploy import AUTH, ROOT

pytestmark = [pytest.mark.ray, pytest.mark.slow]
dashboard = test_deploy.dashboard

TRAINING = """
data: samples.jsonl
model:
  scratch: {layers: 1, hidden: 32, heads: 2, vocab: 256, max_length: 32}
  normalize: true
loss: {kind: infonce}
batch_size: 8
train_group_size: 1
workers: 1
log_every: 5
validation:
  dev:
    corpus: corpus.jsonl
    queries: queries.jsonl
    qrels: qrels.txt
    metrics: {RR@10: true}
"""


def write_job(folder: Path) -> None:
    """Writes the files that travel: the configuration and a small collection."""
    folder.mkdir(exist_ok=True)
    (folder / "train.yaml").write_text(TRAINING)
    texts = {f"d{i}": f"answer {i * 7 % 40} about thing {i}" for i in range(40)}
    pairs = [(f"question of thing {i}", text) for i, text in enumerate(texts.values())]
    files: dict[str, list[dict[str, object]]] = {
        "corpus": [{"id": key, "text": text} for key, text in texts.items()],
        "queries": [{"id": f"q{i}", "text": query} for i, (query, _) in enumerate(pairs)],
        "samples": [{"query": query, "pos": [text], "neg": []} for query, text in pairs],
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "qrels.txt").write_text("".join(f"q{i} 0 d{i} 1\n" for i in range(len(pairs))))


@dataclass
class Job:
    process: subprocess.Popen[bytes]
    log: Path

    def says(self, text: str) -> int:
        return self.log.read_text(errors="replace").count(text)

    def wait_until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            assert self.process.poll() is None, self.log.read_text(errors="replace")[-3000:]
            time.sleep(0.05)


def submit(dashboard: str, folder: Path, name: str, steps: int, tracking: str) -> Job:
    """Submits a training whose output is `folder/storage/NAME`."""
    write_job(folder / "job")
    log = folder / f"{name}.log"
    words = ["submit", "train", "train.yaml", f"out={name}", f"storage={folder / 'storage'}"]
    words += [f"steps={steps}", f"validation.dev.interval={steps}", f"address={dashboard}"]
    environment = {**os.environ, **AUTH, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": tracking}
    environment.pop("RAY_ADDRESS", None)
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "raydist", *words],
            cwd=folder / "job",
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    return Job(process, log)


def test_a_submitted_job_goes_on_while_mlflow_is_away_and_nothing_is_lost(
    dashboard: str, s3: str, database: str, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    def lines(name: str) -> list[str]:
        path = tmp_path / "storage" / name / "metrics.jsonl"
        return path.read_text().splitlines() if path.exists() else []

    def check(name: str) -> None:
        """The run in MLflow has every value of the record, and its files are in the bucket."""
        client = MlflowClient(way.address)
        state = json.loads((tmp_path / "storage" / name / "tracking.json").read_text())
        assert client.get_run(state["run_id"]).info.status == "FINISHED"
        sent = client.get_metric_history(state["run_id"], "train/loss")
        written = [json.loads(line) for line in lines(name)]
        assert {m.step: m.value for m in sent} == {line["step"]: line["loss"] for line in written}
        listed = boto3.client("s3", region_name="us-east-1").list_objects_v2(
            Bucket=urlsplit(s3).netloc, Prefix="mlflow/"
        )
        files = {each["Key"].partition("/artifacts/")[2] for each in listed["Contents"]
                 if state["run_id"] in each["Key"]}  # fmt: skip
        assert {"config.yaml", "validation/dev/per_query.json"} <= files

    with mlflow_server(database, f"{s3}/mlflow") as server, Way(server) as way:
        job = submit(dashboard, tmp_path, "back", 1000, way.address)
        job.wait_until(lambda: len(lines("back")) > 5)
        way.cut()
        job.wait_until(lambda: job.says("does not take the record") > 0)
        way.restore()
        assert job.process.wait(300) == 0
        assert job.says("does not take the record") == 1, "it is said once"
        assert job.says("answers again, all was sent") == 1
        assert job.says("tracking replay") == 0
        check("back")

        job = submit(dashboard, tmp_path, "away", 300, way.address)
        job.wait_until(lambda: len(lines("away")) > 5)
        way.cut()
        assert job.process.wait(300) == 0
        assert job.says("does not take the record") == 1
        place = tmp_path / "storage/away"
        assert job.says(f"send it later with: raydist tracking replay {place}") == 1
        way.restore()
        assert main(["tracking", "replay", str(place)]) == 0
        check("away")
