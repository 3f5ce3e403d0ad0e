"""`raydist pipeline`: which stages run, which are skipped, what is refused before any work."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from raydist.cli import main
from raydist.commands import pipeline

ROOT = Path(__file__).resolve().parents[2]
PLAN = {
    "out": "out",
    "tracking": "none",
    "stages": {
        "index": {"corpus": "corpus.jsonl", "out": "{out}/index"},
        "first": {
            **{"verb": "search", "index": "{out}/index", "queries": "queries.jsonl", "k": 3},
            "out": "{out}/run.txt",
        },
        "evaluate": {
            **{"run": ["{out}/run.txt"], "qrels": "qrels.txt", "measures": ["RR@10"]},
            "out": "{out}/report",
        },
    },
}
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in ("corpus", "queries"):
        rows = [{"_id": f"d{i}", "text": f"word{i} common text"} for i in range(5)]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    (tmp_path / "qrels.txt").write_text("".join(f"d{i} 0 d{i} 1\n" for i in range(5)))
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN, sort_keys=False))

    def run(*words: str) -> tuple[int, str]:
        code = main(["pipeline", "plan.yaml", *words])
        return code, capsys.readouterr().err

    return run


def stages_run(err: str) -> list[str]:
    lines = (line.split() for line in err.splitlines())
    return [line[1].rstrip(":") for line in lines if line[:1] == ["stage"] and "raydist" in line]


def test_complete_stages_are_skipped(run: Run, tmp_path: Path) -> None:
    code, err = run()
    assert code == 0 and stages_run(err) == ["index", "first", "evaluate"]
    ranking = (tmp_path / "out/run.txt").read_text()
    code, err = run()
    assert code == 0 and stages_run(err) == [] and err.count("skipped") == 3
    (tmp_path / "out/run.txt").unlink()
    code, err = run()
    assert code == 0 and stages_run(err) == ["first", "evaluate"]
    assert (tmp_path / "out/run.txt").read_text() == ranking


def test_a_changed_stage_and_those_after_it_run_again_or_refuse_to_overwrite(
    run: Run, tmp_path: Path
) -> None:
    assert run()[0] == 0
    code, err = run("stages.first.k=2", "--dry-run")
    states = [word for word in err.split() if word in ("skip", "run")]
    assert code == 0 and states == ["skip", "run", "run"] and stages_run(err) == []
    code, err = run("stages.first.k=2")
    assert code == 0 and stages_run(err) == ["first", "evaluate"]
    code, err = run("stages.index.max_docs=3")
    assert code == 2 and stages_run(err) == ["index"]
    assert "choose another out= or delete it" in err
    shutil.rmtree(tmp_path / "out/index")
    code, err = run("stages.index.max_docs=3")
    assert code == 0 and stages_run(err) == ["index", "first", "evaluate"]


def test_a_failing_stage_stops_the_pipeline_which_continues_from_there(
    run: Run, tmp_path: Path
) -> None:
    queries = (tmp_path / "queries.jsonl").read_text()
    (tmp_path / "queries.jsonl").write_text("no json\n")
    code, err = run()
    assert code == 2 and "queries.jsonl, line 1" in err and stages_run(err) == ["index", "first"]
    (tmp_path / "queries.jsonl").write_text(queries)
    code, err = run()
    assert code == 0 and stages_run(err) == ["first", "evaluate"]


def test_every_stage_is_a_run_below_the_pipelines(run: Run, database: str) -> None:
    from mlflow import MlflowClient

    assert run(f"tracking={database}", "name=small")[0] == 0
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("raydist").experiment_id
    runs = {each.info.run_name: each for each in client.search_runs([experiment])}
    parent = runs.pop("pipeline small")
    assert parent.data.params == {}, "the plan is a file, not a hundred parameters"
    assert "| first | search | done |" in parent.data.tags["mlflow.note.content"]
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["pipeline.yaml"]
    assert set(runs) == {
        "index on corpus.jsonl",
        "first: search on queries.jsonl",
        "evaluate run on qrels.txt",
    }
    for child in runs.values():
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == "FINISHED"
    index = runs["index on corpus.jsonl"]
    assert index.data.metrics["documents"] == 5 and index.data.metrics["seconds"] > 0
    assert [each.dataset.name for each in index.inputs.dataset_inputs] == ["corpus.jsonl"]


def test_a_stage_that_fails_is_a_run_that_failed(run: Run, tmp_path: Path, database: str) -> None:
    from mlflow import MlflowClient

    (tmp_path / "queries.jsonl").write_text("no json\n")
    assert run(f"tracking={database}")[0] == 2
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("raydist").experiment_id
    ends = {each.info.run_name: each.info.status for each in client.search_runs([experiment])}
    assert ends == {
        "pipeline out": "FAILED",
        "index on corpus.jsonl": "FINISHED",
        "first: search on queries.jsonl": "FAILED",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stages.evaluate.measures=[nDGC@10]"], "stages.evaluate."),
        (["stages.first.verb=serach"], "stages.first.verb = 'serach': no such verb"),
        (["stages.first.kk=3"], "stages.first.kk: unknown key"),
        (["storages=/mnt"], "storages: unknown key"),
        (["out.deeper=x"], "out.deeper: unknown key"),
        (["stages.second.k=3"], "stages.second.k: expected stages.NAME.KEY, NAME one of index"),
        (["stages.first.verb=fields"], "stages.first.verb = 'fields': no such verb for a stage"),
        (["stages.first.k=[3"], "stages.first.k = '[3'"),
        (["storage=s3://bucket/x"], "give a path that every node sees"),
    ],
)
def test_mistakes_are_reported_before_any_work(
    run: Run, tmp_path: Path, words: list[str], message: str
) -> None:
    code, err = run(*words)
    assert code == 2 and message in err and "Traceback" not in err
    assert stages_run(err) == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out: out\nstages: [a]", "expected the keys out and stages"),
        ("out: out\nstages: {}", "expected the keys out and stages"),
        ("out: out\nstages: {index: null}", "stages.index: expected a verb's configuration"),
        ("out: out\nstages: {a: {}, a: {}}", "the key 'a' occurs twice"),
        ("out: out\nstages: {a: {verb: [x]}}", "stages.a.verb = ['x']: no such verb"),
        ("out: null\nstages: {index: {}}", "out = None: expected text"),
        ("- a", "expected keys and values"),
    ],
)
def test_mistakes_in_a_file_are_reported(run: Run, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    code, err = run()
    assert code == 2 and message in err and "Traceback" not in err


def test_arguments_are_read_as_the_verb_reads_them(run: Run, tmp_path: Path) -> None:
    code, _ = run("stages.first.tag=10:30", "stages.first.out={out}/new.txt")
    assert code == 2, "evaluate's run does not exist"
    assert (tmp_path / "out/new.txt").read_text().splitlines()[0].endswith(" 10:30")


def test_an_input_that_was_replaced_is_not_skipped(run: Run, tmp_path: Path) -> None:
    assert run()[0] == 0
    qrels = (tmp_path / "qrels.txt").read_text()
    for content in (qrels.replace("d0 0 d0 1", "d0 0 d1 1"), qrels):
        (tmp_path / "qrels.txt").write_text(content)
        code, err = run()
        assert code == 0 and stages_run(err) == ["evaluate"]
    assert run()[1].count("skipped") == 3
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("common", "rare"))
    code, err = run()
    assert code == 2 and stages_run(err) == ["index"] and "content of corpus" in err


def test_an_output_without_its_manifest_is_incomplete(run: Run, tmp_path: Path) -> None:
    assert run()[0] == 0
    (tmp_path / "out/report/manifest.json").unlink()
    assert run("--dry-run")[1].split().count("run") == 1
    shutil.rmtree(tmp_path / "out/report")
    code, err = run()
    assert code == 0 and stages_run(err) == ["evaluate"]


def test_outputs_are_checked_where_they_are_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYDIST_STORAGE", str(tmp_path / "storage"))
    words = ["stages.evaluate.out=report"]
    assert run(*words)[0] == 0 and (tmp_path / "storage/report/manifest.json").is_file()
    assert run(*words)[1].count("skipped") == 3


def with_stage(folder: Path, **stage: Any) -> None:
    plan = {**PLAN, "stages": {**PLAN["stages"], **stage}}  # type: ignore[dict-item]
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))


def test_an_index_is_merged_and_verified_as_stages(run: Run, tmp_path: Path) -> None:
    (tmp_path / "gone.txt").write_text("d3\n")
    with_stage(
        tmp_path,
        **{
            "trim": {"verb": "index", "delete": "gone.txt", "out": "{out}/index"},
            "merge": {"out": "{out}/index"},
            "verify": {"path": ["{out}/index"]},
        },
    )
    code, err = run()
    assert code == 0 and stages_run(err)[-3:] == ["trim", "merge", "verify"]
    assert "1 removed" in err and "out/index: intact" in err
    assert run()[1].count("skipped") == 6
    (tmp_path / "gone.txt").write_text("d2\n")
    code, err = run()
    assert code == 0 and stages_run(err) == ["trim", "merge", "verify"]
    part = next((tmp_path / "out/index").glob("store*/parts/*"))
    part.write_bytes(part.read_bytes()[:-1])
    (tmp_path / "out/stages/verify.json").unlink()
    code, err = run()
    assert code == 2 and part.name in err and "Traceback" not in err


def test_serving_is_never_complete(run: Run, tmp_path: Path) -> None:
    assert run()[0] == 0
    documented = re.search(
        r"```yaml\n(.*?)```", (ROOT / "docs/how-to/cluster.md").read_text(), re.DOTALL
    )
    assert documented is not None
    with_stage(tmp_path, **yaml.safe_load(documented[1]))
    served = pipeline.stages_of(pipeline.read_plan("plan.yaml", []))[-1]
    served.record.write_text(json.dumps({"made_of": served.made_of}))  # as after a stop
    code, err = run("--dry-run")
    states = [word for word in err.split() if word in ("skip", "run")]
    assert code == 0 and states == ["skip", "skip", "skip", "run"]


@pytest.mark.ray
def test_a_pipeline_ends_with_a_service_until_it_is_stopped(run: Run, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with_stage(tmp_path, serve={"index": "{out}/index", "port": port})
    command = [sys.executable, str(ROOT / "jobs/pipeline.py"), "plan.yaml"]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    log_file = tmp_path / "log.txt"
    with open(log_file, "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    ends = time.monotonic() + 150
    answer = ""
    while not answer:
        assert process.poll() is None and time.monotonic() < ends, log_file.read_text()
        try:
            url = f"http://127.0.0.1:{port}/v1/search"
            response = httpx.post(url, json={"query": "word3", "k": 1}, timeout=10)
            answer = response.text if response.status_code == 200 else ""
        except httpx.HTTPError:
            time.sleep(0.3)
    assert "d3" in answer
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) == 0, log_file.read_text()
    assert stages_run(log_file.read_text()) == ["index", "first", "evaluate", "serve"]
    assert log_file.read_text().count(" done ") == 4


def test_a_submitted_pipeline_needs_storage(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_submission_id": "x"}}')
    code, err = run()
    assert code == 2 and "set storage=" in err
    assert run(f"storage={tmp_path}/shared")[0] == 0
    assert (tmp_path / "shared/out/report").is_dir()
