"""Run files that are written part by part; pyarrow, gzip and ir_measures read them back."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import ir_measures
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydist import run_writer
from raydist.errors import DataError
from raydist.records import RUN, Run
from raydist.run_writer import first_blank, group_starts, open_run, trec_lines

PARTS = [
    Run.from_lists([("q1", ["a", "b", "c"], [3, 2, 1]), ("q2", ["a"], [1])]).table,
    Run.from_lists([]).table,
    Run.from_lists([("q2", ["b"], [0.5]), ("q3", ["a", "b"], [2, 1])]).table,
]
LINES = (
    "q1 Q0 a 1 3 t\nq1 Q0 b 2 2 t\nq1 Q0 c 3 1 t\nq2 Q0 a 1 1 t\nq2 Q0 b 2 0.5 t\n"
    "q3 Q0 a 1 2 t\nq3 Q0 b 2 1 t\n"
)


@pytest.mark.parametrize("rows", [1, 2, 3, 1 << 16])
def test_ranks_go_on_where_a_query_is_cut(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(run_writer, "_ROWS", rows)
    out = io.StringIO()
    write = trec_lines(out.write, "t")
    for part in PARTS:
        write(part)
    assert out.getvalue() == LINES


@pytest.mark.parametrize("name", ["run.txt", "run.txt.gz", "run.parquet"])
def test_parts_make_one_file_that_appears_when_it_is_whole(tmp_path: Path, name: str) -> None:
    file = tmp_path / "new" / name
    with open_run(file, RUN, "t") as write:
        for part in PARTS:
            write(part)
            assert not file.exists()
    if name.endswith(".parquet"):
        table = pq.read_table(file)
        assert table.schema.metadata[b"tag"] == b"t"
        assert table.replace_schema_metadata(None).equals(pa.concat_tables(PARTS))
        return
    data = file.read_bytes()
    text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
    assert text == LINES
    scored = [row.doc_id for row in ir_measures.read_trec_run(text)]
    assert scored == pa.concat_tables(PARTS)["doc_id"].to_pylist()


def test_the_same_run_makes_the_same_bytes(tmp_path: Path) -> None:
    run = Run(pa.concat_tables(PARTS), "t")
    for name in ("a.txt.gz", "b.txt.gz"):
        run.write(tmp_path / name)
    assert (tmp_path / "a.txt.gz").read_bytes() == (tmp_path / "b.txt.gz").read_bytes()


def test_a_part_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "run.txt"
    file.write_text("old")
    bad = Run.from_lists([("q9", ["a\vb"], [1])]).table
    with pytest.raises(DataError, match="cannot carry"), open_run(file, RUN, "t") as write:
        write(PARTS[0])
        write(bad)
    assert file.read_text() == "old" and [each.name for each in tmp_path.iterdir()] == ["run.txt"]


def test_groups_are_those_of_the_rows_whatever_the_chunks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = np.sort(rng.integers(0, 5, rng.integers(0, 12))).astype(str)
        cuts = np.sort(rng.integers(0, len(values) + 1, 3))
        column = pa.chunked_array([pa.array(p, pa.string()) for p in np.split(values, cuts)])
        changed = [i for i in range(len(values)) if i == 0 or values[i] != values[i - 1]]
        assert group_starts(column).tolist() == changed


def test_a_run_of_many_small_tables_is_searched_like_one() -> None:
    many = [(f"q{i}", [f"d{j}" for j in range(3)], [3, 2, 1]) for i in range(300)]
    whole = Run.from_lists(many)
    parts = Run(pa.concat_tables([Run.from_lists([each]).table for each in many]))
    assert parts.table["doc_id"].num_chunks == 1
    assert [(q, d) for q, d, _ in parts] == [(q, d) for q, d, _ in whole]
    assert parts.top(2).table.equals(whole.top(2).table)


def test_blank_ids_are_found_in_slices_and_in_both_kinds_of_strings() -> None:
    for kind in (pa.string(), pa.large_string()):
        column = pa.array(["a b", "c", "dé", "e\u00a0f", "g\vh", "i", ""], kind)
        assert first_blank(column) == "a b"
        assert first_blank(column.slice(1, 3)) is None  # a blank of Unicode separates nothing
        assert first_blank(pa.chunked_array([column.slice(1, 2), column.slice(3, 2)])) == "g\vh"
        assert first_blank(column.slice(5)) == ""
        assert first_blank(column.slice(0, 0)) is None
