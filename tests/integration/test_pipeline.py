"""`jobs/pipeline.py`: what is run, what is skipped, what is refused before any work."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml

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


@pytest.fixture(scope="module")
def pipeline() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pipeline", ROOT / "jobs/pipeline.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pipeline"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(
    pipeline: ModuleType,
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
        code = pipeline.main(["plan.yaml", *words])
        return code, capsys.readouterr().err

    return run


def ran(said: str) -> list[str]:
    lines = (line.split() for line in said.splitlines())
    return [line[1].rstrip(":") for line in lines if line[:1] == ["stage"] and "raydist" in line]


def test_complete_stages_are_skipped(run: Run, tmp_path: Path) -> None:
    code, said = run()
    assert code == 0 and ran(said) == ["index", "first", "evaluate"]
    ranking = (tmp_path / "out/run.txt").read_text()
    code, said = run()
    assert code == 0 and ran(said) == [] and said.count("skipped") == 3
    (tmp_path / "out/run.txt").unlink()
    code, said = run()
    assert code == 0 and ran(said) == ["first", "evaluate"]
    assert (tmp_path / "out/run.txt").read_text() == ranking


def test_a_changed_stage_is_run_again_and_what_comes_after_it_is_not_overwritten(
    run: Run, tmp_path: Path
) -> None:
    assert run()[0] == 0
    code, said = run("stages.first.k=2", "--dry-run")
    states = [word for word in said.split() if word in ("skip", "run")]
    assert code == 0 and states == ["skip", "run", "run"] and ran(said) == []
    code, said = run("stages.first.k=2")
    assert code == 2 and ran(said) == ["first", "evaluate"]
    assert "choose another out= or delete it" in said
    shutil.rmtree(tmp_path / "out/report")
    code, said = run("stages.first.k=2")
    assert code == 0 and ran(said) == ["evaluate"]


def test_a_stage_that_fails_stops_the_pipeline_and_is_gone_on_with(
    run: Run, tmp_path: Path
) -> None:
    queries = (tmp_path / "queries.jsonl").read_text()
    (tmp_path / "queries.jsonl").write_text("no json\n")
    code, said = run()
    assert code == 2 and "queries.jsonl, line 1" in said and ran(said) == ["index", "first"]
    (tmp_path / "queries.jsonl").write_text(queries)
    code, said = run()
    assert code == 0 and ran(said) == ["first", "evaluate"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stages.evaluate.measures=[nDGC@10]"], "stages.evaluate."),
        (["stages.first.verb=serach"], "stages.first.verb = 'serach': no such verb"),
        (["stages.first.kk=3"], "stages.first.kk: unknown key"),
        (["storages=/mnt"], "storages: unknown key"),
        (["out.deeper=x"], "out is no block"),
        (["storage=s3://bucket/x"], "give a path that every node sees"),
    ],
)
def test_mistakes_are_told_before_any_work(
    run: Run, tmp_path: Path, words: list[str], message: str
) -> None:
    code, said = run(*words)
    assert code == 2 and message in said and "Traceback" not in said
    assert ran(said) == [] and not (tmp_path / "out").exists()


def test_a_submitted_pipeline_needs_storage(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_submission_id": "x"}}')
    code, said = run()
    assert code == 2 and "set storage=" in said
    assert run(f"storage={tmp_path}/shared")[0] == 0
    assert (tmp_path / "shared/out/report").is_dir()
