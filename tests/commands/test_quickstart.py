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
    assert main(["quickstart", "packages=", f"workers={workers}"]) == 0
    said = capsys.readouterr()
    (value,) = [line.split()[1] for line in said.out.splitlines() if line.startswith("nDCG@10")]
    assert 0.5 < float(value) <= 1
    assert "$ raydist search index=quickstart/index" in said.err and "next: raydist" in said.err
    entries = docstrings.collect(run=lambda extract, modules: map(extract, modules))
    lines = (tmp_path / "quickstart/data/corpus.jsonl").read_text().splitlines()
    assert len(lines) == len(entries) > 50
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        keys = {row[0] for row in database.execute("select key from metrics")}
    assert "nDCG_at_10" in keys
