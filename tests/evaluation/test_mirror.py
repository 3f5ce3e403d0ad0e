"""The local record of a run."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from raydist.evaluation.metric_names import metric_name, metric_names
from raydist.evaluation.mirror import EVENTS, METRICS, Mirror, flatten, read_lines


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_step_is_one_flat_line_and_numbers_that_json_lacks_are_words(tmp_path):
    Mirror(tmp_path).step(3, {"loss": np.float32(0.5), "lr": math.inf, "x": math.nan})
    (line,) = lines(tmp_path / METRICS)
    assert line.pop("time") > 1_600_000_000_000
    assert line == {"step": 3, "loss": 0.5, "lr": "Infinity", "x": "NaN"}


def test_resuming_drops_what_comes_after_the_checkpoint_and_half_written_lines(tmp_path):
    mirror = Mirror(tmp_path)
    for step in (1, 2, 3):
        mirror.step(step, {"loss": 1.0})
        mirror.metrics(step, {"map": 0.1})
    mirror.params({"a": {"b": 1}})
    mirror.end()
    with open(tmp_path / METRICS, "a") as out:
        out.write('{"step": 4, "lo')
    mirror = Mirror(tmp_path, resume_step=2)
    mirror.step(3, {"loss": 2.0})
    assert [(r["step"], r["loss"]) for r in lines(tmp_path / METRICS)] == [(1, 1), (2, 1), (3, 2)]
    assert [r["event"] for r in lines(tmp_path / EVENTS)] == ["metrics", "metrics", "params"]


def test_reading_stops_before_a_line_that_is_being_written(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b'{"a": 1}\n{"a": 2')
    assert [record for record, _ in read_lines(path)] == [{"a": 1}]
    assert list(read_lines(path, 9)) == [] and list(read_lines(tmp_path / "none")) == []


def test_nested_values_get_dotted_names():
    assert flatten({"a": {"b": {"c": 1}, "d": [1]}, "e": {}}) == {"a.b.c": 1, "a.d": [1], "e": {}}


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("nDCG@10", "nDCG_at_10"),
        ("AP(rel=2)@100", "AP_rel_2_at_100"),
        ("map", "map"),
        ("dev/IPrec@0.1", "dev/IPrec_at_0.1"),
        ("loss/kl", "loss/kl"),
    ],
)
def test_names_that_mlflow_refuses_are_spelled_out(name, short):
    assert metric_name(name) == short


def test_names_that_would_collide_are_numbered():
    assert metric_names(["P@5", "AP"]) == {"P@5": "P_at_5", "AP": "AP"}
    names = ["P@5", "P_at_5", "P(at)5", "P_at_5_2"]
    assert list(metric_names(names).values()) == ["P_at_5", "P_at_5_2", "P_at5", "P_at_5_2_2"]
    long = metric_names(["x" * 300, "x" * 299])
    assert [len(each) for each in long.values()] == [250, 250] and len(set(long.values())) == 2


def test_a_run_that_begins_again_repeats_what_it_logged_at_step_0(tmp_path):
    mirror = Mirror(tmp_path)
    mirror.params({"lr": 1})
    mirror.metrics(0, {"map": 0.1})
    assert [r["event"] for r in lines(tmp_path / EVENTS)] == ["params", "metrics"]
    Mirror(tmp_path, resume_step=1)
    assert len(lines(tmp_path / EVENTS)) == 2
    Mirror(tmp_path, resume_step=0)
    assert [r["event"] for r in lines(tmp_path / EVENTS)] == ["params"]
