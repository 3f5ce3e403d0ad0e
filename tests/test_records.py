from __future__ import annotations

from pathlib import Path

import ir_measures
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist.errors import DataError
from raydist.records import RUN, Document, Run

IDS = st.text("abcxyz019-_", min_size=1, max_size=6)
SCORES = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=8)


@given(st.dictionaries(IDS, SCORES, max_size=5))
def test_a_written_run_gives_every_float32_back(tmp_path_factory: object, lists: object) -> None:
    rankings = [
        (q, [f"d{i}" for i in range(len(s))], sorted(s, reverse=True))
        for q, s in lists.items()  # type: ignore[attr-defined]
        if s
    ]
    run = Run.from_lists(rankings)
    path = tmp_path_factory.mktemp("run") / "a.run"  # type: ignore[attr-defined]
    run.write(path)
    read = [line.split(" ") for line in Path(path).read_text().splitlines()]
    assert [r[0] for r in read] == run.table["query_id"].to_pylist()
    back = np.array([np.float32(r[4]) for r in read], np.float32)
    assert np.array_equal(back, run.table["score"].to_numpy())
    assert {r[3] for r in read if r[2] == "d0"} <= {"1"}
    if rankings:
        assert len(list(ir_measures.read_trec_run(str(path)))) == len(run)


def test_row_order_is_the_ranking_and_groups_are_seen() -> None:
    run = Run.from_lists([("q2", ["a", "b"], [2, 2]), ("q1", ["b"], [1])])
    assert run.query_ids == ["q2", "q1"]
    assert [(q, d, s.tolist()) for q, d, s in run] == [
        ("q2", ["a", "b"], [2.0, 2.0]),
        ("q1", ["b"], [1.0]),
    ]
    assert len(run.top(1)) == 2
    assert run.as_dict() == {"q2": {"a": 2.0, "b": 2.0}, "q1": {"b": 1.0}}


def test_sorting_keeps_equal_scores_in_their_order() -> None:
    table = pa.table(
        [["q", "p", "q", "q"], ["c", "x", "a", "b"], [1.0, 0.0, 2.0, 1.0]], names=RUN.names
    )
    assert [d for _, d, _ in Run.sorted(table)] == [["a", "c", "b"], ["x"]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("q", "a", 1.0), ("q", "a", 0.5)], "twice"),
        ([("q", "a", 1.0), ("q", "b", 2.0)], "above the score"),
        ([("q", "a", float("nan"))], "not finite"),
        ([("q", "a", 1.0), ("p", "a", 1.0), ("q", "b", 0.0)], "not together"),
        ([("q", None, 1.0)], "missing values"),
    ],
)
def test_a_run_that_is_none_is_refused(rows: list[tuple[str, str, float]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Run(pa.table(list(map(list, zip(*rows))), schema=RUN))


def test_an_empty_run_is_a_run(tmp_path: Path) -> None:
    run = Run.from_lists([])
    run.write(tmp_path / "empty.run")
    assert (tmp_path / "empty.run").read_text() == ""
    assert list(run) == [] and run.query_ids == [] and len(run.top(3)) == 0


def test_an_id_that_a_line_cannot_carry_is_refused(tmp_path: Path) -> None:
    for query, doc in (("a b", "d"), ("q", "d\t1"), ("q", "")):
        with pytest.raises(DataError, match="cannot carry"):
            Run.from_lists([(query, [doc], [1.0])]).write(tmp_path / "a.run")


def test_contents_join_the_title_by_a_newline() -> None:
    assert Document("1", "text", "title").contents == "title\ntext"
    assert Document("1", "text").contents == "text"
