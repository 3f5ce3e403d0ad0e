"""Reports: the numbers of their parts, in words and in files."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import scipy.stats

from raydist.evaluation.measures import Evaluation
from raydist.evaluation.report import per_query, render, report, write_table
from raydist.evaluation.significance import holm
from raydist.evaluation.spec import Statistics

RNG = np.random.default_rng(0)
QUERIES = tuple(f"q{i}" for i in range(30))


def evaluation(shift):
    values = np.clip(RNG.random((2, 30)) + shift, 0, 1)
    return Evaluation(
        ("AP", "P@5"), QUERIES, values, {"AP": values[0].mean(), "P@5": values[1].mean()}
    )


EVALUATIONS = {"base": evaluation(0.0), "same": evaluation(0.0), "good": evaluation(0.3)}


def test_rows_have_means_intervals_and_p_values_corrected_within_each_measure():
    table = report(EVALUATIONS, Statistics(interval="t"), baseline="base")
    assert [(row.measure, row.run) for row in table.rows] == [
        (m, r) for m in ("AP", "P@5") for r in EVALUATIONS
    ]
    for measure in ("AP", "P@5"):
        rows = {row.run: row for row in table.rows if row.measure == measure}
        assert rows["base"].paired is None and rows["base"].p is None
        p = [
            scipy.stats.ttest_rel(
                EVALUATIONS[r].of(measure), EVALUATIONS["base"].of(measure)
            ).pvalue
            for r in ("same", "good")
        ]
        assert [rows["same"].p, rows["good"].p] == pytest.approx(holm(p))
    assert table.notes[0].endswith("t(29), 95%") and "each measure" in table.notes[1]


def test_the_correction_may_be_over_all_comparisons():
    raw = report(EVALUATIONS, Statistics(family="all"), baseline="base")
    tested = [row for row in raw.rows if row.paired]
    assert [row.p for row in tested] == pytest.approx(holm([row.paired.p for row in tested]))
    assert "all comparisons" in raw.notes[1]


def test_without_a_baseline_nothing_is_tested():
    table = report({"one": EVALUATIONS["base"]})
    assert all(row.paired is None for row in table.rows) and len(table.notes) == 1
    assert render(table).splitlines()[0].split() == ["measure", "mean", "low", "high"]


def test_a_sum_over_the_queries_has_no_interval_of_the_mean():
    values = np.array([[1.0, 2.0, 3.0], [0.5, 0.5, 1.0]])
    means = {"NumRelRet": 6.0, "AP": 2 / 3}
    counted = Evaluation(("NumRelRet", "AP"), ("q1", "q2", "q3"), values, means)
    table = report({"one": counted}, Statistics(interval="t"))
    assert render(table).splitlines()[1].split() == ["NumRelRet", "6.0000", "-", "-"]
    assert "-" not in render(table).splitlines()[2].split()
    assert table.to_dict()["rows"][0]["low"] is None
    assert table.notes[1] == "NumRelRet: the sum over the queries, without an interval"
    only = Evaluation(("NumRelRet",), ("q1", "q2", "q3"), values[:1], {"NumRelRet": 6.0})
    assert len(report({"one": only}).notes) == 1


def test_the_table_comes_as_text_markdown_tsv_and_json():
    table = report(EVALUATIONS, baseline="base")
    text = render(table).splitlines()
    assert len(text) == 7 and len({len(line.split("  ")[0]) for line in text}) >= 1
    mean = EVALUATIONS["good"].means["AP"]
    assert f"{mean:.4f}" in text[3] and text[3].startswith("AP")
    assert render(table, "markdown").splitlines()[1].count("---") == 11
    cells = render(table, "tsv").splitlines()[3].split("\t")
    assert cells[:2] == ["AP", "good"] and float(cells[2]) == mean
    data = json.loads(render(table, "json"))
    assert data["rows"][2]["mean"] == mean and data["baseline"] == "base"
    assert data["rows"][0].get("p") is None


def test_values_per_query_come_with_their_difference_to_the_baseline(tmp_path):
    table = per_query(EVALUATIONS, "base")
    assert table.column_names == ["run", "query_id", "AP", "P@5", "AP - base", "P@5 - base"]
    good = table.slice(60, 30).to_pydict()
    expected = EVALUATIONS["good"].of("AP") - EVALUATIONS["base"].of("AP")
    assert good["AP - base"] == expected.tolist() and good["query_id"] == list(QUERIES)
    write_table(table, tmp_path / "a.tsv")
    assert (tmp_path / "a.tsv").read_text().splitlines()[1].startswith("base\tq0\t")
    write_table(table, tmp_path / "a.csv")
    assert pyarrow.csv.read_csv(tmp_path / "a.csv")["AP"].to_pylist() == table["AP"].to_pylist()
    write_table(table, tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet").equals(table)
