"""A pipeline whose process is killed in the middle of every stage, and restarted each time.

Complete stages do not run again, nothing is lost, and all results are those of an undisturbed
pipeline.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydist.data import docstrings

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = 400
TEXTS = {"corpus": "corpus.jsonl", "queries": "queries.jsonl"}
MODEL = {"scratch": {"layers": 1, "hidden": 32, "heads": 2, "vocab": 800, "max_length": 64}}
TRAINING = {"steps": 16, "batch_size": 8, "checkpoint": {"every": 2}, "threads": 1}
STUDENT = {"kind": "biencoder", "model": "{out}/student"}

PLAN: dict[str, Any] = {
    "name": "killed",
    "out": "out",
    "tracking": "auto",
    "stages": {
        "index": {"corpus": TEXTS["corpus"], "split_bytes": 4000, "out": "{out}/index"},
        "bm25": {
            **{"verb": "search", "index": "{out}/index", "queries": TEXTS["queries"], "k": 20},
            "out": "{out}/bm25.txt",
        },
        "mine": {
            **{**TEXTS, "qrels": "qrels.txt", "run": "{out}/bm25.txt", "negatives": 5},
            "out": "{out}/train.jsonl",
        },
        "train": {
            **{**TRAINING, "data": "{out}/train.jsonl", "train_group_size": 2},
            "model": {**MODEL, "pooling": "mean", "normalize": True},
            "out": "{out}/encoder",
        },
        "embed": {
            **{"corpus": TEXTS["corpus"], "model": "{out}/encoder", "split_bytes": 4000},
            "out": "{out}/vectors",
        },
        "hybrid": {
            **{"verb": "search", "index": ["{out}/index", "{out}/vectors"], "fusion": "rrf"},
            **{"queries": TEXTS["queries"], "k": 10, "out": "{out}/hybrid.txt"},
        },
        "score": {
            **{**TEXTS, "run": "{out}/hybrid.txt", "split_pairs": 100},
            "teacher": {"kind": "biencoder", "model": "{out}/encoder"},
            "out": "{out}/teacher.jsonl",
        },
        "distill": {
            **{**TRAINING, "corpus": TEXTS["corpus"], "data": "{out}/teacher.jsonl"},
            "model": {"kind": "biencoder", "path": "{out}/encoder"},
            "loss": {"kind": "distill_ranknet"},
            "out": "{out}/student",
        },
        "rerank": {
            **{**TEXTS, "run": "{out}/hybrid.txt", "split_pairs": 100, "reranker": STUDENT},
            "out": "{out}/reranked.txt",
        },
        "evaluate": {
            **{"run": ["{out}/bm25.txt", "{out}/reranked.txt"], "qrels": "qrels.txt"},
            "out": "{out}/report",
        },
        "export": {"checkpoint": "{out}/student", "name": "small", "out": "{out}/export"},
    },
}

Process = subprocess.Popen[bytes]


def files(pattern: str, least: int = 2) -> Callable[[Path, Process], bool]:
    return lambda out, process: len(list(islice(out.glob(pattern), least))) == least


def maps(name: str) -> Callable[[Path, Process], bool]:
    """Whether the process has mapped a file below `name`."""
    return lambda out, process: str(out / name) in Path(f"/proc/{process.pid}/maps").read_text()


MIDDLE: dict[str, Callable[[Path, Process], bool]] = {
    "index": files("index/.work/splits/*.done"),
    "bm25": maps("index/"),
    "mine": files(".train.jsonl.*.part", 1),
    "train": files("encoder/checkpoints/*/loop.json"),
    "embed": files("vectors/shards/*.done"),
    "hybrid": maps("vectors/"),
    "score": files("teacher.jsonl.raydist/shards/*.done"),
    "distill": files("student/checkpoints/*/loop.json"),
    "rerank": files("reranked.txt.raydist/shards/*.done"),
    "evaluate": files("stages/evaluate.json", 1),
    "export": files("export/.job.json", 1),
}
"""How to see from outside that a stage is at work."""


def start(folder: Path) -> Process:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    with open(folder / "log.txt", "wb") as log:
        command = [sys.executable, str(ROOT / "jobs/pipeline.py"), "plan.yaml"]
        return subprocess.Popen(command, cwd=folder, env=environment, stderr=log, stdout=log)


def ends_well(process: Process, folder: Path) -> None:
    assert process.wait(600) == 0, (folder / "log.txt").read_text()[-5000:]


def prepared(folder: Path, source: Path) -> Path:
    """Gives a folder the first documents of the docstring collection, and the plan."""
    folder.mkdir()
    for name in ("corpus.jsonl", "queries.jsonl", "qrels.txt"):
        lines = (source / name).read_text(encoding="utf-8").splitlines()[:DOCUMENTS]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN, sort_keys=False))
    return folder


def done(out: Path, stage: str) -> bool:
    try:
        return "made_of" in json.loads((out / f"stages/{stage}.json").read_text())
    except FileNotFoundError:
        return False


def outputs(out: Path) -> dict[str, bytes]:
    """Returns the results of the stages, without manifests, records and times."""
    patterns = ["*.txt", "*.jsonl", "index/segments/**/*", "index/store/**/*", "vectors/shards/*/*"]
    patterns += [f"{model}/**/model.safetensors" for model in ("encoder", "student", "export")]
    files = {path for pattern in patterns for path in out.glob(pattern) if path.is_file()}
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(files)}


def times(out: Path) -> dict[str, int]:
    return {name: (out / name).stat().st_mtime_ns for name in outputs(out)}


@pytest.mark.slow
def test_a_pipeline_killed_in_every_stage_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    source = docstrings.write(tmp_path / "docstrings")
    whole = prepared(tmp_path / "whole", source)
    ends_well(start(whole), whole)
    killed = prepared(tmp_path / "killed", source)
    out = killed / "out"
    finished: dict[str, int] = {}
    logs = {}
    for stage in PLAN["stages"]:
        process = start(killed)
        while not ((out / f"stages/{stage}.json").exists() and MIDDLE[stage](out, process)):
            assert process.poll() is None, (killed / "log.txt").read_text()[-5000:]
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        logs[stage] = (killed / "log.txt").read_text()
        assert not done(out, stage), f"{stage} was over before it could be killed"
        now = times(out)
        assert {name: now[name] for name in finished} == finished, "it ran again"
        complete = [name for name in PLAN["stages"] if done(out, name)]
        assert complete == list(PLAN["stages"])[: len(complete)]
        finished = {name: each for name, each in now.items() if of_stage(name) in complete}
    ends_well(start(killed), killed)
    logs["end"] = (killed / "log.txt").read_text()
    assert outputs(out) == outputs(whole / "out")
    check_resumed(logs)
    check_tracked(killed / "mlflow.db")


def of_stage(name: str) -> str:
    """Returns the stage that wrote a file."""
    first = name.split("/")[0]
    for stage, config in PLAN["stages"].items():
        if config["out"] == f"{{out}}/{first}":
            return str(stage)
    return ""


def check_resumed(logs: dict[str, str]) -> None:
    """The process after a killed one did only a part of the stage's work."""
    after = dict(zip(logs, list(logs.values())[1:]))
    pairs = DOCUMENTS * 10
    for stage, what, total in (
        ("index", "indexing", DOCUMENTS),
        ("embed", "embed", DOCUMENTS),
        ("score", "rerank", pairs),
        ("rerank", "rerank", pairs),
    ):
        counts = re.findall(rf"^{what}: ([\d,]+) (?:documents|pairs)", after[stage], re.MULTILINE)
        assert counts and int(counts[-1].replace(",", "")) < total, after[stage]
    for stage in ("train", "distill"):
        assert re.search(r"resume at step \d+", after[stage]), after[stage]


def check_tracked(database: Path) -> None:
    """The pipeline has one finished run, and the runs of the stages are its children."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert [run.info.run_name for run in parents] == ["killed"]
    assert parents[0].info.status == "FINISHED"
    above = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in runs}
    names = {run.info.run_name for run in runs if above[run.info.run_id] == parents[0].info.run_id}
    assert {"encoder", "student", "evaluate bm25, reranked"} <= names
    assert set(above.values()) <= {None, *above}, "the parent of a run is missing"
