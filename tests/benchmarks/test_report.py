"""Records of benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.report import amend, goal, measure_parts, write_results


def test_figures_of_an_earlier_run_keep_its_processor_and_date(tmp_path: Path) -> None:
    record = write_results("speed", {"a": 1.5, "b": 2.0}, {}, folder=tmp_path)
    first = json.loads(record.read_text())
    assert "earlier" not in first
    first["machine"]["cpu"], first["date"] = "another", "2026-01-01T00:00:00Z"
    record.write_text(json.dumps(first))
    for b in (3.0, 4.0):
        write_results("speed", {"a": 1.5, "b": b, "c": None}, {}, folder=tmp_path)
        earlier = {"a": {"cpu": "another", "date": "2026-01-01T00:00:00Z"}}
        assert json.loads(record.read_text())["earlier"] == earlier


def test_parts_are_recorded_as_they_end_and_keep_the_figures_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "WORK", tmp_path / "work")

    def broken(options: dict[str, Any]) -> Any:
        raise RuntimeError("no such engine")

    parts: Any = {
        "one": lambda options: ({"a": options["n"]}, {"n": options["n"]}),
        "two": lambda options: ({"b": 2.0}, {"seen": True}),
        "broken": broken,
    }
    measure_parts("speed", parts, {"parts": "one,two", "n": 1.0}, {"a": goal("<=", 3)})
    with pytest.raises(RuntimeError):
        measure_parts("speed", parts, {"parts": "one,broken", "n": 5.0}, {"a": goal("<=", 3)})
    with pytest.raises(SystemExit, match="parts = 'three': expected some of one, two, broken"):
        measure_parts("speed", parts, {"parts": "one,three", "n": 7.0})
    record = json.loads((tmp_path / "speed.json").read_text())
    assert record["figures"] == {"a": 5.0, "b": 2.0}
    assert record["notes"] == {"one": {"n": 5.0}, "two": {"seen": True}}
    amend("speed", {"c": 4.0})
    amend("nothing", {"c": 4.0})
    amended = json.loads((tmp_path / "speed.json").read_text())
    assert amended["figures"] == {"a": 5.0, "b": 2.0, "c": 4.0}
    assert amended["goals"] == record["goals"] and amended["notes"] == record["notes"]
    assert not (tmp_path / "nothing.json").exists()
