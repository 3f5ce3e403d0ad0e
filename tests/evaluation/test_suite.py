"""Systems on several collections in one table: corrections, averages, the page's axes."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import numpy as np
import pytest
from lxml import html
from scipy.stats import ttest_rel

from raydist.evaluation.measures import Evaluation
from raydist.evaluation.spec import Statistics
from raydist.evaluation.suite import compare_systems, render_suite
from raydist.evaluation.suite_page import render_page

SHIFTS = {"base": 0.0, "up": 0.08, "down": -0.02, "same": 0.0}


def evaluation(seed: int, queries: int, shift: float) -> Evaluation:
    rng = np.random.default_rng(seed)
    noise = np.random.default_rng(seed + 1000).normal(shift, 0.1 * bool(shift), (2, queries))
    values = np.clip(rng.random((2, queries)) + noise, 0, 1)
    values[1] = np.round(values[1] * 3)
    means = {"nDCG@10": float(values[0].mean()), "NumRelRet": float(values[1].sum())}
    ids = tuple(f"q{i}" for i in range(queries))
    return Evaluation(("nDCG@10", "NumRelRet"), ids, values, means)


RUNS = {
    name: {system: evaluation(seed, queries, shift) for system, shift in SHIFTS.items()}
    for seed, (name, queries) in enumerate({"small": 12, "large": 60}.items())
}


def test_corrections_span_the_systems_of_a_measure_or_all_collections() -> None:
    p = {
        (name, system): ttest_rel(run.of("nDCG@10"), systems["base"].of("nDCG@10")).pvalue
        for name, systems in RUNS.items()
        for system, run in systems.items()
        if system in ("up", "down")
    }
    narrow = compare_systems(RUNS, Statistics(resamples=100), "base")
    rows = {(r.measure, r.run): r for r in narrow.reports["large"].rows}
    low = min(p["large", "up"], p["large", "down"])
    assert min(rows["nDCG@10", s].p or 1 for s in ("up", "down")) == pytest.approx(3 * low)
    wide = compare_systems(RUNS, Statistics(resamples=100, family="all"), "base")
    tested = [row for each in wide.reports.values() for row in each.rows if row.paired]
    assert len(tested) == 2 * 2 * 3
    smallest = min(tested, key=lambda row: row.paired.p if row.paired else 1)
    assert smallest.paired is not None
    assert smallest.p == pytest.approx(min(1.0, len(tested) * smallest.paired.p))


def test_the_average_is_over_collections_and_leaves_out_sums() -> None:
    suite = compare_systems(RUNS, Statistics(resamples=100), "base")
    averages = {(row.measure, row.run): row.mean for row in suite.averages}
    assert averages.keys() == {("nDCG@10", system) for system in SHIFTS}
    both = [RUNS[name]["up"].means["nDCG@10"] for name in RUNS]
    assert averages["nDCG@10", "up"] == pytest.approx(sum(both) / 2)
    alone = compare_systems({"small": RUNS["small"]}, Statistics(resamples=100), "base")
    assert alone.averages == [] and "average" not in render_suite(alone)
    one = compare_systems({"a": {"base": RUNS["small"]["base"]}}, Statistics(resamples=100), "base")
    assert "baseline" not in " ".join(one.notes) and "difference" not in render_suite(one)


def test_bars_and_intervals_are_drawn_to_scale_and_marks_follow_the_tests() -> None:
    suite = compare_systems(RUNS, Statistics(resamples=500), "base")
    page = html.fromstring(render_page(suite, "a <b> title"))
    assert page.findtext(".//h1") == "a <b> title"
    figure = page.xpath("//h2[starts-with(., 'large')]/following::figure")[0]
    rows = [row for row in suite.reports["large"].rows if row.measure == "nDCG@10"]
    widths = [float(each.get("width")) for each in figure.xpath(".//rect")]
    start = float(figure.xpath(".//rect")[0].get("x"))
    ratio = widths[0] / rows[0].mean
    for row, width, path in zip(rows, widths, figure.xpath(".//path/@d")):
        assert width == pytest.approx(row.mean * ratio, abs=0.2)
        low, high = map(float, re.findall(r"M([\d.]+) [\d.]+v8", path))
        assert low == pytest.approx(start + row.interval.low * ratio, abs=0.2)
        assert high == pytest.approx(start + row.interval.high * ratio, abs=0.2)
    texts = figure.xpath(".//text/text()")
    up = next(row for row in rows if row.run == "up")
    assert up.p is not None and up.p < 0.05 and f"{up.mean:.4f} ▲" in texts
    assert f"{rows[0].mean:.4f} " in texts
    ticks = [float(each) for each in figure.xpath(".//text[@class='tick']/text()")]
    assert ticks[0] == 0 and ticks[-1] >= max(row.interval.high for row in rows)
    assert all(math.isclose(b - a, ticks[1]) for a, b in pairwise(ticks))
