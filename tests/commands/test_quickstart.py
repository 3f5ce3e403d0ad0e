"""`raydist quickstart`: a collection, an index, a run, measures in MLflow; no download."""

from __future__ import annotations

import sqlite3

import pytest

from raydist.cli import main
from raydist.commands import quickstart
from raydist.data import docstrings


@pytest.mark.ray
@pytest.mark.parametrize("workers", [0, 2])
def test_it_indexes_searches_and_measures(tmp_path, monkeypatch, capsys, ray_cluster, workers):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    some = [each for each in docstrings.modules() if each[0].startswith(("email", "json", "log"))]
    monkeypatch.setattr(docstrings, "modules", lambda packages=(): some)
    monkeypatch.setattr(quickstart, "_MODULES", 7)
    full = ["full=true", "train_steps=2"] if workers else []
    assert main(["quickstart", "packages=", f"workers={workers}", *full]) == 0
    printed = capsys.readouterr()
    values = [line.split() for line in printed.out.splitlines() if line.startswith("nDCG@10")]
    assert 0.5 < float(values[0][1]) <= 1
    assert len(values) == (3 if full else 1)
    assert "$ raydist search index=quickstart/index" in printed.err
    assert ("full=true" in printed.err.split("\ntry next:")[-1]) == (not full)
    entries = docstrings.collect(run=lambda extract, modules: map(extract, modules))
    lines = (tmp_path / "quickstart/data/corpus.jsonl").read_text().splitlines()
    assert len(lines) == len(entries) > 50
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        keys = {row[0] for row in database.execute("select key from metrics")}
    assert "nDCG_at_10" in keys


@pytest.mark.parametrize("name", ["manifest.json", ".job.json"])
def test_another_command_s_folder_is_left_alone(tmp_path, capsys, name):
    (tmp_path / name).write_text("{}")
    for flags in ([], ["--dry-run"]):
        assert main(["quickstart", f"out={tmp_path}", *flags]) != 0
        assert "another command writes this folder" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert main(["quickstart", f"out={tmp_path / name}"]) == 2
    assert "is a file, expected a folder" in capsys.readouterr().err
