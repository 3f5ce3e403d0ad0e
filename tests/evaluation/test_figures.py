"""Figures: what they show is checked; that they can be read was looked at."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from raydist.evaluation import figures
from raydist.evaluation.significance import compare
from raydist.records import Run

RUN = Run.from_lists(
    [("q1", ["a", "x", "b"], [3.0, 2.0, 1.0]), ("q2", ["y", "a"], [5.0, 4.0]), ("no", ["a"], [9.0])]
)
QRELS = {"q1": {"a": 1, "b": 2, "c": 1, "x": 0}, "q2": {"a": 1}}


def test_interpolated_precision_is_the_highest_at_any_later_recall():
    # q1: precision 1 at recall 1/3, 2/3 at recall 2/3; q2: 1/2 at recall 1. trec_eval wants
    # int(0.7 * 3 + 0.9) = 2 of 3 relevant documents for a recall of 0.7.
    q1 = [1.0] * 4 + [2 / 3] * 4 + [0.0] * 3
    expected = (np.array(q1) + 0.5) / 2
    assert figures.recall_precision_values(RUN, QRELS) == pytest.approx(expected)


def test_scores_are_split_by_relevance_over_judged_queries():
    positive, negative = figures.split_scores(RUN, QRELS)
    assert positive.tolist() == [3.0, 1.0, 4.0] and negative.tolist() == [2.0, 5.0]
    assert [len(part) for part in figures.split_scores(Run.from_lists([]), QRELS)] == [0, 0]


def test_figures_have_labels_and_show_the_values():
    values = {"AP": {"one": np.array([0.1, 0.5]), "two": np.array([0.2, 0.9])}}
    box = figures.box_plot(values)
    (axis,) = box.axes
    assert axis.get_title() == "AP" and "2 queries" in axis.get_ylabel()
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["one", "two"]
    curve = figures.recall_precision({"one": np.linspace(1, 0, 11)})
    (line,) = curve.axes[0].lines
    assert line.get_ydata().tolist() == pytest.approx(np.linspace(1, 0, 11))
    assert curve.axes[0].get_xlabel() == "recall"
    histogram = figures.score_histogram({"one": figures.split_scores(RUN, QRELS)})
    labels = [text.get_text() for text in histogram.axes[0].get_legend().get_texts()]
    assert labels == ["not relevant or unjudged (n = 2)", "relevant (n = 3)"]
    assert sum(p.get_height() for p in histogram.axes[0].patches) == pytest.approx(200)
    paired = compare(values["AP"]["two"], values["AP"]["one"])
    wins = figures.wins_and_losses({"AP": {"two": paired}}, {"AP": {"two": 0.04}}, "one")
    texts = [text.get_text() for text in wins.axes[0].texts]
    assert "2" in texts and "+0.2500, p = 0.040" in texts
    drawn = figures.differences({"AP": np.array([-0.2, 0.4, 0.0])}, "two", "one")
    parts = [part.get_data().values.tolist() for part in drawn.axes[0].patches]
    assert parts == [[0.4, 0.0, 0.0], [0.0, 0.0, -0.2]]
    assert drawn.axes[0].get_ylabel() == "two − one"


def test_long_names_of_runs_are_written_in_lines():
    name = "run.msmarco-v1-passage.bm25-default-k1-0.9-b-0.4"
    box = figures.box_plot({"AP": {name: np.zeros(3), "two": np.zeros(3)}})
    lines = box.axes[0].get_xticklabels()[0].get_text().split("\n")
    assert lines == ["run.msmarco-v1-passage.", "bm25-default-k1-0.9-b-", "0.4"]
    drawn = figures.differences({"AP": np.array([0.1])}, name, "two")
    label = drawn.axes[0].get_ylabel()
    assert label == "run.msmarco-v1-passage.bm25-default-\nk1-0.9-b-0.4\n− two"


def test_a_saved_figure_is_a_picture_and_the_same_each_time(tmp_path):
    figure = figures.recall_precision({"one": np.linspace(1, 0, 11)})
    first = figures.save(figure, tmp_path / "a" / "curve.png").read_bytes()
    assert first[:8] == b"\x89PNG\r\n\x1a\n"
    again = figures.recall_precision({"one": np.linspace(1, 0, 11)})
    assert figures.save(again, tmp_path / "again.png").read_bytes() == first


def test_runs_without_any_result_can_be_drawn():
    empty = np.empty(0, np.float32)
    figures.score_histogram({"one": (empty, empty)})
    figures.box_plot({"AP": {"one": np.zeros(1)}})


def test_matplotlib_is_loaded_only_to_draw():
    import subprocess

    code = "import sys, raydist.evaluation.figures as f; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
