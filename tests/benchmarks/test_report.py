"""Records of benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.report import write_results


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
