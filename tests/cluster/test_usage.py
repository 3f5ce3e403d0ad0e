"""Clusters in a few lines: the same command with workers, and a file that starts it elsewhere."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from raydist.cli import main
from tests.outputs import results

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.ray
def test_workers_write_what_one_process_writes(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ({"id": f"d{i}", "text": f"document {i} of {i % 7}"} for i in range(200))
    Path("corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["index", "corpus=corpus.jsonl", "split_bytes=2000"]
    assert main([*words, "out=one"]) == 0
    assert main([*words, "out=many", "workers=2"]) == 0
    assert results(Path("many")) == results(Path("one"))


def test_a_cluster_s_job_is_a_command_line() -> None:
    job = yaml.safe_load((ROOT / "cluster/kuberay/rayjob-index.yaml").read_text())
    python, *command = shlex.split(job["spec"]["entrypoint"])
    assert (python, command[:3]) == ("python", ["-m", "raydist", "index"])
